"""The application: which commands there are, and how one is run."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from diabolo.cli import (
    apply,
    compare,
    detect,
    detect_map,
    detect_score,
    evaluate,
    outcomes,
    page,
    show,
    train,
)
from diabolo.cli.console import Output

COMMANDS: tuple[Callable[..., None], ...] = (
    compare.demo,
    show.kinds,
    train.train,
    apply.encode,
    apply.decode,
    apply.reconstruct,
    apply.sample,
    evaluate.evaluate,
    show.info,
    show.diagram,
    compare.compare,
)

GROUPS: dict[str, tuple[str, tuple[Callable[..., None], ...]]] = {
    "detect": (
        "Find anomalies in tables and images: learn what is normal, score, explain, set the threshold.",
        (detect.fit, detect_score.score, detect_map.map, detect_score.threshold),
    ),
}

_SETTINGS: dict[str, Any] = {
    "add_completion": False,
    # typer's own costs the import of pydantic, a fifth of what a help page may take
    "add_help_option": False,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(
    name="diabolo",
    help="Autoencoders of every kind: train them, use them, compare them.",
    epilog="Begin with: diabolo demo",
    **_SETTINGS,
)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    help_: Annotated[bool, typer.Option("--help", "-h", help="Show this message and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"diabolo {version_of('diabolo')}")
        raise typer.Exit
    _help_page(context, help_)


def _group(
    context: typer.Context,
    help_: Annotated[bool, typer.Option("--help", "-h", help="Show this message and stop.")] = False,
) -> None:
    _help_page(context, help_)


def _help_page(context: typer.Context, help_: bool) -> None:
    """Show the help page of a group of commands where it was asked for, or no command was given."""
    if help_ or context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)  # with rich installed, get_help prints and returns nothing
        raise typer.Exit(0 if help_ else outcomes.USAGE)


def as_command(function: Callable[..., None]) -> Callable[..., None]:
    """Return ``function`` as typer takes it: its option groups spread out, its errors told.

    A parameter whose type is a dataclass is a group of options, one for each field: commands share
    groups instead of repeating options. One of the groups is the command's `Output`.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {}
    spread: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            spread[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)
            continue
        groups[name] = kind
        kinds_of_fields = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            spread[field.name] = inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=kinds_of_fields[field.name],
            )

    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        with outcomes.told(next(value for value in values.values() if isinstance(value, Output))):
            function(**values)

    run.__name__ = function.__name__
    run.__signature__ = inspect.Signature(list(spread.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in spread.items()}
    return run


def _help(function: Callable[..., None]) -> str:
    """Return the docstring with each paragraph on one line, for the help page to wrap."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for _function in COMMANDS:
    app.command(_function.__name__, help=_help(_function))(as_command(_function))

for _name, (_told, _functions) in GROUPS.items():
    _under = typer.Typer(help=_told, **_SETTINGS)
    _under.callback(invoke_without_command=True)(_group)
    for _function in _functions:
        _under.command(_function.__name__, help=_help(_function))(as_command(_function))
    app.add_typer(_under, name=_name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code, as ``start.main`` has it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    page.COMMAND.set(shlex.join(["diabolo", *words]))
    try:
        code = app(args=words, prog_name="diabolo", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = _fail("interrupted.")
    except BrokenPipeError:
        code = outcomes.FAILED
    except OSError as error:  # a help page that cannot be written
        code = _fail(outcomes.sentence(error))
    except Exception as error:
        # typer moved these classes between versions; what they can do stayed.
        if not hasattr(error, "format_message"):
            raise
        code = _fail(error.format_message(), error)
    sys.exit(code if code in (0, outcomes.USAGE) else outcomes.FAILED if code else 0)


def _fail(text: str, error: Any = None) -> int:
    """Say a usage error with the way to the help page; return the exit code."""
    context = getattr(error, "ctx", None)
    way_out = f" See '{context.command_path} --help'." if context is not None else ""
    typer.echo(f"error: {text}{way_out}", err=True)
    return int(getattr(error, "exit_code", outcomes.FAILED))
