"""How one column of a table becomes numbers between which a network can tell, and comes back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from diabolo.applications.frames import Cell, Column, Doubles, plain_cells
from diabolo.errors import InvalidDataError

OTHER = "<other>"
_KNEE = 10.0  # deviations up to which a number is only scaled; beyond it counts by its logarithm
_ROUNDS = 100  # of winsorising; two are enough for nearly every column
_MOST = 1e30  # deviations that are told apart
_FAR = _KNEE * (1 + math.log(_MOST / _KNEE))
_BEYOND = 10.0  # how far from its two values a binary column's number can count as
_LARGEST = float(np.finfo(np.float32).max)


class Coding(Protocol):
    """What every coding offers. ``kind`` and ``size`` are those of a block in the layout of ``Mixed``."""

    kind: ClassVar[str]

    @property
    def size(self) -> int:
        """How many values the column takes, without its indicator."""

    @property
    def names(self) -> list[str]:
        """What is added to the column's name for each value."""

    def encode(self, column: Column, *, strict: bool) -> Doubles:
        """Return (n, size), whatever where the value is missing; ``strict`` refuses what fit did not see."""

    def decode(self, values: Doubles) -> Doubles | list[Cell]:
        """Return what the values (n, size) stand for: numbers, or cells."""


@dataclass(frozen=True)
class Numeric:
    r"""A number: standardised robustly, its far tails drawn in, then to mean 0 and variance 1.

    .. math:: u = (v - c) / s, \qquad t(u) = u \text{ for } |u| \le 10,
              \text{ else } \operatorname{sign}(u)\, 10\,(1 + \ln(|u| / 10)), \qquad z = (t(u) - m) / d

    with c and s mean and standard deviation of the column winsorised: values further than 10 s from c are
    moved there, and both computed anew, until s falls by less than a hundredth. s is at least a tenth of the
    median deviation (of those that are not 0, for columns that are nearly always 0), and 1 for a constant
    column. m and d are mean and standard deviation of t(u) over the rows of fit. So a column without far
    tails is standardised as usual, a few huge values do not press the rest into a point, and a value a
    million deviations away counts as 125: far from all others, but not so far that it drowns the other
    columns. All of it is undone exactly.
    """

    kind: ClassVar[str] = "numeric"

    center: float = 0.0
    scale: float = 1.0
    mean: float = 0.0
    spread: float = 1.0

    @classmethod
    def fit(cls, numbers: Doubles) -> Numeric:
        """Choose the four by the numbers that are there."""
        known = numbers[~np.isnan(numbers)]
        if not len(known):
            return cls()
        center, scale = float(known.mean()), float(known.std())
        for _ in range(_ROUNDS):
            near = np.clip(known, center - _KNEE * scale, center + _KNEE * scale)
            last, center, scale = scale, float(near.mean()), float(near.std())
            if scale >= 0.99 * last:
                break
        away = np.abs(known - np.median(known))
        if away.any():
            scale = max(scale, float(np.median(away[away > 0])) / 10)
        if not away.any() or scale < np.finfo(np.float64).tiny:
            center, scale = float(known[0]), 1.0
        drawn = _drawn_in((known - center) / scale)
        spread = float(drawn.std())
        return cls(center, scale, float(drawn.mean()), spread if spread > 1e-12 else 1.0)

    @property
    def size(self) -> int:
        """One."""
        return 1

    @property
    def names(self) -> list[str]:
        """The column's own."""
        return [""]

    def encode(self, column: Column, *, strict: bool) -> Doubles:
        """Return (n, 1)."""
        with np.errstate(over="ignore"):
            u = np.clip((numbers_of(column) - self.center) / self.scale, -_MOST, _MOST)
        return ((_drawn_in(u) - self.mean) / self.spread)[:, None]

    def decode(self, values: Doubles) -> Doubles:
        """Return the numbers."""
        t = np.clip(values[:, 0] * self.spread + self.mean, -_FAR, _FAR)
        far = np.abs(t) > _KNEE
        u = np.where(far, np.sign(t) * _KNEE * np.exp(np.where(far, np.abs(t), _KNEE) / _KNEE - 1), t)
        return u * self.scale + self.center


def _drawn_in(u: Doubles) -> Doubles:
    far = np.maximum(np.abs(u), _KNEE)
    return np.where(np.abs(u) <= _KNEE, u, np.sign(u) * _KNEE * (1 + np.log(far / _KNEE)))


