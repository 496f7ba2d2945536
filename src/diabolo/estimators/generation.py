"""A density of codes for kinds without a prior: scikit-learn's Gaussian mixture."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

Array = NDArray[Any]
_COMPONENTS = 10
_ROWS_PER_COMPONENT = 20


@dataclass(frozen=True)
class CodeDensity:
    """A Gaussian mixture as plain arrays, so that it can be stored without pickling.

    ``weights`` (k,), ``means`` (k, d), ``factors`` (k, d, d): lower Cholesky factors of the covariances.
    """

    weights: Array
    means: Array
    factors: Array

    @classmethod
    def fit(cls, codes: Array, seed: int) -> CodeDensity:
        """Fit up to ten components with full covariances (fewer where there are few rows)."""
        k = max(1, min(_COMPONENTS, len(codes) // _ROWS_PER_COMPONENT))
        codes = codes.astype(np.float64)
        # relative to the codes' own spread: dead units have none at all
        floor = 1e-6 + 1e-4 * float(codes.var(0).mean())
        mixture = GaussianMixture(k, reg_covar=floor, random_state=seed % 2**31, max_iter=50, tol=1e-2)
        with warnings.catch_warnings():  # 50 rounds are enough for drawing; the likelihood is not reported
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(codes)
        return cls(mixture.weights_, mixture.means_, np.linalg.cholesky(mixture.covariances_))

    def draw(self, n: int, chance: np.random.Generator | np.random.RandomState) -> Array:
        """Return n codes, (n, d)."""
        chosen = chance.choice(len(self.weights), size=n, p=self.weights / self.weights.sum())
        noise = chance.normal(size=(n, self.means.shape[1]))
        drawn: Array = self.means[chosen] + np.einsum("nij,nj->ni", self.factors[chosen], noise)
        return drawn
