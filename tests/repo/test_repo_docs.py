"""What README, CONTRIBUTING and docs/ say is so: tables, commands, code, links."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from sklearn.base import clone
from sklearn.datasets import load_digits

from diabolo.cli.app import app
from diabolo.kinds import BY_NAME, KINDS

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/glossary.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[str]:
    lines = "".join(block for page in PAGES for block in blocks((ROOT / page).read_text("utf-8"), "bash"))
    return [line.split("#")[0].strip() for line in lines.splitlines() if line.strip()]


def execute(code: str, page: str) -> dict[str, Any]:
    """Run a page's code and return what it defines; this file's own __future__ imports stay out of it."""
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(code, page, "exec", dont_inherit=True), space)  # noqa: S102 - our own page
    return space


def digits() -> Any:
    return load_digits().data[:200] / 16


# ------------------------------------------------------------------------------------------------ README
def test_the_table_of_kinds_is_that_of_the_code() -> None:
    found = re.findall(r"^\| (\w+) \| `(\w+)` \| (.+) \| (.+) \| (\d{4}) \|$", README, flags=re.MULTILINE)
    assert found == [(k.name, k.estimator, k.summary, k.paper, str(k.year)) for k in KINDS]


def test_readme_has_the_commands_of_the_first_run() -> None:
    assert "diabolo train mnist --kind deep --latent-dim 30" in commands()
    assert {"make demo", "make test"} <= set(commands())


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("diabolo ")])
def test_every_command_shown_is_valid(line: str) -> None:
    """Parsed as the command line parses it, without being run."""
    group: Any = typer.main.get_command(app)
    name, *words = shlex.split(line)[1:]
    while hasattr(group.commands[name], "commands"):
        group, (name, *words) = group.commands[name], words
    context = group.commands[name].make_context(name, words)
    kinds = context.params.get("kinds") or context.params.get("kind") or "deep"
    assert set(kinds.split(",")) <= set(BY_NAME)


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_every_make_target_shown_exists(line: str) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    assert line.split()[1] in targets


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, detection = blocks(README, "python")
    short = code.replace("random_state=0", "random_state=0, epochs=2")
    assert short != code
    execute(short, "README.md")
    assert "(1797, 10)" in capsys.readouterr().out
    quick = "random_state=0, estimator=DeepAutoencoder(epochs=2))"
    short = "from diabolo import DeepAutoencoder\n" + detection.replace("random_state=0)", quick)
    assert quick in short
    execute(short, "README.md")


# ------------------------------------------------------------------------------------------ CONTRIBUTING
def marked(marker: str) -> str:
    return blocks(CONTRIBUTING.split(f"<!-- {marker} -->")[1], "python")[0]


def test_a_new_kind_is_fifteen_lines_and_works() -> None:
    code = marked("new kind")
    assert len(code.strip().splitlines()) <= 15
    kind = execute(code, "CONTRIBUTING.md")["RobustAutoencoder"]
    assert "Parameters\n" in kind.__doc__
    model = clone(kind(latent_dim=8, epochs=2, random_state=0).set_params(corruption="salt_and_pepper:0.2"))
    assert model.get_params()["loss"] == "huber:0.5"
    X = digits()
    model.fit(X)
    assert str(model.recipe_.corruption) == "salt_and_pepper(fraction=0.2)"
    assert model.recipe_.loss.delta == 0.5
    assert len(model.recipe_.architecture.hidden_dims) == 2
    assert model.transform(X).shape == (200, 8)
    assert np.isfinite(model.reconstruct(X)).all()


def test_a_new_part_is_known_by_name() -> None:
    """In a process of its own: the part would stay known to the tests that follow."""
    script = marked("new part") + (
        "\nimport numpy as np\nfrom diabolo import Autoencoder\n"
        "X = np.random.default_rng(0).random((60, 6))\n"
        "model = Autoencoder(corruption='dimming:0.25', latent_dim=2, epochs=1, random_state=0).fit(X)\n"
        "print(model.recipe_.corruption)\n"
        "Autoencoder(corruption='dimming:1.5').fit(X)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "dimming(low=0.25)\n"
    assert "low of Dimming must be a number >= 0 and < 1; got 1.5" in done.stderr


# -------------------------------------------------------------------------------------------------- docs
@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_map_of_the_source_is_complete() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    source = ROOT / "src/diabolo"
    named = set(re.findall(r"\b[a-z0-9_]+\.py\b", text)) | set(re.findall(r"\b[a-z]+(?=/ )", text))
    existing = {path.name for path in source.rglob("*") if "__pycache__" not in path.parts}
    assert named <= existing
    top = {path.relative_to(source).parts[0] for path in source.rglob("*.py")} - {"__init__.py"}
    assert top <= named


@pytest.mark.filterwarnings("ignore::diabolo.errors.CollapseWarning")
@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EPOCHS", "2")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out
