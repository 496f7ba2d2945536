"""Rows in parts: what lies between them and a score takes about as much memory whatever their width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_MOST_ROWS, _LEAST_ROWS = 4096, 32
_VALUES = 2**20  # in a part, of which there are up to six arrays of doubles at a time


def portions(n: int, width: int) -> Iterator[slice]:
    """Return n rows of so many values in parts.

    None is a row alone unless it is every 4096th: such a row may go another way than among others.
    """
    size = _LEAST_ROWS
    while size < _MOST_ROWS and 2 * size * width <= _VALUES:
        size *= 2
    for first in range(0, n, _MOST_ROWS):
        start, stop = first, min(first + _MOST_ROWS, n)
        while start < stop:
            end = start + size if stop - start > size + 1 else stop
            yield slice(start, end)
            start = end


def by_portions(rows: NDArray[Any], function: Callable[[NDArray[Any]], NDArray[T]]) -> NDArray[T]:
    """Return what ``function`` makes of rows (n, width), (n, ...), of which it gets some at a time."""
    first, *rest = portions(*rows.shape)
    piece = function(rows[first])
    out = np.empty((len(rows), *piece.shape[1:]), dtype=piece.dtype)
    out[first] = piece
    for part in rest:
        out[part] = function(rows[part])
    return out
