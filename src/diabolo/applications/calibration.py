"""From scores of rows that the weights have not seen to p-values and thresholds that keep their promise."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.errors import InvalidDataError, InvalidParameterError

Floats = NDArray[np.float64]
_ROUNDING = 1e-9  # (n + 1)(1 - rate) that is a whole number must not become the next one


@dataclass(frozen=True)
class Calibration:
    r"""Scores of held-out normal samples; higher means more anomalous.

    If the sample to be judged is exchangeable with these n, its p-value

    .. math:: p(s) = \frac{1 + \#\{i : s_i \ge s\}}{n + 1}

    is at most :math:`\alpha` with probability at most :math:`\alpha`, whatever the score's distribution
    (Vovk, Gammerman, Shafer 2005; Bates et al. 2023). ``p <= rate`` and ``score > threshold(rate)`` say
    the same.

    Parameters
    ----------
    scores : array (n,)
        In any order; finite, n >= 1.
    """

    scores: Floats

    def __post_init__(self) -> None:
        scores = np.sort(np.asarray(self.scores, dtype=np.float64).reshape(-1))
        if not len(scores) or not np.isfinite(scores).all():
            raise InvalidDataError(
                f"the scores of held-out samples must be finite and at least one; got {len(scores)}, "
                f"{int((~np.isfinite(scores)).sum())} of them NaN or inf. Hold out more samples."
            )
        object.__setattr__(self, "scores", scores)

    @property
    def least_rate(self) -> float:
        """The smallest false-alarm rate that so many samples can promise: 1 / (n + 1)."""
        return 1.0 / (len(self.scores) + 1)

    def p_value(self, scores: NDArray[Any]) -> Floats:
        """Return the share of normal samples that are at least so anomalous, (n_samples,), in (0, 1]."""
        n = len(self.scores)
        reached = n - np.searchsorted(self.scores, np.asarray(scores, dtype=np.float64), side="left")
        return np.asarray((1.0 + reached) / (n + 1.0))

    def threshold(self, false_alarm_rate: float) -> float:
        """Return the score that at most this share of normal samples is above.

        Raises
        ------
        InvalidParameterError
            For a rate outside (0, 1).
        """
        check_rate("false_alarm_rate", false_alarm_rate)
        n = len(self.scores)
        k = max(1, ceil((n + 1) * (1.0 - false_alarm_rate) - _ROUNDING))
        # too few samples for so low a rate: nothing can be flagged and the promise still be kept
        return float(self.scores[k - 1]) if k <= n else float("inf")


def check_rate(name: str, rate: Any) -> float:
    """Return ``rate`` as a float if it is a share strictly between 0 and 1."""
    good = isinstance(rate, (int, float, np.number)) and not isinstance(rate, bool) and 0 < rate < 1
    if not good:
        raise InvalidParameterError(f"{name} must be between 0 and 1; got {rate!r}. Give for example 0.01.")
    return float(rate)


def held_out_rows(held_out: Any, n: int) -> NDArray[np.int64]:
    """Return the numbers of the rows to hold out of n, in ascending order.

    Raises
    ------
    InvalidParameterError
        For anything but numbers of rows, each once, or where fewer than two rows are left.
    """
    try:
        given = np.asarray(held_out)
    except ValueError:  # ragged
        given = np.zeros(0)
    whole = given.ndim == 1 and given.dtype.kind in "iu"
    numbers = np.unique(given) if whole else np.zeros(0)
    if not 0 < len(numbers) == given.size <= n - 2 or numbers[0] < 0 or numbers[-1] >= n:
        raise InvalidParameterError(
            f"held_out must be an array of numbers of rows from 0 to {n - 1}, each once, which leave two or "
            f"more to train on; got {held_out!r}. Leave it out to have them drawn."
        )
    return numbers.astype(np.int64)
