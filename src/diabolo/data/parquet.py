"""A Parquet file as a source: a few row groups at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.chunks import gone, in_turns, still_there
from diabolo.data.dataset import Array, chosen
from diabolo.data.files import opened, parsing
from diabolo.data.sources import Chunk, Chunked
from diabolo.data.tables import arrow_labels, arrow_numbers, feature_columns
from diabolo.errors import DataFileError, MissingExtraError

_ROWS = 8192  # rows of a chunk
_AT_ONCE = 4  # row groups whose rows are mixed, where each is larger than a chunk
_BUFFER = 1 << 16  # bytes read at a time from each column


def has_rows(path: Path) -> bool:
    """Return whether a Parquet file, which is whole as far as can be seen, has any rows."""
    return _about(path)[0] > 0


def _about(path: Path) -> tuple[int, Any]:
    """Return the number of rows and the schema of a Parquet file."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(f"Reading {path}", "pyarrow", "tables") from error
    with opened(path):  # says what is wrong with the path
        pass
    with parsing(path, "a Parquet file"), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows), file.schema_arrow


class ParquetSource(Chunked):
    """The rows of a Parquet file, of which parts of a few row groups are in memory.

    Shuffled, the row groups come in random order, four of them in turns, and batches are drawn from a
    pool of about 64 MB. Rows that lie together in a file of few and large row groups thus stay near each
    other; where they are sorted, write smaller row groups (10,000 to 100,000 rows).

    Parameters
    ----------
    path : str or Path
        The file.
    label : str, optional
        A column that is no feature.
    columns : sequence of str, optional
        The features, in this order; None: all columns but the label and an index stored by pandas.

    Attributes
    ----------
    left_out : tuple of str
        The columns that are not among ``columns``.

    Raises
    ------
    DataFileError
        When the file is damaged, has no rows, or a column is not numeric.
    InvalidDataError
        When one of ``columns`` is not there.
    InvalidParameterError
        When no column is called ``label``.
    MissingExtraError
        When pyarrow is not installed.
    """

    def __init__(
        self, path: str | Path, *, label: str | None = None, columns: Sequence[str] | None = None
    ) -> None:
        self._path = Path(path)
        self._n, schema = _about(self._path)
        names, features, _ = feature_columns(schema, label, self._path)
        self._label = label
        features, self.left_out = chosen(features, names, columns, str(self._path))
        self._names = tuple(names[i] for i in features)
        if not self._n or not self._names:
            raise DataFileError(
                f"{self._path} must hold rows and columns of features; got {self._n} rows and "
                f"{len(self._names)} such columns. Choose a file that has data."
            )

    def __len__(self) -> int:
        return self._n

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (n_features,)."""
        return (len(self._names),)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self._names

    def labels(self) -> Array | None:
        """Return the labels (n,), of one pass over their column; None where it was not named."""
        if self._label is None:
            return None
        with parsing(self._path, "a Parquet file"), still_there(self._path), self._open() as file:
            column = file.read(columns=[self._label], use_threads=False).column(0)
        if len(column) != self._n:
            raise gone(self._path, "has other rows or columns")
        return arrow_labels(column, self._label, 0, self._path)

    def chunks(self, generator: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Return every sample once, some thousand rows at a time, with their numbers."""
        with parsing(self._path, "a Parquet file"), still_there(self._path):
            file = self._open()
        with file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            names = set(file.schema_arrow.names)
            if sum(sizes) != self._n or not names.issuperset(self._names):
                raise gone(self._path, "has other rows or columns")
            starts = np.cumsum([0, *sizes])
            groups = range(len(sizes)) if generator is None else generator.permutation(len(sizes))
            pieces = [self._group(file, int(group), int(starts[group])) for group in groups]
            yield from in_turns(pieces, 1 if generator is None else _AT_ONCE)

    def _open(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self._path, buffer_size=_BUFFER, pre_buffer=False)

    def _group(self, file: Any, group: int, start: int) -> Iterator[Chunk]:
        """Return the rows of one row group, of which the first has the number ``start``."""
        import pyarrow

        pieces = file.iter_batches(_ROWS, [group], columns=list(self._names), use_threads=False)
        while True:
            with parsing(self._path, "a Parquet file"), still_there(self._path):
                piece = next(pieces, None)
            if piece is None:
                return
            if not self._path.exists():
                raise gone(self._path, "vanished")
            table = pyarrow.Table.from_batches([piece])
            numbers: list[Array] = [
                arrow_numbers(table.column(name), name, i, self._path, start)
                for i, name in enumerate(self._names)
            ]
            rows = np.empty((len(piece), len(numbers)), dtype=np.result_type(*numbers))
            for i, column in enumerate(numbers):
                rows[:, i] = column
            yield np.arange(start, start + len(rows)), rows
            start += len(rows)
