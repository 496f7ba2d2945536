"""Tables whose columns are not all numbers, or have missing cells: each column as what it holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.cells import NUMBERS, TEXT, Cells, Look, of_arrow, typed
from diabolo.data.chunks import among, gone, still_there
from diabolo.data.dataset import Array, chosen
from diabolo.data.files import opened, parsing
from diabolo.data.shards import find_shards
from diabolo.data.tables import arrow_labels, as_labels, feature_columns, find_label, joined_labels, row_told
from diabolo.data.text import (
    BLOCK,
    POINT,
    by_blocks,
    head_of,
    no_row,
    refuse_nameless,
    text_table,
    with_comma,
)
from diabolo.errors import DataFileError, InvalidDataError, MissingExtraError

_LARGEST = float(np.finfo(np.float32).max)
_MOST_KNOWN = 10_000  # texts that are kept once for all cells that hold them
_BUFFER = 1 << 16  # bytes of a Parquet file read at a time from each column


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
    return is_text(path) or bool(_parquet_files(path))


def is_text(path: Path) -> bool:
    """Return whether this is a text table: .csv or .tsv, or such with .gz behind it."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in (".csv", ".tsv") and path.is_file()


def _parquet_files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in find_shards(path) if file.suffix.lower() == ".parquet"]
    return [path] if path.suffix.lower() == ".parquet" and path.is_file() else []


