"""Tables: text with separators (.csv, .tsv) and Parquet, a row for each sample."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diabolo.data.dataset import Array, Dataset, chosen, samples
from diabolo.data.files import opened, parsing
from diabolo.data.text import (
    POINT,
    by_blocks,
    head_of,
    no_row,
    parse,
    refuse_nameless,
    refuse_twins,
    text_table,
    with_comma,
)
from diabolo.errors import DataFileError, InvalidParameterError, MissingExtraError
from diabolo.names import did_you_mean

if TYPE_CHECKING:
    from _csv import Reader


class NotNumbersError(DataFileError):
    """A cell of a feature is not a number; ``columns.read_columns`` reads such tables."""


def read_csv(path: Path, label: str | None = None, columns: Sequence[str] | None = None) -> Dataset:
    """Return the numbers of a text table, separated by commas, semicolons or tabs.

    The first row is taken as names of the columns unless one of its cells is a number; without names
    the columns are called ``column_1``, ``column_2``, ... A first column without a name that counts
    the rows (from 0 or 1), as pandas and R write it, is left out. Empty cells and NA, N/A, NaN, null,
    None and ? (in any case) become NaN.

    Parameters
    ----------
    path : Path
        UTF-8 text, plain or gzipped.
    label : str, optional
        The column to split off as y: int64 if all its cells are whole numbers, else float64 if all are
        numbers, else strings. All other columns are float64.
    columns : sequence of str, optional
        The features, in this order; other columns may hold anything. Without effect on a table without
        names.

    Raises
    ------
    DataFileError
        When the file is no such table, has no rows, or a cell of a feature is not a number.
    InvalidDataError
        When one of ``columns`` is not there.
    InvalidParameterError
        When no column is called ``label``.
    """
    with text_table(path) as text:
        return _read_text_table(text, path, label, columns)


def _read_text_table(
    text: io.TextIOWrapper, path: Path, label: str | None, columns: Sequence[str] | None
) -> Dataset:
    """Return the data set in ``text``."""
    head = head_of(text, path)
    names, has_names = head.names, head.has_names
    label_at = find_label(names, label, path)
    features = [i for i in range(len(names)) if i != label_at]
    features, left_out = chosen(features, names, columns if has_names else None, str(path))

    # numpy's parser is three times as fast, but it stops at a missing cell and cannot say where.
    table = _all_numbers(text, head.delimiter, head.before, len(names), label_at)
    if table is not None:
        X = table if features == list(range(len(names))) else table[:, features]
        y = None if label_at is None else _whole(table[:, label_at].copy())
    else:
        X, y = _cell_by_cell(head.rows(text), names, features, label_at, path)

    kept = [names[i] for i in features]
    if has_names and kept and not kept[0] and counts_rows(X[:, 0]):
        X, kept = np.ascontiguousarray(X[:, 1:]), kept[1:]
    refuse_nameless(kept, names, path)
    return _table(X, y, kept if has_names else None, path, left_out)


def _all_numbers(
    text: io.TextIOWrapper, delimiter: str, before: int, width: int, label_at: int | None
) -> Array | None:
    """Return what is below ``before`` lines if each row has ``width`` plain numbers, else None."""
    text.seek(0)
    below = islice(text, before, None)
    first = next((line for line in below if line.strip()), None)
    if first is None:
        return None
    try:
        table = np.loadtxt(chain([first], below), delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
    except ValueError:
        return None
    if table.shape[1] != width:
        return None
    # Whole numbers this large may have been rounded, which labels must not be.
    return None if label_at is not None and np.any(np.abs(table[:, label_at]) >= 2**53) else table


def _cell_by_cell(
    reader: Reader, names: Sequence[str], features: Sequence[int], label_at: int | None, path: Path
) -> tuple[Array, Array | None]:
    """Return X and y of the rows in ``reader``, with NaN for missing cells; errors name row and column."""
    blocks: list[Array] = []
    marks: list[str] = []
    n = 0
    for columns, lines in by_blocks(reader, len(names), path):
        block = np.empty((len(lines), len(features)))
        for k, i in enumerate(features):
            values, bad = parse(columns[i])
            if bad is not None:
                raise not_a_number(names[i], i, columns[i][bad], row_told(n + bad, lines[bad]), path)
            block[:, k] = values
        blocks.append(block)
        if label_at is not None:
            marks += columns[label_at]
        n += len(lines)
    return np.concatenate(blocks), None if label_at is None else as_labels(marks)


def counts_rows(column: Array) -> bool:
    """Return whether a column is 0, 1, 2, ... or 1, 2, 3, ..."""
    return column[0] in (0, 1) and np.array_equal(column, np.arange(len(column)) + column[0])


def as_labels(cells: Sequence[str]) -> Array:
    """Return labels as int64 if all are whole numbers, else float64 if all are numbers, else strings."""
    if not any("_" in cell for cell in cells):
        try:
            return np.array([int(cell) for cell in cells], dtype=np.int64)
        except (ValueError, OverflowError):
            pass
    values, bad = parse(cells)
    return _whole(values) if bad is None else np.array([cell.strip() for cell in cells], dtype=np.str_)


def _whole(values: Array) -> Array:
    """Return labels as int64 if all are whole numbers, unchanged otherwise."""
    exact = np.all(np.abs(values) < 2**53) and np.array_equal(values, np.rint(values))
    return values.astype(np.int64) if exact else values


def row_told(row: int, line: int | None = None) -> str:
    """Return where a cell is, its row counted from 0 and its line in a text file from 1, as that has a head.

    >>> row_told(3), row_told(3, 5)
    ('row 3 (rows count from 0)', 'row 3 (line 5; rows count from 0)')
    """
    return f"row {row} (" + ("" if line is None else f"line {line}; ") + "rows count from 0)"


def not_a_number(name: str, position: int, value: object, row: str, path: Path) -> NotNumbersError:
    """Return the error for a feature's cell that is not a number."""
    hint = f"label={name!r} makes it the labels; otherwise encode" if name else "Encode"
    hint = f"{hint} the column as numbers or leave it out."
    if isinstance(value, str) and with_comma(value):
        hint = f"{POINT}."
    shown = value if not isinstance(value, str) or len(value) <= 40 else value[:37] + "..."
    return NotNumbersError(
        f"Column {name or position + 1!r} of {path} must hold numbers; got {shown!r} in {row}. {hint}"
    )