@dataclass(frozen=True)
class Binary:
    """One of two values: 0 for ``low``, 1 for ``high``. ``truth``: they are False and True."""

    kind: ClassVar[str] = "binary"

    low: float = 0.0
    high: float = 1.0
    truth: bool = False

    @classmethod
    def fit(cls, column: Column) -> Binary:
        """Take the two values of a column."""
        if is_truth(column):
            return cls(truth=True)
        numbers = numbers_of(column)
        known = np.unique(numbers[~np.isnan(numbers)])
        if set(known.tolist()) <= {0.0, 1.0}:
            return cls()
        if len(known) != 2:
            raise InvalidDataError(
                f"column {column.label} must hold two values to be binary; got {len(known)} different ones. "
                "Set its kind to 'numeric' or 'categorical'."
            )
        return cls(*known.tolist())

    @property
    def size(self) -> int:
        """One."""
        return 1

    @property
    def names(self) -> list[str]:
        """The column's own."""
        return [""]

    def encode(self, column: Column, *, strict: bool) -> Doubles:
        """Return (n, 1); a third number lies beyond 0 or 1, or between them."""
        numbers = numbers_of(column)
        wrong = ~(np.isnan(numbers) | (numbers == self.low) | (numbers == self.high))
        if strict and wrong.any():
            i = int(np.argmax(wrong))
            raise InvalidDataError(
                f"column {column.label} must be {self.low:g} or {self.high:g}, as in fit; got {numbers[i]:g} "
                f"in row {i}. Set unseen='other' to let it count as unusual."
            )
        shares = (numbers - self.low) / (self.high - self.low)
        return np.clip(shares, -_BEYOND, 1 + _BEYOND)[:, None]

    def decode(self, values: Doubles) -> Doubles | list[Cell]:
        """Return the likelier value."""
        likely = values[:, 0] >= 0.5
        if self.truth:
            return [bool(v) for v in likely]
        return np.where(likely, self.high, self.low)


@dataclass(frozen=True)
class Categorical:
    """One of several levels, each a value that is 1 where the cell is that level; the last is any other."""

    kind: ClassVar[str] = "categorical"

    levels: tuple[Cell, ...] = ()

    @classmethod
    def fit(cls, column: Column, most: int) -> Categorical:
        """Take the levels of a column; of more than ``most`` the most frequent, seen twice at least."""
        counts = Counter(cell for cell in plain_cells(column) if cell is not None)
        found = sorted(counts, key=_order)
        if len(found) > most:
            frequent = sorted(found, key=lambda level: -counts[level])[:most]
            kept = {level for level in frequent if counts[level] > 1}
            found = [level for level in found if level in kept]
        return cls(tuple(found))

    @property
    def size(self) -> int:
        """The levels and the other."""
        return len(self.levels) + 1

    @property
    def names(self) -> list[str]:
        """Each level's."""
        return [*(f"={level}" for level in self.levels), f"={OTHER}"]

    def encode(self, column: Column, *, strict: bool) -> Doubles:
        """Return (n, size)."""
        cells = plain_cells(column)
        place: dict[Cell, int] = {level: i for i, level in enumerate(self.levels)}
        codes = np.array([place.get(cell, len(self.levels)) for cell in cells], dtype=np.intp)
        self._check(column, cells, codes, strict)
        return np.eye(self.size)[codes]

    def _check(self, column: Column, cells: list[Cell], codes: Any, strict: bool) -> None:
        """Raise for an unseen level of another type, as of a file that was read otherwise, or for any."""
        types = {_type_of(level) for level in self.levels}
        for i in np.flatnonzero(codes == len(self.levels)).tolist():
            if cells[i] is None:
                continue
            if types and _type_of(cells[i]) not in types:
                raise InvalidDataError(
                    f"column {column.label} must hold {' or '.join(sorted(types))}, as in fit; got "
                    f"{cells[i]!r} in row {i}. Read the table as that of fit was read."
                )
            if strict:
                raise InvalidDataError(
                    f"column {column.label} must hold levels that fit kept; got {cells[i]!r} in row {i}. "
                    f"Set unseen='other' to let it count as unusual."
                )

    def decode(self, values: Doubles) -> list[Cell]:
        """Return the likeliest level, None for the other."""
        named: list[Cell] = [*self.levels, None]
        return [named[i] for i in values.argmax(1).tolist()]


KINDS: dict[str, type[Numeric] | type[Binary] | type[Categorical]] = {
    cls.kind: cls for cls in (Numeric, Binary, Categorical)
}


