"""``diabolo detect`` on tables of mixed columns and with missing cells, and labels of data in pieces."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, _exit_code

from diabolo import Autoencoder
from diabolo.applications import AnomalyDetector

pd = pytest.importorskip("pandas")

MEMBER = ("--kind", "denoising", "--epochs", "4", "--hidden-dims", "16", "--latent-dim", "8")
SMALL = (*MEMBER, "--trim", "0", "--random-state", "0")
LABELS = ("--label", "fraud", "--normal", "no")


def people(n: int = 700) -> pd.DataFrame:
    """Rows of which a twentieth are fraud: clerks with a huge income."""
    chance = np.random.default_rng(0)
    fraud = chance.random(n) < 0.05
    age = chance.integers(18, 80, n).astype(float)
    age[::9] = np.nan
    job = chance.choice(["clerk", "smith", "baker"], n).astype(object)
    income = np.where(job == "baker", 90.0, 30.0) + chance.normal(0, 3, n)
    job[fraud], income[fraud] = "clerk", 200.0 + chance.random(fraud.sum())
    columns = {
        "id": [f"P{k}" for k in range(n)],
        "age": age,
        "job": job,
        "married": age > 40,
        "income": income.round(2),
        "zip": chance.choice([10115, 20095], n),
        "fraud": np.where(fraud, "yes", "no"),
    }
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people") / "people.csv"
    people().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def fitted(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diabolo.cli import main

    path = tmp_path_factory.mktemp("fitted") / "d.safetensors"
    code: list[int] = []
    words = ["--drop", "id", "--categorical", "zip", "-o", str(path), "-q"]
    with _exit_code(code):
        main(["detect", "fit", str(table), *LABELS, *SMALL, *words])
    assert code == [0]
    return path


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


# --------------------------------------------------------------------------------------------------- fit
def test_a_mixed_table_is_fitted_measured_and_told_of(run: Run, table: Path, tmp_path: Path) -> None:
    place = tmp_path / "d.safetensors"
    words = ("--categorical", "zip", "-o", place, "--report", tmp_path / "page", "--json")
    said = run("detect", "fit", table, *LABELS, *SMALL, *words)
    assert said.code == 0, said.err
    assert (
        "700 rows, columns: 3 of categories, 2 of numbers, 1 of truth values; cells are missing in 'age'"
        in (said.err)
    )
    assert "column 'id' holds another value in nearly every row" in said.err
    told = said.json
    assert told["labels"]["auc_roc"] > 0.9
    assert set(told["labels_comparison"]) == {"diabolo", "PCA", "KNN"}
    assert told["labels_comparison"]["PCA"]["auc_roc"] is not None
    assert told["kinds"]["zip"] == "categorical"
    assert told["kinds"]["married"] == "binary"
    page = (tmp_path / "page" / "index.html").read_text()
    assert ">clerk<" in page
    assert ">20" in page


def test_missing_cells_alone_make_a_table_mixed(run: Run, tmp_path: Path) -> None:
    data, place = tmp_path / "numbers.csv", tmp_path / "d.safetensors"
    rows = people(500)[["age", "income"]]
    rows.to_csv(data, index=False)
    said = run("detect", "fit", data, *SMALL, "-o", place)
    assert said.code == 0, said.err
    assert "columns: 2 of numbers; cells are missing in 'age', which is learned too" in said.err
    detector = AnomalyDetector.load(place)
    assert detector.encoder_ is not None
    assert run("detect", "score", place, data, "-o", tmp_path / "s.csv", "-q").code == 0
    scores = [float(line["score"]) for line in lines_of(tmp_path / "s.csv")]
    np.testing.assert_allclose(scores, -detector.score_samples(rows), rtol=1e-8)


def test_notes_on_columns_that_do_no_good(run: Run, tmp_path: Path) -> None:
    rows = people(500)
    rows["number"] = np.arange(500) + 7
    rows["town"] = [f"t{k % 60}" for k in range(500)]
    rows["slip"] = rows["income"].astype(object)
    rows.loc[17, "slip"] = "unknown"
    rows["first"] = rows["income"].astype(object)
    rows.loc[0, "first"] = "oops"
    data = tmp_path / "rows.csv"
    rows.to_csv(data, index=False)
    said = run("detect", "fit", data, *LABELS, *SMALL, "-o", tmp_path / "d.safetensors", "--epochs", "1")
    assert said.code == 0, said.err
    assert "column 'number' counts the rows" in said.err
    assert "column 'town' has 60 categories: all but the 50 most frequent count as one" in said.err
    assert "'slip' is taken as categories, since row 17 (rows count from 0) holds 'unknown'" in said.err
    assert "'first' is taken as categories, since row 0 (rows count from 0) holds 'oops'" in said.err
    assert said.err.count("is taken as categories") == 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--drop", "idd"], 2, "Did you mean 'id'?"),
        (["--drop", "zip", "--categorical", "zip"], 2, "got 'zip' as both"),
        (["--categorical", "fraud"], 2, "--categorical must be the name of a feature's column"),
        (["--normal", "nope"], 2, "--normal must be the label of some row"),
    ],
)
def test_fit_refuses(run: Run, table: Path, tmp_path: Path, words: list[str], code: int, text: str) -> None:
    said = run("detect", "fit", table, *LABELS, *SMALL, "-o", tmp_path / "d.safetensors", *words)
    assert said.code == code
    assert text in said.err
    assert list(tmp_path.iterdir()) == []


def test_columns_are_those_of_tables(run: Run, images: Path, tmp_path: Path) -> None:
    said = run("detect", "fit", images, "--drop", "x1", "-o", tmp_path / "d.safetensors")
    assert said.code == 2
    assert "It is meant for tables" in said.err


# ------------------------------------------------------------------------------------------------- score
def test_new_rows_are_scored_by_the_names_of_their_columns(
    run: Run, fitted: Path, table: Path, tmp_path: Path
) -> None:
    rows = people()
    rows = rows[rows.columns[::-1]]
    rows.loc[3, "job"] = "pilot"
    rows.loc[4, "income"] = np.nan
    data = tmp_path / "new.csv"
    rows.to_csv(data, index=False)
    words = (*LABELS, "-o", tmp_path / "s.csv", "--report", tmp_path / "page")
    said = run("detect", "score", fitted, data, *words)
    assert said.code == 0, said.err
    assert "column 'id' is not among the model's features and is left out" in said.err
    lines = lines_of(tmp_path / "s.csv")
    assert (lines[3]["feature_1"], lines[3]["verdict"]) == ("job", "anomaly")
    assert (lines[4]["feature_1"], lines[4]["verdict"]) == ("income", "anomaly")
    assert ">pilot<" in (tmp_path / "page" / "index.html").read_text()
    detector = AnomalyDetector.load(fitted)
    assert detector.encoder_ is not None
    wanted = rows[list(detector.feature_names_in_)].assign(zip=rows["zip"].astype(float))
    np.testing.assert_allclose(
        [float(line["score"]) for line in lines], -detector.score_samples(wanted), rtol=1e-8
    )
    shares = detector.explain(wanted)[3]
    np.testing.assert_allclose(float(lines[3]["share_1"]), shares.max() / shares.sum(), rtol=1e-6)


def test_parquet_and_text_are_scored_alike(run: Run, fitted: Path, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    people().to_parquet(tmp_path / "people.parquet")
    for data, name in ((table, "text.csv"), (tmp_path / "people.parquet", "parquet.csv")):
        assert run("detect", "score", fitted, data, "-o", tmp_path / name, "-q").code == 0
    assert (tmp_path / "text.csv").read_bytes() == (tmp_path / "parquet.csv").read_bytes()


def test_text_that_looks_like_numbers_stays_text(run: Run, fitted: Path, tmp_path: Path) -> None:
    rows = people().iloc[:5].assign(job="7", married="maybe", age="")
    data = tmp_path / "new.csv"
    rows.assign(married=True).to_csv(data, index=False)
    said = run("detect", "score", fitted, data, "-o", tmp_path / "s.csv", "--top", "1")
    assert said.code == 0, said.err
    assert [line["feature_1"] for line in lines_of(tmp_path / "s.csv")] == ["job"] * 5
    rows.to_csv(data, index=False)
    said = run("detect", "score", fitted, data, "-o", tmp_path / "t.csv")
    assert said.code == 1
    assert "must hold truth values (true, false), as in fit; got 'maybe' in row 0" in said.err


@pytest.mark.parametrize(
    ("column", "first", "odd", "place"),
    [
        ("zip", "10115", "oops", "row 3 (line 5; rows count from 0)"),
        ("married", "true", "maybe", "row 3 (rows count from 0)"),
        ("married", "true", "5", "row 3 (rows count from 0)"),
        ("married", "1", "true", "row 3 (rows count from 0)"),
    ],
)
def test_one_odd_cell_is_named(
    run: Run, fitted: Path, tmp_path: Path, column: str, first: str, odd: str, place: str
) -> None:
    rows = people().iloc[:6].assign(**{column: first})
    rows.loc[3, column] = odd
    rows.to_csv(tmp_path / "new.csv", index=False)
    said = run("detect", "score", fitted, tmp_path / "new.csv", "-o", tmp_path / "s.csv")
    assert said.code == 1
    assert f"Column '{column}' of" in said.err
    assert f"got '{odd}' in {place}" in said.err


def test_scores_of_another_table_are_refused(run: Run, fitted: Path, images: Path, tmp_path: Path) -> None:
    data, place = tmp_path / "new.csv", tmp_path / "s.csv"
    people().drop(columns="job").to_csv(data, index=False)
    said = run("detect", "score", fitted, data, "-o", place)
    assert said.code == 1
    assert "must have the column 'job'" in said.err
    people().assign(income="much").to_csv(data, index=False)
    said = run("detect", "score", fitted, data, "-o", place)
    assert said.code == 1
    assert "'income' of" in said.err
    assert "must hold numbers; got 'much' in row 0 (line 2; rows count from 0)" in said.err
    said = run("detect", "score", fitted, images, "-o", place)
    assert said.code == 1
    assert "DATA must be a table" in said.err
    assert not place.exists()


def test_info_and_threshold_of_a_mixed_detector(run: Run, fitted: Path, tmp_path: Path) -> None:
    said = run("info", fitted)
    assert said.code == 0, said.err
    assert "2 numeric, 2 categorical, 1 binary" in said.out
    copy = tmp_path / "d.safetensors"
    copy.write_bytes(fitted.read_bytes())
    assert run("detect", "threshold", copy, "--value", "2").code == 0
    assert AnomalyDetector.load(copy).threshold_ == 2


# ---------------------------------------------------------------------------------------- piece by piece
@pytest.mark.parametrize("kind", ["text", "parquet"])
def test_mixed_tables_in_pieces_give_what_whole_ones_give(
    run: Run, fitted: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    data = table
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        data = tmp_path / "parts"
        data.mkdir()
        people()[:300].to_parquet(data / "1.parquet")
        people()[300:].to_parquet(data / "2.parquet")
    for module in ("text", "columns"):
        monkeypatch.setattr(f"diabolo.data.{module}.BLOCK", 64)
    place = tmp_path / "d.safetensors"
    words = ("--drop", "id", "--categorical", "zip", "-o", place, "--report", tmp_path / "page", "--json")
    said = run("detect", "fit", data, *LABELS, *SMALL, *words, "--stream")
    assert said.code == 0, said.err
    assert "700 rows of mixed columns, read piece by piece" in said.err
    assert "are learned from" not in said.err
    one, other = (AnomalyDetector.load(path) for path in (place, fitted))
    assert one.encoder_ is not None
    assert other.encoder_ is not None
    assert one.encoder_.to_dict() == other.encoder_.to_dict()
    assert np.array_equal(one.calibration_.scores, other.calibration_.scores)
    assert said.json["labels"]["auc_roc"] > 0.9
    assert ">clerk<" in (tmp_path / "page" / "index.html").read_text()
    found = {}
    for word in ("--stream", "--no-stream"):
        out = tmp_path / f"{word}.csv"
        said = run("detect", "score", fitted, data, word, *LABELS, "-o", out, "--json")
        assert said.code == 0, said.err
        scores = [float(line["score"]) for line in lines_of(out)]
        found[word] = scores, [line["feature_1"] for line in lines_of(out)], said.json["labels"]
    np.testing.assert_allclose(found["--stream"][0], found["--no-stream"][0], rtol=1e-7)
    assert found["--stream"][1:] == found["--no-stream"][1:]


def test_no_more_rows_are_learned_from_than_asked_for(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "d.safetensors"
    numbers = tmp_path / "numbers.csv"
    people()[["zip", "income"]].to_csv(numbers, index=False)
    for data, words in ((table, ["--stream"]), (table, []), (numbers, [])):
        said = run("detect", "fit", data, *SMALL, "--most-rows", "300", *words, "-o", place, "--json")
        assert said.code == 0, said.err
        assert "300 of 700 rows, drawn at random, are learned from" in said.err
        assert (said.json["n_train"], said.json["n_judged"]) == (300, 300)
    monkeypatch.setattr("diabolo.cli.detect_rows.MOST_ROWS", 400)
    said = run("detect", "fit", table, *LABELS, *SMALL, "--stream", "-o", place, "--json")
    assert said.code == 0, said.err
    n_normal = int((people()["fraud"] == "no").sum())
    assert (said.json["n_train"], said.json["labels"]["n_normal"]) == (400, round(0.2 * n_normal))
    for wrong in ("0", "-3"):
        said = run("detect", "fit", table, *SMALL, "--most-rows", wrong, "-o", tmp_path / "no")
        assert said.code == 2
        assert "--most-rows must be a whole number from 1 up" in said.err


def test_text_tables_are_read_in_pieces_where_the_memory_gets_short(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = table.stat().st_size
    for free, said_so in ((30 * size, False), (30 * size - 1, True), (None, False)):
        monkeypatch.setattr("diabolo.cli.streams.free_memory", lambda free=free: free)
        said = run("detect", "fit", table, *SMALL, "--epochs", "1", "-o", tmp_path / "d.safetensors")
        assert said.code == 0, said.err
        assert ("read piece by piece" in said.err) == said_so
    people()[["zip", "income"]].to_csv(tmp_path / "numbers.csv", index=False)
    monkeypatch.setattr("diabolo.cli.streams.free_memory", lambda: 0)
    said = run("detect", "fit", tmp_path / "numbers.csv", *SMALL, "-o", tmp_path / "d.safetensors", "--json")
    assert said.code == 0, said.err
    assert "piece by piece" not in said.err
    assert said.json["kinds"] is None


def test_what_is_broken_of_a_mixed_table_is_not_skipped(run: Run, fitted: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    data = tmp_path / "parts"
    data.mkdir()
    people().to_parquet(data / "1.parquet")
    for words in (
        ("detect", "fit", data, *LABELS, *SMALL, "-o", tmp_path / "d.safetensors"),
        ("detect", "score", fitted, data, "-o", tmp_path / "s.csv"),
    ):
        said = run(*words, "--broken", "skip")
        assert said.code == 2
        assert "--broken must be left out for a table of mixed columns" in said.err


def test_memory_stays_flat_when_a_mixed_table_is_scored(tmp_path: Path) -> None:
    """A table of which a frame and what is made of it take 50 MB: the process must not grow by that."""
    pytest.importorskip("pyarrow")
    part = pd.DataFrame(np.random.default_rng(0).integers(0, 99, (1000, 40)) / 10).add_prefix("x")
    part["t"] = ["a", "b"] * 500
    quick = Autoencoder(hidden_dims=(), latent_dim=2, epochs=1)
    AnomalyDetector(estimator=quick, trim=0, kinds={}).fit(part).save(tmp_path / "d.safetensors")
    files = [tmp_path / "small.parquet", tmp_path / "large.parquet"]
    for path, times in zip(files, (12, 100), strict=True):
        pd.concat([part] * times).to_parquet(path, index=False)
    script = """
