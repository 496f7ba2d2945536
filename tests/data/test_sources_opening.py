"""Which source a path is, what it would take in memory, and a source seen without some of its rows."""

import numpy as np
import pytest

from diabolo.data import ArraySource, ImageFolderSource, NpySource, ParquetSource, open_source
from diabolo.data.opening import View, gather, size_in_memory
from diabolo.errors import InvalidParameterError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def places(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((10, 3), dtype=np.float32))
    pq.write_table(pa.table({"a": np.arange(10.0), "b": np.arange(10)}), tmp_path / "x.parquet")
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.fromarray(np.zeros((4, 5, 3), dtype=np.uint8)).save(tmp_path / f"pictures/{i}.png")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    return tmp_path


def test_paths_become_sources(places):
    assert isinstance(open_source(places / "x.npy"), NpySource)
    assert isinstance(open_source(str(places / "x.parquet")), ParquetSource)
    assert open_source(places / "x.parquet", label="b").feature_names == ("a",)
    assert open_source(places / "x.parquet", columns=["b"]).feature_names == ("b",)
    pictures = open_source(places / "pictures", image_size=(2, 2), broken="skip")
    assert isinstance(pictures, ImageFolderSource)
    assert pictures.sample_shape == (3, 2, 2)


@pytest.mark.parametrize("name", ["x.csv", "none.npy", "digits", "."])
def test_paths_that_cannot_be_read_piece_by_piece(places, name):
    (places / "pictures").rename(places / ".hidden")
    (places / "x.parquet").rename(places / "_x.parquet")
    (places / "x.npy").rename(places / "_x.npy")
    with pytest.raises(
        InvalidParameterError,
        match=r"data must be a \.npy or \.parquet file or a folder of pictures or of such",
    ):
        open_source(places / name)
    assert size_in_memory(places / name) is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.npy", {"image_size": (2, 2)}),
        ("x.npy", {"label": "a"}),
        ("x.parquet", {"broken": "skip"}),
        ("pictures", {"label": "a"}),
    ],
)
def test_options_that_do_not_apply(places, name, options):
    with pytest.raises(InvalidParameterError, match=f"{next(iter(options))} must be left out for"):
        open_source(places / name, **options)


def test_what_would_be_taken_in_memory(places):
    assert size_in_memory(places / "x.npy") == 120
    assert size_in_memory(places / "x.parquet") == 160
    assert size_in_memory(places / "pictures") == 3 * 60
    assert size_in_memory(places / "pictures", (2, 2)) == 3 * 12
    (places / "x.npy").write_bytes(b"no array")
    assert size_in_memory(places / "x.npy") is None


@pytest.mark.parametrize("seed", [None, 0])
def test_a_view_leaves_rows_out_and_numbers_the_others(seed):
    X = np.arange(40_000).reshape(-1, 2)
    without = np.array([0, 7, 19_999])
    view = View(ArraySource(X), without, lambda rows, _: rows + 0.5)
    wanted = np.delete(X, without, 0) + 0.5
    assert (len(view), view.sample_shape, view.feature_names) == (19_997, (2,), None)
    chunks = list(view.chunks(None if seed is None else np.random.default_rng(seed)))
    numbers = np.concatenate([n for n, _ in chunks])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(19_997))
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in chunks]), wanted[numbers])
    np.testing.assert_array_equal(np.concatenate(list(view.batches(1000))), wanted)


def test_rows_are_gathered_in_one_pass():
    X = np.arange(40_000).reshape(-1, 2)
    a, b = gather(ArraySource(X), np.array([3, 15_000]), np.array([], dtype=int))
    np.testing.assert_array_equal(a, X[[3, 15_000]])
    assert b.shape == (0, 2)
