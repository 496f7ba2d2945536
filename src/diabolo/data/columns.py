"""Tables whose columns are not all numbers, or have missing cells: each column as what it holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.dataset import Array, chosen
from diabolo.data.files import opened, parsing
from diabolo.data.shards import find_shards
from diabolo.data.tables import (
    arrow_labels,
    arrow_numbers,
    as_labels,
    counts_rows,
    feature_columns,
    find_label,
    plain_arrow,
)
from diabolo.data.text import (
    Head,
    by_blocks,
    head_of,
    is_missing,
    no_row,
    parse,
    refuse_nameless,
    text_table,
)
from diabolo.errors import DataFileError, InvalidDataError, MissingExtraError

_TRUTH = {"false": False, "true": True}


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a table.

    Parameters
    ----------
    features : dict of str to ndarray (n,)
        Float64 with NaN for missing cells; or objects: all text, or all False and True, and None for
        missing cells.
    y : ndarray (n,), optional
        The labels.
    name : str
    left_out : tuple of str
        The columns that are neither features nor the labels, where the features were named.
    odd : dict of str to tuple (str, int)
        Of columns of text: the first cell that is no number, and its row.
    """

    features: dict[str, Array]
    y: Array | None = None
    name: str = ""
    left_out: tuple[str, ...] = ()
    odd: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))


def is_table(path: Path) -> bool:
    """Return whether this is a text table, a Parquet file, or a folder of Parquet files."""
    return _is_text(path) or bool(_parquet_files(path))


def column_names(path: Path, label: str | None = None) -> list[str]:
    """Return the names of a table's features; those of a text table without names are made up.

    Raises
    ------
    DataFileError, InvalidParameterError, MissingExtraError
    """
    if _is_text(path):
        with text_table(path) as text:
            names = head_of(text, path).names
        label_at = find_label(names, label, path)
        return [name for i, name in enumerate(names) if i != label_at]
    first = _parquet_files(path)[0]
    names, features, _ = feature_columns(_open(first).schema_arrow, label, first)
    return [names[i] for i in features]


def read_columns(
    path: Path,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    *,
    texts: Collection[str] = (),
    numbers: Collection[str] = (),
) -> Columns:
    """Return the columns of a text table, a Parquet file, or a folder of Parquet files.

    By its cells that are not missing, a column holds numbers, else truth values (true and false in any
    case), else text without the blanks around it. What counts as missing, as a name and as a label is as
    for ``read_csv`` and ``read_parquet``.

    Parameters
    ----------
    path : Path
    label : str, optional
        The column of the labels.
    columns : sequence of str, optional
        The features, in this order; None: all others.
    texts, numbers : collection of str
        Columns that are taken as text, or must be numbers, whatever they hold.

    Raises
    ------
    DataFileError
        When the file is no such table, has no rows, or holds cells of another kind (dates, lists).
    InvalidDataError
        When one of ``columns`` is not there.
    InvalidParameterError
        When no column is called ``label``.
    MissingExtraError
        When a library that reads it is not installed.
    """
    wanted = {**dict.fromkeys(texts, "text"), **dict.fromkeys(numbers, "numbers")}
    if not _is_text(path):
        return _read_parquets(path, label, columns, wanted)
    with text_table(path) as text:
        head = head_of(text, path)
        label_at = find_label(head.names, label, path)
        features = [i for i in range(len(head.names)) if i != label_at]
        features, left_out = chosen(features, head.names, columns, str(path))
        kinds, odd = _kinds(by_blocks(head.rows(text), len(head.names), path), head, features, wanted, path)
        blocks: dict[int, list[Array]] = {i: [] for i in features}
        marks: list[str] = []
        known: dict[str, str] = {}
        for cells, _ in by_blocks(head.rows(text), len(head.names), path):
            for i in features:
                blocks[i].append(_typed(cells[i], kinds[i], known))
            if label_at is not None:
                marks += cells[label_at]
    found = {head.names[i]: np.concatenate(blocks[i]) for i in features}
    first = found.get("")
    if first is not None and features[0] == 0 and first.dtype != object and counts_rows(first):
        del found[""]
    refuse_nameless(list(found), head.names, path)
    y = None if label_at is None else as_labels(marks)
    return _checked(Columns(found, y, path.name, left_out, odd), path)


def _is_text(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in (".csv", ".tsv") and path.is_file()


def _parquet_files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in find_shards(path) if file.suffix.lower() == ".parquet"]
    return [path] if path.suffix.lower() == ".parquet" and path.is_file() else []


def _kinds(
    blocks: Iterable[tuple[list[tuple[str, ...]], list[int]]],
    head: Head,
    features: Sequence[int],
    wanted: dict[str, str],
    path: Path,
) -> tuple[dict[int, str], dict[str, tuple[str, int]]]:
    """Return what each column holds, and of those of text the first cell that is no number."""
    kinds = dict.fromkeys(features, "missing")
    odd: dict[str, tuple[str, int]] = {}
    start = 0
    for cells, lines in blocks:
        for i in features:
            name = head.names[i]
            if kinds[i] == "text" or wanted.get(name) == "text":
                kinds[i] = "text"
                continue
            kind, bad = _kind(cells[i])
            if kind in ("truth", "text") and bad is not None and wanted.get(name) == "numbers":
                raise _slip(name, cells[i][bad], f"{start + bad + 1} (line {lines[bad]})", path)
            if bad is not None:
                odd.setdefault(name, (cells[i][bad].strip(), start + bad))
            kinds[i] = _joined(kinds[i], kind)
        start += len(lines)
    texts = {head.names[i] for i in features if kinds[i] == "text"}
    return kinds, {name: cell for name, cell in odd.items() if name in texts}


