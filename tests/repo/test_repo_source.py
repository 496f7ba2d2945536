"""What holds for the source as a whole: what is public, documented, quick to import, short."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import diabolo
from diabolo import errors, parts

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/diabolo"
FILES = sorted(SOURCE.rglob("*.py"))


def module_name(path: Path) -> str:
    words = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


# ------------------------------------------------------------------------------------------------ public
def test_all_is_what_can_be_had() -> None:
    assert len(set(diabolo.__all__)) == len(diabolo.__all__)
    assert dir(diabolo) == sorted(diabolo.__all__)
    for name in diabolo.__all__:
        assert getattr(diabolo, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Autoencodr'"):
        _ = diabolo.Autoencodr  # type: ignore[attr-defined]


def test_all_names_every_estimator() -> None:
    estimators = {name for name, _ in diabolo.all_estimators()}
    others = {"__version__", "all_estimators", "load"}
    assert set(diabolo.__all__) == estimators | others
    assert set(import_module("diabolo.estimators").__all__) == estimators | {"load"}


@pytest.mark.parametrize("module", ["estimators", "parts", "data", "report", "training", "cli"])
def test_all_of_the_folders_is_exact(module: str) -> None:
    """What an ``__init__`` imports for others is what its ``__all__`` names."""
    loaded = import_module(f"diabolo.{module}")
    imported = {
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert imported == set(loaded.__all__)


def public_objects() -> Iterator[tuple[str, object]]:
    for name, estimator in diabolo.all_estimators():
        yield name, estimator
    yield "all_estimators", diabolo.all_estimators
    yield "load", diabolo.load
    for name in parts.__all__:
        yield f"parts.{name}", getattr(parts, name)
    for name, value in vars(errors).items():
        if inspect.isclass(value) and value.__module__ == errors.__name__:
            yield f"errors.{name}", value


@pytest.mark.parametrize(("name", "thing"), [pair for pair in public_objects() if callable(pair[1])])
def test_everything_public_is_documented(name: str, thing: object) -> None:
    """Including every public method, a dataclass's generated signature not counting as a docstring."""
    text = (vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""
    assert text.strip(), name
    assert not text.startswith(f"{name.split('.')[-1]}("), f"{name} has only the dataclass's own text"
    if inspect.isclass(thing):
        for method, value in inspect.getmembers(thing, inspect.isfunction):
            if not method.startswith("_") and value.__module__.startswith("diabolo"):
                assert inspect.getdoc(value), f"{name}.{method}"


def test_every_parameter_is_described() -> None:
    from dataclasses import fields

    from diabolo.parameters import Parameters, help_of

    for field in fields(Parameters):
        assert help_of(field.name).endswith("."), field.name
        for name, estimator in diabolo.all_estimators():
            assert f"\n{field.name} : " in (estimator.__doc__ or ""), name


# ------------------------------------------------------------------------------------------------ source
def test_import_loads_nothing_heavy() -> None:
    script = "import sys, diabolo; print(sorted({'torch', 'sklearn', 'scipy', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_fit_loads_nothing_that_it_does_not_use() -> None:
    """Torch imports its compiler and sympy at the first use of what looks harmless: a second or two."""
    script = (
        "import sys, numpy as np, diabolo\n"
        "X = np.random.default_rng(0).normal(size=(64, 6))\n"
        "diabolo.DeepAutoencoder(epochs=1).fit(X).partial_fit(X).score_samples(X)\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy', 'matplotlib', 'sklearn.mixture'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short_or_say_why_not(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > 400:
        docstring = re.split(r'"""', text, maxsplit=2)[1]
        assert re.search(r"(?i)(longer than|over) 400 lines|long because", docstring), f"{lines} lines"


@pytest.mark.parametrize("path", [p for p in FILES if ">>>" in p.read_text("utf-8")], ids=name_of)
def test_doctests(path: Path) -> None:
    found = doctest.testmod(import_module(module_name(path)))
    assert found.attempted > 0
    assert found.failed == 0


def test_there_are_no_places_of_one_machine_in_the_files() -> None:
    """Paths of a home or a work folder are of no use to a reader elsewhere."""
    for path in [*FILES, *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "Makefile"]:
        assert not re.search(r"/(home|root|Users|work)/\w", path.read_text(encoding="utf-8")), path
