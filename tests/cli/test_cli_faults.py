"""Disks that fill up while a command writes: said with the path, and what was there before stays whole."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, Run, train_to

from diabolo.cli import output

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chance = np.random.default_rng(0)
    place = tmp_path_factory.mktemp("rows") / "x.npy"
    np.save(place, chance.normal(size=(20_000, 2)) @ chance.normal(size=(2, 5)))
    return place


@pytest.fixture(scope="module")
def model(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_to(tmp_path_factory.mktemp("model") / "m.safetensors", rows)


def words_for(command: str, rows: Path, model: Path, target: Path) -> list[Any]:
    """The words that let a command write to ``target``."""
    if command == "train":
        return ["train", rows, "-o", target, *SMALL]
    if command == "train --report":
        return ["train", rows, "-o", target.parent / "m.safetensors", "--report", target, *SMALL]
    if command == "compare":
        return [
            "compare",
            rows,
            "--kinds",
            "undercomplete",
            "-o",
            target,
            "--latent-dim",
            "2",
            "--epochs",
            "1",
        ]
    if command == "sample":
        return ["sample", model, "-o", target]
    name, option = command.split()
    return [name, model, rows, option, "-o", target]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("train", "model.safetensors"),
        ("train --report", "page"),
        ("compare", "table.md"),
        ("sample", "drawn.npy"),
        ("encode --stream", "codes.npy"),
        ("encode --stream", "codes.csv"),
        ("encode --no-stream", "codes.parquet"),
        ("reconstruct --stream", "restored.parquet"),
    ],
)
def test_no_room_for_the_last_step(
    run: Run,
    rows: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    name: str,
) -> None:
    """Renaming is where the file takes its name: the one that had it stays."""
    target = tmp_path / name
    before = b"" if name == "page" else model.read_bytes() if name == "model.safetensors" else b"before"
    if before:
        target.write_bytes(before)
    rename = Path.replace

    def full(self: Path, to: Path) -> Path:
        if "m.safetensors" in str(to):
            return rename(self, to)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    said = run(*words_for(command, rows, model, target))
    assert said.code == 1
    assert str(target) in said.err
    assert "No space left on device" in said.err
    assert not before or target.read_bytes() == before
    kept = {name} if before else set()
    assert {path.name for path in tmp_path.iterdir()} - {"m.safetensors"} == kept


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a disk")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("command", ["encode --stream", "encode --no-stream", "reconstruct --stream"])
@pytest.mark.parametrize("name", ["codes.npy", "codes.csv", "codes.parquet"])
def test_a_disk_that_is_really_full(
    run: Run, rows: Path, model: Path, small_disk: Path, command: str, name: str
) -> None:
    target = small_disk / name
    target.write_bytes(b"before")
    said = run(*words_for(command, rows, model, target))
    assert said.code == 1
    assert str(target) in said.err
    assert "Traceback" not in said.err
    assert target.read_bytes() == b"before"
    assert [path.name for path in small_disk.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.parquet", "x.png", "x"])
def test_a_full_disk_is_told_with_the_name_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(**_: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/strange")

    monkeypatch.setattr(output.tempfile, "mkdtemp", full)
    with pytest.raises(OSError, match="No space left") as caught:
        output.write_samples(tmp_path / name, np.zeros((2, 3, 3)))
    assert caught.value.filename == str(tmp_path / name)


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_file_is_written_leaves_nothing_beside_it(tmp_path: Path, number: int) -> None:
    target = tmp_path / "x.csv"
    target.write_text("before")

    def stopped(place: Path) -> None:
        place.write_text("half")
        assert signal.getsignal(number) is not signal.SIG_DFL  # that would end the tests
        os.kill(os.getpid(), number)
        time.sleep(5)

    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # in the background of a shell Ctrl-C is ignored
    try:
        with pytest.raises(KeyboardInterrupt), output.aside(target) as place:
            stopped(place)
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
    assert target.read_text() == "before"
