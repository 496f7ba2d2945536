"""Tables for detectors: columns of numbers as an array, mixed ones and such with missing cells as a frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs, streams
from diabolo.cli.console import Output, counted
from diabolo.cli.options import SourceOptions, StreamOptions
from diabolo.errors import InvalidDataError, InvalidParameterError, MissingExtraError
from diabolo.names import did_you_mean, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diabolo.applications import AnomalyDetector
    from diabolo.data import Dataset, Source
    from diabolo.data.columns import Columns

    Array = NDArray[Any]

_MOST_LEVELS = 50  # that a detector tells apart in one column
_NUMBERS = 0.5  # share of numbers among a text column's cells from which on words in it look like slips


@dataclass(frozen=True)
class ColumnOptions:
    """Which columns of a table are learned from, and as what."""

    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="COLUMN",
            help="A column of a table to leave out, such as a number of the row, a name or a date. Once for "
            "each column.",
        ),
    ] = None
    categorical: Annotated[
        list[str] | None,
        typer.Option(
            "--categorical",
            metavar="COLUMN",
            help="A column of numbers that are codes and no amounts. Once for each column. Text is "
            "categorical anyway.",
        ),
    ] = None


@dataclass(frozen=True)
class Table:
    """A table of mixed columns as ``Dataset`` has others: X (n, columns) is a pandas frame."""

    X: Any
    y: Array | None
    name: str
    left_out: tuple[str, ...]
    kinds: dict[str | int, str]
    X_test: None = field(default=None, init=False)
    y_test: None = field(default=None, init=False)
    feature_names: None = field(default=None, init=False)  # the frame has them

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The number of columns."""
        return (self.X.shape[1],)


def kept_columns(data: str, source: SourceOptions, options: ColumnOptions) -> list[str] | None:
    """Return the columns that are learned from where some are dropped, else None.

    Raises
    ------
    InvalidParameterError
        When DATA is no table, or has no such column.
    """
    given = {"--drop": options.drop or [], "--categorical": options.categorical or []}
    if not any(given.values()):
        return None
    from diabolo.data.columns import column_names, is_table

    path = Path(data).expanduser()
    if not is_table(path):
        option = next(option for option, names in given.items() if names)
        raise InvalidParameterError(
            f"{option} must be left out for {data}; got {quoted(given[option])}. It is meant for tables: "
            ".csv, .tsv, .parquet."
        )
    names = column_names(path, source.label)
    for option, wanted in given.items():
        for name in wanted:
            if name not in names:
                raise InvalidParameterError(
                    f"{option} must be the name of a feature's column in {path}; got {name!r}. "
                    f"{did_you_mean(name, names)}"
                )
    both = set(given["--drop"]) & set(given["--categorical"])
    if both:
        raise InvalidParameterError(
            f"a column must be dropped or be categorical; got {quoted(sorted(both))} as both. Leave one out."
        )
    return [name for name in names if name not in given["--drop"]] if options.drop else None


def load_rows(out: Output, data: str, source: SourceOptions, options: ColumnOptions) -> Dataset | Table:
    """Return DATA for a detector to be fitted on: mixed columns, or missing cells, make it a ``Table``."""
    from diabolo.data.tables import NotNumbersError

    columns = kept_columns(data, source, options)
    if not options.categorical:
        try:
            dataset = inputs.load_data(data, source, columns)
        except NotNumbersError:
            dataset = None
        if dataset is not None and columns is not None and dataset.feature_names is None:
            raise InvalidParameterError(
                f"--drop must go with a table whose columns have names; got {data}, which has none. Write "
                "them into its first line."
            )
        if dataset is not None and not (_has_holes(dataset) and _is_table(data)):
            return dataset
    kinds: dict[str | int, str] = dict.fromkeys(options.categorical or [], "categorical")
    found = _read(data, source, columns)
    table = _as_table(found, kinds)
    _tell(out, found, table, set(kinds))
    return table


def load_rows_for(
    out: Output, detector: AnomalyDetector, data: str, source: SourceOptions
) -> Dataset | Table:
    """Return DATA as a fitted detector takes it: of a table its columns, each read as in fit.

    Raises
    ------
    InvalidDataError
        When DATA is no table and the detector one of tables, or a column is not there.
    """
    encoder = detector.encoder_
    if encoder is None:
        return inputs.load_for(out, detector, data, source)
    if not _is_table(data):
        raise InvalidDataError(
            f"DATA must be a table (.csv, .tsv, .parquet) of {counted(detector.n_features_in_, 'column')}, "
            f"as the detector was fitted on; got {data}. Give such a table."
        )
    as_in_fit = _kinds_in_fit(detector)
    found = _read(data, source, list(as_in_fit), as_in_fit)
    inputs.note_left_out(out, found.name, found.left_out)
    for name, kind in as_in_fit.items():
        if kind == "truth":
            _refuse_words(found.features[name].tolist(), name, data)
    return _as_table(found)


def _read(
    data: str, source: SourceOptions, columns: Sequence[str] | None, as_in_fit: dict[str, str] | None = None
) -> Columns:
    from diabolo.data.columns import read_columns

    kinds = as_in_fit or {}
    return read_columns(
        Path(data).expanduser(),
        source.label,
        columns,
        texts={name for name, kind in kinds.items() if kind == "text"},
        numbers={name for name, kind in kinds.items() if kind == "numbers"},
    )


