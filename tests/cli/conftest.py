"""One way to run a command in this process, one to run it as a user does, and a small model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diabolo
from diabolo.cli import main

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background: children would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL = ("--epochs", "2", "--random-state", "0", "--latent-dim", "4", "--hidden-dims", "16")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


Run = Callable[..., Result]


@contextmanager
def _exit_code(into: list[int]) -> Iterator[None]:
    with pytest.raises(SystemExit) as left:
        yield
    into.append(left.value.code or 0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command here and hand back its exit code and what it said."""
    monkeypatch.delenv("DIABOLO_DEBUG", raising=False)

    def call(*words: object) -> Result:
        capsys.readouterr()
        code: list[int] = []
        with _exit_code(code):
            main([str(word) for word in words])
        said = capsys.readouterr()
        return Result(code[0], said.out, said.err)

    return call


def environment() -> dict[str, str]:
    """The environment of a process that finds this package, installed or not."""
    source = str(Path(diabolo.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def process(tmp_path: Path) -> Run:
    """Run a command in a process of its own, in an empty folder."""

    def call(*words: object) -> Result:
        command = [sys.executable, "-m", "diabolo", *map(str, words)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .npy file with 200 digits of 8 x 8 pixels in 0..255."""
    from sklearn.datasets import load_digits

    path = tmp_path_factory.mktemp("images") / "digits.npy"
    np.save(path, np.rint(load_digits().images[:200] * (255 / 16)).astype(np.uint8))
    return path


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .csv file with five columns of numbers and one of labels."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((60, 2)) @ generator.standard_normal((2, 5))
    path = tmp_path_factory.mktemp("table") / "table.csv"
    lines = ["a,b,c,d,e,species"]
    lines += [",".join(f"{v:.6f}" for v in row) + f",{'xy'[i % 2]}" for i, row in enumerate(values)]
    path.write_text("\n".join(lines) + "\n")
    return path


def train_to(path: Path, data: Path, *words: str) -> Path:
    code: list[int] = []
    with _exit_code(code):
        main(["train", str(data), "-o", str(path), "--quiet", *SMALL, *words])
    assert code == [0]
    return path


@pytest.fixture(scope="session")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deep model of the small images."""
    return train_to(tmp_path_factory.mktemp("model") / "model.safetensors", images)


@pytest.fixture(scope="session")
def table_model(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variational model of the table."""
    path = tmp_path_factory.mktemp("table-model") / "model.safetensors"
    return train_to(path, table, "--label", "species", "--kind", "variational")
