"""Thresholds of images that come in groups, such as slices of patients, and of very few images."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from diabolo.applications.calibration import _ROUNDING, Calibration, Floats, check_rate
from diabolo.errors import InvalidDataError


@dataclass(frozen=True)
class GroupedCalibration(Calibration):
    r"""Scores of held-out normal samples that come in K groups, such as the slices of K patients.

    Samples of one group resemble each other, so that a new patient's slices may all lie higher than those of
    most. What is exchangeable are the groups, each of which therefore counts as one. For a sample of a group
    not seen before, with :math:`n_k` held-out samples in group k, the p-value

    .. math:: p(s) = \frac{1}{K + 1} \left(1 + \sum_k \frac{\#\{i : s_{ki} \ge s\}}{n_k}\right)

    is at most :math:`\alpha` with probability at most :math:`\alpha` (Lee, Barber, Willett,
    "Distribution-free inference with hierarchical data", 2023). With groups of one it is ``Calibration``'s.

    Parameters
    ----------
    scores : array (n,)
        In any order; finite, n >= 1.
    groups : array (n,) of int
        The number of each score's group, from 0 to K - 1.
    """

    groups: NDArray[np.int64]

    def __post_init__(self) -> None:
        scores, groups = np.asarray(self.scores, dtype=np.float64), np.asarray(self.groups, dtype=np.int64)
        n = int(np.max(groups, initial=-1)) + 1
        if groups.shape != scores.shape or n > len(scores) or list(np.unique(groups)) != list(range(n)):
            raise InvalidDataError(
                f"groups must number every score's group from 0; got {groups.shape} for {scores.shape} "
                "scores. Use numpy.unique(labels, return_inverse=True)."
            )
        object.__setattr__(self, "groups", groups[np.argsort(scores, kind="stable")])
        super().__post_init__()

    @property
    def n_groups(self) -> int:
        """Of how many groups samples were held out."""
        return int(np.max(self.groups, initial=-1)) + 1

    @property
    def least_rate(self) -> float:
        """The smallest false-alarm rate that so many groups can promise: 1 / (K + 1)."""
        return 1.0 / (self.n_groups + 1)

    @property
    def weights(self) -> Floats:
        """What each score counts, (n,): one over the size of its group."""
        return 1.0 / np.bincount(self.groups)[self.groups]

    @property
    def _beyond(self) -> Floats:
        """The p-value of what lies between score j - 1 and score j, (n + 1,)."""
        above = np.append(np.cumsum(self.weights[::-1])[::-1], 0.0)
        return np.asarray((1.0 + above) / (self.n_groups + 1))

    def p_value(self, scores: NDArray[Any]) -> Floats:
        """Return the share of normal groups' samples that are at least so anomalous, (n_samples,)."""
        places = np.searchsorted(self.scores, np.asarray(scores, dtype=np.float64), side="left")
        return np.asarray(self._beyond[places])

    def threshold(self, false_alarm_rate: float) -> float:
        """Return the score that at most this share of the samples of new normal groups is above.

        Raises
        ------
        InvalidParameterError
            For a rate outside (0, 1).
        """
        check_rate("false_alarm_rate", false_alarm_rate)
        good = self._beyond[1:] <= false_alarm_rate + _ROUNDING
        return float(self.scores[np.argmax(good)]) if good.any() else float("inf")


def beyond_promise(calibration: Calibration, rate: float) -> float:
    r"""Return a threshold where too few are held out to promise so low a rate whatever the distribution.

    That of scores with a normal distribution, K of which (or of the groups, each with all of its own) tell
    mean m and variance :math:`s^2`: :math:`m + t_{K-1}(1 - \alpha)\, s \sqrt{1 + 1/K}`. Never less than the
    highest of the scores; that, where there is one only.
    """
    scores, highest = calibration.scores, float(calibration.scores[-1])
    weights, n = np.ones_like(scores), len(scores)
    if isinstance(calibration, GroupedCalibration):
        weights, n = calibration.weights, calibration.n_groups
    if n == 1:
        return highest
    mean = float(np.average(scores, weights=weights))
    variance = float(np.average(np.square(scores - mean), weights=weights)) * n / (n - 1)
    reach = float(stats.t.ppf(1 - rate, n - 1))
    return max(highest, mean + reach * sqrt(variance * (1 + 1 / n)))
