"""``SignalDetector``: which windows of a series are unlike the others, and at which of its steps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from diabolo.applications.calibration import check_rate
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.estimators.validation import is_sparse
from diabolo.parts import check_range

if TYPE_CHECKING:
    from diabolo.applications.anomaly import AnomalyDetector, Progress

Array = NDArray[Any]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

_STRETCHES = 5  # that are held out, so that they tell of the whole series


@dataclass(kw_only=True, eq=False, repr=False)
class SignalDetector(BaseEstimator):  # type: ignore[misc]
    r"""Detects stretches of a series, or whole windows such as heart beats, that are unlike the normal ones.

    A series is cut into overlapping windows, an ``AnomalyDetector`` judges each window as a row, and what it
    says about a step of the series is averaged over the windows that hold the step.

    Overlapping windows share values, so that one that is held out at random has been seen. The threshold
    therefore comes from five whole stretches of the series, together the detector's ``calibration_fraction``
    of it, that share no step with the windows trained on. Neighbouring windows resemble each other: the rate
    of false alarms holds on average, and spreads more than with independent rows. Only windows that share
    nothing (``step`` equal to ``window``) are held out by chance; of the steps at the end of the series that
    do not fill one more, nothing is then learned.

    Parameters
    ----------
    detector : AnomalyDetector, optional
        Unfitted; judges windows as flat rows, channel by channel. None: its defaults, scaled as a whole and
        not whitened, so that steps that hardly vary are not blown up.
    window : int >= 2, optional
        Steps in a window: about as long as what is looked for, such as one beat. None: X holds windows
        already, (n_windows, length) or (n_windows, channels, length), and the detector sets its threshold.
    step : int from 1 to window, optional
        Steps between the starts of two windows. None: a quarter of the window.

    Attributes
    ----------
    detector_ : AnomalyDetector
        Fitted, with the threshold from held-out stretches.
    n_channels_, window_ : int
        Of each window.
    """

    detector: AnomalyDetector | None = None
    window: int | None = None
    step: int | None = None

    def fit(self, X: Any, y: Any = None, *, progress: Progress | None = None) -> Self:
        """Learn what windows look like.

        Parameters
        ----------
        X : array (n_samples,) or (channels, n_samples); windows where ``window`` is None
            A normal series; some anomalies in it do little harm.
        y : ignored
        progress : callable(share, what), optional
            Called now and then with the share of the work that is done, and what is being done.

        Raises
        ------
        InvalidDataError
            For a series that is too short, or not finite: the message names the step.
        InvalidParameterError, DivergedError
        """
        self.__dict__.pop("detector_", None)
        windows, starts = self._cut(X)
        detector = self._unfitted()
        self.n_channels_, self.window_ = windows.shape[1:]
        flat = windows.reshape(len(windows), -1)
        if starts is None or self._stride >= self.window_:  # windows that share nothing are rows like others
            if starts is not None and starts[-1] < (len(starts) - 1) * self.window_:  # but the last may do so
                flat = flat[:-1]
            self.detector_ = detector.fit(flat, progress=progress)
            return self
        training, held_out = _apart(
            starts, self.window_, check_rate("calibration_fraction", detector.calibration_fraction)
        )
        kept = np.union1d(training, held_out)
        detector.fit(flat[kept], held_out=np.searchsorted(kept, held_out), progress=progress)
        detector.set_apart_ = kept[detector.set_apart_]
        self.detector_ = detector
        return self

    def _unfitted(self) -> AnomalyDetector:
        from diabolo.applications.anomaly import AnomalyDetector

        if self.detector is None:
            return AnomalyDetector(scaling="center", whitening=None)  # the steps of a signal share their unit
        if not isinstance(self.detector, AnomalyDetector):
            raise InvalidParameterError(
                f"detector must be an AnomalyDetector; got {self.detector!r}. Leave it out for the default."
            )
        unfitted: AnomalyDetector = clone(self.detector)
        return unfitted

    def set_threshold(self, **given: float | None) -> Self:
        """Set what counts as an anomaly, as ``AnomalyDetector.set_threshold``."""
        check_is_fitted(self)
        self.detector_.set_threshold(**given)
        return self

    # ------------------------------------------------------------------ files
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted detector to one file, with its threshold; ``SignalDetector.load`` reads it.

        Raises
        ------
        ModelFileError
            Where the place cannot be written.
        """
        from diabolo.applications.signal_files import write_signals

        check_is_fitted(self)
        return write_signals(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SignalDetector:
        """Read a detector that ``save`` wrote, with its threshold; nothing is unpickled.

        Raises
        ------
        ModelFileError
            For a file that is missing, damaged, foreign, hostile or of a later version.
        """
        from diabolo.applications.signal_files import read_signals

        return read_signals(path)

    # ------------------------------------------------------------------ windows
    def starts(self, n_samples: int) -> Integers:
        """Return where the windows of a series of so many steps start; the last ends with the series."""
        return window_starts(n_samples, self._length, self._stride)

    def score_samples(self, X: Any) -> Doubles:
        """Return how normal each window is, (n_windows,), higher = more normal."""
        rows = self._rows(X)[0]
        return self.detector_.score_samples(rows)

    def decision_function(self, X: Any) -> Doubles:
        """Return ``score_samples`` less the threshold's, (n_windows,); negative for anomalies."""
        rows = self._rows(X)[0]
        return self.detector_.decision_function(rows)

    def predict(self, X: Any) -> Integers:
        """Return 1 for normal windows and -1 for anomalies, (n_windows,)."""
        rows = self._rows(X)[0]
        return self.detector_.predict(rows)

    def p_value(self, X: Any) -> Doubles:
        """Return the share of held-out windows that are at least so surprising, (n_windows,), in (0, 1]."""
        rows = self._rows(X)[0]
        return self.detector_.p_value(rows)

    # ------------------------------------------------------------------ steps
    def explain(self, X: Any) -> Doubles:
        r"""Return each value's surprise, of X's shape: the mean over a window is the window's surprise.

        .. math:: e_t = \frac{1}{|W_t|} \sum_{w \in W_t} n\, p_w(t)

        with the windows :math:`W_t` that hold step t, the part :math:`p_w(t)` of the value in the surprise
        of window w, and n values in a window.
        """
        rows, starts, n_samples = self._rows(X)
        parts = self.detector_.explain(rows) * rows.shape[1]
        parts = parts.reshape(len(rows), self.n_channels_, self.window_)
        return (parts if starts is None else _averaged(parts, starts, n_samples)).reshape(np.shape(X))

    def score_steps(self, X: Any) -> Doubles:
        """Return how normal each step is, higher = more normal: (n_samples,), or (n_windows, length)."""
        parts = self.explain(X)
        several = parts.ndim == (3 if self.window is None else 2)
        return -parts.mean(-2) if several else -parts

    def predict_steps(self, X: Any) -> Integers:
        """Return -1 where at least half of the windows that hold a step are anomalies, else 1, (n_samples,).

        A rate of false alarms among windows gives at most twice that rate among steps (Markov's inequality).
        What is flagged reaches up to half a window beyond the anomaly on both sides; ``score_steps`` is
        finer.
        """
        if self.window is None:
            raise InvalidParameterError(
                "predict_steps needs a series; got windows (window=None). Use score_steps, or predict."
            )
        rows, starts, n_samples = self._rows(X)
        assert starts is not None
        flagged = (self.detector_.predict(rows) == -1).astype(np.float64)
        parts = np.broadcast_to(flagged[:, None, None], (len(rows), 1, self.window_))
        return np.where(_averaged(parts, starts, n_samples)[0] >= 0.5, -1, 1)

    # ------------------------------------------------------------------ what comes in
    @property
    def _length(self) -> int:
        if self.window is None:
            raise InvalidParameterError("window must be set to cut a series; got None. Give for example 100.")
        check_range("window", self.window, low=2, integer=True)
        return int(self.window)

    @property
    def _stride(self) -> int:
        return check_step(self.step, self._length)

    def _rows(self, X: Any) -> tuple[Array, Integers | None, int]:
        """Return the windows as flat rows, where they start, and how many steps the series has."""
        check_is_fitted(self)
        windows, starts = self._cut(X)
        if windows.shape[1:] != (self.n_channels_, self.window_):
            raise InvalidDataError(
                f"X must have {self.n_channels_} channel(s) and windows of {self.window_} steps, as in fit; "
                f"got "
                f"{windows.shape[1]} and {windows.shape[2]}. Give what fit was given."
            )
        return windows.reshape(len(windows), -1), starts, np.shape(X)[-1]

    def _cut(self, X: Any) -> tuple[Array, Integers | None]:
        """Return windows (n_windows, channels, length) and where they start; None for given windows."""
        if self.window is not None:
            return cut(X, self._length, self._stride)
        self._check_uncut()
        windows = _numbers(X, "windows", (2, 3), "(n_windows, length) or (n_windows, channels, length)")
        return (windows if windows.ndim == 3 else windows[:, None, :]), None

    def _check_uncut(self) -> None:
        """Raise where a step is set and nothing is cut."""
        if self.step is not None:
            raise InvalidParameterError(
                f"step must be None where X holds windows already (window=None); got {self.step!r}. Leave it "
                "out."
            )


def cut(X: Any, window: int, step: int | None = None) -> tuple[Array, Integers]:
    """Return the windows (n_windows, channels, window) of a series, and the steps at which they start.

    Parameters
    ----------
    X : array (n_samples,) or (channels, n_samples)
        Finite numbers, at least one window long.
    window : int >= 2
        Steps in a window.
    step : int from 1 to window, optional
        Between two starts; None: a quarter of the window.

    Raises
    ------
    InvalidDataError, InvalidParameterError
    """
    check_range("window", window, low=2, integer=True)
    series = np.atleast_2d(_numbers(X, "series", (1, 2), "(n_samples,) or (channels, n_samples)"))
    starts = window_starts(series.shape[1], window, check_step(step, window))
    # The view shares its values; the copy of the chosen windows is (window / step) times the series.
    return sliding_window_view(series, window, axis=1)[:, starts].swapaxes(0, 1).copy(), starts


def check_step(step: int | None, window: int) -> int:
    """Return the steps between two windows; they may not leave steps out."""
    if step is None:
        return max(1, window // 4)
    check_range("step", step, low=1, integer=True)
    if step > window:
        raise InvalidParameterError(
            f"step must be at most window, {window}, or steps would be in no window; got {step}. Lower it."
        )
    return int(step)


def window_starts(n_samples: int, window: int, step: int) -> Integers:
    """Return where windows start, (n_windows,): every ``step`` steps, and one at the end."""
    if n_samples < window:
        raise InvalidDataError(
            f"a series must be at least one window long, {window} steps; got {n_samples}. Give more, or a "
            "shorter window; several channels come as (channels, n_samples)."
        )
    starts = np.arange(0, n_samples - window + 1, step)
    last = n_samples - window
    return starts if starts[-1] == last else np.append(starts, last)


def _numbers(X: Any, what: str, extents: tuple[int, ...], shapes: str) -> Array:
    """Return X as a float array of one of these numbers of dimensions, or say what is wrong and where."""
    if is_sparse(X):
        raise InvalidDataError(f"{what} must be a dense array; got a sparse one. Call X.toarray().")
    if np.ma.is_masked(X):
        raise InvalidDataError(f"{what} must have no masked values; got some. Fill in or cut out the gaps.")
    try:
        values = np.asarray(X)
    except ValueError:
        raise InvalidDataError(
            f"{what} must have the shape {shapes}; got parts of different shapes. To learn from several "
            "series, cut each into windows side by side, join these, and set window=None."
        ) from None
    if values.dtype.kind not in "biufO":
        raise InvalidDataError(
            f"{what} must be real numbers; got the type {values.dtype}. Give real and imaginary parts as two "
            "channels, times as numbers of seconds."
        )
    try:
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidDataError(f"{what} must be numbers; got {error}. Encode or drop the others.") from None
    if values.ndim not in extents or not values.size:
        raise InvalidDataError(f"{what} must have the shape {shapes}; got {values.shape}. Reshape X.")
    finite = np.isfinite(values)
    if not finite.all():
        place = [int(k) for k in np.argwhere(~finite)[0]]
        value = "NaN" if np.isnan(values[tuple(place)]) else "inf"
        names = ["step"] if len(place) == 1 else ["window", "channel", "step"][-len(place) :]
        if what == "windows" and len(place) == 2:
            names = ["window", "step"]
        where = ", ".join(f"{name} {k}" for name, k in zip(names, place, strict=True))
        raise InvalidDataError(f"{what} must be finite; got {value} at {where}. Fill in or cut out the gap.")
    return values


def _apart(starts: Integers, window: int, share: float) -> tuple[Integers, Integers]:
    """Return which windows are trained on, and the share held out, which has no step in common with them."""
    n = len(starts)
    size = max(1, round(share * n / _STRETCHES))
    middles = (np.arange(_STRETCHES) + 0.5) * n / _STRETCHES
    held_out = np.unique(
        np.clip(np.concatenate([np.arange(size) + int(m) - size // 2 for m in middles]), 0, n - 1)
    )
    # The nearest held-out window before and after each; one that shares a step is neither of the two.
    after = np.clip(np.searchsorted(starts[held_out], starts), 0, len(held_out) - 1)
    nearest = np.minimum(
        np.abs(starts[held_out[after]] - starts), np.abs(starts[held_out[np.maximum(after - 1, 0)]] - starts)
    )
    training = np.flatnonzero(nearest >= window)
    if len(training) < (1 - share) * n / 4:
        raise InvalidDataError(
            f"a series must be long enough to hold out {_STRETCHES} stretches for the threshold; got {n} "
            f"windows, of which {len(training)} share no step with the {len(held_out)} held out. Give a "
            "longer series, a shorter window, or a smaller calibration_fraction."
        )
    return training, held_out


def _averaged(parts: Array, starts: Integers, n_samples: int) -> Doubles:
    """Return the mean over windows (n_windows, channels, window) at each step, (channels, n_samples)."""
    total = np.zeros((parts.shape[1], n_samples))
    count = np.zeros(n_samples)
    for start, part in zip(starts, parts, strict=True):
        total[:, start : start + part.shape[1]] += part
        count[start : start + part.shape[1]] += 1
    return total / count
