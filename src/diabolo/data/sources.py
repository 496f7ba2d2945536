"""Samples as batches: what training asks for, whatever the samples lie in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from diabolo.data.arrays import npy_layout
from diabolo.data.chunks import gone, regrouped, still_there
from diabolo.data.dataset import Array
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.names import quoted

Chunk = tuple[Array, Array]

_BLOCK_BYTES = 1 << 20  # what is read in one go where rows lie one after the other
_POOL_BYTES = 64 << 20  # rows among which batches are drawn where the storage cannot be shuffled row by row


@runtime_checkable
class Source(Protocol):
    """Something with a length, a sample shape and batches. Estimators take it where they take arrays."""

    def __len__(self) -> int:
        """The number of samples."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns, where they have some."""

    def batches(self, batch_size: int, generator: np.random.Generator | None = None) -> Iterator[Array]:
        """Return every sample once: in the order of ``generator``, or as stored when it is None."""

    def chunks(self, generator: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Return every sample once, in pieces as they are cheap to read.

        Each piece comes as (numbers of its rows (k,), rows (k, ...)). ``generator`` draws the order of the
        pieces, coarsely; None: as stored. A sample that cannot be read may be left out.
        """


def not_read(source: Source) -> str:
    """Return, to be added to a sentence, which files a source could not read; "" where it names none."""
    files = [str(path) for path in getattr(source, "skipped", ())]
    return f"; not read: {quoted(files, 3)}" if files else ""


class Chunked(ABC):
    """Batches made of chunks. Abstract."""

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, for example (30,) or (28, 28)."""

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns, where they have some."""
        return None

    @abstractmethod
    def chunks(self, generator: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Return every sample once, in pieces as they are cheap to read, with the numbers of their rows."""

    def batches(self, batch_size: int, generator: np.random.Generator | None = None) -> Iterator[Array]:
        """Return every sample once.

        Parameters
        ----------
        batch_size : int
            Rows in each batch, from 1 up; the last batch holds what is left.
        generator : numpy.random.Generator, optional
            Draws the order; None keeps that in which they are stored.

        Returns
        -------
        iterator of ndarray of shape (at most batch_size, ...)
            Each is in memory: writing in it changes nothing else.

        Raises
        ------
        InvalidParameterError
            When ``batch_size`` is not a whole number from 1 up, or ``generator`` is of another type.
        InvalidDataError
            When the storage fails on the way.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise InvalidParameterError(
                f"batch_size must be a whole number from 1 up; got {batch_size!r}. Give for example 256."
            )
        if generator is not None and not isinstance(generator, np.random.Generator):
            raise InvalidParameterError(
                f"generator must be a numpy.random.Generator or None; got {type(generator).__name__}. "
                "Make one with numpy.random.default_rng(seed)."
            )
        return self._batches(int(batch_size), generator)

    def _batches(self, batch_size: int, generator: np.random.Generator | None) -> Iterator[Array]:
        """Draw the batches from a pool of chunks that come in random order."""
        pieces = (rows for _, rows in self.chunks(generator))
        if generator is None:
            yield from regrouped(pieces, batch_size)
            return
        pool_rows = max(1, _POOL_BYTES // (4 * prod(self.sample_shape)) // batch_size) * batch_size
        for pool in regrouped(pieces, pool_rows):
            order = generator.permutation(len(pool))
            for start in range(0, len(pool), batch_size):
                yield pool[order[start : start + batch_size]]


def blocks(n: int, bytes_per_row: int, generator: np.random.Generator | None) -> Iterator[slice]:
    """Return the rows 0 to n in blocks of about a megabyte, in the order of ``generator`` or one by one."""
    size = max(1, _BLOCK_BYTES // max(bytes_per_row, 1))
    starts: Sequence[int] | Array = range(0, n, size)
    if generator is not None:
        starts = generator.permutation(len(starts)) * size
    for start in starts:
        yield slice(int(start), min(int(start) + size, n))


class ArraySource(Chunked):
    """The rows of an array, in memory or memory-mapped, as batches.

    Parameters
    ----------
    array : ndarray of shape (n, ...)
        At least one row. It is neither copied nor changed. ``numpy.load(path, mmap_mode="r")`` gives
        one whose rows are read from the disk only as their batch comes; ``NpySource`` reads such a file
        without the system counting what was read as memory of this process.

    Raises
    ------
    InvalidDataError
        When ``array`` is not an array, or has no rows.
    """

    def __init__(self, array: Array) -> None:
        if not isinstance(array, np.ndarray) or array.ndim < 2 or array.size == 0:
            got = f"the shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InvalidDataError(
                f"array must be a numpy array of shape (n, ...) with samples in it; got {got}. "
                "Convert it with numpy.asarray and reshape it."
            )
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, for example (30,) or (28, 28)."""
        shape: tuple[int, ...] = self._array.shape[1:]
        return shape

    def chunks(self, generator: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Return every sample once, in blocks of about a megabyte, with the numbers of their rows."""
        for rows in blocks(len(self), self._array[0].nbytes, generator):
            # A copy, because a slice of a memory-mapped file would stay on the disk.
            yield np.arange(rows.start, rows.stop), np.array(self._array[rows], subok=False)

    def _batches(self, batch_size: int, generator: np.random.Generator | None) -> Iterator[Array]:
        """Return every sample once, one gather for each batch from one permutation of all rows."""
        order = None if generator is None else generator.permutation(len(self))
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            if order is None:
                yield np.array(self._array[rows], subok=False)
            else:
                yield np.asarray(self._array[order[rows]])  # the gather is a copy already


class NpySource(Chunked):
    """The rows of a ``.npy`` file, of which a block at a time is in memory.

    The file is read rather than mapped: what was read does not count as memory of this process, and a
    file that is cut short meanwhile is an error, where a mapped one would end the process.

    Parameters
    ----------
    path : str or Path
        A file that ``numpy.save`` wrote, of shape (n, ...), real numbers, in C order.

    Raises
    ------
    DataFileError
        When the file cannot be read, is damaged, or holds anything but rows of real numbers.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._layout = npy_layout(self._path)

    def __len__(self) -> int:
        return self._layout.shape[0]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, for example (30,) or (28, 28)."""
        return self._layout.shape[1:]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The type in which the values are stored."""
        return self._layout.dtype

    def chunks(self, generator: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Return every sample once, in blocks of about a megabyte, with the numbers of their rows."""
        layout = self._layout
        width = prod(layout.shape[1:]) * layout.dtype.itemsize
        with still_there(self._path):
            stream = self._path.open("rb")
        with stream:
            for rows in blocks(len(self), width, generator):
                held = np.empty((rows.stop - rows.start, *layout.shape[1:]), dtype=layout.dtype)
                with still_there(self._path):
                    stream.seek(layout.start + rows.start * width)
                    read = stream.readinto(held.view(np.uint8).reshape(-1).data)
                if read < held.nbytes or not self._path.exists():
                    raise gone(self._path, "vanished" if not self._path.exists() else "became shorter")
                yield (
                    np.arange(rows.start, rows.stop),
                    held.astype(layout.dtype.newbyteorder("="), copy=False),
                )
