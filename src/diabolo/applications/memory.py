"""What a detector remembers: normal rows themselves, so that a row far from all of them is seen.

What autoencoders restore tells directions, not places: a row in the empty middle of what is normal is pulled
to no side, or is so plain that it is restored well. The best denoiser for the least of noise needs no
training: it returns the nearest rows. How far these are is what a memory adds, a nearest-neighbour score
(Ramaswamy, Rastogi, Shim, SIGMOD 2000).

Rows that were set apart, since they may be anomalies, are remembered too, but as such: the error is the
geometric mean of that beside all rows and that beside the others. So neither do anomalies that lie close to
each other vouch for each other, nor is a whole rare kind of normal rows forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from diabolo.applications.portions import by_portions
from diabolo.estimators.scaling import Scaler

Array = NDArray[Any]
Doubles = NDArray[np.float64]

_NEIGHBORS = 5
_WEIGHT = 3.0
_SAMPLE = 4096  # remembered rows that say what is typical
_RESOLUTION = 1e-3  # of the variance: rows nearer than that are equal
_COLUMNS = 64  # whose variances are computed together
_FAR = 1e15  # whose square single precision holds


@dataclass(frozen=True)
class Memory:
    """Rows that are taken to be normal, and how far each is from its nearest.

    Parameters
    ----------
    rows : ndarray (n, n_features), float32
        In scaled units; those that were set apart come last.
    offset, scale : ndarray (n_features,)
        (x - offset) / scale is in these.
    typical : float
        The median error of remembered rows, each judged by the others.
    resolution : float > 0
        What is added to the square of each feature's difference.
    n_apart : int, 0 <= n_apart < n
        How many of the rows were set apart.
    """

    rows: NDArray[np.float32]
    offset: Doubles
    scale: Doubles
    typical: float
    resolution: float = _RESOLUTION
    n_apart: int = 0

    weight = _WEIGHT  # beside autoencoders, of which each has 1

    @classmethod
    def of(cls, rows: Array, scaler: Scaler, *, unit_variance: bool = True, n_apart: int = 0) -> Memory:
        """Remember rows (n, n_features) as ``scaler`` scales them, perhaps to a mean variance of 1."""
        offset, scale = (
            np.broadcast_to(part, rows.shape[1]).astype(np.float64) for part in (scaler.offset, scaler.scale)
        )
        kept = by_portions(rows, lambda part: _scaled(part, offset, scale))
        variance = 1.0 if unit_variance else float(_variances(kept).mean())
        plain = cls(kept, offset, scale, 1.0, _RESOLUTION * (variance or 1.0), n_apart)
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.int64))]
        errors = by_portions(some, lambda part: plain.terms(part).sum(1))
        return replace(plain, typical=float(np.median(errors)))

    @cached_property
    def _indices(self) -> list[NearestNeighbors]:
        """What finds the nearest of all rows, and of those that were not set apart."""
        several = [self.rows, self.rows[: -self.n_apart]] if self.n_apart else [self.rows]
        return [NearestNeighbors(n_neighbors=min(_NEIGHBORS + 1, len(rows))).fit(rows) for rows in several]

    def terms(self, rows: Array) -> Doubles:
        """Return each feature's part of the error, (n, n_features), > 0; their sum is the row's error.

        That is the mean square of the difference to the five nearest remembered rows. One of them may be the
        row itself: of those that are equal to it, one does not count.
        """
        x = _scaled(rows, self.offset, self.scale)
        beside_all, *beside_rest = (self._beside(index, x) for index in self._indices)
        for terms in beside_rest:
            one, other = beside_all.sum(1, keepdims=True), terms.sum(1, keepdims=True)
            beside_all *= np.sqrt(other / one) / 2
            terms *= np.sqrt(one / other) / 2
            beside_all += terms
        return beside_all

    def _beside(self, index: NearestNeighbors, x: NDArray[np.float32]) -> Doubles:
        """Return the parts of the error beside the rows of ``index``, which are the first ones."""
        _, nearest = index.kneighbors(x)
        far = np.stack([self._squares(x, numbers).sum(1) for numbers in nearest.T])
        equal = far.min(0) == 0
        out = np.where(equal, far.argmin(0), far.argmax(0))  # one more than needed was looked for
        if len(far) <= _NEIGHBORS:
            out[~equal | (len(far) == 1)] = -1
        mean: Doubles = np.zeros(x.shape)
        for k, numbers in enumerate(nearest.T):  # once more, so that one of them at a time is in memory
            square = self._squares(x, numbers)
            square *= (out != k)[:, None]
            mean += square
        mean /= (len(far) - (out >= 0))[:, None]
        mean += self.resolution
        return mean

    def _squares(self, x: NDArray[np.float32], numbers: NDArray[np.int64]) -> Doubles:
        squares: Doubles = np.square(x - self.rows[numbers], dtype=np.float64)
        return squares


def _variances(rows: NDArray[np.float32]) -> Doubles:
    """Return the variance of each column, some at a time: it takes two arrays of doubles."""
    blocks = np.array_split(rows, -(-rows.shape[1] // _COLUMNS), axis=1)
    return np.concatenate([block.var(0, dtype=np.float64) for block in blocks])


def _scaled(rows: Array, offset: Doubles, scale: Doubles) -> NDArray[np.float32]:
    return np.clip((np.asarray(rows, dtype=np.float64) - offset) / scale, -_FAR, _FAR).astype(np.float32)
