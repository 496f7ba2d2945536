"""Tables as text: their separator, the names of their columns, their rows some thousand at a time."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diabolo.data.dataset import Array
from diabolo.data.files import opened
from diabolo.errors import DataFileError

if TYPE_CHECKING:
    from _csv import Reader

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "?"})
BLOCK = 10_000  # rows parsed at a time: text takes some ten times the memory of its numbers
_SNIFFED = 20  # rows that the separator is judged by
_COMMA = re.compile(r"\s*[+-]?\d+(\.\d{3})*,\d+([eE][+-]?\d+)?\s*")
POINT = (
    "Write its numbers with a decimal point and without marks of thousands, for example by pandas: "
    "read_csv(..., decimal=',') or read_csv(..., thousands=','), as the comma is meant, and to_csv(...)"
)


@contextmanager
def text_table(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a text table; what its bytes and its quotes break is said in words."""
    with opened(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            yield text
        except UnicodeDecodeError as error:
            raise DataFileError(
                f"{path} must be text in UTF-8; got other bytes at position {error.start}. "
                "Save it as UTF-8, or give it the suffix of its true kind."
            ) from error
        except csv.Error as error:
            raise DataFileError(
                f"{path} must be a table as text; got one that the parser refuses ({error}). "
                "Check its quotes and its separators."
            ) from error
        finally:
            text.detach()  # the stream is closed by who opened it


@dataclass(frozen=True)
class Head:
    """What the first lines of a text table say.

    ``names`` are those of all columns, made up where ``has_names`` is false; ``before`` counts the lines
    above the first row.
    """

    delimiter: str
    names: list[str]
    has_names: bool
    before: int

    def rows(self, text: io.TextIOWrapper) -> Reader:
        """Return a reader of the rows below."""
        text.seek(0)
        reader = csv.reader(text, delimiter=self.delimiter)
        if self.has_names:
            next(row for row in reader if row)
        return reader


def head_of(text: io.TextIOWrapper, path: Path) -> Head:
    """Return what the first lines say, for example whether they name the columns."""
    delimiter = _delimiter(text)
    text.seek(0)
    reader = csv.reader(text, delimiter=delimiter)
    first = next((row for row in reader if row), None)
    if first is None:
        raise DataFileError(f"{path} must hold data; got blank lines alone. Fetch or write it again.")
    cells = [cell.strip() for cell in first]
    has_names = not any(_is_number(cell) or with_comma(cell) for cell in cells) and not all(
        is_missing(c) for c in cells
    )
    names = cells if has_names else [f"column_{i}" for i in range(1, len(cells) + 1)]
    refuse_twins(names, path)
    return Head(delimiter, names, has_names, reader.line_num if has_names else 0)


def by_blocks(reader: Reader, width: int, path: Path) -> Iterator[tuple[list[tuple[str, ...]], list[int]]]:
    """Return the cells of each column, and the line of each row, of some thousand rows at a time.

    Raises
    ------
    DataFileError
        When a row has another number of cells than ``width``, or there is none.
    """
    filled = (row for row in reader if row)
    n = 0
    while True:
        rows: list[list[str]] = []
        lines: list[int] = []
        for row in islice(filled, BLOCK):
            if len(row) != width:
                raise DataFileError(
                    f"Every row of {path} must have {width} cells, as the first has; "
                    f"got {len(row)} in line {reader.line_num}. Check the quotes and separators of that line."
                )
            rows.append(row)
            lines.append(reader.line_num)
        if not rows:
            break
        yield list(zip(*rows, strict=True)), lines
        n += len(rows)
    if not n:
        raise no_row(path)


def no_row(path: Path) -> DataFileError:
    """Return the error for a table without rows."""
    return DataFileError(f"{path} must hold a row of data; got the names of its columns alone. Add rows.")


def refuse_nameless(kept: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Raise where a feature has no name."""
    if "" in kept:
        raise DataFileError(
            f"Every column of {path} must have a name; got none for column {names.index('') + 1}. "
            "Name it, or leave the column out."
        )


def _delimiter(text: Iterable[str]) -> str:
    """Return the separator that cuts the first rows into the same number of cells, more than one.

    Comma comes last: "1,5;2,5" is cut evenly by both, and only the semicolon is meant.
    """
    head = list(islice(text, _SNIFFED))
    for delimiter in "\t;,":
        widths = {len(row) for row in csv.reader(head, delimiter=delimiter) if row}
        if len(widths) == 1 and widths != {1}:
            return delimiter
    # Rows of different lengths: take the one that cuts the first row, so the error can name the line.
    first = next((line for line in head if line.strip()), "")
    return max(",;\t", key=first.count)


def is_missing(cell: str) -> bool:
    """Return whether a cell says that there is no value."""
    return cell.strip().casefold() in MISSING


def _is_number(cell: str) -> bool:
    return not is_missing(cell) and parse([cell])[1] is None


def with_comma(cell: str) -> bool:
    """Return whether a cell is a number with a decimal comma, as no table here may have.

    >>> with_comma("3,14"), with_comma("1.234,5"), with_comma("1,2,3")
    (True, True, False)
    """
    return _COMMA.fullmatch(cell) is not None


def parse(cells: Sequence[str]) -> tuple[Array, int | None]:
    """Return the numbers in ``cells``, or the position of the first cell that is none."""
    plain = "_" not in "".join(cells)  # Python reads 1_000 as a number; a table does not mean it
    if plain:
        try:
            return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells)), None
        except ValueError:
            pass  # a missing cell or a word: find it below
    values = np.full(len(cells), math.nan)
    for i, cell in enumerate(cells):
        if not is_missing(cell):
            try:
                if "_" in cell:
                    return values, i
                values[i] = float(cell)
            except ValueError:
                return values, i
    return values, None


def refuse_twins(names: Sequence[str], path: Path) -> None:
    """Raise when two columns have one name."""
    twin = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if twin is not None:
        raise DataFileError(
            f"Names of columns in {path} must differ; got {twin!r} twice. Rename one of them."
        )
