"""Folders of shards: one table of many files, and what happens when one of them fails."""

import warnings

import numpy as np
import pytest

from diabolo import Autoencoder
from diabolo.data import ShardSource, load, open_source
from diabolo.errors import (
    CheckpointError,
    DataFileError,
    InvalidDataError,
    InvalidParameterError,
    SkippedWarning,
)

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SIZES = (3000, 1, 2500, 0, 4000, 700)  # some writers leave empty shards


def write(folder, part, rows, names="abc", **more):
    columns = dict(zip(names, rows.T, strict=True)) | more
    place = folder / f"part{part}.parquet"
    pq.write_table(pa.table(columns), place, row_group_size=1000)
    return place


@pytest.fixture
def table():
    rows = np.arange(3.0 * sum(SIZES)).reshape(-1, 3)
    return np.random.default_rng(0).permutation(rows)


@pytest.fixture
def folder(table, tmp_path):
    """Shards whose names sort by their numbers, beside files that are none."""
    place, at = tmp_path / "table", 0
    place.mkdir()
    for i, size in enumerate(SIZES):
        write(place, i + 6, table[at : at + size], kind=["x"] * size)
        at += size
    (place / "_SUCCESS").touch()
    (place / ".part6.parquet.crc").write_bytes(b"crc")
    (place / "_metadata.parquet").write_bytes(b"no shard")
    return place


@pytest.fixture
def numbers(table, tmp_path):
    """The same rows as .npy files."""
    place = tmp_path / "numbers"
    place.mkdir()
    for i, part in enumerate(np.array_split(table, 4)):
        np.save(place / f"{i}.npy", part)
    return place


@pytest.fixture(params=["parquet", "npy"])
def source(request, folder, numbers):
    return open_source(folder, label="kind") if request.param == "parquet" else open_source(numbers)


@pytest.mark.parametrize("seed", [None, 0])
def test_chunks_hold_each_row_once_with_its_number(source, table, seed):
    chunks = list(source.chunks(None if seed is None else np.random.default_rng(seed)))
    numbers = np.concatenate([rows for rows, _ in chunks])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(len(table)))
    np.testing.assert_array_equal(np.concatenate([X for _, X in chunks]), table[numbers])
    assert (len(source), source.sample_shape) == (len(table), (3,))
    assert (seed is None) == bool((np.diff(numbers) == 1).all())


def test_shuffled_batches_are_the_same_for_a_seed_and_mix_the_shards(source, table):
    def rows(seed):
        return np.concatenate(list(source.batches(1000, np.random.default_rng(seed))))

    np.testing.assert_array_equal(rows(1), rows(1))
    assert not np.array_equal(rows(1), rows(2))
    place = np.argsort(table[:, 0])[np.searchsorted(np.sort(table[:, 0]), rows(1)[:, 0])]
    assert abs(np.corrcoef(place, np.arange(len(place)))[0, 1]) < 0.05


def test_loaded_as_a_whole_they_are_the_same_rows_with_their_labels(folder, numbers, table):
    whole = load(folder, label="kind")
    np.testing.assert_array_equal(whole.X, table)
    assert (whole.feature_names, whole.name) == (("a", "b", "c"), "table")
    assert whole.y.tolist() == ["x"] * len(table)
    np.testing.assert_array_equal(load(numbers).X, table)
    chosen = load(folder, columns=["c", "a"])
    np.testing.assert_array_equal(chosen.X, table[:, [2, 0]])
    assert set(chosen.left_out) == {"b", "kind"}


def test_columns_are_found_by_name_and_the_same_in_every_shard(folder, table):
    write(folder, 9, table[:500, ::-1], names="cba", kind=["x"] * 500)
    rows = np.concatenate(list(open_source(folder, label="kind").batches(1000)))
    assert set(map(tuple, rows)) <= set(map(tuple, table))
    source = ShardSource(folder, columns=["c", "a"])
    assert (source.feature_names, set(source.left_out)) == (("c", "a"), {"b", "kind"})


@pytest.mark.parametrize("broken", ["refuse", "skip"])
def test_shards_that_differ_are_named_with_the_column(folder, numbers, table, broken):
    def opened(**options):
        for read in (lambda: ShardSource(folder, broken=broken, **options), lambda: load(folder, **options)):
            with pytest.raises((InvalidDataError, InvalidParameterError)) as caught:
                read()
            yield str(caught.value)

    write(folder, 8, table[:10], names="abd", kind=["x"] * 10)
    for said in opened(label="kind"):
        assert "part8.parquet must have the column 'c'" in said
    write(folder, 8, table[:10], kind=["x"] * 10, date=[1.0] * 10)
    for said in opened(label="kind"):
        assert "part8.parquet must have the columns that part6.parquet has; got the column 'date'" in said
    write(folder, 8, table[:10])
    for said in opened(label="kind"):
        assert "label must be the name of a column in" in said
        assert "part8.parquet" in said
    np.save(numbers / "2.npy", table[:, :2])
    with pytest.raises(InvalidDataError, match=r"2\.npy must hold samples of the shape \(3,\)"):
        ShardSource(numbers, broken=broken)