def _kind(cells: Sequence[str]) -> tuple[str, int | None]:
    """Return "missing", "numbers", "truth" or "text", and the position of the first that is no number."""
    values, bad = parse(cells)
    if bad is None:
        return ("missing" if np.isnan(values).all() else "numbers"), None
    words = {cell.strip().casefold() for cell in set(cells) if not is_missing(cell)}
    return ("truth" if words <= _TRUTH.keys() else "text"), bad


def _joined(one: str, other: str) -> str:
    if "missing" in (one, other):
        return other if one == "missing" else one
    return one if one == other else "text"


def _typed(cells: Sequence[str], kind: str, known: dict[str, str]) -> Array:
    """Return cells of this kind as numbers or objects; equal texts are one object, as ``known`` has them."""
    if kind in ("numbers", "missing"):
        return parse(cells)[0]
    out = np.empty(len(cells), dtype=object)
    if kind == "truth":
        out[:] = [_TRUTH.get(cell.strip().casefold()) for cell in cells]
    else:
        out[:] = [
            None if is_missing(cell) else known.setdefault(cell.strip(), cell.strip()) for cell in cells
        ]
    return out


# ------------------------------------------------------------------------------------------------ Parquet
def _open(path: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(f"Reading {path}", "pyarrow", "tables") from error
    with opened(path):  # says what is wrong with the path
        pass
    with parsing(path, "a Parquet file"):
        return pq.ParquetFile(path)


def _read_parquets(
    path: Path, label: str | None, columns: Sequence[str] | None, wanted: dict[str, str]
) -> Columns:
    import pyarrow as pa

    parts: list[dict[str, Any]] = []
    labels: list[Array] = []
    left_out: tuple[str, ...] = ()
    for file in _parquet_files(path):
        with _open(file) as opened_file, parsing(file, "a Parquet file"):
            table = opened_file.read()
        if not table.num_rows:
            continue
        names, features, label_at = feature_columns(table.schema, label, file)
        known = columns or (list(parts[0]) if parts else None)
        features, more = chosen(features, names, known, str(file))
        if parts and columns is None and more:
            raise InvalidDataError(
                f"{file} must have the columns of the files before it; got {', '.join(more)} besides. Drop "
                "it, or write the files alike."
            )
        left_out = tuple(dict.fromkeys((*left_out, *more)))
        parts.append({names[i]: table.column(i) for i in features})
        if label_at is not None:
            labels.append(arrow_labels(table.column(label_at), names[label_at], label_at, file))
    if not parts:
        raise no_row(path)
    found: dict[str, Array] = {}
    odd: dict[str, tuple[str, int]] = {}
    for i, name in enumerate(parts[0]):
        pieces = [plain_arrow(part[name]) for part in parts]
        texts = [pa.types.is_string(piece.type) or pa.types.is_large_string(piece.type) for piece in pieces]
        if any(texts):
            cells = [str(cell) if cell is not None else "" for p in pieces for cell in p.to_pylist()]
            kind, bad = _kind(cells)
            if bad is not None and wanted.get(name) == "numbers":
                raise _slip(name, cells[bad], str(bad + 1), path)
            if kind == "text" and bad is not None:
                odd[name] = (cells[bad], bad)
            found[name] = _typed(cells, wanted.get(name, kind), {})
        else:
            arrays = [_of_arrow(p, name, i, path) for p in pieces]
            if wanted.get(name) == "text":
                arrays = [_as_text(array) for array in arrays]
            found[name] = _of_one_kind(arrays, name, path)
    y = np.concatenate(labels) if labels else None
    return _checked(Columns(found, y, path.resolve().name, left_out, odd), path)


def _of_arrow(column: Any, name: str, position: int, path: Path) -> Array:
    """Return a column of Arrow that is not of text as numbers, or as truth values."""
    import pyarrow as pa

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
    return arrow_numbers(column, name, position, path).astype(np.float64)


def _of_one_kind(arrays: list[Array], name: str, path: Path) -> Array:
    """Return numbers, or objects of which some files may hold nothing but missing cells, as one column."""
    if all(array.dtype != object for array in arrays):
        return np.concatenate(arrays)
    out: Array = np.full(sum(map(len, arrays)), None, dtype=object)
    start = 0
    for array in arrays:
        if array.dtype == object:
            out[start : start + len(array)] = array
        elif not np.isnan(array).all():
            at = int(np.argmax(~np.isnan(array)))
            raise DataFileError(
                f"Column {name!r} of {path} must hold truth values in all files, or numbers in all; got "
                f"truth values and {array[at]:g} in row {start + at + 1}. Write the files alike."
            )
        start += len(array)
    return out


def _as_text(values: Array) -> Array:
    """Return numbers or truth values as a text table would have them, None where missing."""
    out = np.empty(len(values), dtype=object)
    cells = values.tolist()
    if values.dtype == object:
        out[:] = [None if cell is None else str(cell).lower() for cell in cells]
    else:
        out[:] = [
            None if cell != cell else f"{int(cell)}" if cell.is_integer() else repr(cell) for cell in cells
        ]
    return out


def _slip(name: str, cell: str, row: str, path: Path) -> DataFileError:
    return DataFileError(
        f"Column {name!r} of {path} must hold numbers; got {cell.strip()[:40]!r} in row {row}. Correct the "
        "cell, or leave it empty where the value is missing."
    )


def _checked(columns: Columns, path: Path) -> Columns:
    if not columns.features:
        raise DataFileError(
            f"{path} must have a column of features beside labels and row numbers; got none. Add a column."
        )
    return columns
