"""What has to be quick: the help pages, and what is imported for them."""

from __future__ import annotations

import gc
import re
import resource
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import Run, environment

from diabolo.cli.app import COMMANDS, app
from diabolo.kinds import KINDS
from diabolo.loading import touched
from diabolo.parameters import Parameters

HEAVY = ("torch", "sklearn", "numpy", "scipy", "matplotlib", "pandas", "pyarrow", "PIL", "safetensors")


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["detect", "--help"], ["detect", "fit", "--help"], ["kinds"]]
)
def test_nothing_heavy_is_imported_for(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from diabolo.cli import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "except SystemExit as left:\n"
        "    assert not left.code\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_collection_is_left_as_it_was(
    collecting: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "looks.py").write_text("import gc\nseen = gc.isenabled()\n")
    (tmp_path / "fails.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.isenabled()
    gc.enable() if collecting else gc.disable()
    try:
        assert touched("looks", "seen") is False
        with pytest.raises(ZeroDivisionError):
            touched("fails", "anything")
        assert gc.isenabled() == collecting
    finally:
        gc.enable() if before else gc.disable()
        sys.modules.pop("looks")


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_answers_at_once(words: list[str]) -> None:
    """0.25 s of the processor, whoever else wants it; the best of some tries, with room for a slow one."""
    seconds = []
    for _ in range(5):
        start = _seconds_of_children()
        subprocess.run(
            [sys.executable, "-m", "diabolo", *words], env=environment(), capture_output=True, check=True
        )
        seconds.append(_seconds_of_children() - start)
        if seconds[-1] < 0.3:
            break
    assert min(seconds) < 0.6


def test_help_names_every_command(run: Run) -> None:
    said = run("--help")
    assert said.code == 0
    for command in COMMANDS:
        assert f" {command.__name__} " in said.out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_has_a_help_page(run: Run, command: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = run(command.__name__, "--help")
    assert said.code == 0
    assert "--quiet" in said.out
    assert "--json" in said.out
    assert "Parameters ---" not in said.out


@pytest.mark.parametrize("command", ["train", "compare", "diagram"])
def test_every_parameter_is_an_option(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = run(command, "--help").out
    for spec in fields(Parameters):
        if spec.name != "verbose":
            assert f"--{spec.name.replace('_', '-')} " in said.replace("│", " ")


def test_no_command_shows_the_help_and_is_wrong_usage(run: Run) -> None:
    said = run()
    assert said.code == 2
    assert "Usage: diabolo" in said.out


def test_version(run: Run) -> None:
    import diabolo

    assert run("--version").out == f"diabolo {diabolo.__version__}\n"


def test_module_and_entry_point_are_the_same(process: Run) -> None:
    said = process("kinds", "--json")
    assert said.code == 0
    assert [kind["name"] for kind in said.json["kinds"]] == [kind.name for kind in KINDS]


def test_kinds_as_a_table(run: Run) -> None:
    said = run("kinds")
    for kind in KINDS:
        assert kind.estimator in said.out
        assert str(kind.year) in said.out


def test_kinds_quiet(run: Run) -> None:
    assert run("kinds", "--quiet") == run("kinds", "-q")
    assert run("kinds", "--quiet").out == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "digits", "--latnt-dim", "3"], "--latent-dim"),
        (["encode", "model.safetensors"], "Missing argument 'DATA'"),
        (["train", "digits", "--kind", "depe"], "Did you mean 'deep'"),
        (
            ["train", "digits", "--latent-dim", "three"],
            "latent_dim must be a whole number or none; got 'three'",
        ),
        (["train", "digits", "--latent-dim", "2.5"], "latent_dim must be a whole number or none; got '2.5'"),
        (["train", "digits", "--hidden-dims", "5,x"], "hidden_dims must be whole numbers joined by commas"),
        (["train", "digits", "--dropout", "none"], "dropout must be a number; got 'none'"),
        (["train", "digits", "--test-fraction", "1"], "test_fraction must be a number from 0 up to"),
        (["train", "digits", "--image-size", "8"], "image_size must be a height and a width; got '8'"),
        (["train", "digits", "--image-size", "8,b"], "image_size must be whole numbers from 1 up"),
        (["train"], "DATA must be given"),
        (["compare", "digits", "--kinds", "deep,spars"], "Did you mean 'sparse'"),
        (["diagram", "-o", "x.svg"], "must be given a model file or a kind; got neither"),
        (["diagram", "-o", "x.gif", "--kind", "deep"], "--output must end in one of .svg, .png; got 'x.gif'"),
        (["sample", "m.safetensors", "-n", "0", "-o", "x.npy"], "n must be a whole number from 1 up; got 0"),
        (
            ["detect", "map", "m", "x", "-o", "m.csv"],
            "must be a folder, whose name has no suffix; got 'm.csv'",
        ),
        (["encode", "m", "digits", "-o", "x.npz"], "--output must end in one of .npy, .csv, .parquet"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(run: Run, words: list[str], text: str) -> None:
    said = run(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert text in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["kinds"], ["kinds", "--json"]])
def test_an_output_that_takes_nothing_is_one_sentence(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "diabolo", *words],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: What is read or written")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_help_names_all_that_can_be_read() -> None:
    from diabolo.cli.options import DATA_HELP
    from diabolo.data.catalogue import known_names
    from diabolo.data.loading import _TABLES

    assert all(word in DATA_HELP for word in [*known_names(), *_TABLES, ".npy", ".npz", "idx", "picture"])


def test_the_help_names_all_that_a_config_file_may_hold() -> None:
    from diabolo.cli.train import _SETTINGS

    command: Any = typer.main.get_command(app)
    text = next(p.help for p in command.commands["train"].params if p.name == "config")
    assert all(re.search(rf"\b{name}\b", text) for name in _SETTINGS)
