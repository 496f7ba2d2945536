"""DATA read piece by piece: the same numbers as in memory, flat memory, and what is said on the way."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Run, train_to

from diabolo import load
from diabolo.cli import streams
from diabolo.cli.console import Output
from diabolo.cli.options import SourceOptions, StreamOptions
from diabolo.cli.output import write_rows
from diabolo.data import ArraySource
from diabolo.errors import InvalidDataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(20_000, 2)) @ rng.normal(size=(2, 5))).astype(np.float32)


@pytest.fixture(scope="module")
def files(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rows as x.npy and x.parquet, which has labels too."""
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "x.npy", rows)
    columns = dict(zip("abcde", rows.T, strict=True)) | {"kind": ["x", "y"] * 10_000}
    pq.write_table(pa.table(columns), folder / "x.parquet", row_group_size=3000)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for i in range(30):
        image.fromarray(chance.integers(0, 255, (4, 4), dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "7.png").write_bytes(b"no picture")
    return folder


def test_train_on_a_table_piece_by_piece(run: Run, files: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    said = run("train", files / "x.parquet", "--label", "kind", "--stream", "-o", model, "--json", *SMALL)
    assert said.code == 0, said.err
    assert "x.parquet: 20,000 rows, read piece by piece" in said.err
    assert (said.json["n_train"], said.json["n_test"]) == (16_000, 4000)
    assert said.json["squared_error"] < said.json["mean_squared_error"] / 2
    assert list(load(model).feature_names_in_) == list("abcde")


def test_the_options_can_stand_in_a_file(run: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f"data = '{files / 'x.npy'}'\nstream = true\ntest_fraction = 0\n")
    model = tmp_path / "m.safetensors"
    said = run("train", "--config", tmp_path / "c.toml", "-o", model, *SMALL)
    assert said.code == 0, said.err
    assert "read piece by piece" in said.err
    assert "10000 of the training rows themselves" in said.out
    (tmp_path / "c.toml").write_text("data = 'digits'\nstream = 'yes'\n")
    assert "stream must be true or false; got 'yes'" in run("train", "--config", tmp_path / "c.toml").err


@pytest.fixture(scope="module")
def model(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:

    place = tmp_path_factory.mktemp("model") / "m.safetensors"
    return train_to(place, files / "x.parquet", "--label", "kind")


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
@pytest.mark.parametrize("data", ["x.npy", "x.parquet"])
def test_files_are_those_written_from_memory(
    run: Run, files: Path, model: Path, tmp_path: Path, command: str, suffix: str, data: str
) -> None:
    whole, parts = tmp_path / f"whole{suffix}", tmp_path / f"parts{suffix}"
    assert run(command, model, files / data, "-o", whole, "--no-stream").code == 0
    said = run(command, model, files / data, "-o", parts, "--stream")
    assert said.code == 0, said.err
    assert "20000 rows of x." in said.out
    assert "/20,000 rows" in said.err
    if suffix == ".parquet":
        assert pq.read_table(whole).equals(pq.read_table(parts))
    else:
        assert whole.read_bytes() == parts.read_bytes()


def test_pictures_that_are_broken(run: Run, pictures: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    said = run("train", pictures, "--stream", "-o", model, *SMALL)
    assert (said.code, "7.png must be a picture" in said.err) == (1, True)
    said = run("train", pictures, "--broken", "skip", "--test-fraction", "0.1", "-o", model, *SMALL)
    assert said.code == 0, said.err
    broken = f"could not be read and were left out; not read: '{pictures / '7.png'}'"
    assert f"1 of 27 samples {broken}" in said.err
    for output in ("codes.npy", "codes.parquet"):
        said = run("encode", model, pictures, "--broken", "skip", "-o", tmp_path / output)
        assert said.code == 0, said.err
        assert f"1 of 30 {broken}" in said.err
    assert np.load(tmp_path / "codes.npy").shape == (29, 4)
    assert pq.read_metadata(tmp_path / "codes.parquet").num_rows == 29


def test_a_folder_of_shards(run: Run, rows: np.ndarray, tmp_path: Path) -> None:
    """In memory and piece by piece; a shard that is cut short is refused, or skipped, counted and named."""
    folder, model = tmp_path / "table", tmp_path / "m.safetensors"
    folder.mkdir()
    for i in range(5):
        part = rows[4000 * i : 4000 * (i + 1)]
        pq.write_table(pa.table(dict(zip("abcde", part.T, strict=True))), folder / f"{i}.parquet")
    for option in ("--stream", "--no-stream"):
        said = run("train", folder, option, "-o", model, "--json", *SMALL)
        assert (said.code, said.json["n_train"], said.json["n_test"]) == (0, 16_000, 4000)
        assert said.json["squared_error"] < said.json["mean_squared_error"] / 2
        assert list(load(model).feature_names_in_) == list("abcde")
    (folder / "3.parquet").write_bytes((folder / "3.parquet").read_bytes()[:-9])
    for option in ("--stream", "--no-stream"):
        said = run("train", folder, option, "-o", model, *SMALL)
        assert (said.code, "3.parquet must be a Parquet file" in said.err) == (1, True)
    said = run("train", folder, "--broken", "skip", "-o", model, "--json", *SMALL)
    assert said.code == 0, said.err
    assert "warning: 1 of 5 shards in" in said.err
    assert "an unknown number of rows in 1: 3.parquet\n" in said.err
    assert said.json["n_train"] + said.json["n_test"] == 16_000
    said = run("encode", model, folder, "--broken", "skip", "-o", tmp_path / "codes.npy")
    assert (said.code, len(np.load(tmp_path / "codes.npy"))) == (0, 16_000)


@pytest.mark.parametrize("data", ["x.npy", "x.parquet"])
def test_evaluate_says_the_same_as_in_memory(
    run: Run, rows: np.ndarray, files: Path, model: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", model, files / data, "--json", "--baseline", files / "x.npy")
    whole = run(*words, "--no-stream")
    monkeypatch.setattr(streams, "free_memory", lambda: 0)
    parts = run(*words, "--stream")
    assert parts.code == 0, parts.err
    assert "20,000 rows, read piece by piece" in parts.err
    assert f"PCA and the mean are fitted on {10_000:,} rows of it" in parts.err
    for key in ("n_test", "tested_on", "code_size", "used_units", "scaling", "pca_code_size"):
        assert parts.json[key] == whole.json[key]
    for key in ("squared_error", "r2"):
        assert parts.json[key] == pytest.approx(whole.json[key], rel=1e-5)
    drawn = np.sort(np.random.default_rng(0).choice(len(rows), 10_000, replace=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these rows have no column names
        expected = load(model).diagnostics(rows[drawn])
    for key, value in expected.items():  # JSON has no NaN
        missing = value is None or np.isnan(value)
        assert parts.json["diagnostics"][key] == (None if missing else pytest.approx(value)), key
    assert parts.json["mean_squared_error"] == pytest.approx(whole.json["mean_squared_error"], rel=0.01)
    assert parts.json["pca_squared_error"] == pytest.approx(whole.json["pca_squared_error"], abs=1e-3)
    alone = run(*words[:4], "--stream")
    assert "pca_squared_error" not in alone.json
    assert "For PCA and the mean predictor beside it" in alone.err
    said = run("evaluate", model, files / data, "--stream", "--split", "test")
    assert (said.code, "which has no test split" in said.err) == (2, True)


def test_the_sample_of_a_sorted_source_holds_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_TEST_ROWS", 30)
    sample = streams.sample_of(ArraySource(np.repeat(np.eye(5), 100, axis=0)))
    assert len(sample) == 30
    assert (sample.sum(0) > 0).all()


def test_how_data_are_read_does_not_bind_the_baseline(
    run: Run, files: Path, model: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    table = tmp_path / "train.csv"
    write_rows(table, rows[:50], list("abcde"))
    said = run("evaluate", model, files / "x.npy", "--stream", "--baseline", table, "--json")
    assert (said.code, said.json["pca_fitted_on"]) == (0, "50 rows of train.csv"), said.err


def test_evaluate_counts_what_is_broken_and_names_what_is_no_number(
    run: Run, pictures: Path, files: Path, model: Path, tmp_path: Path
) -> None:
    of_pictures = tmp_path / "p.safetensors"
    assert run("train", pictures, "--broken", "skip", "-o", of_pictures, *SMALL).code == 0
    said = run("evaluate", of_pictures, pictures, "--broken", "skip", "--json")
    assert (said.code, said.json["n_test"]) == (0, 29)
    assert f"1 of 30 could not be read and were left out; not read: '{pictures / '7.png'}'" in said.err
    rows = np.load(files / "x.npy")
    rows[15_000, 2] = np.nan
    np.save(tmp_path / "bad.npy", rows)
    said = run("evaluate", model, tmp_path / "bad.npy", "--stream")
    assert (said.code, "got NaN at row 15000, column 'c'" in said.err) == (1, True)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("command", ["train", "detect fit"])
def test_a_value_that_is_none_is_named_by_its_row_in_the_file(
    run: Run, rows: np.ndarray, tmp_path: Path, command: str, suffix: str
) -> None:
    """Not by its number in the training split, and before anything is trained."""
    bad = rows[:3000].copy()
    bad[2500, 2] = np.inf
    write_rows(tmp_path / f"bad{suffix}", bad, list("abcde"))
    said = run(*command.split(), tmp_path / f"bad{suffix}", "--stream", "-o", tmp_path / "m.safetensors")
    column = "2" if suffix == ".npy" else "'c'"
    assert (said.code, f"got inf at row 2500, column {column}" in said.err) == (1, True), said.err
    assert "epoch" not in said.err


def test_compare_piece_by_piece(run: Run, files: Path) -> None:
    words = ("compare", files / "x.parquet", "--label", "kind", "--kinds", "undercomplete", "--json")
    said = run(*words, "--stream", "--latent-dim", "2", "--epochs", "2")
    assert said.code == 0, said.err
    assert "20,000 rows, read piece by piece" in said.err
    assert "16000 training rows, tested on 4000 of 20000 rows" in said.err
    assert (said.json["settings"]["n_train"], said.json["settings"]["n_test"]) == (16_000, 4000)
    errors = {row["kind"]: row["error"] for row in said.json["rows"]}
    assert errors["pca"] < 1e-6  # the rows lie in a plane
    assert errors["undercomplete"] < errors["mean"] / 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["digits", "--stream"],
            "data must be a .npy or .parquet file or a folder of pictures or of such files to be read",
        ),
        (["x.npy", "--broken", "skip"], "broken must be left out for"),
        (["x.npy", "--stream", "--label", "a"], "label must be left out for"),
        (["x.npy", "--no-stream", "--broken", "skip"], "--broken must go with --stream"),
        (
            ["x.npy", "--stream", "--random-state", "-1"],
            "random_state must be a whole number from 0 up; got -1",
        ),
        (["x.npy", "--random-state", "-1"], "random_state must be a whole number from 0 up; got -1"),
    ],
)
def test_options_that_do_not_fit(
    run: Run, files: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    first = str(files / words[0]) if words[0] != "digits" else words[0]
    said = run("train", first, *words[1:], "-o", tmp_path / "m.safetensors")
    assert said.code == 2
    assert message in said.err


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_no_rows_make_no_file(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InvalidDataError, match="DATA must hold a row that can be read; got none"):
        streams.write_parts(Output(quiet=True), tmp_path / f"x{suffix}", [], 5, None, "x")
    assert list(tmp_path.iterdir()) == []


def test_pictures_cannot_be_written_piece_by_piece(run: Run, images: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    assert run("train", images, "--stream", "-o", model, *SMALL).code == 0
    said = run("reconstruct", model, images, "--stream", "-o", tmp_path / "x.png")
    assert (said.code, "--output must end in one of" in said.err) == (2, True)
    assert (
        run("reconstruct", model, images, "--stream", "--split", "test", "-o", tmp_path / "x.npy").code == 2
    )
    assert run("reconstruct", model, images, "--stream", "-o", tmp_path / "x.npy").code == 0
    whole = run("reconstruct", model, images, "-o", tmp_path / "y.npy")
    assert whole.code == 0
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()


def test_nothing_is_left_where_the_data_fail(run: Run, files: Path, model: Path, tmp_path: Path) -> None:
    rows = np.load(files / "x.npy")
    rows[15_000, 2] = np.nan
    np.save(tmp_path / "bad.npy", rows)
    said = run("encode", model, tmp_path / "bad.npy", "--stream", "-o", tmp_path / "codes.npy")
    assert said.code == 1
    assert "got NaN at row 15000, column 'c' (position 2)" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npy"]


def test_streaming_begins_where_the_memory_gets_short(
    files: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def streamed(data: Path | str) -> bool:
        return streams.open_stream(str(data), SourceOptions(), StreamOptions()) is not None

    free = streams.free_memory()
    assert free is None or free > 1 << 20
    assert not streamed(files / "x.npy")
    takes = {"x.npy": 400_000, "x.parquet": 6 * 160_000}
    for name, size in takes.items():
        monkeypatch.setattr(streams, "free_memory", lambda size=size: 4 * size + 1000)
        assert not streamed(files / name)
        monkeypatch.setattr(streams, "free_memory", lambda size=size: 4 * size - 1000)
        assert streamed(files / name)
    monkeypatch.setattr(streams, "free_memory", lambda: None)
    assert not streamed(files / "x.npy")
    monkeypatch.setattr(streams, "free_memory", lambda: 0)
    for other in ("digits", files, files / "none.npy"):
        assert not streamed(other)


def test_rows_in_parts_are_the_rows(tmp_path: Path, rows: np.ndarray) -> None:
    parts = np.array_split(rows, 7)
    for suffix in (".npy", ".csv"):
        write_rows(tmp_path / f"a{suffix}", rows)
        shape = streams.write_parts(Output(quiet=True), tmp_path / f"b{suffix}", parts, len(rows), None, "x")
        assert shape == rows.shape
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    fewer = streams.write_parts(Output(quiet=True), tmp_path / "c.npy", parts[:2], 10**9, None, "x")
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), rows[: fewer[0]])