def column_names(path: Path, label: str | None = None) -> list[str]:
    """Return the names of a table's features; those of a text table without names are made up.

    Raises
    ------
    DataFileError, InvalidParameterError, MissingExtraError
    """
    if is_text(path):
        with text_table(path) as text:
            names = head_of(text, path).names
        label_at = find_label(names, label, path)
        return [name for i, name in enumerate(names) if i != label_at]
    first = _parquet_files(path)[0]
    with _open(first) as file:
        names, features, _ = feature_columns(file.schema_arrow, label, first)
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

    Parameters and errors are those of ``ColumnTable``.
    """
    return ColumnTable(path, label, columns, texts=texts, numbers=numbers).rows()


class ColumnTable:
    """A text table, a Parquet file or a folder of these, of which some thousand rows are in memory at a time.

    By its cells that are not missing, a column holds numbers, else truth values (true and false in any
    case), else text without the blanks around it; where some files of a folder have text and others numbers
    or truth values, these count as their words. What counts as missing, as a name and as a label is as for
    ``read_csv`` and ``read_parquet``. Since the last cell may tell, this takes a pass over all of them.

    Parameters
    ----------
    path : Path
    label : str, optional
        The column of the labels.
    columns : sequence of str, optional
        The features, in this order; None: all others.
    texts, numbers : collection of str
        Columns that are taken as text, or must be numbers, whatever they hold.

    Attributes
    ----------
    name : str
    kinds : dict of str to str
        What each feature holds: "numbers", "truth", "text", or nothing: "missing".
    y : ndarray (n,) or None
        The labels.
    left_out : tuple of str
        The columns that are neither features nor the labels, where the features were named.
    holes : tuple of str
        The features of which cells are missing.
    plain : bool
        Whether all cells of features are numbers, or truth values stored as such.
    odd : dict of str to tuple (str, int)
        Of columns of text: the first cell that is no number, and its row.

    Raises
    ------
    DataFileError
        When the file is no such table, has no rows, or holds cells of another kind (dates, lists).
    InvalidDataError
        When one of ``columns`` is not there, or a number is not finite in single precision.
    InvalidParameterError
        When no column is called ``label``.
    MissingExtraError
        When a library that reads it is not installed.
    """

    def __init__(
        self,
        path: Path,
        label: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        texts: Collection[str] = (),
        numbers: Collection[str] = (),
    ) -> None:
        self._path, self._n = path, 0
        self._wanted = {**dict.fromkeys(texts, TEXT), **dict.fromkeys(numbers, NUMBERS)}
        self._file = (_Text if is_text(path) else _Parquets)(path, label, columns)
        self.name = path.name if is_text(path) else path.resolve().name
        self._looks = {name: Look() for name in self._file.names}
        labels = [labels for piece in self._file.pieces() if (labels := self._look(piece)) is not None]
        if not self._n:
            raise no_row(path)
        self.left_out = self._file.left_out
        first = self._looks.get("")
        if is_text(path) and first is not None and self._file.names[0] == "" and first.counts:
            del self._looks[""]
        refuse_nameless(list(self._looks), self._file.all_names, path)
        if not self._looks:
            raise DataFileError(
                f"{path} must have a column of features beside labels and row numbers; got none. Add a "
                "column."
            )
        self.kinds = {
            name: TEXT if self._wanted.get(name) == TEXT else look.kind for name, look in self._looks.items()
        }
        self.y = self._file.as_labels(labels)
        self.holes = tuple(name for name, look in self._looks.items() if look.holes)
        self.plain = not self.holes and not any(look.odd for look in self._looks.values())
        self.odd = {
            name: odd
            for name, kind in self.kinds.items()
            if kind == TEXT and (odd := self._looks[name].odd) is not None and name not in texts
        }

    def _look(self, piece: _Piece) -> Any:
        """Take note of what the columns hold; return the labels."""
        for name, look in self._looks.items():
            cells = piece.cells[name]
            look.add(cells, self._n)
            if look.odd is not None and self._wanted.get(name) == NUMBERS:
                cell, row = look.odd
                where = row_told(row, piece.lines[row - self._n] if piece.lines else None)
                hint = "Correct the cell, or leave it empty where the value is missing"
                raise DataFileError(
                    f"Column {name!r} of {self._path} must hold numbers; got {cell[:40]!r} in {where}. "
                    f"{POINT if with_comma(cell) else hint}."
                )
        self._n += piece.n
        return piece.labels

    def __len__(self) -> int:
        return self._n

    def _check(self) -> None:
        """Raise where the files contradict each other, or a number is not finite."""
        for name, kind in self.kinds.items():
            look = self._looks[name]
            if kind != self._wanted.get(name) and look.kind == TEXT and look.number and not look.texts:
                value, row = look.number
                raise DataFileError(
                    f"Column {name!r} of {self._path} must hold truth values in all files, or numbers in "
                    f"all; got truth values and {value:g} in {row_told(row)}. Write the files alike."
                )
            if kind == NUMBERS and look.beyond is not None:
                value, row = look.beyond
                raise InvalidDataError(
                    f"column {name!r} must be finite and within +-{_LARGEST:.3g}; got {value:g} in "
                    f"{row_told(row)}. Correct it, or leave the cell empty where the value is missing."
                )

    def pieces(self) -> Iterator[tuple[Array, dict[str, Array]]]:
        """Return all rows, some thousand at a time: their numbers (k,), and the features as ``Columns``.

        Raises
        ------
        InvalidDataError
            When the file has changed.
        """
        self._check()
        start = 0
        known: dict[str, str] = {}
        with still_there(self._path):
            for piece in self._file.pieces():
                features = {name: typed(piece.cells[name], kind, known) for name, kind in self.kinds.items()}
                if start + piece.n > self._n:
                    raise gone(self._path, "has other rows")
                yield np.arange(start, start + piece.n), features
                start += piece.n
                if len(known) > _MOST_KNOWN:
                    known.clear()
        if start != self._n:
            raise gone(self._path, "has other rows")

    def rows(self, numbers: Array | None = None) -> Columns:
        """Return the rows with these numbers, in ascending order, or all."""
        parts: dict[str, list[Array]] = {name: [] for name in self.kinds}
        for here, features in self.pieces():
            some = slice(None) if numbers is None else among(here, numbers)
            for name, values in features.items():
                parts[name].append(values[some])
        y = self.y if self.y is None or numbers is None else self.y[numbers]
        found = {name: np.concatenate(some) for name, some in parts.items()}
        return Columns(found, y, self.name, self.left_out, self.odd)


@dataclass(frozen=True)
class _Piece:
    """Some rows as a file has them; ``lines`` are those of a text table that they lie in."""

    n: int
    cells: dict[str, Cells]
    labels: Any
    lines: list[int] | None = None


class _Text:
    """The rows of a text table."""

    def __init__(self, path: Path, label: str | None, columns: Sequence[str] | None) -> None:
        self._path, self._known = path, dict[str, str]()
        with text_table(path) as text:
            self._head = head_of(text, path)
        self.all_names = self._head.names
        self._label_at = find_label(self.all_names, label, path)
        features = [i for i in range(len(self.all_names)) if i != self._label_at]
        self._features, self.left_out = chosen(features, self.all_names, columns, str(path))
        self.names = [self.all_names[i] for i in self._features]

    def pieces(self) -> Iterator[_Piece]:
        with text_table(self._path) as text:
            for cells, lines in by_blocks(self._head.rows(text), len(self.all_names), self._path):
                labels = None
                if self._label_at is not None:  # few of which are different, and all are kept
                    labels = [self._known.setdefault(cell, cell) for cell in cells[self._label_at]]
                yield _Piece(len(lines), {self.all_names[i]: cells[i] for i in self._features}, labels, lines)

    def as_labels(self, parts: list[Any]) -> Array | None:
        return as_labels([cell for part in parts for cell in part]) if parts else None


class _Parquets:
    """The rows of Parquet files, one after the other; those without rows are passed over."""

    def __init__(self, path: Path, label: str | None, columns: Sequence[str] | None) -> None:
        self._label = label
        self._files: list[Path] = []
        self.names: list[str] = []
        self.left_out: tuple[str, ...] = ()
        for file in _parquet_files(path):
            with _open(file) as opened_file:
                n, schema = opened_file.metadata.num_rows, opened_file.schema_arrow
            if not n:
                continue
            all_names, features, _ = feature_columns(schema, label, file)
            features, more = chosen(features, all_names, columns or self.names or None, str(file))
            if self._files and columns is None and more:
                raise InvalidDataError(
                    f"{file} must have the columns of the files before it; got {', '.join(more)} besides. "
                    "Drop it, or write the files alike."
                )
            self.names = [all_names[i] for i in features]
            self.left_out = tuple(dict.fromkeys((*self.left_out, *more)))
            self._files.append(file)
        self.all_names = self.names
        if not self._files:
            raise no_row(path)

    def pieces(self) -> Iterator[_Piece]:
        import pyarrow as pa

        wanted = [*self.names, *([] if self._label is None else [self._label])]
        for path in self._files:
            with _open(path) as file:
                batches = file.iter_batches(BLOCK, columns=wanted, use_threads=False)
                while True:
                    with parsing(path, "a Parquet file"):
                        batch = next(batches, None)
                    if batch is None:
                        break
                    table = pa.Table.from_batches([batch])
                    cells = {name: of_arrow(table.column(name), name, path) for name in self.names}
                    labels = None
                    if self._label is not None:
                        labels = arrow_labels(table.column(self._label), self._label, 0, path)
                    yield _Piece(len(batch), cells, labels)

    def as_labels(self, parts: list[Any]) -> Array | None:
        return joined_labels(parts) if parts else None


def _open(path: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(f"Reading {path}", "pyarrow", "tables") from error
    with opened(path):  # says what is wrong with the path
        pass
    with parsing(path, "a Parquet file"):
        return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
