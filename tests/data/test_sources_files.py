"""Sources whose samples lie in files: each sample once, in any order, and what happens when a file fails."""

import threading

import numpy as np
import pytest

from diabolo.data import ArraySource, ImageFolderSource, NpySource, ParquetSource, Source
from diabolo.data.chunks import ahead, regrouped
from diabolo.errors import DataFileError, InvalidDataError, InvalidParameterError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def table():
    return np.arange(60_000, dtype=np.float64).reshape(-1, 3)


@pytest.fixture
def npy(table, tmp_path):
    np.save(tmp_path / "x.npy", table)
    return tmp_path / "x.npy"


@pytest.fixture
def parquet(table, tmp_path):
    columns = {"a": table[:, 0], "b": table[:, 1], "c": table[:, 2], "kind": ["x", "y"] * 10_000}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=3000)
    return tmp_path / "x.parquet"


@pytest.fixture
def folder(tmp_path):
    for i in range(10):
        pixels = np.full((4, 5), 10 * i, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"img{i}.png")
    return tmp_path


@pytest.fixture(params=["array", "npy", "parquet"])
def source(request, table, npy, parquet):
    if request.param == "array":
        return ArraySource(np.load(npy, mmap_mode="r"))
    return NpySource(npy) if request.param == "npy" else ParquetSource(parquet, label="kind")


@pytest.mark.parametrize("seed", [None, 0])
def test_chunks_hold_each_row_once_with_its_number(source, table, seed):
    chunks = list(source.chunks(None if seed is None else np.random.default_rng(seed)))
    numbers = np.concatenate([rows for rows, _ in chunks])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(len(table)))
    np.testing.assert_array_equal(np.concatenate([X for _, X in chunks]), table[numbers])
    assert isinstance(source, Source)
    assert (len(source), source.sample_shape) == (20_000, (3,))
    if seed is None:
        assert (np.diff(numbers) == 1).all()


def test_batches_as_stored_are_full_and_in_order(source, table):
    batches = list(source.batches(999, None))
    assert [len(b) for b in batches] == [999] * 20 + [20]
    np.testing.assert_array_equal(np.concatenate(batches), table)


def test_shuffled_batches_are_each_row_once_and_the_same_for_a_seed(source, table):
    def rows(seed):
        return np.concatenate(list(source.batches(1000, np.random.default_rng(seed))))

    np.testing.assert_array_equal(rows(1)[np.argsort(rows(1)[:, 0])], table)
    np.testing.assert_array_equal(rows(1), rows(1))
    assert not np.array_equal(rows(1), rows(2))
    assert abs(np.corrcoef(rows(1)[:, 0], table[:, 0])[0, 1]) < 0.05


def test_columns_of_a_parquet_file(parquet, table):
    source = ParquetSource(parquet, columns=["c", "a"])
    assert source.feature_names == ("c", "a")
    assert set(source.left_out) == {"b", "kind"}
    np.testing.assert_array_equal(next(source.batches(5, None)), table[:5][:, [2, 0]])
    with pytest.raises(InvalidDataError, match="must have the column 'z'"):
        ParquetSource(parquet, columns=["z"])
    with pytest.raises(InvalidParameterError, match="label must be the name of a column"):
        ParquetSource(parquet, label="z")
    with pytest.raises(DataFileError, match=r"Column 'kind' of .* must hold numbers; got 'x' in row 0 "):
        list(ParquetSource(parquet).chunks())


def test_a_null_among_integers_comes_as_nan(tmp_path):
    column = pa.array([*range(9000), None, 3], type=pa.int64())
    pq.write_table(pa.table({"a": column}), tmp_path / "x.parquet")
    (rows,) = ParquetSource(tmp_path / "x.parquet").batches(10_000, None)
    assert rows.dtype == np.float64
    assert list(np.flatnonzero(np.isnan(rows))) == [9000]
    assert rows[8999] == 8999


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_file_that_vanishes_is_named(kind, npy, parquet):
    path = npy if kind == "npy" else parquet
    source = NpySource(path) if kind == "npy" else ParquetSource(path, label="kind")
    chunks = source.chunks(None)
    if kind == "parquet":
        next(chunks)
    path.unlink()
    with pytest.raises(
        InvalidDataError, match=r"x\.(npy|parquet) must stay as it is .* got a file that vanished"
    ):
        list(chunks)
    with pytest.raises(InvalidDataError, match="vanished"):
        list(source.batches(10, None))


def test_a_file_that_shrinks_is_an_error(npy):
    source = NpySource(npy)
    with npy.open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(InvalidDataError, match="became shorter"):
        list(source.chunks())


