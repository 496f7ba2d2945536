"""Tables with decimal commas, as a spreadsheet of many countries writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Run

WORDS = ("--epochs", "2", "--latent-dim", "2", "--hidden-dims", "8")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(60, 2))
    lines = [f"{a:.3f};{b:.2f};{k % 5}".replace(".", ",") for k, (a, b) in enumerate(rows)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a;b;code", *lines]) + "\n")
    return path


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("words", [["train"], ["detect", "fit"], ["detect", "fit", "--stream"]])
def test_decimal_commas_are_no_categories(
    run: Run, table: Path, tmp_path: Path, words: list[str], names: bool
) -> None:
    if not names:
        table.write_text(table.read_text().partition("\n")[2])
    output = tmp_path / "m.safetensors"
    said = run(*words, table, "-o", output)
    assert (said.code, output.exists()) == (1, False)
    assert f"olumn {'a' if names else 'column_1'!r} of" in said.err
    assert "got '0,126'" in said.err
    assert "Write its numbers with a decimal point" in said.err


def test_codes_with_a_comma_are_categories_where_that_is_said(run: Run, table: Path, tmp_path: Path) -> None:
    codes = [f"{k % 7};{k % 3},{k % 2}" for k in range(60)]
    table.write_text("\n".join(["a;answers", *codes]) + "\n")
    words = ("detect", "fit", table, "-o", tmp_path / "d.safetensors", "--kind", "denoising", *WORDS)
    said = run(*words)
    assert "if they are categories, give --categorical 'answers'" in said.err
    said = run(*words, "--categorical", "answers")
    assert (said.code, "1 of numbers, 1 of categories" in said.err) == (0, True), said.err


def test_new_rows_with_commas_are_refused_in_the_same_words(run: Run, table: Path, tmp_path: Path) -> None:
    commas = table.read_text()
    table.write_text(commas.replace(",", ".").replace(";4", ";four"))
    model = tmp_path / "d.safetensors"
    assert run("detect", "fit", table, "-o", model, "--kind", "denoising", *WORDS).code == 0
    table.write_text(commas)
    said = run("detect", "score", model, table, "-o", tmp_path / "s.csv")
    assert (said.code, "got '0,126' in row 0 (line 2; rows count from 0). Write its" in said.err) == (1, True)
