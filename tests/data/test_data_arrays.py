import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diabolo.data import load
from diabolo.errors import DataFileError, InvalidParameterError

NUMBERS = st.one_of(
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.boolean_dtypes(),
)
ROWS = hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=2, max_dims=4, max_side=4))


@settings(deadline=None, max_examples=50)
@given(X=ROWS, fortran=st.booleans())
def test_npy_round_trip(tmp_path_factory, X, fortran):
    path = tmp_path_factory.mktemp("npy") / "x.npy"
    np.save(path, np.asfortranarray(X) if fortran else X)
    data = load(path)
    np.testing.assert_array_equal(data.X, X)
    assert data.X.dtype == X.dtype.newbyteorder("=")
    assert data.X.dtype.isnative
    assert (data.y, data.X_test, data.y_test, data.feature_names) == (None,) * 4
    assert data.name == "x.npy"
    assert data.sample_shape == X.shape[1:]
    assert data.n_samples == len(X)


@settings(deadline=None, max_examples=50)
@given(X=ROWS, data=st.data())
def test_any_cut_of_an_npy_file_is_told(tmp_path_factory, X, data):
    path = tmp_path_factory.mktemp("npy") / "x.npy"
    np.save(path, X)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataFileError, match=r"x\.npy must .*; got "):
        load(path)


@settings(deadline=None, max_examples=50)
@given(junk=st.binary(min_size=1, max_size=200), suffix=st.sampled_from([".npy", ".npz"]))
def test_junk_is_told(tmp_path_factory, junk, suffix):
    path = tmp_path_factory.mktemp("npy") / f"x{suffix}"
    path.write_bytes(junk)
    with pytest.raises(DataFileError, match=rf"x\{suffix} must be a"):
        load(path)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((0, 3)), r"at least one sample and one feature; got the shape \(0, 3\)"),
        (np.zeros((3, 0)), r"at least one sample and one feature; got the shape \(3, 0\)"),
        (np.zeros(3), r"one row for each sample; got the shape \(3,\)"),
        (np.float64(1), r"one row for each sample; got the shape \(\)"),
        (np.zeros((2, 2), complex), "must hold real numbers; got the type complex128"),
        (np.array([["a", "b"]]), "must hold real numbers; got the type <U1"),
        (np.zeros((2, 2), "M8[s]"), "must hold real numbers; got the type datetime64"),
        (np.zeros((2, 2), [("a", "f4")]), "must hold real numbers; got the type"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(tmp_path, array, said):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataFileError, match=said):
        load(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", X=array)
    with pytest.raises(DataFileError, match=f"'X' in .*x.npz.*{said}"):
        load(tmp_path / "x.npz")


def test_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was read",))

    objects = np.array([[Bomb()]], dtype=object)
    said = "got Python objects, which are never unpickled because a pickle can run any program"
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    with pytest.raises(DataFileError, match=rf"x\.npy must hold numbers; {said}\. Store it"):
        load(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", X=objects)
    with pytest.raises(DataFileError, match=rf"'X' in .*x\.npz must hold numbers; {said}"):
        load(tmp_path / "x.npz")


def test_a_header_that_announces_too_much_allocates_nothing(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10**4)}
    )
    (tmp_path / "x.npy").write_bytes(stream.getvalue() + b"\0" * 8)
    with pytest.raises(DataFileError, match=r"must hold 80000000000000000 bytes of data.*; got 8"):
        load(tmp_path / "x.npy")


X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 1, 0])


@pytest.mark.parametrize("x_key", ["X", "x", "data", "images", "X_train", "x_train", "train_images", "odd"])
@pytest.mark.parametrize("y_key", ["y", "labels", "y_train", "train_labels", None])
def test_npz_keys(tmp_path, x_key, y_key):
    arrays = {x_key: X} if y_key is None else {x_key: X, y_key: Y[:, None]}
    np.savez(tmp_path / "a.npz", **arrays)
    if x_key == "odd" and y_key is not None:
        with pytest.raises(DataFileError, match=f"one of the names X, x, data.*; got odd, {y_key}. Rename"):
            load(tmp_path / "a.npz")
        return
    data = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.X, X)
    if y_key is None:
        assert data.y is None
    else:
        np.testing.assert_array_equal(data.y, Y)


def test_npz_with_test_split_and_names(tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz",
        x_train=X,
        y_train=Y,
        x_test=X[:2],
        y_test=Y[:2],
        columns=np.array(["a", "b", "c"]),
        val_images=X,
    )
    data = load(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(data.X_test, X[:2])
    np.testing.assert_array_equal(data.y_test, Y[:2])
    assert data.feature_names == ("a", "b", "c")


def test_npz_label_names_an_array(tmp_path):
    np.savez(tmp_path / "a.npz", pixels=X, y=Y, person=np.array(list("abcd")))
    with pytest.raises(DataFileError, match="got pixels, y, person"):
        load(tmp_path / "a.npz", label="person")
    np.savez(tmp_path / "b.npz", pixels=X, person=np.array(list("abcd")))
    assert load(tmp_path / "b.npz", label="person").y.tolist() == list("abcd")
    with pytest.raises(
        InvalidParameterError, match=r"array in .*b\.npz; got 'persn'. Did you mean 'person'\?"
    ):
        load(tmp_path / "b.npz", label="persn")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "must hold an array; got none"),
        ({"a": X, "b": X}, "under one of the names X, x, .*; got a, b. Rename"),
        ({"X": X, "data": X}, "one array that can be X; got X and data. Keep one"),
        ({"X": X, "y": Y[:3]}, r"'y' in .* one label for each of the 4 samples; got the shape \(3,\)"),
        ({"X": X, "y": Y.astype(complex)}, "'y' in .* numbers or strings; got the type complex128"),
        ({"X": X, "y_test": Y}, "must hold X_test beside 'y_test'; got the labels alone"),
        ({"X": X, "X_test": X[:, :2]}, r"Samples of X_test must have the shape \(3,\)"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataFileError, match=said):
        load(tmp_path / "a.npz")


def test_npz_with_a_damaged_member(tmp_path):
    np.savez(tmp_path / "a.npz", X=X)
    whole = (tmp_path / "a.npz").read_bytes()
    at = whole.index(X.tobytes())
    (tmp_path / "a.npz").write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    with pytest.raises(DataFileError, match=r"must be a .npz file; got one that is damaged.*CRC"):
        load(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(whole[:-30])
    with pytest.raises(DataFileError, match=r"must be a .npz file; got one that is damaged"):
        load(tmp_path / "b.npz")


def test_files_under_a_wrong_suffix(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(DataFileError, match=r"must be a .npz file.*it holds one array, as a .npy file does"):
        load(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "z.npy", "w") as archive:
        archive.writestr("a", b"a")
    with pytest.raises(DataFileError, match=r"must be a .npy file"):
        load(tmp_path / "z.npy")
