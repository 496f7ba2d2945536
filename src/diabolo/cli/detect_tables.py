"""Tables for detectors: columns of numbers as an array, mixed ones and such with missing cells as frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs, streams
from diabolo.cli.console import Output, counted
from diabolo.cli.detect_notes import tell_columns
from diabolo.cli.options import SourceOptions, StreamOptions
from diabolo.errors import InvalidDataError, InvalidParameterError, MissingExtraError
from diabolo.names import did_you_mean, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diabolo.applications import AnomalyDetector
    from diabolo.data import Dataset
    from diabolo.data.columns import ColumnTable
    from diabolo.data.opening import View

    Array = NDArray[Any]

MOST_ROWS = 200_000  # that are learned from of a mixed table that is read piece by piece
_TIMES = 30  # its size a mixed table takes of the memory at most when it is learned as a whole (20 measured)
_PACKED = 5  # times that a packed text is longer when unpacked, about


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
    most_rows: Annotated[
        int | None,
        typer.Option(
            "--most-rows",
            metavar="N",
            help="Learn from at most N rows, drawn at random. Not given: from all, or from 200,000 of a "
            "table of mixed columns that is read piece by piece.",
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


@dataclass(frozen=True)
class Pieces:
    """Rows of a table of mixed columns, some thousand in memory at a time: those with ``numbers``, or all."""

    table: ColumnTable
    numbers: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.table) if self.numbers is None else len(self.numbers)

    def frames(self) -> Iterator[tuple[Array, Any]]:
        """Return these rows as frames, with their numbers among these."""
        import numpy as np

        from diabolo.data.chunks import among

        for numbers, features in self.table.pieces():
            if self.numbers is not None:
                some = among(numbers, self.numbers)
                features = {name: values[some] for name, values in features.items()}
                numbers = np.searchsorted(self.numbers, numbers[some])
            if len(numbers):
                yield numbers, _frame(features)

    def cells(self, numbers: Array) -> Array:
        """Return the cells of rows by their numbers in the table, (k, columns)."""
        import numpy as np

        order = np.unique(numbers, return_inverse=True)
        found: Array = _frame(self.table.rows(order[0]).features).to_numpy(dtype=object)
        return found[order[1]]

    def frame(self) -> Any:
        """Return these rows as one frame."""
        return _frame(self.table.rows(self.numbers).features)


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
    from diabolo.data.columns import read_columns
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
    found = read_columns(Path(data).expanduser(), source.label, columns)
    tell_columns(out, found, set(kinds))
    # kinds, be there none, have the detector code the columns even if those of training rows are plain
    return Table(_frame(found.features), found.y, found.name, found.left_out, kinds)


def open_mixed(
    data: str, source: SourceOptions, options: StreamOptions, columns: ColumnOptions
) -> Pieces | None:
    """Return DATA if it is a table that is to be read piece by piece and not all of numbers, else None."""
    from diabolo.data.columns import ColumnTable

    path = Path(data).expanduser()
    if options.broken is not None or not (_is_table(data) and _in_pieces(data, source, options)):
        return None
    table = ColumnTable(path, source.label, kept_columns(data, source, columns))
    return None if table.plain and not columns.categorical else Pieces(table)


def _in_pieces(data: str, source: SourceOptions, options: StreamOptions) -> bool:
    """Whether a table is to be read piece by piece if it is of mixed columns."""
    from diabolo.data.columns import is_text
    from diabolo.data.opening import size_in_memory

    if options.stream is not None:
        return streams.by_pieces(data, source, options)
    path = Path(data).expanduser()
    takes = size_in_memory(path)
    if is_text(path):  # whose cells take about as much as their text
        takes = path.stat().st_size * (_PACKED if path.suffix.lower() == ".gz" else 1)
    free = streams.free_memory()
    return takes is not None and free is not None and takes * _TIMES > free


def learned_table(out: Output, rows: Pieces, options: ColumnOptions) -> tuple[Any, dict[str | int, str]]:
    """Return rows to learn from as a frame, and the kinds of columns; say how these are taken."""
    kinds: dict[str | int, str] = dict.fromkeys(options.categorical or [], "categorical")
    found = rows.table.rows(rows.numbers)
    tell_columns(out, found, set(kinds), rows.numbers)
    return _frame(found.features), kinds


def open_table_for(out: Output, detector: AnomalyDetector, data: str, source: SourceOptions) -> Pieces:
    """Return a table as a fitted detector takes it: its columns, each read as in fit.

    Raises
    ------
    InvalidDataError
        When DATA is no table, or a column is not there.
    """
    from diabolo.data.columns import ColumnTable

    if not _is_table(data):
        raise InvalidDataError(
            f"DATA must be a table (.csv, .tsv, .parquet) of {counted(detector.n_features_in_, 'column')}, "
            f"as the detector was fitted on; got {data}. Give such a table."
        )
    kinds = _kinds_in_fit(detector)
    table = ColumnTable(
        Path(data).expanduser(),
        source.label,
        list(kinds),
        texts={name for name, kind in kinds.items() if kind == "text"},
        numbers={name for name, kind in kinds.items() if kind == "numbers"},
    )
    inputs.note_left_out(out, table.name, table.left_out)
    for name, kind in kinds.items():
        if kind == "truth" and table.kinds[name] == "text":
            raise _no_truth(table, name, data)
    return Pieces(table)


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


def _no_truth(table: ColumnTable, name: str, data: str) -> InvalidDataError:
    """Return the error for a column of truth values in fit that is text now, naming the cell that is."""
    from diabolo.data.text import parse

    counts: Counter[str] = Counter()
    firsts: dict[str, tuple[int, str]] = {}
    for numbers, features in table.pieces():
        for row, cell in zip(numbers.tolist(), features[name].tolist(), strict=True):
            if cell is not None:
                truth = cell.casefold() in ("true", "false")
                kind = "truth" if truth else "number" if parse([cell])[1] is None else "word"
                counts[kind] += 1
                firsts.setdefault(kind, (row, cell))
    row, cell = firsts["word" if "word" in firsts else min(counts, key=lambda kind: counts[kind])]
    return InvalidDataError(
        f"Column {name!r} of {data} must hold truth values (true, false), as in fit; got {cell[:40]!r} in "
        f"row {row} (rows count from 0). Correct the cell, or leave it empty where the value is missing."
    )


def _frame(features: dict[str, Array]) -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("A table of mixed columns", "pandas", "tables") from error
    return pd.DataFrame(features)


def _is_table(data: str) -> bool:
    from diabolo.data.columns import is_table

    return is_table(Path(data).expanduser())


def _has_holes(dataset: Dataset) -> bool:
    import numpy as np

    return dataset.X.dtype.kind == "f" and bool(np.isnan(dataset.X).any())


def refuse_holes(dataset: Dataset, data: str) -> None:
    """Raise where cells of a table are missing, for a detector that was fitted on complete numbers."""
    import numpy as np

    if not (_is_table(data) and _has_holes(dataset)):
        return
    missing = np.isnan(dataset.X)
    row, column = np.argwhere(missing)[0].tolist()
    name = column if dataset.feature_names is None else repr(dataset.feature_names[column])
    raise InvalidDataError(
        "DATA must have a number in every cell, as the table that the detector was fitted on; got none in "
        f"row {row} (rows count from 0), column {name}, and in "
        f"{counted(int(missing.any(1).sum()), 'row')} in all. Fill these cells or leave the rows out; or fit "
        "on a table in which cells are missing too: that a value is missing is then learned, and a surprise "
        "where it never was."
    )


def taken(rows: Any, numbers: Array) -> Any:
    """Return the rows with these numbers, in ascending order."""
    import numpy as np

    from diabolo.data import Source
    from diabolo.data.opening import View

    if isinstance(rows, np.ndarray):
        return rows[numbers]
    if isinstance(rows, Pieces):
        return Pieces(rows.table, numbers)
    if isinstance(rows, Source):
        return View(rows, np.setdiff1d(np.arange(len(rows)), numbers))
    return rows.iloc[numbers]


def cells_of(rows: Any) -> Callable[[Array], Array] | None:
    """Return what gives the cells of rows by their numbers, where these are those of a mixed table."""
    if isinstance(rows, Pieces):
        return rows.cells
    if not hasattr(rows, "iloc"):
        return None
    return lambda numbers: rows.iloc[numbers].to_numpy(dtype=object)


def refuse_broken(options: StreamOptions) -> None:
    """Raise where what is broken of a mixed table is to be skipped."""
    if options.broken is not None:
        raise InvalidParameterError(
            "--broken must be left out for a table of mixed columns, or with missing cells; got --broken "
            f"{options.broken}. Leave it out, or its other columns with --drop."
        )


def open_numbers(
    data: str, source: SourceOptions, options: StreamOptions, columns: ColumnOptions
) -> View | None:
    """Return DATA as a source where it is to be read piece by piece and all of numbers, else None."""
    from diabolo.data.tables import NotNumbersError

    if not streams.by_pieces(data, source, options):
        return None
    if columns.categorical:
        refuse_broken(options)
    try:
        stream = streams.open_stream(data, source, options, kept_columns(data, source, columns))
        if stream is not None:
            next(iter(stream.chunks(None)), None)
    except NotNumbersError:
        refuse_broken(options)
        raise
    return stream