import resource, sys
from diabolo.cli import main
peaks = []
for data in sys.argv[1:]:
    try:
        main(["detect", "score", "d.safetensors", data, "-o", data + ".csv", "--top", "0", "-q"])
    except SystemExit as end:
        assert not end.code
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[1] - peaks[0])
"""
    words = [sys.executable, "-c", script, *map(str, files)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) < 15
    assert len(lines_of(tmp_path / "large.parquet.csv")) == 100_000


def test_labels_of_pieces_are_measured(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    folder = tmp_path / "parts"
    folder.mkdir()
    rows = people()[["zip", "income", "fraud"]].assign(other=np.random.default_rng(1).normal(size=700))
    rows[:300].to_parquet(folder / "1.parquet", row_group_size=100)
    rows[300:].to_parquet(folder / "2.parquet")
    place = tmp_path / "d.safetensors"
    words = (*LABELS, "--drop", "zip", *SMALL, "--stream", "-o", place, "--json")
    said = run("detect", "fit", folder, *words)
    assert said.code == 0, said.err
    n_normal = int((rows["fraud"] == "no").sum())
    assert said.json["n_train"] == n_normal - round(0.2 * n_normal)
    assert said.json["labels"]["n_anomalies"] == 700 - n_normal
    assert said.json["labels"]["auc_roc"] > 0.9
    assert said.json["labels_comparison"]["KNN"]["auc_roc"] > 0.9
    found = {}
    for name in ("--stream", "--no-stream"):
        words = (*LABELS, name, "-o", tmp_path / f"{name}.csv", "--json")
        said = run("detect", "score", place, folder, *words)
        assert said.code == 0, said.err
        found[name] = said.json["labels"]
    assert found["--stream"] == found["--no-stream"]
    assert found["--stream"]["n_anomalies"] == 700 - n_normal
    assert (tmp_path / "--stream.csv").read_bytes() == (tmp_path / "--no-stream.csv").read_bytes()


def test_labels_stay_with_their_rows_where_some_are_left_out(run: Run, tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    chance = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for name, n in (("bad", 5), ("good", 30)):
        (folder / name).mkdir(parents=True)
        for k in range(n):
            pixels = chance.normal(128, 4, (8, 8)) + (
                90 * (chance.random((8, 8)) < 0.5) if name == "bad" else 0
            )
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{k}.png")
    model = tmp_path / "d.safetensors"
    words = ("--no-map", "--normal", "good", *SMALL, "-o", model, "-q")
    assert run("detect", "fit", folder, *words).code == 0
    (folder / "bad" / "2.png").write_bytes(b"no picture")
    words = ("--normal", "good", "--broken", "skip", "-o", tmp_path / "s.csv", "--json")
    said = run("detect", "score", model, folder, *words)
    assert said.code == 0, said.err
    assert (said.json["labels"]["n_anomalies"], said.json["labels"]["n_normal"]) == (4, 30)
    assert said.json["labels"]["auc_roc"] == 1.0
    with (tmp_path / "s.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["image"] for line in lines][3:6] == ["bad/4.png", "good/0.png", "good/1.png"]
