"""Places where nothing can be written: told by every command in one sentence before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run

PROC = pytest.param("/proc", marks=pytest.mark.skipif(not Path("/proc/1").exists(), reason="needs /proc"))
COMMANDS = {
    "train": (".safetensors", "--output"),
    "train --report": ("", "--report"),
    "encode": (".npy", "--output"),
    "decode": (".csv", "--output"),
    "reconstruct": (".parquet", "--output"),
    "sample": ("", "--output"),
    "diagram": (".svg", "--output"),
    "compare": (".md", "--output"),
    "compare --report": ("", "--report"),
    "demo": ("", "--output"),
}


@pytest.fixture
def refused(run: Run, model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a command with its output at a place; return the one sentence that it says."""

    def never(*_: object, **__: object) -> None:
        pytest.fail("data were read before the place was looked at")

    monkeypatch.setattr("diabolo.cli.inputs.load_data", never)
    monkeypatch.chdir(tmp_path)

    def call(command: str, place: object) -> str:
        name = command.split()[0]
        given = {
            "train": [images],
            "decode": [model, images],
            "sample": [model],
            "diagram": [model],
            "compare": [images],
            "demo": [],
        }.get(name, [model, images])
        option = "--report" if "--report" in command else "-o"
        before = sorted(tmp_path.rglob("*"))
        said = run(name, *given, option, place)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert said.err.endswith(".\n")
        assert sorted(tmp_path.rglob("*")) == before
        return said.err.removeprefix("error: ").rstrip("\n")

    return call


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("folder", [PROC, "nowhere", "nowhere/deep", "file"])
def test_a_folder_that_takes_no_file(refused, tmp_path: Path, command: str, folder: str) -> None:
    (tmp_path / "file").touch()
    suffix, option = COMMANDS[command]
    said = refused(command, f"{folder}/x{suffix}")
    if folder == "/proc":
        assert said.startswith(f"{option} must be in a folder that you may write to; got '/proc' (")
        assert said.endswith("). Choose another folder.")
    else:
        rest = ", which is a file. Choose another place." if folder == "file" else ". Create it first."
        assert said == f"{option} must be in a folder that exists; got {folder!r}{rest}"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_is_of_the_other_kind(refused, tmp_path: Path, command: str) -> None:
    """A folder where a file should go, and the other way round."""
    suffix, option = COMMANDS[command]
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / "file").touch()
    said = refused(command, f"folder{suffix}" if suffix else "file")
    if suffix:
        assert said == f"{option} must name a file; got the folder 'folder{suffix}'. Add a file name to it."
    elif command == "sample":
        assert said.startswith(f"{option} must be a new or an empty folder")
    else:
        assert said == f"{option} must be a folder; got the file 'file'. Choose another name."


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_too_long(refused, command: str) -> None:
    suffix, option = COMMANDS[command]
    said = refused(command, "x" * 300 + suffix)
    assert said.startswith(f"{option} must be a path that can be looked up; got 'xxxx")
    assert "..." in said
    assert len(said) < 200


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct", "detect score"])
@pytest.mark.parametrize("which", ["data", "model", "in the folder of data"])
def test_what_is_read_is_not_replaced(
    run: Run, model: Path, images: Path, tmp_path: Path, command: str, which: str
) -> None:
    """Neither under its own name nor by a link."""
    parts = tmp_path / "parts"
    parts.mkdir()
    kept = {"model": tmp_path / "m.npy", "data": tmp_path / "x.npy", "part": parts / "0.npy"}
    for name, place in kept.items():
        place.write_bytes((model if name == "model" else images).read_bytes())
    before = [place.read_bytes() for place in kept.values()]
    link = tmp_path / "link.npy"
    link.symlink_to(kept["data"])
    target = {"data": link, "model": kept["model"]}.get(which, kept["part"])
    said = run(
        *command.split(), kept["model"], parts if target == kept["part"] else kept["data"], "-o", target
    )
    assert said.code == 2
    assert said.err == (
        f"error: --output must be another file than those that are read; got {str(target)!r}. Choose another "
        "name.\n"
    )
    assert [place.read_bytes() for place in kept.values()] == before
