"""The estimator's own input scaling: chosen, applied, undone, and stored with the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.errors import IncompatiblePartsError, InvalidDataError
from diabolo.parts import ACTIVATIONS, Loss

Array = NDArray[Any]
_CHUNK = 4096  # rows converted at a time


@dataclass(frozen=True)
class Statistics:
    """Column statistics in double precision; each array has shape (n_features,)."""

    low: Array
    high: Array
    mean: Array
    variance: Array

    @classmethod
    def of(cls, X: Array) -> Statistics:
        """Compute them in one pass."""
        tally = Tally(X.shape[1])
        tally.add(X)
        return tally.statistics()


class Tally:
    """Statistics of rows that come piece by piece, merged by chunks as Chan et al. 1979 do."""

    def __init__(self, n_features: int) -> None:
        self.n = 0
        self._low, self._high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
        self._mean, self._squares = np.zeros(n_features), np.zeros(n_features)

    def add(self, X: Array) -> None:
        """Count in the rows X (k, n_features)."""
        for start in range(0, len(X), _CHUNK):
            part = X[start : start + _CHUNK].astype(np.float64)
            part_mean = part.mean(0)
            delta, total = part_mean - self._mean, self.n + len(part)
            self._squares += ((part - part_mean) ** 2).sum(0) + delta**2 * self.n * len(part) / total
            self._mean, self.n = self._mean + delta * len(part) / total, total
            self._low = np.minimum(self._low, part.min(0))
            self._high = np.maximum(self._high, part.max(0))

    def statistics(self) -> Statistics:
        """Return the statistics of all rows so far."""
        return Statistics(self._low, self._high, self._mean, self._squares / self.n)


@dataclass(frozen=True)
class Scaler:
    """``scaled = (x - offset) / scale``, each of shape (n_features,)."""

    kind: str | None
    offset: Array
    scale: Array

    @classmethod
    def fit(cls, kind: str | None, s: Statistics) -> Scaler:
        """Choose offset and scale. A constant column gets scale 1: it comes back as it went in."""
        ones = np.ones_like(s.mean)
        spread = s.high - s.low
        if kind == "standard":
            offset, scale = s.mean, np.sqrt(s.variance)
        elif kind == "center":
            offset, scale = s.mean, ones * np.sqrt(s.variance.mean())
        elif kind == "minmax":
            offset, scale = s.low, spread
        elif kind == "unit":
            offset, scale = ones * s.low.min(), ones * (s.high.max() - s.low.min())
        else:
            offset, scale = 0 * ones, ones
        constant = spread == 0 if kind in ("standard", "minmax") else scale == 0
        return cls(kind, offset, np.where(constant | (scale == 0), 1.0, scale))

    def scaled(self, X: Array) -> NDArray[np.float32]:
        """Map rows (n, n_features) to scaled units."""
        out = np.empty(X.shape, dtype=np.float32)
        with np.errstate(over="ignore"):  # the caller names what is too large
            for start in range(0, len(X), _CHUNK):
                rows = slice(start, start + _CHUNK)
                out[rows] = self.exactly(X[rows])
        return out

    def exactly(self, X: Array) -> NDArray[np.float64]:
        """Map rows (n, n_features) to scaled units in double precision."""
        scaled: NDArray[np.float64] = (X - self.offset) / self.scale
        return scaled

    def unscaled(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map rows (n, n_features) back to the units they came in."""
        out = np.empty(X.shape, dtype=np.float32)
        for start in range(0, len(X), _CHUNK):
            rows = slice(start, start + _CHUNK)
            out[rows] = X[rows] * self.scale + self.offset
        return out

    def bounds(self, s: Statistics, *, shared: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the least and the greatest value in scaled units, of each feature or, shared, of all."""
        ends = (s.low.min(), s.high.max()) if shared else (s.low, s.high)
        low, high = (((end - self.offset) / self.scale).astype(np.float32) for end in ends)
        return low, high

    def share(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> bool:
        """Whether these bounds (n_features,), in scaled units, are the same for all features in their own."""
        lows, highs = (end * self.scale + self.offset for end in (low, high))
        return bool(max(np.ptp(lows), np.ptp(highs)) <= 1e-4 * (highs.max() - lows.min()))


def share_bounds(s: Statistics, *, pixels: bool) -> bool:
    """Whether the features share their units.

    They do where the samples are images or 8-bit values (``pixels``), where more than half of the features,
    and more than one, have the least value of all, and as many the greatest, or where all values lie in
    [0, 1]. Of one or two columns one always has an extreme, whatever their units.
    """
    varying = s.high > s.low
    low, high = s.low.min(), s.high.max()
    n_low, n_high = np.sum(s.low[varying] == low), np.sum(s.high[varying] == high)
    bounds = min(n_low, n_high) > max(1, varying.sum() / 2)
    return pixels or bool(bounds) or bool(low >= 0.0 and high <= 1.0)


def choose_scaling(kind: str | None, loss: Loss, output: str | None, *, shared: bool) -> str | None:
    """Resolve "auto": by what loss and output can reach, and by whether the features share their bounds."""
    if kind != "auto":
        return kind
    ends = [loss.low, loss.high]
    if output in ACTIVATIONS:
        ends += [ACTIVATIONS[output].low, ACTIVATIONS[output].high]
    if np.isfinite(ends).any():
        return "unit" if shared else "minmax"
    return "center" if shared else "standard"


def check_targets(scaler: Scaler, s: Statistics, low: float, high: float, who: str) -> None:
    """Raise where scaled training data leave the interval that the loss or the output can reach."""
    least = float(((s.low - scaler.offset) / scaler.scale).min())
    most = float(((s.high - scaler.offset) / scaler.scale).max())
    slack = 1e-6 * max(1.0, abs(least), abs(most))
    if least < low - slack or most > high + slack:
        message = (
            f"the scaled data must lie in [{low:g}, {high:g}] for {who}; got [{least:.4g}, {most:.4g}] with "
            f"scaling={scaler.kind!r}. Set scaling='minmax', or choose another loss or output."
        )
        raise InvalidDataError(message) if scaler.kind is None else IncompatiblePartsError(message)
