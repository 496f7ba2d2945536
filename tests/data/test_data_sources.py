import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diabolo.data import ArraySource, Source
from diabolo.errors import InvalidDataError, InvalidParameterError


@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(1, 40),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    batch_size=st.integers(1, 50),
    seed=st.none() | st.integers(0, 9),
)
def test_every_sample_comes_once(n, shape, batch_size, seed):
    X = np.arange(n * np.prod(shape)).reshape(n, *shape)
    source = ArraySource(X)
    generator = None if seed is None else np.random.default_rng(seed)
    batches = list(source.batches(batch_size, generator))
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= batch_size
    rows = np.concatenate(batches)
    order = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
    np.testing.assert_array_equal(rows, X[order])
    assert len(source) == n
    assert source.sample_shape == tuple(shape)
    assert isinstance(source, Source)


@pytest.mark.parametrize("seed", [None, 0])
def test_a_mapped_file_gives_the_same_batches_in_memory(tmp_path, seed):
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    mapped = ArraySource(np.load(tmp_path / "x.npy", mmap_mode="r"))

    def batches(source):
        return list(source.batches(7, None if seed is None else np.random.default_rng(seed)))

    for ours, wanted in zip(batches(mapped), batches(ArraySource(X)), strict=True):
        np.testing.assert_array_equal(ours, wanted)
        assert type(ours) is np.ndarray
        assert ours.flags.writeable
        assert ours.flags.owndata or ours.base.base is None


@pytest.mark.parametrize("seed", [None, 0])
def test_writing_in_a_batch_changes_nothing_else(seed):
    X = np.zeros((4, 2))
    for batch in ArraySource(X).batches(3, None if seed is None else np.random.default_rng(seed)):
        batch += 1
    assert not X.any()


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    list(ArraySource(np.zeros((9, 2))).batches(2, np.random.default_rng(0)))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.zeros(3), [[1, 2]], np.zeros((3, 0))])
def test_arrays_that_are_no_samples(array):
    with pytest.raises(InvalidDataError, match=r"array must be a numpy array of shape \(n, \.\.\.\)"):
        ArraySource(array)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, None, "8"])
def test_batch_sizes_that_are_none(batch_size):
    with pytest.raises(InvalidParameterError, match="batch_size must be a whole number from 1 up; got "):
        ArraySource(np.zeros((3, 2))).batches(batch_size, None)


@pytest.mark.parametrize("generator", [0, np.random.RandomState(0)])
def test_generators_of_another_type(generator):
    with pytest.raises(
        InvalidParameterError, match=r"generator must be a numpy\.random\.Generator or None; got "
    ):
        ArraySource(np.zeros((3, 2))).batches(2, generator)
