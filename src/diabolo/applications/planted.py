"""How well a detector tells normal rows from anomalies that were planted in them, beside PCA and KNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from diabolo.parts import Mixed

Array = NDArray[Any]
Doubles = NDArray[np.float64]

_NEIGHBOURS = 5
_TRAINING, _JUDGED = 4096, 1000  # rows that PCA and KNN are fitted on, and that are judged
_SHIFT = (2.0, 4.0)  # standard deviations that a shifted value moves by
_SHIFTED = 0.25  # share of a row's features that are shifted
_TOLD_APART = 0.6  # area under the curve below which planted anomalies are as good as normal rows
_EASY = (
    0.95  # that of PCA or KNN beyond which one kind alone is worth a warning: it is told apart without a net
)
_TINY = 1e-100  # squares of smaller values are lost
_FAR = 1e12  # standard deviations beyond which PCA and KNN tell nothing apart, and squares are kept


def plant(
    rows: Array, training: Array, chance: np.random.Generator, table: Mixed | None = None
) -> dict[str, Doubles]:
    """Return anomalies made of normal rows (n, n_features).

    "shuffled": half of a row's features are those of another row, so that each value is normal and their
    combination is not (left out for a single feature). "shifted": a quarter of the features, at least one,
    lie 2 to 4 standard deviations (of the values that are not missing) further up or down. Of a mixed table
    whole columns are shuffled, and numeric ones shifted, where there are any: of a row those that are not
    missing. One without such is not among the shifted.
    """
    rows = np.asarray(rows, dtype=np.float64)
    n = len(rows)
    column_of = np.arange(rows.shape[1]) if table is None else np.array(table.column_of())
    d = int(column_of[-1]) + 1
    numeric = np.ones(rows.shape[1], dtype=bool) if table is None else np.isinf(table.bounds()[1])
    out = {}
    if d > 1 and n > 1:
        other = rows[(np.arange(n) + chance.integers(1, n, size=n)) % n]
        out["shuffled"] = np.where(_some(n, d, d // 2, chance)[:, column_of], other, rows)
    k = int(numeric.sum())
    if k:
        there = _there(rows, numeric, table)
        moved = _some(n, k, max(1, round(_SHIFTED * k)), chance, there)
        shift = chance.uniform(*_SHIFT, size=(n, k)) * chance.choice([-1.0, 1.0], size=(n, k))
        known, filled = training[:, numeric], ~_there(training, numeric, table)
        powers = _powers(known)
        some = ~filled.all(0)  # of no value there is no deviation
        values = _enlarged(known, powers)[:, some]
        spread = np.zeros(k)
        spread[some] = np.ldexp(values.std(0, dtype=np.float64, where=~filled[:, some]), -powers[some])
        shifted = rows.copy()
        shifted[:, numeric] += np.where(moved, shift, 0.0) * spread
        if there.any():
            out["shifted"] = shifted[there.any(1)]
    return out


def _there(rows: Doubles, numeric: NDArray[np.bool_], table: Mixed | None) -> NDArray[np.bool_]:
    """Return whether each numeric value of rows is there, (n, n_numeric), and not missing."""
    there = np.ones(rows.shape, dtype=bool)
    for block in [] if table is None else table.blocks():
        if block.missing is not None:
            there[:, block.start : block.start + block.size] = rows[:, block.missing, None] <= 0.5
    return there[:, numeric]


def _powers(training: Array) -> NDArray[np.int32]:
    """Return by which powers of two the columns are enlarged: 0 for all but those of tiny values."""
    largest = np.abs(training).max(0).astype(np.float64)
    return np.where(largest < _TINY, -np.frexp(largest)[1], 0)


def _enlarged(rows: Array, powers: NDArray[np.int32]) -> Array:
    return np.ldexp(rows.astype(np.float64), powers) if powers.any() else rows


def _some(
    n: int, d: int, k: int, chance: np.random.Generator, among: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return k of d marked in each of n rows, (n, d): of those in ``among``, all where they are fewer."""
    order = chance.permuted(np.tile(np.arange(d), (n, 1)), axis=1)
    if among is None or among.all():
        return order < k
    return among & (np.where(among, order, d).argsort(1).argsort(1) < k)


def rivals(training: Array) -> dict[str, Callable[[Array], Doubles]]:
    """Return PCA's and KNN's scores, higher = more anomalous, fitted on the first 4096 training rows.

    PCA's is the Mahalanobis distance in its components, KNN's the distance to the fifth neighbour; both of
    standardised features.
    """
    training = training[:_TRAINING]
    powers = _powers(training)
    scaler = StandardScaler().fit(_enlarged(training, powers))

    def standardised(x: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(scaler.transform(_enlarged(x, powers)).clip(-_FAR, _FAR))

    known = standardised(training)
    with np.errstate(invalid="ignore"):  # of equal rows no component explains a share of the variance
        pca = PCA(whiten=True).fit(known)
    near = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(known))).fit(known)
    kept = pca.explained_variance_ > 1e-9
    return {
        "PCA": lambda x: np.square(pca.transform(standardised(x))[:, kept]).sum(1),
        "KNN": lambda x: near.kneighbors(standardised(x))[0][:, -1],
    }


def compare(
    surprise: Callable[[Array], Doubles],
    training: Array,
    normal: Array,
    chance: np.random.Generator,
    table: Mixed | None = None,
) -> dict[str, dict[str, float]]:
    """Return the area under the ROC curve by detector and kind of anomaly.

    Parameters
    ----------
    surprise : callable(rows) -> ndarray (n,)
        The detector's score, higher = more anomalous.
    training : ndarray (n_training, n_features)
        What PCA and KNN learn.
    normal : ndarray (n, n_features)
        Rows that no detector has seen.
    chance : numpy Generator
        Draws the anomalies.
    table : Mixed, optional
        What the rows are, where they are a table of mixed columns.
    """
    training, normal = training[:_TRAINING], normal[:_JUDGED]
    detectors = {"diabolo": surprise} | rivals(training)
    anomalies = plant(normal, training, chance, table)
    out: dict[str, dict[str, float]] = {}
    for name, score in detectors.items():
        usual = score(normal)
        out[name] = {}
        for kind, planted in anomalies.items():
            labels = np.repeat([0, 1], [len(usual), len(planted)])
            out[name][kind] = float(roc_auc_score(labels, np.concatenate([usual, score(planted)])))
    return out


def unseen(comparison: Mapping[str, Mapping[str, float]]) -> str | None:
    """Return what to say where a detector does not tell planted anomalies from normal rows, else None.

    That is where all kinds are told apart with an area under the curve below 0.6, or one is so that PCA or
    KNN tells apart with more than 0.95.
    """
    seen = comparison["diabolo"]
    low = [kind for kind, area in seen.items() if area < _TOLD_APART]
    if low and len(low) == len(seen):
        return (
            "the detector restores anomalies as well as normal rows: planted ones are told apart with an "
            f"area under the ROC curve of {max(seen.values()):.2f} at best. Give more rows, or members with "
            "a narrower code or more noise."
        )
    for kind in low:
        best, name = max((comparison[name][kind], name) for name in ("PCA", "KNN"))
        if best > _EASY:
            return (
                "the detector restores one kind of anomalies as well as normal rows: planted ones with "
                f"{kind} values are told apart with an area under the ROC curve of {seen[kind]:.2f} ({name}: "
                f"{best:.2f}). Give more rows, train for more epochs, or choose members with more noise."
            )
    return None