def _kinds_in_fit(detector: AnomalyDetector) -> dict[str, str]:
    """Return for each column of a fitted detector whether it held text, numbers, truth values, or any."""
    assert detector.encoder_ is not None
    found = {}
    for column in detector.encoder_.to_dict()["columns"]:
        coding = column["coding"]
        levels = coding.get("levels")
        if levels is None:
            found[str(column["name"])] = "truth" if coding.get("truth") else "numbers"
        elif levels:
            types = {type(level) for level in levels}
            kind = "truth" if types == {bool} else "numbers" if types <= {int, float} else "any"
            found[str(column["name"])] = "text" if isinstance(levels[0], str) else kind
        else:  # no level was seen twice
            found[str(column["name"])] = "numbers" if "float" in column["dtype"] else "text"
    return found


def _refuse_words(cells: list[Any], name: str, data: str) -> None:
    """Raise for a column of truth values in fit that is text now, naming the cell that makes it so."""
    from diabolo.data.text import parse

    if not any(isinstance(cell, str) for cell in cells):
        return  # truth values, or numbers in their place
    found: dict[str, list[int]] = {}
    for row, cell in enumerate(cells):
        if cell is not None:
            truth = cell.casefold() in ("true", "false")
            kind = "truth" if truth else "number" if parse([cell])[1] is None else "word"
            found.setdefault(kind, []).append(row)
    row = found["word"][0] if "word" in found else min(found.values(), key=len)[0]
    raise InvalidDataError(
        f"Column {name!r} of {data} must hold truth values (true, false), as in fit; got {cells[row][:40]!r} "
        f"in row {row} (rows count from 0). Correct the cell, or leave it empty where the value is missing."
    )


def _as_table(found: Columns, kinds: dict[str | int, str] | None = None) -> Table:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("A table of mixed columns", "pandas", "tables") from error
    # kinds, be there none, have the detector code the columns even if those of training rows are plain
    return Table(pd.DataFrame(found.features), found.y, found.name, found.left_out, kinds or {})


def _is_table(data: str) -> bool:
    from diabolo.data.columns import is_table

    return is_table(Path(data).expanduser())


def _has_holes(dataset: Dataset) -> bool:
    import numpy as np

    return dataset.X.dtype.kind == "f" and bool(np.isnan(dataset.X).any())


# --------------------------------------------------------------------------------------------------- notes
def _tell(out: Output, found: Columns, table: Table, codes: set[str | int]) -> None:
    """Say how columns are taken, and which of them will do no good."""
    import numpy as np

    kinds: Counter[str] = Counter()
    holes: list[str] = []
    remarks: list[str] = []
    for name, values in found.features.items():
        cells = [cell for cell in values.tolist() if cell is not None and cell == cell]
        if len(cells) < len(values):
            holes.append(name)
        if values.dtype != object and name not in codes:
            kinds["numbers"] += 1
            if len(cells) == len(values) > 2 and np.array_equal(np.diff(values), np.ones(len(values) - 1)):
                remarks.append(
                    f"column {name!r} counts the rows: later rows lie beyond it and look like anomalies. "
                    f"Leave it out with --drop {name!r}, unless they are to be"
                )
            continue
        truth = bool(cells) and isinstance(cells[0], bool) and name not in codes
        kinds["truth values" if truth else "categories"] += 1
        levels = Counter(cells)
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


def taken(rows: Any, numbers: Array) -> Any:
    """Return the rows with these numbers, in ascending order, of an array, a frame or a source."""
    import numpy as np

    from diabolo.data import Source
    from diabolo.data.opening import View

    if isinstance(rows, np.ndarray):
        return rows[numbers]
    if isinstance(rows, Source):
        return View(rows, np.setdiff1d(np.arange(len(rows)), numbers))
    return rows.iloc[numbers]


def cells_of(rows: Any) -> Callable[[Array], Array] | None:
    """Return what gives the cells of rows by their numbers, where these are a frame's."""
    if not hasattr(rows, "iloc"):
        return None
    return lambda numbers: rows.iloc[numbers].to_numpy(dtype=object)


def refuse_pieces(data: str, source: SourceOptions, options: StreamOptions) -> None:
    """Raise where a table of mixed columns is to be read piece by piece, or is too large otherwise."""
    if options.stream is not False and streams.by_pieces(data, source, options):
        raise _to_be_whole(options)


def check_numbers(stream: Source, options: StreamOptions, columns: ColumnOptions) -> None:
    """Raise where data that are read piece by piece hold other columns than of numbers."""
    from diabolo.data.tables import NotNumbersError

    if columns.categorical:
        raise _to_be_whole(options)
    try:
        next(iter(stream.chunks(None)), None)
    except NotNumbersError as error:
        raise _to_be_whole(options) from error


def _to_be_whole(options: StreamOptions) -> InvalidParameterError:
    asked = "--broken" if options.broken is not None else "--stream"
    given = "a large one" if options.stream is None and options.broken is None else f"{asked}"
    return InvalidParameterError(
        f"a table of mixed columns, or with missing cells, must be read as a whole; got {given}. Give "
        "--no-stream if it fits into the memory, or leave its other columns out with --drop."
    )