def test_shards_of_two_kinds_or_types_are_refused(folder, numbers, table):
    np.save(folder / "x.npy", table)
    for read in (load, open_source):
        with pytest.raises(DataFileError, match=r"shards of one kind, \.parquet or \.npy; got"):
            read(folder)
    np.save(numbers / "2.npy", (table % 200).astype(np.uint8))
    for read in (load, open_source, lambda place: open_source(place, broken="skip")):
        with pytest.raises(InvalidDataError, match=r"2\.npy must hold values of 8 bits if"):
            read(numbers)
    (folder / "x.npy").unlink()
    columns = dict.fromkeys("abc", pa.array([1, 2], pa.uint8()))
    pq.write_table(pa.table(columns | {"kind": ["x", "x"]}), folder / "part8.parquet")
    with pytest.raises(InvalidDataError, match=r"part8\.parquet must hold values of 8 bits if"):
        open_source(folder, label="kind", broken="skip")
    with pytest.raises(InvalidDataError, match=r"part8\.parquet must hold values of 8 bits if"):
        list(open_source(folder, label="kind").chunks())
    with pytest.raises(InvalidParameterError, match="label must be left out"):
        open_source(numbers, label="a")


def test_an_unlike_shard_is_held_against_the_first_that_has_rows(folder, table):
    write(folder, 1, table[:0], kind=[])
    write(folder, 8, table[:10], kind=["x"] * 10, date=[1.0] * 10)
    for read in (load, open_source):
        with pytest.raises(InvalidDataError, match=r"the columns that part6\.parquet has"):
            read(folder, label="kind")


def test_a_folder_without_rows_is_named_dot_or_not(tmp_path, table):
    place = tmp_path / "data.v2"
    place.mkdir()
    with pytest.raises(DataFileError, match=r"data\.v2 must hold shards"):
        ShardSource(place)
    write(place, 1, table[:0])
    for read in (load, open_source):
        with pytest.raises(DataFileError, match=r"data\.v2 must hold shards"):
            read(place)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def damage(path):
    data = bytearray(path.read_bytes())
    data[200:1500] = bytes(1300)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(("fault", "lost"), [(cut, "an unknown number of rows in 1"), (damage, "4000 rows")])
def test_a_broken_shard_is_refused_or_skipped_and_told(folder, table, fault, lost):
    fault(folder / "part10.parquet")
    with pytest.raises((DataFileError, InvalidDataError), match=r"part10\.parquet must"):
        list(open_source(folder, label="kind").chunks())
    with pytest.raises(DataFileError, match=r"part10\.parquet must"):
        load(folder, label="kind")
    with pytest.warns(SkippedWarning, match=f"1 of 6 shards in .*, with {lost}: part10.parquet"):
        source = open_source(folder, label="kind", broken="skip")
    assert len(source) == sum(SIZES) - 4000
    assert [path.name for path in source.skipped] == ["part10.parquet"]
    for generator in (None, np.random.default_rng(0)):
        chunks = list(source.chunks(generator))
        rows = np.concatenate([rows for _, rows in chunks])
        assert set(map(tuple, rows)) == set(map(tuple, np.delete(table, np.s_[5501:9501], axis=0)))
        assert sorted(np.concatenate([n for n, _ in chunks])) == list(range(len(source)))


def test_where_no_shard_is_left_that_is_an_error(folder):
    for path in folder.glob("*.parquet"):
        path.write_bytes(b"no table")
    with (
        pytest.warns(SkippedWarning, match="6 of 6 shards"),
        pytest.raises(DataFileError, match=r"must hold shards with rows that can be read; got none .*part6"),
    ):
        ShardSource(folder, broken="skip")


@pytest.mark.parametrize("seed", [None, 0])
def test_a_shard_that_vanishes_later_is_named_or_left_out_from_then_on(folder, seed):
    def chunks(source):
        return list(source.chunks(None if seed is None else np.random.default_rng(seed)))

    strict, lenient = (ShardSource(folder, label="kind", broken=broken) for broken in ("refuse", "skip"))
    assert len(chunks(strict)) == len(chunks(lenient))
    (folder / "part8.parquet").unlink()
    with pytest.raises(InvalidDataError, match=r"part8\.parquet must stay as it is .* vanished"):
        chunks(strict)
    with pytest.warns(SkippedWarning, match=r"with its 2500 rows: .*part8\.parquet must stay as it is"):
        chunks(lenient)
    assert sum(len(rows) for _, rows in chunks(lenient)) == len(lenient) - 2500  # told once


@pytest.mark.parametrize("fault", ["unlink", "cut"])
@pytest.mark.parametrize("kind", ["folder", "numbers"])
def test_a_shard_that_fails_between_epochs_ends_the_fit_by_its_name(kind, fault, request):
    place = request.getfixturevalue(kind)
    victim = place / ("part10.parquet" if kind == "folder" else "3.npy")
    source = open_source(place, label="kind" if kind == "folder" else None)
    model = Autoencoder(epochs=5, latent_dim=2)
    with pytest.raises((InvalidDataError, DataFileError), match=rf"{victim.name} must (stay|be)"):
        model.fit(source, progress=lambda *_: victim.unlink() if fault == "unlink" else cut(victim))
    assert not hasattr(model, "module_")


def test_stopped_and_resumed_without_a_shard_is_never_stopped(folder, tmp_path):
    """The shards left out are the same in both; where they are others, resuming is refused."""
    damage(folder / "part10.parquet")

    def fit(name, left=99, resume=False):
        def progress(*_):
            nonlocal left
            left -= 1
            if not left:
                raise KeyError  # as if killed

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SkippedWarning)
            source = open_source(folder, label="kind", broken="skip")
        model = Autoencoder(epochs=4, latent_dim=2, random_state=0)
        return model.fit(source, checkpoint=tmp_path / name, resume=resume, progress=progress)

    def bytes_of(model):
        return [value.numpy().tobytes() for value in model.module_.state_dict().values()]

    never = fit("never")
    for name in ("same", "other"):
        with pytest.raises(KeyError):
            fit(name, left=2)
    assert bytes_of(fit("same", resume=True)) == bytes_of(never)
    damage(folder / "part8.parquet")
    with pytest.raises(CheckpointError, match="of this very run"):
        fit("other", resume=True)