def _type_of(cell: Cell) -> str:
    if isinstance(cell, bool):
        return "truth values"
    return "text" if isinstance(cell, str) else "numbers"


def _order(cell: Cell) -> tuple[str, Any]:
    return _type_of(cell), cell


def is_truth(column: Column) -> bool:
    """Whether a column's cells that are there are all truth values, and one is."""
    if column.cells is None:
        return column.boolean
    return {type(cell) for cell in plain_cells(column)} - {type(None)} == {bool}


def numbers_of(column: Column) -> Doubles:
    """Return a column's numbers (n,), NaN where missing; of text what it says.

    Raises
    ------
    InvalidDataError
        For a cell that is no number, or one beyond single precision, naming its row.
    """
    numbers = column.numbers
    if numbers is None:
        cells = plain_cells(column)
        numbers = np.empty(len(cells))
        for i, cell in enumerate(cells):
            try:
                numbers[i] = math.nan if cell is None else float(cell)
            except ValueError:
                raise InvalidDataError(
                    f"column {column.label} must hold numbers; got {cell!r} in row {i}. Put None for what is "
                    "missing, or set its kind to 'categorical'."
                ) from None
    with np.errstate(invalid="ignore"):
        beyond = np.abs(numbers) > _LARGEST
    if beyond.any():
        i = int(np.argmax(beyond))
        raise InvalidDataError(
            f"column {column.label} must be finite and within +-{_LARGEST:.3g}; got {numbers[i]:g} in row "
            f"{i}. Correct it, or put None for what is missing."
        )
    return numbers


def kind_of(column: Column) -> str:
    """Return the kind that a column's type and values speak for.

    Truth values are binary, and so are numbers that are 0 and 1 and nothing else; other numbers are numeric;
    text and categories are categorical.

    Raises
    ------
    InvalidDataError
        For cells of several types, naming two.
    """
    if column.kept.dtype in ("category", "Categorical", "Enum"):
        return Categorical.kind
    if is_truth(column):
        return Binary.kind
    if column.cells is not None:
        firsts: dict[str, Cell] = {}
        for cell in plain_cells(column):
            if cell is not None:
                firsts.setdefault(_type_of(cell), cell)
        if len(firsts) > 1:
            one, other, *_ = firsts.values()
            raise InvalidDataError(
                f"column {column.label} must hold cells of one type; got {one!r} and {other!r}. Put None for "
                "what is missing, or set its kind to 'categorical' or 'numeric'."
            )
        if "numbers" not in firsts:
            return Categorical.kind
    numbers = numbers_of(column)
    known = np.unique(numbers[~np.isnan(numbers)])
    return Binary.kind if known.tolist() == [0.0, 1.0] else Numeric.kind


def fitted(column: Column, kind: str, most: int) -> Coding:
    """Return the coding of this kind that fits the column."""
    if kind == Numeric.kind:
        return Numeric.fit(numbers_of(column))
    return Binary.fit(column) if kind == Binary.kind else Categorical.fit(column, most)


def to_plain(coding: Coding) -> dict[str, Any]:
    """Return a coding as values that JSON holds."""
    settings = asdict(coding)  # type: ignore[call-overload]
    return {"kind": coding.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def from_plain(data: dict[str, Any]) -> Coding:
    """Return the coding that ``to_plain`` wrote down; ValueError or the like where it is none."""
    settings = dict(data)
    cls = KINDS[settings.pop("kind")]
    if cls is Categorical:
        return Categorical(tuple(cells_from(settings.pop("levels"), settings)))
    coding = cls(**settings)
    for name, value in settings.items():
        if type(value) is not (bool if name == "truth" else float) or not abs(value) <= _LARGEST:
            raise ValueError(f"{name} of a {coding.kind} column is {value!r}")
    if isinstance(coding, Numeric) and not (coding.scale > 0 and coding.spread > 0):
        raise ValueError("a numeric column's scale is not positive")
    if isinstance(coding, Binary) and not coding.low < coding.high:
        raise ValueError("a binary column's two values are not two")
    return coding


def cells_from(data: Any, rest: Sequence[str] | dict[str, Any] = ()) -> list[Cell]:
    """Return stored cells if they are text, truth values and finite numbers, each once."""
    if rest or not isinstance(data, list) or len(set(data)) != len(data):
        raise ValueError("stored levels are no list of different ones")
    for cell in data:
        if type(cell) not in (str, bool, int, float) or (type(cell) is float and not math.isfinite(cell)):
            raise ValueError(f"a stored level is {cell!r}")
    return data
