"""The estimator's own input scaling: chosen, applied, undone, and stored with the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.errors import IncompatiblePartsError, InvalidDataError
from diabolo.parts import ACTIVATIONS, Loss

Array = NDArray[Any]
Floats = NDArray[np.float32]
_CHUNK = 4096  # rows converted at a time
_TOGETHER = 32  # rows that NumPy treats as one where they are narrow: its inner loop is long then
_NARROW = 128
_LARGEST = float(np.finfo(np.float32).max)


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
            part = X[start : start + _CHUNK]
            self._low = np.minimum(self._low, part.min(0))
            self._high = np.maximum(self._high, part.max(0))
            part = part.astype(np.float64)
            part_mean = part.mean(0)
            delta, total = part_mean - self._mean, self.n + len(part)
            part -= part_mean
            self._squares += np.square(part, out=part).sum(0) + delta**2 * self.n * len(part) / total
            self._mean, self.n = self._mean + delta * len(part) / total, total

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
        """Choose offset and scale. A constant column gets scale 1: it comes back as it went in.

        The offset is a number of single precision where one is near, so that the difference from a value of
        single precision is the same whether single or double precision holds the two.
        """
        ones = np.ones_like(s.mean)
        low, high = (s.low, s.high) if kind == "minmax" else (ones * s.low.min(), ones * s.high.max())
        if kind == "standard":
            scale = np.where(s.high == s.low, 1.0, np.sqrt(s.variance))
            offset = _near(s.mean, scale)
        elif kind == "center":
            scale = ones * np.sqrt(s.variance.mean())
            offset = _near(s.mean, scale)
        elif kind in ("minmax", "unit"):
            offset = _near(low, high - low, below=True)
            scale = high - offset
            scale[high == low] = 1.0
        else:
            offset, scale = 0 * ones, ones
        scale[scale == 0] = 1.0
        return cls(kind, offset, scale)

    def rescale(self, out: Floats, X: Array) -> None:
        """Write rows (n, n_features) in scaled units to ``out``.

        Differences are rounded to single precision, and so are the quotients. What it cannot hold comes
        out as inf or NaN; ``surely_finite`` tells, and ``rescale_exactly`` may still do it.
        """
        offset, scale = self._for_single if X.dtype == np.float32 else self._for_others
        with np.errstate(over="ignore", invalid="ignore"):
            for x, at in self._long_rows(X, out):
                width = x.shape[1]
                np.subtract(x, offset[:width], out=at, casting="same_kind")
                np.divide(at, scale[:width], out=at, casting="same_kind")

    def _long_rows(self, X: Array, out: Floats) -> Iterator[tuple[Array, Floats]]:
        """Return views of X and ``out`` in which narrow rows lie together, and then the rows left over."""
        n = X.shape[1]
        together = 0
        if n <= _NARROW and X.flags.c_contiguous:
            together = len(X) // _TOGETHER * _TOGETHER
            if together:
                yield X[:together].reshape(-1, _TOGETHER * n), out[:together].reshape(-1, _TOGETHER * n)
        if together < len(X):
            yield X[together:], out[together:]

    def surely_finite(self, scaled: Floats) -> bool:
        """Whether ``scaled`` rows and the rows they come from are in the range of single precision.

        One pass and no false yes: the sum of squares bounds every value, and NaN fails the comparison.
        """
        values = scaled.reshape(-1)
        return bool(values.dot(values) < self._bound)

    @cached_property
    def _bound(self) -> float:
        return float(np.clip(((_LARGEST - np.abs(self.offset)) / self.scale).min(), 0.0, 1e15)) ** 2

    @cached_property
    def _in_full(self) -> tuple[Array, Array]:
        return self._repeated(self.offset), self._repeated(self.scale)

    @cached_property
    def _for_others(self) -> tuple[Array, Array]:
        """Offset in full, and scale as it divides differences of single precision."""
        offset, scale = self._in_full
        sane = (self.scale > 1e-30).all() and (self.scale < 1e30).all()
        return offset, scale.astype(np.float32) if sane else scale

    @cached_property
    def _for_single(self) -> tuple[Array, Array]:
        """The same for rows of single precision; an older file's offset may be one that it cannot hold."""
        offset, scale = self._for_others
        single = offset.astype(np.float32)
        return single if (single == offset).all() else offset, scale

    @staticmethod
    def _repeated(values: Array) -> Array:
        return np.tile(values, _TOGETHER) if len(values) <= _NARROW else values

    def rescale_exactly(self, out: Floats, X: Array) -> None:
        """Do the same in double precision, rounded at the end: for values that leave single precision."""
        with np.errstate(over="ignore"):
            out[...] = self.exactly(X)

    def exactly(self, X: Array) -> NDArray[np.float64]:
        """Return rows (n, n_features) in scaled units in double precision."""
        scaled: NDArray[np.float64] = (X - self.offset) / self.scale
        return scaled

    def unscale(self, out: Floats, X: Floats) -> None:
        """Write rows (n, n_features) in the units they came in to ``out``."""
        offset, scale = self._in_full
        for x, at in self._long_rows(X, out):
            width = x.shape[1]
            np.add(x * scale[:width], offset[:width], out=at, casting="same_kind")

    def bounds(self, s: Statistics, *, shared: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the least and the greatest value in scaled units, of each feature or, shared, of all."""
        ends = (s.low.min(), s.high.max()) if shared else (s.low, s.high)
        low, high = (((end - self.offset) / self.scale).astype(np.float32) for end in ends)
        return low, high

    def share(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> bool:
        """Whether these bounds (n_features,), in scaled units, are the same for all features in their own."""
        lows, highs = (end * self.scale + self.offset for end in (low, high))
        return bool(max(np.ptp(lows), np.ptp(highs)) <= 1e-4 * (highs.max() - lows.min()))


def _near(values: Array, scale: Array, *, below: bool = False) -> Array:
    """Return the nearest numbers of single precision, or not above, where ``scale`` hides the difference."""
    near = values.astype(np.float32)
    if below:
        near = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
    moved = np.abs(near - values)
    return np.where(moved <= 1e-3 * np.where(scale == 0, 1.0, scale), near, values).astype(np.float64)


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
    if not loss.scalable:
        return None
    ends = [loss.low, loss.high]
    if output in ACTIVATIONS:
        ends += [ACTIVATIONS[output].low, ACTIVATIONS[output].high]
    if np.isfinite(ends).any():
        return "unit" if shared else "minmax"
    return "center" if shared else "standard"


def check_targets(
    scaler: Scaler, s: Statistics, low: float | list[float], high: float | list[float], who: str
) -> None:
    """Raise where scaled training data leave the interval that the loss or the output can reach.

    The interval is one for all features, or one for each.
    """
    least, most = (s.low - scaler.offset) / scaler.scale, (s.high - scaler.offset) / scaler.scale
    slack = 1e-6 * np.maximum(1.0, np.maximum(np.abs(least), np.abs(most)))
    wrong = (least < np.asarray(low) - slack) | (most > np.asarray(high) + slack)
    if not wrong.any():
        return
    if isinstance(low, list):
        j = int(np.argmax(wrong))
        raise InvalidDataError(
            f"column {j} must lie in [{low[j]:g}, {np.asarray(high)[j]:g}] for {who}; got "
            f"[{least[j]:.4g}, {most[j]:.4g}]. Give rows as the TableEncoder that has this layout makes them."
        )
    message = (
        f"the scaled data must lie in [{low:g}, {high:g}] for {who}; got [{least.min():.4g}, "
        f"{most.max():.4g}] with scaling={scaler.kind!r}. Set scaling='minmax', or choose another loss or "
        "output."
    )
    raise InvalidDataError(message) if scaler.kind is None else IncompatiblePartsError(message)
