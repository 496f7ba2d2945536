"""``detect score`` on rows that lack what those of fit had: a cell, or labels of both kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Run, _exit_code

from diabolo.cli import main

MEMBER = ("--kind", "denoising", "--epochs", "2", "--hidden-dims", "16", "--latent-dim", "4")
LABELS = ("--label", "kind", "--normal", "fine")


def write(path: Path, rows: np.ndarray, label: str) -> Path:
    lines = [",".join(f"{v:.4f}" for v in row) + f",{label}" for row in rows]
    path.write_text("\n".join(["a,b,c,kind", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(150, 3))


@pytest.fixture(scope="module")
def detector(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    table, path = write(folder / "fit.csv", rows, "fine"), folder / "d.safetensors"
    code: list[int] = []
    with _exit_code(code):
        main(["detect", "fit", str(table), *LABELS, "-o", str(path), "-q", *MEMBER])
    assert code == [0]
    return path


def test_a_missing_cell_is_refused_with_a_way_out(
    run: Run, detector: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    table = write(tmp_path / "new.csv", rows[:9], "fine")
    table.write_text(table.read_text().replace(f"{rows[4, 1]:.4f}", "").replace(f"{rows[6, 0]:.4f}", "?"))
    said = run("detect", "score", detector, table, *LABELS, "-o", tmp_path / "s.csv")
    assert said.code == 1
    assert "got none in row 4 (rows count from 0), column 'b', and in 2 rows in all" in said.err
    assert "or fit on a table in which cells are missing too" in said.err


def test_anomalies_alone_are_scored(run: Run, detector: Path, rows: np.ndarray, tmp_path: Path) -> None:
    """What needs normal rows too is left out, and said."""
    table = write(tmp_path / "bad.csv", rows[:9] + 50, "broken")
    said = run("detect", "score", detector, table, *LABELS, "-o", tmp_path / "s.csv", "--json")
    assert said.code == 0, said.err
    labels = said.json["labels"]
    assert (labels["n_anomalies"], labels["recall"]) == (9, 1.0)
    assert labels["auc_roc"] is labels["false_alarm_rate"] is None
    assert "nothing is labelled 'fine', so all counts as anomalies; labels are 'broken'" in said.err
    assert "All 9 rows that are judged are labelled anomalies" in said.err
    report = ("--report", tmp_path / "r")
    assert run("detect", "score", detector, table, *LABELS, "-o", tmp_path / "s.csv", *report).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("encode", "M", "D", "-o", "x.npy"),
        ("reconstruct", "M", "D", "-o", "x.npy"),
        ("evaluate", "M", "D"),
        ("sample", "M", "-o", "x.npy"),
        ("decode", "M", "D", "-o", "x.npy"),
        ("diagram", "M", "-o", "x.svg"),
    ],
)
def test_a_detector_given_for_a_model_is_told(
    run: Run, detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = write(tmp_path / "t.csv", np.zeros((3, 3)), "fine")
    said = run(*({"M": detector, "D": table}.get(word, word) for word in words))
    assert said.code == 1
    assert f"MODEL must be an autoencoder; got {detector}, a detector of rows. Use it with" in said.err
    assert "'diabolo detect score'" in said.err
