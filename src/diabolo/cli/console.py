"""What a command says, and where: results on stdout; notes, warnings and errors on stderr."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

STOPPED = {
    "epochs": "the last epoch",
    "patience": "its patience, no epoch having been better",
    "interrupt": "Ctrl-C or SIGTERM",
}
"""What ended a training, in words."""

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
            typer.echo(to_json(payload))
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
    to: Console,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    bold: Container[tuple[int, int]] = (),
) -> None:
    """Print rows under their column names; columns of numbers are aligned to the right.

    ``bold`` holds (row, column) of the cells to print in bold.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.pad_edge, table.show_edge, table.padding = False, False, (0, 1, 0, 0)
    for index, name in enumerate(columns):
        numeric = bool(cells) and all(_looks_numeric(row[index]) for row in cells)
        side: Literal["right", "left"] = "right" if numeric else "left"
        longest = max((len(row[index]) for row in cells), default=0)
        is_text = any(" " in row[index] for row in cells) and not numeric
        # Only running text is wrapped; a name or a number that is cut in two reads as two.
        heading = name if is_text else "\n".join(wrap(name, max(longest, *map(len, name.split()))))
        table.add_column(Text(heading), justify=side, overflow="fold", no_wrap=not is_text)
    for i, row in enumerate(cells):
        table.add_row(*[Text(cell, style="bold" if (i, j) in bold else "") for j, cell in enumerate(row)])
    to.print(table)


def table_width(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Return the narrowest that a table can be with no cell and no word of a heading broken.

    >>> table_width(["kind", "squared error"], [["deep", "2.1"]])
    13
    """
    widths = [max(len(word) for word in name.split()) for name in columns]
    for row in rows:
        widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
    return sum(widths) + 2 * max(len(widths) - 1, 0)


def print_pairs(to: Console, pairs: Iterable[tuple[str, str]], title: str | None = None) -> None:
    """Print names and values in two columns; a long value, a path say, is left whole for copying."""
    from rich.text import Text

    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    if title:
        to.print(Text(title, style="bold"))
    for name, value in listed:
        to.print(Text.assemble((name.ljust(width), "dim"), "  ", value), soft_wrap=True)


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


def counted(n: int, what: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "epoch"), counted(20, "epoch")
    ('1 epoch', '20 epochs')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def to_json(payload: Mapping[str, Any]) -> str:
    """Return ``payload`` as JSON that any reader takes: no NaN, no types of numpy."""
    return json.dumps(plain(payload), indent=2, allow_nan=False)


def plain(value: Any) -> Any:
    """Return ``value`` made of what JSON knows; numbers that are not finite become null.

    >>> from pathlib import PurePath
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
    text = cell.strip().removeprefix("<").replace(",", "").rstrip("%s ")
    if text in ("", "-", "–"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True