def find_label(names: Sequence[str], label: str | None, path: Path) -> int | None:
    """Return the position of the column called ``label``, None when no label is asked for."""
    if label is None:
        return None
    if not label or label not in names:
        raise InvalidParameterError(
            f"label must be the name of a column in {path}; got {label!r}. {did_you_mean(label, names)}"
        )
    return list(names).index(label)


def _table(
    X: Array, y: Array | None, names: Sequence[str] | None, path: Path, left_out: tuple[str, ...]
) -> Dataset:
    """Return the data set of a table, which has rows; that a column is left is checked here."""
    if X.shape[1] == 0:
        raise DataFileError(
            f"{path} must have a column of features beside labels and row numbers; got none. Add a column."
        )
    return Dataset(
        X=samples(X, str(path)),
        y=y,
        feature_names=None if names is None else tuple(names),
        left_out=left_out,
        name=path.name,
    )


def read_parquet(path: Path, label: str | None = None, columns: Sequence[str] | None = None) -> Dataset:
    """Return the numbers of a Parquet file; an index that pandas stored in it is left out.

    Columns of text, dictionary and decimal type are read as numbers by the rules of ``read_csv``; nulls
    become NaN. X has the one numpy type that holds all columns: integers stay integers only if every
    column is one without nulls.

    Parameters
    ----------
    path : Path
        The file.
    label : str, optional
        The column to split off as y, numbers or strings.
    columns : sequence of str, optional
        The features, in this order; other columns may hold anything.

    Raises
    ------
    DataFileError
        When the file is damaged, has no rows, or a cell of a feature is not a number.
    InvalidDataError
        When one of ``columns`` is not there.
    InvalidParameterError
        When no column is called ``label``.
    MissingExtraError
        When pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(f"Reading {path}", "pyarrow", "tables") from error

    with opened(path) as stream, parsing(path, "a Parquet file"):
        table = pq.ParquetFile(stream).read()
    names, features, label_at = feature_columns(table.schema, label, path)
    features, left_out = chosen(features, names, columns, str(path))
    if table.num_rows == 0:
        raise no_row(path)

    numbers = [arrow_numbers(table.column(i), names[i], i, path) for i in features]
    X = np.empty((table.num_rows, len(numbers)), dtype=np.result_type(*numbers) if numbers else np.float64)
    for k, column in enumerate(numbers):
        X[:, k] = column
    y = None if label_at is None else arrow_labels(table.column(label_at), names[label_at], label_at, path)
    return _table(X, y, [names[i] for i in features], path, left_out)


def feature_columns(schema: Any, label: str | None, path: Path) -> tuple[list[str], list[int], int | None]:
    """Return the names of all columns, the positions of those that are features, and that of the label.

    An index that pandas stored is no feature.
    """
    stored = (schema.pandas_metadata or {}).get("index_columns", [])
    index = {name for name in stored if isinstance(name, str)} - {label}
    names: list[str] = list(schema.names)
    refuse_twins(names, path)
    label_at = find_label(names, label, path)
    return names, [i for i, name in enumerate(names) if i != label_at and name not in index], label_at


def arrow_numbers(column: Any, name: str, position: int, path: Path, start: int = 0) -> Array:
    """Return a column of Arrow as numbers, nulls as NaN; its first cell is in the row ``start``."""
    import pyarrow as pa

    column = plain_arrow(column)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        cells = [cell or "" for cell in column.to_pylist()]
        values, bad = parse(cells)
        if bad is not None:
            raise not_a_number(name, position, cells[bad], row_told(start + bad), path)
        return values
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        if not (pa.types.is_decimal(kind) or pa.types.is_null(kind)):
            first = next((i for i, cell in enumerate(column) if cell.is_valid), 0)
            raise not_a_number(name, position, column[first].as_py(), row_told(start + first), path)
        column = column.cast(pa.float64())
    if column.null_count:
        column = column.cast(pa.float64(), safe=False)
    array: Array = column.to_numpy()
    return array


def arrow_labels(column: Any, name: str, position: int, path: Path) -> Array:
    """Return a column of Arrow as labels: numbers if its type is numeric, else strings."""
    import pyarrow as pa

    column = plain_arrow(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([cell or "" for cell in column.to_pylist()], dtype=np.str_)
    return arrow_numbers(column, name, position, path)


def joined_labels(parts: Sequence[Array]) -> Array:
    """Return labels that come in parts as one array; numbers become words where other parts are text."""
    if len({part.dtype.kind == "U" for part in parts}) > 1:
        parts = [part if part.dtype.kind == "U" else np.array(number_words(part)) for part in parts]
    return np.concatenate(parts)


def number_words(values: Array) -> list[str]:
    """Return numbers as a text table would have them, "" for NaN; those of single precision in its digits."""
    return ["" if v != v else f"{int(v)}" if float(v).is_integer() else str(v) for v in values]


def plain_arrow(column: Any) -> Any:
    """Return a dictionary-encoded column (a pandas categorical) as one of plain values."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
