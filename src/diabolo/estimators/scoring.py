"""How well rows are restored: the sums behind ``score``, ``score_samples`` and ``reconstruction_error``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diabolo.estimators.inference import Net
from diabolo.estimators.scaling import Scaler
from diabolo.parts import Loss, LossModule
from diabolo.parts.losses import per_sample
from diabolo.parts.penalties import posterior_divergence

Array = NDArray[Any]
Doubles = NDArray[np.float64]

_CHUNK = 4096  # rows in double precision at a time


def normality(net: Net, cost_of: LossModule, loss: Loss, x: Tensor) -> Tensor:
    r"""Return how normal each of the rows x (n, *shape) is for a net with this loss, in scaled units: (n,).

    Where the loss is defined on an interval, of the row clipped to it, which the network sees too: outside
    it the loss may fall without bound. What the row exceeds the interval by, e, is charged
    :math:`2 e^2`: cross-entropy grows by so much at least with the distance of two shares (Pinsker).
    """
    bounded = math.isfinite(loss.low) or math.isfinite(loss.high)
    passed = net(x.clamp(loss.low, loss.high) if bounded else x)
    cost: Tensor = cost_of(passed.raw, passed.target)
    if passed.code.log_variance is not None:
        cost = cost + posterior_divergence(passed.code.mean, passed.code.log_variance).flatten(1).sum(1)
    if bounded:
        cost = cost + 2.0 * per_sample((x - passed.target).square())
    return -cost


def squares(rows: Array, restored: Array, scaler: Scaler, units: Array | float = 1.0) -> Doubles:
    """Return the squared residual of each row, summed over its values: (n,).

    Parameters
    ----------
    rows : ndarray (n, n_features)
        As they came.
    restored : ndarray (n, n_features)
        In scaled units. There the residuals are taken: in those of the rows, and in single precision,
        small values far from 0 would leave nothing but rounding.
    scaler : Scaler
    units : ndarray (n_features,) or float, default=1.0
        What residuals are multiplied by; ``scaler.scale`` brings them to the units of the rows.
    """
    out = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        residual = (scaler.exactly(rows[part]) - restored[part]) * units
        out[part] = np.einsum("ij,ij->i", residual, residual)
    return out


def spread(rows: Array, mean: Array, scaler: Scaler) -> float:
    """Return the squared distance of the rows (n, n_features) from their mean, in scaled units, summed."""
    total = 0.0
    for start in range(0, len(rows), _CHUNK):
        away = (rows[start : start + _CHUNK] - mean) / scaler.scale
        total += float(np.einsum("ij,ij->", away, away))
    return total
