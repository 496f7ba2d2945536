"""What the cells of one column hold, numbers, truth values or text, and these as arrays.

Cells come as texts, a sequence of str, or as values: an array of numbers, or of truth values and None.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.dataset import Array
from diabolo.data.tables import arrow_numbers, number_words, plain_arrow
from diabolo.data.text import is_missing, parse
from diabolo.errors import DataFileError

Cells = Sequence[str] | Array

MISSING, NUMBERS, TRUTH, TEXT = "missing", "numbers", "truth", "text"
_TRUTH = {"false": False, "true": True}
_LARGEST = float(np.finfo(np.float32).max)


class Look:
    """What is found out about a column whose cells come piece by piece.

    Attributes
    ----------
    kind : str
        "numbers", "truth" or "text"; "missing" where there is no cell yet.
    holes : bool
        Whether cells are missing.
    texts : bool
        Whether cells came as texts.
    counts : bool
        Whether its numbers are 0, 1, 2, ... or 1, 2, 3, ...
    odd : tuple (str, int) or None
        The first text that is no number, and its row.
    number, beyond : tuple (float, int) or None
        The first number, and the first that is not finite in single precision, and their rows.
    """

    def __init__(self) -> None:
        self.kind = MISSING
        self.holes = self.texts = False
        self.counts = True
        self.odd: tuple[str, int] | None = None
        self.number: tuple[float, int] | None = None
        self.beyond: tuple[float, int] | None = None
        self._base: float | None = None

    def add(self, cells: Cells, start: int) -> None:
        """Take note of some more cells, of which the first is in the row ``start``."""
        if isinstance(cells, np.ndarray):
            bad, values = None, cells
            if cells.dtype == object:
                holes = any(cell is None for cell in cells)
                kind = MISSING if all(cell is None for cell in cells) else TRUTH
        else:
            self.texts = True
            values, bad = parse(cells)
        if bad is not None:
            words = set(cells)
            there = {word.strip().casefold() for word in words if not is_missing(word)}
            holes, kind = any(map(is_missing, words)), TRUTH if there <= _TRUTH.keys() else TEXT
            self.odd = self.odd or (cells[bad].strip(), start + bad)
        elif values.dtype != object:
            missing = np.isnan(values)
            holes, kind = bool(missing.any()), MISSING if missing.all() else NUMBERS
            self._add_numbers(values, missing, start)
        self.counts &= kind == NUMBERS
        self.holes |= holes
        self.kind = joined(self.kind, kind)

    def _add_numbers(self, values: Array, missing: Array, start: int) -> None:
        if self.number is None and not missing.all():
            at = int(np.argmin(missing))
            self.number = float(values[at]), start + at
        beyond = np.abs(values) > _LARGEST
        if self.beyond is None and beyond.any():
            at = int(np.argmax(beyond))
            self.beyond = float(values[at]), start + at
        if self.counts:
            first = float(values[0]) - start
            self._base = first if self._base is None else self._base
            counted = np.arange(start, start + len(values)) + self._base
            self.counts = self._base in (0, 1) and np.array_equal(values, counted)


def joined(one: str, other: str) -> str:
    """Return what a column holds of which one part holds this and another that.

    >>> joined("missing", "truth"), joined("truth", "numbers")
    ('truth', 'text')
    """
    if MISSING in (one, other):
        return other if one == MISSING else one
    return one if one == other else TEXT


def typed(cells: Cells, kind: str, known: dict[str, str]) -> Array:
    """Return cells as what their column holds: numbers, NaN where missing, or objects, None there.

    Equal texts are one object, as ``known`` has them.
    """
    if isinstance(cells, np.ndarray):
        if kind == TEXT:
            return _words(cells)
        if (kind == TRUTH) != (cells.dtype == object):  # nothing but missing ones
            return np.full(len(cells), None if kind == TRUTH else np.nan)
        return cells if kind == TRUTH else cells.astype(np.float64)
    if kind in (NUMBERS, MISSING):
        values, bad = parse(cells)
        if bad is not None:  # where it was found to be one before
            raise DataFileError(f"a column of numbers must hold such; got {cells[bad]!r}")
        return values
    out = np.empty(len(cells), dtype=object)
    if kind == TRUTH:
        out[:] = [_TRUTH.get(cell.strip().casefold()) for cell in cells]
    else:
        out[:] = [
            None if is_missing(cell) else known.setdefault(cell.strip(), cell.strip()) for cell in cells
        ]
    return out


def _words(values: Array) -> Array:
    """Return numbers or truth values as a text table would have them, None where missing."""
    out = np.empty(len(values), dtype=object)
    if values.dtype == object:
        out[:] = [None if cell is None else str(cell).lower() for cell in values]
    else:
        out[:] = [word or None for word in number_words(values)]
    return out


def of_arrow(column: Any, name: str, path: Path) -> Cells:
    """Return the cells of a column of Arrow: texts, "" where missing, or values.

    Raises
    ------
    DataFileError
        For columns of neither numbers nor truth values nor text.
    """
    import pyarrow as pa

    column = plain_arrow(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return [cell or "" for cell in column.to_pylist()]
    if pa.types.is_boolean(column.type):
        out = np.empty(len(column), dtype=object)
        out[:] = column.to_pylist()
        return out
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise DataFileError(
            f"Column {name!r} of {path} must hold numbers, truth values or text; got the type {column.type}. "
            "Turn it into numbers (a date into the days since another), or leave the column out."
        )
    return arrow_numbers(column, name, 0, path)
