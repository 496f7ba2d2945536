"""What a command says, and where: results on stdout; notes, warnings and errors on stderr."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 140
"""Columns of a table that goes into a file or a pipe, where there is no terminal to measure."""


@dataclass(frozen=True)
class Output:
    """How much a command says; every command has these options.

    Parameters
    ----------
    quiet : bool
        Say nothing but errors.
    as_json : bool
        Print the result as one JSON object, and nothing else on stdout.
    debug : bool
        Show the traceback of an error.
    """

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", envvar="DIABOLO_DEBUG", help="Show the traceback of an error.")
    ] = False

    def note(self, text: str) -> None:
        """Say something on the way, on stderr."""
        if not self.quiet:
            typer.echo(text, err=True)

    def error(self, text: str) -> None:
        """Say why the command failed, on stderr, whatever the options are."""
        typer.echo(f"error: {text}", err=True)

    def result(self, payload: Mapping[str, Any], show: Callable[[Console], None]) -> None:
        """Print the result: ``payload`` as JSON where that was asked for, else what ``show`` prints."""
        if self.as_json:
            typer.echo(json.dumps(plain(payload), indent=2, allow_nan=False))
        elif not self.quiet:
            show(console())


def console(stderr: bool = False) -> Console:
    """Return a console that prints text as it is: brackets in a file's name are no markup."""
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _PIPE_WIDTH
    return made


def print_table(
    to: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    """Print rows under their column names; columns of numbers are aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(columns):
        numeric = bool(cells) and all(_looks_numeric(row[index]) for row in cells)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*[Text(cell) for cell in row])
    to.print(table)


def print_pairs(to: Console, pairs: Iterable[tuple[str, str]], title: str | None = None) -> None:
    """Print names and values in two columns without a frame."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name, style="dim"), Text(value))
    if title:
        to.print(Text(title, style="bold"))
    to.print(grid)


def number(value: float | None) -> str:
    """Return a number as a person reads it: four digits that mean something.

    >>> number(3.14159), number(123456.7), number(0.000012), number(None)
    ('3.142', '123,457', '1.2e-05', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a time as a person reads it.

    >>> duration(4.2), duration(75), duration(7260)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plain(value: Any) -> Any:
    """Return ``value`` made of what JSON knows; numbers that are not finite become null.

    >>> plain({"a": (1, float("nan")), "b": PurePath("x.npy")})
    {'a': [1, None], 'b': 'x.npy'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's arrays and scalars, without importing numpy
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _looks_numeric(cell: str) -> bool:
    text = cell.strip().replace(",", "").rstrip("%s ")
    if text in ("", "-"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True
