"""``diabolo detect``: fit, score, threshold, each end to end, and what they refuse."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, _exit_code, train_to
from sklearn.datasets import load_breast_cancer, load_digits

from diabolo.applications import AnomalyDetector
from diabolo.cli.app import GROUPS
from diabolo.data import load as load_data

MEMBER = ("--kind", "denoising", "--epochs", "5", "--hidden-dims", "16", "--latent-dim", "8")
SMALL = (*MEMBER, "--trim", "0", "--random-state", "0")


@pytest.fixture(scope="session")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .csv file: 569 rows of ten measurements, and which of them are malignant, in words."""
    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names[:10]]
    lines = [",".join([*names, "diagnosis"])]
    words = np.where(data.target == 0, "malignant", "benign")
    lines += [
        ",".join([*(f"{v:.6g}" for v in row), word])
        for row, word in zip(data.data[:, :10], words, strict=True)
    ]
    path = tmp_path_factory.mktemp("cancer") / "cancer.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


LABELS = ("--label", "diagnosis", "--normal", "benign")


@pytest.fixture(scope="session")
def detector_file(cancer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of malignant rows, fitted by the command; read only."""
    from diabolo.cli import main

    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    code: list[int] = []
    with _exit_code(code):
        main(["detect", "fit", str(cancer), *LABELS, *SMALL, "-o", str(path), "--quiet"])
    assert code == [0]
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def rows_of(cancer: Path) -> Any:
    return load_data(cancer, label="diagnosis").X


# -------------------------------------------------------------------------------------------------- fit
def test_fit_learns_from_normal_rows_and_measures_on_the_others(
    run: Run, cancer: Path, tmp_path: Path
) -> None:
    place = tmp_path / "d.safetensors"
    said = run("detect", "fit", cancer, *LABELS, *SMALL, "-o", place, "--json")
    assert said.code == 0, said.err
    told = said.json
    assert told["n_train"] == 357 - 71
    assert told["labels"]["n_normal"] == 71
    assert told["labels"]["n_anomalies"] == 212
    assert told["labels"]["auc_roc"] > 0.8
    assert set(told["labels_comparison"]) == set(told["comparison"]) == {"diabolo", "PCA", "KNN"}
    assert told["labels_comparison"]["diabolo"]["auc_roc"] == told["labels"]["auc_roc"]
    detector = AnomalyDetector.load(place)
    assert detector.trim == 0
    assert detector.feature_names_in_[0] == "mean_radius"
    assert told["threshold"] == detector.threshold_


def test_the_same_command_gives_the_same_detector(
    run: Run, cancer: Path, detector_file: Path, tmp_path: Path
) -> None:
    place = tmp_path / "again.safetensors"
    assert run("detect", "fit", cancer, *LABELS, *SMALL, "-o", place).code == 0
    one, two = AnomalyDetector.load(place), AnomalyDetector.load(detector_file)
    assert one.calibration_.scores.tobytes() == two.calibration_.scores.tobytes()
    assert one.comparison_ == two.comparison_


def test_labels_without_normal_are_used_for_measuring_only(run: Run, cancer: Path, tmp_path: Path) -> None:
    text = cancer.read_text().replace("malignant", "1").replace("benign", "0")
    data = tmp_path / "marked.csv"
    data.write_text(text)
    place = tmp_path / "d.safetensors"
    said = run("detect", "fit", data, "--label", "diagnosis", *SMALL, "-o", place, "--json")
    assert said.code == 0, said.err
    assert said.json["n_train"] == 569 - 114
    assert said.json["labels"]["n_normal"] + said.json["labels"]["n_anomalies"] == 114


def test_without_labels_all_rows_are_learned_from_and_progress_is_told(
    run: Run, images: Path, tmp_path: Path
) -> None:
    said = run("detect", "fit", images, *SMALL, "-o", tmp_path / "d.safetensors")
    assert said.code == 0, said.err
    assert "learning from 200 rows of digits.npy" in said.err
    assert "detector: 100%" in said.err
    assert re.search(r"flagged +\d+ \([\d.]+ %\) of all 200 training rows of digits.npy themselves", said.out)
    assert re.search(r"diabolo +[\d.]+ +[\d.]+\n", said.out)


@pytest.mark.parametrize(
    ("marks", "words"),
    [("1", "labelled anomalies"), ("0", "labelled normal")],
)
def test_labels_of_one_kind_are_said_and_no_crash(
    run: Run, cancer: Path, tmp_path: Path, marks: str, words: str
) -> None:
    data = tmp_path / "marked.csv"
    data.write_text(cancer.read_text().replace("malignant", marks).replace("benign", marks))
    said = run(
        *("detect", "fit", data, "--label", "diagnosis", *SMALL, "-o", tmp_path / "d.safetensors", "--json")
    )
    assert said.code == 0, said.err
    assert f"All 114 rows that are judged are {words}" in said.err
    assert said.json["labels"]["auc_roc"] is None


def test_fit_and_score_piece_by_piece(run: Run, cancer: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    dataset = load_data(cancer, label="diagnosis")
    assert dataset.feature_names is not None
    data, place = tmp_path / "rows.parquet", tmp_path / "d.safetensors"
    columns = dict(zip(dataset.feature_names, dataset.X.T, strict=True)) | {"diagnosis": dataset.y}
    pq.write_table(pa.table(columns), data)
    # trimmed or not: a source is gone through twice
    chosen = ("--label", "diagnosis", "--normal", "benign", "--stream")
    words = ("detect", "fit", data, *chosen, *MEMBER, "--random-state", "0")
    said = run(*words, "-o", place, "--report", tmp_path / "page")
    assert said.code == 0, said.err
    assert "569 rows, read piece by piece" in said.err
    assert (tmp_path / "page" / "index.html").exists()
    for name, options in (("stream.csv", ["--stream"]), ("memory.csv", ["--no-stream"])):
        said = run("detect", "score", place, data, *options, "-o", tmp_path / name)
        assert said.code == 0, said.err
    assert (tmp_path / "stream.csv").read_bytes() == (tmp_path / "memory.csv").read_bytes()


# ------------------------------------------------------------------------------------------------ score
def test_scores_are_those_of_python(run: Run, detector_file: Path, cancer: Path, tmp_path: Path) -> None:
    place = tmp_path / "scores.csv"
    said = run("detect", "score", detector_file, cancer, *LABELS, "-o", place, "--json")
    assert said.code == 0, said.err
    detector, lines = AnomalyDetector.load(detector_file), table(place)
    names = list(detector.feature_names_in_)
    del detector.feature_names_in_  # the rows have no names here
    X = rows_of(cancer)
    assert [int(line["row"]) for line in lines] == list(range(569))
    np.testing.assert_allclose(
        [float(line["score"]) for line in lines], -detector.score_samples(X), rtol=1e-8
    )
    np.testing.assert_allclose([float(line["p_value"]) for line in lines], detector.p_value(X), rtol=1e-8)
    assert [line["verdict"] for line in lines] == [
        "anomaly" if verdict == -1 else "normal" for verdict in detector.predict(X)
    ]
    shares = detector.explain(X) / -detector.score_samples(X)[:, None]
    assert lines[3]["feature_1"] == names[int(shares[3].argmax())]
    np.testing.assert_allclose(float(lines[3]["share_1"]), shares[3].max(), rtol=1e-6)
    assert float(lines[3]["share_1"]) >= float(lines[3]["share_2"]) >= float(lines[3]["share_3"])
    assert said.json["flagged"] == sum(line["verdict"] == "anomaly" for line in lines)
    assert said.json["labels"]["n_anomalies"] == 212


def test_every_format_says_the_same(run: Run, detector_file: Path, cancer: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    for suffix in (".csv", ".parquet", ".npy"):
        words = ("--top", "2", "-o", tmp_path / f"scores{suffix}")
        said = run("detect", "score", detector_file, cancer, *words)
        assert said.code == 0, said.err
        note = "column 'diagnosis' is not among the model's features and is left out"
        assert note in said.err
    lines = table(tmp_path / "scores.csv")
    parquet = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    numbers = np.load(tmp_path / "scores.npy")
    names = list(AnomalyDetector.load(detector_file).feature_names_in_)
    assert numbers.shape == (569, 8)
    assert list(parquet[0]) == list(lines[0])
    assert [line["verdict"] for line in parquet] == [line["verdict"] for line in lines]
    assert [line["feature_2"] for line in parquet] == [line["feature_2"] for line in lines]
    assert [names[int(k)] for k in numbers[:, 6]] == [line["feature_2"] for line in lines]
    assert [v == 1 for v in numbers[:, 3]] == [line["verdict"] == "anomaly" for line in lines]
    np.testing.assert_allclose([line["score"] for line in parquet], numbers[:, 1])


def test_pixels_are_named_by_their_place(run: Run, images: Path, tmp_path: Path) -> None:
    model, place = tmp_path / "d.safetensors", tmp_path / "scores.csv"
    assert run("detect", "fit", images, *SMALL, "-o", model, "-q").code == 0
    assert run("detect", "score", model, images, "-o", place, "--top", "1").code == 0
    assert all(re.fullmatch(r"[0-7],[0-7]", line["feature_1"]) for line in table(place))


def test_rows_that_are_left_out_keep_their_numbers(run: Run, tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, image in enumerate(load_digits().images[:40]):
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{k}.png")
    model, place = tmp_path / "d.safetensors", tmp_path / "scores.csv"
    assert run("detect", "fit", folder, "--no-map", *SMALL, "-o", model, "-q").code == 0
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/99\xff.png"))  # no UTF-8
    (folder / "39.png").rename(odd)
    for suffix in (".csv", ".parquet"):
        assert run("detect", "score", model, folder, "-o", place.with_suffix(suffix)).code == 0
    assert table(place)[-1]["image"] == "99\\xff.png"
    odd.rename(folder / "39.png")
    broken = [folder / f"{k}.png" for k in (7, 8, 12, 20, 30)]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    said = run("detect", "score", model, folder, "-o", place, "--broken", "skip")
    assert said.code == 0, said.err
    left = [k for k in range(40) if k not in (7, 8, 12, 20, 30)]
    assert [int(line["row"]) for line in table(place)] == left
    assert [line["image"] for line in table(place)] == [f"{k}.png" for k in left]
    named = ", ".join(repr(str(path)) for path in broken[:3])
    assert f"5 of 40 could not be read and were left out; not read: {named} and 2 more" in said.err


# -------------------------------------------------------------------------------------------- threshold
def test_threshold_is_set_and_kept(run: Run, detector_file: Path, cancer: Path, tmp_path: Path) -> None:
    model = tmp_path / "d.safetensors"
    model.write_bytes(detector_file.read_bytes())
    before = AnomalyDetector.load(model)
    said = run("detect", "threshold", model, "--false-alarm-rate", "0.05", "--json")
    assert said.code == 0, said.err
    assert said.json["threshold_before"] == before.threshold_
    after = AnomalyDetector.load(model)
    assert said.json["threshold"] == after.threshold_ == before.calibration_.threshold(0.05)
    assert said.json["held_out_rate"] <= 0.05
    assert run("detect", "threshold", model, "--value", before.threshold_).code == 0
    assert model.read_bytes() == detector_file.read_bytes()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "got none of them"),
        (["--value", "3", "--contamination", "0.1"], "got --contamination and --value"),
        (["--false-alarm-rate", "2"], "false_alarm_rate must be between 0 and 1; got 2"),
        (["--contamination", "0"], "contamination must be between 0 and 1"),
        (["--value", "nan"], "value must be"),
    ],
)
def test_threshold_refuses(run: Run, detector_file: Path, words: list[str], text: str) -> None:
    before = detector_file.read_bytes()
    said = run("detect", "threshold", detector_file, *words)
    assert said.code == 2
    assert text in said.err
    assert detector_file.read_bytes() == before


def test_too_low_a_rate_is_said(run: Run, detector_file: Path, tmp_path: Path) -> None:
    model = tmp_path / "d.safetensors"
    model.write_bytes(detector_file.read_bytes())
    said = run("detect", "threshold", model, "--false-alarm-rate", "0.0001")
    assert said.code == 0
    assert "warning: a false-alarm rate must be at least 1 / 287" in said.err


# ------------------------------------------------------------------------------------------------- info
def test_info_tells_of_a_detector(run: Run, detector_file: Path) -> None:
    said = run("info", detector_file)
    assert said.code == 0, said.err
    assert "detector of anomalies" in said.out
    assert "DenoisingAutoencoder with gaussian" in said.out
    assert "0.05 when fitted; the threshold above is what holds" in " ".join(said.out.split())
    told = run("info", detector_file, "--json").json
    assert told["threshold"] == AnomalyDetector.load(detector_file).threshold_
    assert told["n_held_out"] == 286
    assert set(told["versions"]) == {"diabolo", "torch"}


# ------------------------------------------------------------------------------------------ what is refused
def test_a_model_of_another_kind_is_named(
    run: Run, model: Path, detector_file: Path, images: Path, cancer: Path, tmp_path: Path
) -> None:
    said = run("detect", "score", model, images, "-o", tmp_path / "s.csv")
    assert said.code == 1
    assert "an autoencoder that 'diabolo train' wrote" in said.err
    said = run("encode", detector_file, cancer, "-o", tmp_path / "codes.npy")
    assert said.code == 1
    assert "must" in said.err
    assert "Traceback" not in said.err


def test_damaged_and_missing_files_are_refused(
    run: Run, detector_file: Path, cancer: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(detector_file.read_bytes()[:5000])
    for path, text in ((damaged, "one that cannot be read"), (tmp_path / "none", "which does not exist")):
        said = run("detect", "score", path, cancer, "-o", tmp_path / "s.csv")
        assert said.code == 1
        assert text in said.err
    assert not (tmp_path / "s.csv").exists()


def edited(cancer: Path, place: Path, old: str, new: str) -> Path:
    place.write_text(cancer.read_text().replace(old, new, 1))
    return place


def test_bad_rows_are_named(run: Run, detector_file: Path, cancer: Path, tmp_path: Path) -> None:
    second = cancer.read_text().splitlines()[2].split(",")
    hole = edited(cancer, tmp_path / "hole.csv", second[3], "NaN")
    words = ("-o", tmp_path / "out.csv")
    said = run("detect", "score", detector_file, hole, "--label", "diagnosis", "--normal", "benign", *words)
    assert said.code == 1
    assert "row 1" in said.err
    assert "mean_area" in said.err
    assert not (tmp_path / "out.csv").exists()
    far = edited(cancer, tmp_path / "far.csv", second[3], "inf")
    said = run("detect", "fit", far, *LABELS, *SMALL, "-o", tmp_path / "d.safetensors")
    assert said.code == 1
    assert "row 1" in said.err
    assert "mean_area" in said.err
    other = edited(cancer, tmp_path / "other.csv", "mean_area", "area")
    said = run("detect", "score", detector_file, other, *LABELS, *words)
    assert said.code == 1
    assert "must have the column 'mean_area'" in said.err
    empty = tmp_path / "empty.csv"
    empty.write_text(cancer.read_text().splitlines()[0] + "\n")
    said = run("detect", "fit", empty, *LABELS, *SMALL, "-o", tmp_path / "d.safetensors")
    assert said.code == 1
    assert "must hold a row of data" in said.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--label", "diagnosis"], 1, "Say with --normal VALUE which of them is normal"),
        (["--label", "diagnosis", "--normal", "bening"], 2, "Did you mean 'benign'?"),
        (["--label", "diagnosi"], 2, "Did you mean 'diagnosis'?"),
        ([*LABELS, "--trim", "0.6"], 2, "trim must be"),
        ([*LABELS, "--false-alarm-rate", "0"], 2, "false_alarm_rate must be between 0 and 1"),
        ([*LABELS, "--calibration-fraction", "1"], 2, "calibration_fraction must be between 0 and 1"),
        ([*LABELS, "--test-fraction", "1"], 2, "--test-fraction must be in [0, 1)"),
        ([*LABELS, "--epochs", "3"], 2, "must go with --kind; got epochs"),
        ([*LABELS, "--kind", "denoisin"], 2, "Did you mean 'denoising'?"),
        ([*LABELS, "-o", "nowhere/d.safetensors"], 2, "must be in a folder that exists"),
        ([*LABELS, "--report", "nowhere/page"], 2, "must be in a folder that exists"),
    ],
)
def test_fit_refuses(
    run: Run,
    cancer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("detect", "fit", cancer, *words)
    assert text in said.err
    assert said.code == code
    assert "learning" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_normal_needs_labels(run: Run, images: Path, tmp_path: Path) -> None:
    said = run("detect", "fit", images, "--normal", "1", "-o", tmp_path / "d.safetensors")
    assert said.code == 2
    assert "--normal must go with labels" in said.err
    said = run("detect", "fit", images, "--normal", "1", "--stream", "-o", tmp_path / "d.safetensors")
    assert said.code == 2
    assert "--normal must go with labels" in said.err


def test_a_label_that_is_missing_is_named(run: Run, cancer: Path, tmp_path: Path) -> None:
    data = edited(cancer, tmp_path / "hole.csv", "malignant", "")
    said = run("detect", "fit", data, *LABELS, *SMALL, "-o", tmp_path / "d.safetensors")
    assert said.code == 1
    assert "every row must have a label; got none in row 0" in said.err


def test_files_that_are_no_detectors_are_not_replaced(run: Run, cancer: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    said = run("detect", "fit", cancer, *LABELS, *SMALL, "-o", precious)
    assert said.code == 1
    assert "must be a new file or a detector to replace" in said.err
    assert precious.read_text() == "mine"


def test_train_does_not_replace_a_detector(
    run: Run, images: Path, detector_file: Path, tmp_path: Path
) -> None:
    place = tmp_path / "d.safetensors"
    place.write_bytes(detector_file.read_bytes())
    assert run("train", images, "--epochs", "1", "-o", place).code == 1
    assert place.read_bytes() == detector_file.read_bytes()
    assert train_to(tmp_path / "m.safetensors", images).exists()
    said = run("detect", "fit", images, *SMALL, "-o", tmp_path / "m.safetensors")
    assert said.code == 1


# ------------------------------------------------------------------------------------------------ the group
def test_the_group_has_help_pages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = run("detect", "--help")
    assert said.code == 0
    assert run("detect").code == 2
    _, commands = GROUPS["detect"]
    for command in commands:
        assert f" {command.__name__} " in said.out
        page = run("detect", command.__name__, "--help")
        assert page.code == 0
        assert "--json" in page.out
    said = run("detect", "scoer")
    assert said.code == 2
    assert "Did you mean 'score'" in said.err
