"""A folder of Parquet or .npy files, the shards of one table, as one source."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.arrays import read_npy
from diabolo.data.chunks import in_turns
from diabolo.data.dataset import Array, Dataset
from diabolo.data.files import system_errors
from diabolo.data.folders import BROKEN
from diabolo.data.images import natural
from diabolo.data.parquet import ParquetSource, has_rows
from diabolo.data.sources import Chunk, Chunked, NpySource
from diabolo.data.tables import NotNumbersError, joined_labels, read_parquet
from diabolo.errors import DataFileError, InvalidDataError, SkippedWarning
from diabolo.names import check_name, quoted

SUFFIXES = (".parquet", ".npy")
_AT_ONCE = 4  # shards whose rows are mixed
_NAMED = 10  # shards that a message names


def find_shards(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder, or the .npy files, in natural order (part2 before part10).

    Files of other kinds, and names that begin with a dot or an underscore, are passed over.

    Raises
    ------
    DataFileError
        When there are both, or the folder cannot be listed.
    """
    with system_errors(folder):
        found = [
            path
            for path in sorted(folder.iterdir(), key=natural)
            if path.suffix.lower() in SUFFIXES and not path.name.startswith((".", "_")) and path.is_file()
        ]
    kinds = {path.suffix.lower(): path.name for path in found}
    if len(kinds) > 1:
        raise DataFileError(
            f"{folder} must hold shards of one kind, {' or '.join(SUFFIXES)}; got "
            f"{' and '.join(kinds.values())}. Give the path of one file, or part them."
        )
    return found


def read_shards(
    paths: Sequence[Path], name: str, label: str | None = None, columns: Sequence[str] | None = None
) -> Dataset:
    """Return the rows of all shards as one data set.

    Raises
    ------
    DataFileError, InvalidDataError, InvalidParameterError, MissingExtraError
        As ``read_parquet`` and ``read_npy`` do, and where shards differ in columns.
    """
    parts: list[Dataset] = []
    first_path = paths[0]
    wanted = None if columns is None else tuple(columns)
    for path in paths:
        if path.suffix.lower() == ".npy":
            part = read_npy(path)
        elif has_rows(path):
            part = read_parquet(path, label, wanted or (parts[0].feature_names if parts else None))
        else:
            continue
        if not parts:
            first_path = path
        parts.append(part)
        _check_alike(path, part, parts[0], first_path, exact=columns is None)
        _check_bytes(path, part.X.dtype, parts[0].X.dtype == np.uint8)
    if not parts:
        raise _empty(first_path.parent)
    first = parts[0]
    y = None if first.y is None else joined_labels([part.y for part in parts if part.y is not None])
    X = np.concatenate([part.X for part in parts])
    return Dataset(X, y, feature_names=first.feature_names, name=name, left_out=first.left_out)


