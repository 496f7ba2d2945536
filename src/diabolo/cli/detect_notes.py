"""What is said of a table's columns before a detector learns them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from diabolo.cli.console import Output, counted
from diabolo.errors import InvalidDataError
from diabolo.names import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diabolo.data.columns import Columns

    Array = NDArray[Any]

_MOST_LEVELS = 50  # that a detector tells apart in one column
_NUMBERS = 0.5  # share of numbers among a text column's cells from which on words in it look like slips


def tell_columns(out: Output, found: Columns, codes: set[str | int], numbers: Array | None = None) -> None:
    """Say how columns are taken, and which of them will do no good; ``numbers`` are those of the rows.

    Raises
    ------
    InvalidDataError
        For a column of numbers with decimal commas: as categories they would be of no use.
    """
    import numpy as np

    from diabolo.data.text import POINT, with_comma

    places = np.arange(len(found)) if numbers is None else numbers

    kinds: Counter[str] = Counter()
    holes: list[str] = []
    remarks: list[str] = []
    for name, values in found.features.items():
        cells = [cell for cell in values.tolist() if cell is not None and cell == cell]
        if len(cells) < len(values):
            holes.append(name)
        if values.dtype != object and name not in codes:
            kinds["numbers"] += 1
            if len(cells) == len(values) > 2 and not np.ptp(values - places):
                remarks.append(
                    f"column {name!r} counts the rows: later rows lie beyond it and look like anomalies. "
                    f"Leave it out with --drop {name!r}, unless they are to be"
                )
            continue
        truth = bool(cells) and isinstance(cells[0], bool) and name not in codes
        kinds["truth values" if truth else "categories"] += 1
        levels = Counter(cells)
        commas = [cell for cell in levels if isinstance(cell, str) and with_comma(cell)]
        if (
            name not in codes
            and commas
            and len(commas) + _numbers_among(Counter(levels.keys())) == len(levels)
        ):
            raise InvalidDataError(
                f"column {name!r} of {found.name} must hold numbers with a decimal point, or categories; got "
                f"{commas[0]!r}. {POINT}; if they are categories, give --categorical {name!r}."
            )
        if name in found.odd and not truth and _numbers_among(levels) > _NUMBERS * len(cells):
            cell, row = found.odd[name]
            remarks.append(
                f"column {name!r} is taken as categories, since row {row} (rows count from 0) holds {cell!r} "
                "among numbers. Correct such cells, or leave them empty, to have it taken as numbers"
            )
        elif len(levels) > _MOST_LEVELS and len(levels) > 0.9 * len(cells):
            remarks.append(
                f"column {name!r} holds another value in nearly every row, and tells next to nothing as "
                f"categories. Leave it out with --drop {name!r}, or turn it into numbers"
            )
        elif len(levels) > _MOST_LEVELS:
            remarks.append(
                f"column {name!r} has {len(levels):,} categories: all but the {_MOST_LEVELS} most frequent "
                "count as one"
            )
    told = ", ".join(f"{n} of {kind}" for kind, n in kinds.items())
    missing = f"; cells are missing in {quoted(holes)}, which is learned too" if holes else ""
    out.note(f"{found.name}: {counted(len(found), 'row')}, columns: {told}{missing}")
    for remark in remarks:
        out.note(f"{found.name}: {remark}")


def _numbers_among(levels: Counter[Any]) -> int:
    from diabolo.data.text import parse

    return sum(n for cell, n in levels.items() if not isinstance(cell, str) or parse([cell])[1] is None)
