"""Numbers about reconstructions and codes. NumPy arrays in, numbers out; knows nothing of the rest.

Shapes: X, Y (n_samples, ...) data and reconstruction in the same units; Z (n_samples, ...) codes.
Sums run in float64 whatever the data's type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]


def flat(X: ArrayLike) -> Array:
    """Return ``X`` as (n_samples, n_values), without a copy where possible."""
    array = np.asarray(X)
    return array.reshape(len(array), -1)


def squared_error(X: ArrayLike, Y: ArrayLike) -> Floats:
    """Return the squared error of each sample, summed over its values, shape (n_samples,)."""
    difference = flat(X).astype(np.float64) - flat(Y)
    return np.asarray(np.einsum("ij,ij->i", difference, difference))


def squared_error_per_feature(X: ArrayLike, Y: ArrayLike) -> Floats:
    """Return the squared error of each value, averaged over samples, shape (n_values,)."""
    difference = flat(X).astype(np.float64) - flat(Y)
    return np.asarray(np.einsum("ij,ij->j", difference, difference) / len(difference))


def r2(X: ArrayLike, Y: ArrayLike, mean: ArrayLike) -> float:
    """Return 1 - error / error of a predictor that always says ``mean``.

    1 is perfect, 0 as good as ``mean`` (shape of one sample), negative worse. NaN where ``mean`` is
    already exact.
    """
    baseline = float(squared_error(X, np.broadcast_to(np.asarray(mean), np.shape(X))).sum())
    return 1.0 - float(squared_error(X, Y).sum()) / baseline if baseline > 0 else float("nan")


def feature_r2(X: ArrayLike, Y: ArrayLike, mean: ArrayLike) -> float:
    """Return each value's own R^2 against ``mean``, averaged over values: every unit of measure counts alike.

    Values that ``mean`` already predicts exactly are left out (NaN where that is all of them), and no
    value counts for less than -1, so that one that hardly ever varies cannot drown the others.
    """
    baseline = squared_error_per_feature(X, np.broadcast_to(np.asarray(mean), np.shape(X)))
    vary = baseline > 1e-12 * max(float(baseline.max()), 1e-300)
    if not vary.any():
        return float("nan")
    left = squared_error_per_feature(X, Y)[vary] / baseline[vary]
    return float(np.maximum(1.0 - left, -1.0).mean())


def psnr(X: ArrayLike, Y: ArrayLike, data_range: float) -> float:
    """Return the peak signal-to-noise ratio in decibels, 10 log10(data_range^2 / mean squared error).

    ``data_range`` is the distance between the largest and the smallest value possible, > 0.
    Infinite for a perfect reconstruction.
    """
    error = float(squared_error(X, Y).mean()) / flat(X).shape[1]
    return 10.0 * float(np.log10(data_range**2 / error)) if error > 0 else float("inf")


def typical_std(X: ArrayLike) -> float:
    """Return the root of the variance of a value around its mean over samples, averaged over values."""
    return float(np.sqrt(flat(X).var(axis=0, dtype=np.float64).mean()))


def code_activity(Z: ArrayLike, tolerance: float = 1e-6) -> Floats:
    """Return the share of samples on which each unit of the code is active, shape (n_units,).

    Active means that its magnitude exceeds ``tolerance``; a unit with share 0 is dead.
    """
    return np.asarray((np.abs(flat(Z)) > tolerance).mean(axis=0, dtype=np.float64))


def relative_jacobian(norm: float, code_variance: float, mean_variance: float) -> float:
    """Return an encoder's gain over all directions, relative to its gain along the data.

    ``norm`` is the squared Frobenius norm of d code / d x, ``code_variance`` the variance of the code
    summed over its units, ``mean_variance`` that of x averaged over its values, all in the same units:
    norm * mean_variance / code_variance. The scale of the code cancels. NaN for a constant code.
    """
    return norm * mean_variance / code_variance if code_variance > 0 else float("nan")


def pca(X: ArrayLike, n_components: int, random_state: int = 0) -> Any:
    """Return scikit-learn's PCA fitted to ``X``; the exact solver for small data, randomised for big.

    ``n_components`` is cut to what the data allow, min(n_samples, n_values).
    """
    from sklearn.decomposition import PCA

    rows = flat(X)
    kept = max(1, min(n_components, *rows.shape))
    big = min(rows.shape) > 1000 and kept < 0.5 * min(rows.shape)
    solver = "randomized" if big else "full" if rows.shape[1] > rows.shape[0] else "covariance_eigh"
    fitted = PCA(n_components=kept, svd_solver=solver, random_state=random_state)
    return fitted.fit(rows.astype(np.float64 if not big else np.float32, copy=False))


def pca_reconstruction(
    X_train: ArrayLike, X_test: ArrayLike, n_components: int, random_state: int = 0
) -> Array:
    """Return ``X_test`` projected on the leading principal components of ``X_train``, in X_test's shape.

    The best linear reconstruction from a code of ``n_components`` values: what an autoencoder has to beat.
    """
    fitted = pca(X_train, n_components, random_state)
    restored: Array = fitted.inverse_transform(fitted.transform(flat(X_test)))
    return restored.reshape(np.shape(X_test))


def neighbour_accuracy(Z: ArrayLike, labels: ArrayLike, n_neighbours: int = 5, limit: int = 4000) -> float:
    """Return how often a code's neighbours vote for its own label, leaving the code itself out.

    A measure of how well the code keeps classes apart, in [0, 1]. The first ``limit`` codes are used;
    NaN where there are no more codes than ``n_neighbours``.
    """
    from sklearn.neighbors import NearestNeighbors

    codes = flat(Z)[:limit]
    _, classes = np.unique(np.asarray(labels)[: len(codes)], return_inverse=True)
    if len(codes) <= n_neighbours:
        return float("nan")
    found = NearestNeighbors(n_neighbors=n_neighbours + 1).fit(codes).kneighbors(codes, return_distance=False)
    itself = found == np.arange(len(codes))[:, None]
    itself[~itself.any(axis=1), -1] = True  # among many equal codes a sample may not find itself
    others = classes[found[~itself].reshape(len(codes), n_neighbours)]
    votes = np.stack([(others == label).sum(axis=1) for label in range(classes.max() + 1)], axis=1)
    return float((votes.argmax(axis=1) == classes).mean())
