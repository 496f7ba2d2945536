"""One pass over a source before training: its statistics, the rows held out, and a sample of the rest."""

from __future__ import annotations

import warnings
from contextlib import closing
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data.chunks import ahead, among
from diabolo.data.sources import Source, not_read
from diabolo.errors import InvalidDataError, SkippedWarning
from diabolo.estimators.scaling import Statistics, Tally
from diabolo.estimators.validation import check_values

Array = NDArray[Any]

SAMPLE = 4096  # rows that stand for all where these cannot be had at once
_KEPT_BYTES = 64 << 20  # of the rows held out, and of the sample, in single precision


def sample_size(n_features: int) -> int:
    """Return how many rows stand for all, at most: 4096, or what takes 64 MB."""
    return max(1, min(SAMPLE, _KEPT_BYTES // (4 * n_features)))


class Survey:
    """What a fit has to know of a source before it begins, found in one pass.

    Parameters
    ----------
    source : Source
    names : sequence of str or None
        Of the columns, for messages.
    n_held_out : int
        How many rows to hold out at most; fewer where these would take more than 64 MB.
    seed : int
        Draws which.
    least : int, default=2
        Rows that must come.

    Attributes
    ----------
    n : int
        Rows that came; those that the source left out are counted in a ``SkippedWarning``.
    statistics : Statistics
    pixels : bool
        Whether the values are of 8 bits.
    held_out, sample : ndarray (k, n_features)
        Rows that are not to be trained on, and a sample of the others, as they are stored.
    held_out_numbers : ndarray (k,)
        Where the former are, in ascending order.

    Raises
    ------
    InvalidDataError
        For values that are not finite, naming row and column, and for fewer than ``least`` rows.
    """

    n: int
    statistics: Statistics
    pixels: bool
    held_out: Array
    held_out_numbers: NDArray[np.int64]
    sample: Array

    def __init__(self, source: Source, names: Any, n_held_out: int, seed: int, least: int = 2) -> None:
        shape = source.sample_shape
        width = prod(shape)
        most = max(1, _KEPT_BYTES // (4 * width))
        n_held_out = min(n_held_out, most)
        n_sample = min(sample_size(width), len(source) - n_held_out)
        drawn = np.random.default_rng(seed).choice(len(source), n_held_out + n_sample, replace=False)
        self.held_out_numbers, sampled = np.sort(drawn[:n_held_out]), np.sort(drawn[n_held_out:])
        tally = Tally(width)
        kept: list[tuple[Array, Array]] = []
        self.pixels = False
        with closing(ahead(source.chunks(None))) as chunks:
            for numbers, samples in chunks:
                rows = samples.reshape(len(samples), -1)
                check_values(rows, names, shape, numbers)
                tally.add(rows)
                self.pixels = rows.dtype == np.uint8
                kept.append((rows[among(numbers, self.held_out_numbers)], rows[among(numbers, sampled)]))
        self.n = tally.n
        if self.n < least:
            s = "s" if least > 1 else ""
            raise InvalidDataError(f"X must have at least {least} row{s}; got {self.n}. Check the source.")
        if self.n < len(source):
            warnings.warn(
                f"{len(source) - self.n} of {len(source)} samples could not be read and were left out"
                f"{not_read(source)}",
                SkippedWarning,
                stacklevel=4,
            )
        self.statistics = tally.statistics()
        self.held_out, self.sample = (np.concatenate(parts) for parts in zip(*kept, strict=True))
