"""Rows of an array or of a source, by their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data.opening import View, gather
from diabolo.data.sources import Source

Array = NDArray[Any]

_SAMPLE = 4096  # rows that say what is typical


def without(X: Array | Source, numbers: NDArray[np.int64]) -> Any:
    """Return the rows but those with these numbers, which are in ascending order."""
    return View(X, numbers) if isinstance(X, Source) else np.delete(X, numbers, axis=0)


def parts(X: Array | Source) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Return the rows in parts, flat, with their numbers: a source may leave out what it cannot read."""
    if isinstance(X, Source):
        for numbers, rows in X.chunks(None):
            yield numbers, rows.reshape(len(rows), -1)
    else:
        yield np.arange(len(X)), X


def gathered(X: Array | Source, *several: NDArray[np.int64]) -> list[Array]:
    """Return the rows with these numbers, which are in ascending order, flat, for each array of numbers."""
    if not isinstance(X, Source):
        return [X[numbers] for numbers in several]
    return [rows.reshape(len(rows), -1) for rows in gather(X, *several)]


def spread(numbers: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return up to ``most`` of the numbers, evenly spread."""
    places = np.linspace(0, len(numbers) - 1, min(len(numbers), most))
    return numbers[np.unique(places.astype(np.int64))]


def sample(X: Array | Source) -> Array:
    """Return some thousand rows at most, evenly spread."""
    return gathered(X, spread(np.arange(len(X)), _SAMPLE))[0]