class ShardSource(Chunked):
    """The rows of all the Parquet files, or all the .npy files, in a folder, in the order of their names.

    Shuffled, the shards come in random order, four of them in turns.

    Parameters
    ----------
    folder : str or Path
    label : str, optional
        A column that is no feature.
    columns : sequence of str, optional
        The features, in this order; None: all columns but the label. Without effect on .npy files.
    broken : {"refuse", "skip"}, default="refuse"
        What is done about a shard that is damaged, cut short, vanished or cannot be read: an error that
        names it, or it is left out and counted in a ``SkippedWarning``. For "skip" all shards are read once
        at the beginning, so that a damaged one gives no rows at all.

    Attributes
    ----------
    skipped : tuple of Path
        What was left out so far.
    left_out : tuple of str
        The columns that are not among ``columns``.

    Raises
    ------
    DataFileError
        When the folder holds no shards, or one cannot be read.
    InvalidDataError
        When shards differ in columns or type, or one of ``columns`` is not in a shard.
    InvalidParameterError
        When ``broken`` is neither, or no column is called ``label``.
    MissingExtraError
        When pyarrow is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        label: str | None = None,
        columns: Sequence[str] | None = None,
        broken: str = "refuse",
    ) -> None:
        self.skips = check_name("broken", broken, BROKEN) == "skip"
        self._label, self._columns = label, None if columns is None else tuple(columns)
        paths = find_shards(Path(folder))
        self._shards: dict[Path, NpySource | ParquetSource] = {}
        self._skipped: dict[Path, int | None] = {}  # with their rows, where these are known
        self._bytes: bool | None = None
        self._why: DataFileError | None = None
        for path in paths:
            self._add(path)
        if self._skipped:
            self._tell(folder, len(paths))
        if not self._shards:
            raise _empty(Path(folder), self._why)
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards.values())])

    def _add(self, path: Path) -> None:
        """Open a shard, and leave it out where it is broken and that is wanted."""
        rows: int | None = None
        try:
            if path.suffix.lower() == ".npy":
                shard: NpySource | ParquetSource = NpySource(path)
            elif has_rows(path):
                known = self.feature_names if self._shards else None
                shard = ParquetSource(path, label=self._label, columns=self._columns or known)
            else:
                return
            rows = len(shard)
            first_path, first = next(iter(self._shards.items()), (path, shard))
            _check_alike(path, shard, first, first_path, exact=self._columns is None)
            dtype = _read_through(shard) if self.skips else getattr(shard, "dtype", None)
            if dtype is not None:
                self._check_bytes(path, dtype)
        except DataFileError as error:  # an InvalidDataError says that it is whole, but of another table
            if not self.skips or isinstance(error, NotNumbersError):  # and so does this
                raise
            self._skipped[path], self._why = rows, self._why or error
        else:
            self._shards[path] = shard

    def _check_bytes(self, path: Path, dtype: np.dtype[Any]) -> None:
        """Raise where a shard's values are not of 8 bits as those of the one before, or the reverse."""
        self._bytes = dtype == np.uint8 if self._bytes is None else self._bytes
        _check_bytes(path, dtype, self._bytes)

    def _tell(self, folder: str | Path, n: int) -> None:
        """Warn of what is left out."""
        known = [rows for rows in self._skipped.values() if rows is not None]
        lost = [f"{sum(known)} rows"] if known else []
        if len(known) < len(self._skipped):
            lost.append(f"an unknown number of rows in {len(self._skipped) - len(known)}")
        warnings.warn(
            f"{len(self._skipped)} of {n} shards in {folder} could not be read and are left out, with "
            f"{' and '.join(lost)}: {_names(self._skipped)}",
            SkippedWarning,
            stacklevel=4,
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, for example (30,) or (28, 28)."""
        return next(iter(self._shards.values())).sample_shape

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns, where they have some."""
        return next(iter(self._shards.values())).feature_names

    @property
    def left_out(self) -> tuple[str, ...]:
        """The columns that are not among those asked for."""
        every = (name for shard in self._shards.values() for name in getattr(shard, "left_out", ()))
        return tuple(dict.fromkeys(every))

    @property
    def skipped(self) -> tuple[Path, ...]:
        """The shards that were left out so far, because they could not be read."""
        return tuple(self._skipped)

    def labels(self) -> Array | None:
        """Return the labels (n,) of all shards; None where their column was not named."""
        if self._label is None:
            return None
        found = [shard.labels() for shard in self._shards.values() if isinstance(shard, ParquetSource)]
        return joined_labels([labels for labels in found if labels is not None])

    def chunks(self, generator: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Return every sample once, in the pieces of the shards, with their numbers in the whole."""
        paths = list(self._shards)
        order = range(len(paths)) if generator is None else generator.permutation(len(paths))
        streams = [self._numbered(paths[i], int(self._starts[i]), generator) for i in order]
        return in_turns(streams, 1 if generator is None else _AT_ONCE)

    def _numbered(self, path: Path, start: int, generator: np.random.Generator | None) -> Iterator[Chunk]:
        if path in self._skipped:
            return
        try:
            for numbers, rows in self._shards[path].chunks(generator):
                self._check_bytes(path, rows.dtype)
                yield numbers + start, rows
        except (DataFileError, InvalidDataError) as error:
            if not self.skips:
                raise
            self._skipped[path] = len(self._shards[path])
            warnings.warn(
                f"from now on a shard is left out, with its {len(self._shards[path])} rows: {error}",
                SkippedWarning,
                stacklevel=2,
            )


def _read_through(shard: NpySource | ParquetSource) -> np.dtype[Any] | None:
    """Read all rows of a shard; return their type.

    Raises
    ------
    DataFileError
        When it is damaged.
    """
    dtype = None
    try:
        for _, rows in shard.chunks():
            dtype = rows.dtype
    except InvalidDataError as error:
        raise DataFileError(str(error)) from error
    return dtype


def _check_alike(
    path: Path,
    shard: NpySource | ParquetSource | Dataset,
    first: NpySource | ParquetSource | Dataset,
    first_path: Path,
    *,
    exact: bool,
) -> None:
    """Raise where a shard differs from the first; ``exact``: in columns that were not asked for too."""
    extra = getattr(shard, "left_out", ()) if exact and shard is not first else ()
    if extra:
        s = "s" if len(extra) > 1 else ""
        raise InvalidDataError(
            f"{path} must have the columns that {first_path.name} has; got the column{s} {quoted(extra)} "
            "besides. Drop it, or write the shards alike."
        )
    if shard.sample_shape != first.sample_shape:
        raise InvalidDataError(
            f"{path} must hold samples of the shape {first.sample_shape} that {first_path.name} has; got "
            f"{shard.sample_shape}. Write the shards alike."
        )


def _check_bytes(path: Path, dtype: np.dtype[Any], bytes_: bool) -> None:
    """Raise where some shards are of 8 bits and others not: the former are taken for pixels."""
    if (dtype == np.uint8) != bytes_:
        raise InvalidDataError(
            f"{path} must hold values of 8 bits if the other shards do, and only then; got {dtype}. "
            "Write all shards in one type."
        )


def _names(paths: dict[Path, int | None]) -> str:
    names = [path.name for path in paths]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _empty(folder: Path, why: DataFileError | None = None) -> DataFileError:
    reason = "" if why is None else f" ({why})"
    return DataFileError(
        f"{folder} must hold shards with rows that can be read; got none{reason}. Fetch or write them again."
    )
