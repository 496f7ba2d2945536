"""``make check`` counts the repeated lines of the source, and refuses when they are many."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def repeats(source: Path) -> subprocess.CompletedProcess[str]:
    """Run the rule of the Makefile with this environment's tools, without bringing .venv up to date."""
    tools = Path(sys.executable).parent
    if not (shutil.which("make") and (tools / "symilar").exists()):
        pytest.skip("make and pylint are needed")
    words = [
        "make",
        "--no-print-directory",
        "-o",
        ".venv/installed-dev",
        "repeats",
        f"SOURCE={source}",
        f"BIN={tools}",
    ]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def block(name: str, n: int) -> str:
    return "".join(f"{name}_{i} = {i}\n" for i in range(n))


def test_the_source_repeats_little() -> None:
    done = repeats(ROOT / "src")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Repeated code: ")


@pytest.mark.parametrize(
    ("rest", "copied", "code"),
    [
        (100, 6, 0),  # 6 of 212 lines, 2.8 %
        (100, 7, 2),  # 7 of 214 lines, 3.3 %
        (20, 5, 0),  # fewer than six lines in a row are no copy
    ],
)
def test_copies_are_counted(tmp_path: Path, rest: int, copied: int, code: int) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(block(name, rest) + block("same", copied))
    done = repeats(tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("Repeated code must be less than 3 %" in done.stdout) == bool(code)
    assert ("same_3 = 3" in done.stdout) == bool(code)


def test_no_files_are_no_proof(tmp_path: Path) -> None:
    assert repeats(tmp_path).returncode == 2