def test_a_parquet_file_that_is_replaced_is_an_error(parquet):
    source = ParquetSource(parquet, label="kind")
    pq.write_table(pa.table({"a": [1.0]}), parquet)
    with pytest.raises(InvalidDataError, match="has other rows or columns"):
        list(source.chunks())


def test_a_damaged_row_group_is_an_error(parquet):
    source = ParquetSource(parquet, label="kind")
    bytes_ = bytearray(parquet.read_bytes())
    bytes_[2000:6000] = bytes(4000)
    parquet.write_bytes(bytes(bytes_))
    with pytest.raises((InvalidDataError, DataFileError), match=r"x\.parquet must"):
        list(source.chunks())


def test_files_that_are_no_sources(tmp_path):
    np.save(tmp_path / "f.npy", np.asfortranarray(np.zeros((4, 3))))
    with pytest.raises(DataFileError, match="C order"):
        NpySource(tmp_path / "f.npy")
    np.save(tmp_path / "t.npy", np.array([["a"]]))
    with pytest.raises(DataFileError, match="must hold real numbers"):
        NpySource(tmp_path / "t.npy")
    (tmp_path / "x.parquet").write_bytes(b"no table")
    with pytest.raises(DataFileError, match="must be a Parquet file"):
        ParquetSource(tmp_path / "x.parquet")
    with pytest.raises(DataFileError, match="must be a file that can be read"):
        ParquetSource(tmp_path / "none.parquet")


# ------------------------------------------------------------------------------------------- folders
def test_a_folder_of_pictures(folder):
    source = ImageFolderSource(folder)
    assert (len(source), source.sample_shape) == (10, (4, 5))
    assert [int(b[0, 0, 0]) for b in source.batches(1, None)] == list(range(0, 100, 10))
    shuffled = [int(x[0, 0]) for b in source.batches(3, np.random.default_rng(0)) for x in b]
    assert shuffled != sorted(shuffled) == list(range(0, 100, 10))
    assert ImageFolderSource(folder, image_size=(2, 3)).sample_shape == (2, 3)


@pytest.mark.parametrize(
    ("fault", "when"), [("damaged", "before"), ("damaged", "after"), ("vanished", "after")]
)
def test_a_broken_picture_is_refused_or_skipped_and_counted(folder, fault, when):
    def spoil():
        if fault == "vanished":
            (folder / "img3.png").unlink()
        else:
            (folder / "img3.png").write_bytes(b"\x89PNG no picture")

    if when == "after":
        refusing, skipping = ImageFolderSource(folder), ImageFolderSource(folder, broken="skip")
        spoil()
        with pytest.raises(InvalidDataError, match=r"img3\.png must stay as it is"):
            list(refusing.chunks())
    else:
        spoil()
        with pytest.raises(DataFileError, match=r"img3\.png must be a picture"):
            ImageFolderSource(folder)
        skipping = ImageFolderSource(folder, broken="skip")
    for _ in range(2):
        numbers = np.concatenate([rows for rows, _ in skipping.chunks()])
        assert list(numbers) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert [path.name for path in skipping.skipped] == ["img3.png"]


def test_folders_that_are_no_sources(tmp_path, folder):
    with pytest.raises(InvalidParameterError, match="broken must be"):
        ImageFolderSource(folder, broken="ignore")
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(folder / "other.png")
    with pytest.raises(DataFileError, match="must have one size"):
        ImageFolderSource(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match="must hold pictures; got none"):
        ImageFolderSource(tmp_path / "empty")


# --------------------------------------------------------------------------------------------- pieces
@pytest.mark.parametrize(("size", "rest"), [(4, 0), (4, 2), (50, 0), (1, 1), (7, 7)])
def test_regrouped_keeps_every_row(size, rest):
    pieces = [np.arange(a, b)[:, None] for a, b in [(0, 3), (3, 3), (3, 20), (20, 31)]]
    groups = list(regrouped(pieces, size, rest))
    np.testing.assert_array_equal(np.concatenate(groups)[:, 0], np.arange(31))
    assert {len(g) for g in groups[:-1]} <= {size}
    assert min(rest, 31) <= len(groups[-1]) <= size + rest


def test_reading_ahead_hands_on_errors_and_ends_its_thread():
    def items():
        yield from range(3)
        raise InvalidDataError("the disk")

    got = []
    with pytest.raises(InvalidDataError, match="the disk"):
        got.extend(ahead(items()))

    before = threading.active_count()
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    reading = ahead(endless())
    next(reading)
    assert threading.active_count() == before + 1
    reading.close()
    assert threading.active_count() == before
    assert closed == [True]
