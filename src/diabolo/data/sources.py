"""Samples as batches: what training asks for, whatever the samples lie in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from diabolo.data.dataset import Array
from diabolo.errors import InvalidDataError, InvalidParameterError


@runtime_checkable
class Source(Protocol):
    """Something with a length, a sample shape and batches."""

    def __len__(self) -> int:
        """The number of samples."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""

    def batches(self, batch_size: int, generator: np.random.Generator | None) -> Iterator[Array]:
        """Return every sample once: in the order of ``generator``, or as stored when it is None."""


class ArraySource:
    """The rows of an array, in memory or memory-mapped, as batches.

    Parameters
    ----------
    array : ndarray of shape (n, ...)
        At least one row. It is neither copied nor changed. ``numpy.load(path, mmap_mode="r")`` gives
        one whose rows are read from the disk only as their batch comes.

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

    def batches(self, batch_size: int, generator: np.random.Generator | None = None) -> Iterator[Array]:
        """Return every sample once, one gather for each batch.

        Parameters
        ----------
        batch_size : int
            Rows in each batch, from 1 up; the last batch holds what is left.
        generator : numpy.random.Generator, optional
            Draws one permutation of all rows; None keeps the order in which they are stored.

        Returns
        -------
        iterator of ndarray of shape (at most batch_size, ...)
            Each is a copy in memory: writing in it changes nothing else.

        Raises
        ------
        InvalidParameterError
            When ``batch_size`` is not a whole number from 1 up, or ``generator`` is of another type.
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
        order = None if generator is None else generator.permutation(len(self))
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            if order is None:
                # A copy, because a slice of a memory-mapped file would stay on the disk.
                yield np.array(self._array[rows], subok=False)
            else:
                yield np.asarray(self._array[order[rows]])  # the gather is a copy already
