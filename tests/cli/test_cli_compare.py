"""``compare`` and ``demo``: the table, where it goes, and the report."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Run

from diabolo.cli import compare


def test_compare_prints_all_kinds_beside_pca_and_the_mean(run: Run, images: Path, tmp_path: Path) -> None:
    said = run("compare", images, "--kinds", "deep,sparse", "-o", tmp_path / "t.md", *SMALL)
    assert said.code == 0, said.err
    for text in (said.out, (tmp_path / "t.md").read_text()):
        for word in ("deep", "sparse", "pca", "mean", "squared error"):
            assert word in text
    assert "deep: epoch 1/2" in said.err
    assert "sparse: epoch 2/2" in said.err


def test_a_narrow_terminal_breaks_no_word(run: Run, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    said = run("compare", images, "--kinds", "convolutional", "--epochs", "1", "--latent-dim", "4")
    assert said.code == 0, said.err
    assert "convolutional" in said.out
    assert "Too wide for here: " in said.out
    assert all(len(line) <= 60 for line in said.out.splitlines() if not line.startswith("Too wide"))


def test_the_columns_that_stay_longest_exist() -> None:
    from diabolo.report.compare import COLUMNS

    assert set(compare._ORDER) <= set(COLUMNS)


def test_compare_as_json(run: Run, images: Path, tmp_path: Path) -> None:
    place = tmp_path / "t.json"
    said = run("compare", images, "--kinds", "deep", "--json", "-o", place, "--test-fraction", "0.5", *SMALL)
    found = said.json
    assert [row["kind"] for row in found["rows"]] == ["deep", "pca", "mean"]
    assert found["settings"]["n_test"] == 100
    assert found["settings"]["latent_dim"] == 4
    assert json.loads(place.read_text())["rows"] == found["rows"]


def test_compare_chooses_a_code_size(run: Run, table: Path) -> None:
    said = run(
        "compare", table, "--label", "species", "--kinds", "deep", "--epochs", "1", "--json", "--quiet"
    )
    assert said.code == 0, said.err
    assert said.json["settings"]["latent_dim"] == 2
    assert said.err == ""


def test_compare_writes_a_report(run: Run, images: Path, tmp_path: Path) -> None:
    said = run("compare", images, "--kinds", "deep", "--report", tmp_path / "r", *SMALL)
    assert said.code == 0, said.err
    page = said.out.split("report: ")[1].strip()
    assert Path(page).is_file()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--kinds", "deep", "-o", "t.txt"], 2, "--output must end in one of .md, .json"),
        (["--kinds", ""], 2, "kind must be a known name; got ''"),
        (["--kinds", "deep", "--random-state", "none"], 2, "random_state must be a whole number here"),
        (["--kinds", "deep", "--latent-dim", "0"], 2, "latent_dim"),
    ],
)
def test_compare_refuses(run: Run, images: Path, words: list[str], code: int, text: str) -> None:
    said = run("compare", images, *words)
    assert (said.code, said.out) == (code, "")
    assert text in said.err


def test_a_report_that_cannot_be_written_costs_neither_the_table_nor_leaves_a_folder(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("diabolo.report.page.os.fdopen", full)
    words = ["--kinds", "deep", "--report", tmp_path / "r", "-o", tmp_path / "t.md"]
    said = run("compare", images, *words, *SMALL)
    assert said.code == 1
    assert "must have room" in said.err
    assert "deep" in said.out
    assert f"output: {tmp_path / 't.md'}" in said.out
    assert "report:" not in said.out
    assert [path.name for path in tmp_path.iterdir() if path.name != images.name] == ["t.md"]


def test_demo_ends_with_the_table_and_the_report_s_path(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(compare.DEMO, parameters={"epochs": 1, "random_state": 0})
    monkeypatch.setattr(compare, "DEMO", small)
    said = run("demo", "--output", tmp_path / "demo")
    assert said.code == 0, said.err
    for kind in (*compare.DEMO.kinds, "pca", "mean"):
        assert kind in said.out
    page = said.out.splitlines()[-1].removeprefix("report: ")
    assert Path(page).is_file()
