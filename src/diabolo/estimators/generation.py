"""A density of codes for kinds without a prior: scikit-learn's Gaussian mixture, and rows to fit it on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

Array = NDArray[Any]
_COMPONENTS = 10
_ROWS_PER_COMPONENT = 20
_DIRECTIONS = 64  # a covariance of a thousand units would take minutes to fit and 80 MB to store


@dataclass(frozen=True)
class CodeDensity:
    """A Gaussian mixture as plain arrays, so that it can be stored without pickling.

    ``weights`` (k,), ``means`` (k, d), ``factors`` (k, d, r): the covariance of a component is
    ``factor @ factor.T``, of rank r.
    """

    weights: Array
    means: Array
    factors: Array

    @classmethod
    def fit(cls, codes: Array, seed: int) -> CodeDensity:
        """Fit up to ten components (fewer where there are few rows) with full covariances.

        Codes wider than 64 units are fitted in their 64 principal directions; what varies outside
        these is left at its mean.
        """
        from sklearn.mixture import GaussianMixture  # a quarter of what importing an estimator would cost

        k = max(1, min(_COMPONENTS, len(codes) // _ROWS_PER_COMPONENT))
        codes = codes.astype(np.float64)
        if len(codes) == 1:  # no spread, and fewer rows than scikit-learn's mixture takes
            codes = np.repeat(codes, 2, axis=0)
        centre = codes.mean(0)
        directions = np.eye(codes.shape[1])
        if codes.shape[1] > _DIRECTIONS:
            directions = np.linalg.eigh(np.cov(codes, rowvar=False))[1][:, -_DIRECTIONS:].T
        reduced = (codes - centre) @ directions.T
        # relative to the codes' own spread: dead units have none at all
        floor = 1e-6 + 1e-4 * float(reduced.var(0).mean())
        mixture = GaussianMixture(k, reg_covar=floor, random_state=seed % 2**31, max_iter=50, tol=1e-2)
        with warnings.catch_warnings():  # 50 rounds are enough for drawing; the likelihood is not reported
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(reduced)
        factors = directions.T @ np.linalg.cholesky(mixture.covariances_)
        return cls(mixture.weights_, centre + mixture.means_ @ directions, factors)

    def draw(self, n: int, chance: np.random.Generator | np.random.RandomState) -> Array:
        """Return n codes, (n, d)."""
        chosen = chance.choice(len(self.weights), size=n, p=self.weights / self.weights.sum())
        noise = chance.normal(size=(n, self.factors.shape[2]))
        drawn: Array = self.means[chosen]
        for component, factor in enumerate(self.factors):
            rows = chosen == component
            drawn[rows] += noise[rows] @ factor.T
        return drawn


class Reservoir:
    """Some of the rows that went by, each as likely to be among them as any other.

    Every row has a key, uniform on [0, 1]; those with the lowest keys are kept.

    Parameters
    ----------
    most : int >= 1
        How many at most.
    seed : int
        Draws the keys.

    Attributes
    ----------
    rows : ndarray (k, ...)
        What is kept.
    """

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._chance = most, np.random.default_rng(seed)
        self._keys = np.zeros(0)
        self.rows: Array = np.zeros(0)

    def add(self, rows: Array, n: int) -> None:
        """Let n rows go by: ``rows`` (k, ...) are all of them, or ``most`` of them drawn at random."""
        k = min(n, self._most, len(rows))
        # the k lowest of n keys, in ascending order: each is the least of those that are left
        steps = np.log(self._chance.random(k)) / (n - np.arange(k))
        keys = -np.expm1(np.cumsum(steps))
        drawn = self._chance.choice(len(rows), k, replace=False)
        if not len(self._keys):
            self._keys, self.rows = keys, rows[drawn]
            return
        room = self._most - len(self._keys)
        every = np.concatenate([self._keys, keys])
        if k <= room:
            self._keys, self.rows = every, np.concatenate([self.rows, rows[drawn]])
            return
        kept = np.zeros(len(every), dtype=bool)
        kept[np.argpartition(every, self._most - 1)[: self._most]] = True
        old, new = kept[: len(self._keys)], kept[len(self._keys) :]
        if room:
            self._keys = every[kept]
            self.rows = np.concatenate([self.rows[old], rows[drawn[new]]])
        elif new.any():  # in place: full, and few of many rows come in
            self._keys[~old], self.rows[~old] = keys[new], rows[drawn[new]]
