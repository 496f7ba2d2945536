"""A detector as PyOD's users know theirs: anomalies score high and are 1, thresholds go by contamination.

PyOD is not needed. The contract is that of its ``BaseDetector`` in version 3.6.7.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, erf
from scipy.stats import binom
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import roc_auc_score
from sklearn.utils import ClassifierTags
from sklearn.utils.validation import check_is_fitted

from diabolo.applications.anomaly import AnomalyDetector
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.names import check_name
from diabolo.parts import check_range

Doubles = NDArray[np.float64]
Labels = NDArray[np.int64]

_METHODS = ("linear", "unify")
_SCORINGS = ("roc_auc_score", "prc_n_score")
_TINY = 1e-9  # where all training scores are equal, whatever is above them is an anomaly for certain
_REJECTED = -2


class PyodDetector(BaseEstimator):  # type: ignore[misc]
    r"""An ``AnomalyDetector`` with the methods and attributes of a detector of PyOD.

    ``AnomalyDetector.as_pyod()`` returns one. Beside scikit-learn's way of a detector, scores have the
    opposite sign (they are the surprise), labels are 0 for normal rows and 1 for anomalies, and the threshold
    is the quantile of the *training* rows' scores at which a share ``contamination`` of these is labelled 1.

    That threshold promises nothing for fresh rows: what a net was trained on it restores better than what it
    was not, so of fresh normal rows more than that share may be flagged. ``AnomalyDetector`` takes its own
    from rows that the weights have not seen; it remains in ``detector_``, with its p-values and explanations.

    Parameters
    ----------
    contamination : float in (0, 0.5], default=0.1
        Share of the training rows that are labelled anomalies.
    detector : AnomalyDetector, optional
        What is fitted, a clone of it. None: one with the defaults.

    Attributes
    ----------
    detector_ : AnomalyDetector
        Fitted.
    decision_scores_ : ndarray (n_training,)
        The surprises of the rows of fit, in their order, higher = more anomalous. Where ``as_pyod`` was
        called on a detector that had been fitted, whose training rows are not kept: those of its held-out
        rows, in ascending order, until ``fit`` is called.
    threshold_ : float
        The quantile 1 - contamination of these.
    labels_ : ndarray (n_training,) of int
        1 where they are above it, else 0.

    References
    ----------
    Kriegel et al. 2011 (unifying scores); Perini, Vercruyssen, Davis 2020 (confidence); Perini, Davis 2023
    (rejection).
    """

    detector_: AnomalyDetector
    decision_scores_: Doubles
    labels_: Labels
    threshold_: float

    def __init__(self, contamination: float = 0.1, detector: AnomalyDetector | None = None) -> None:
        self.contamination = contamination
        self.detector = detector

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit a clone of the detector to rows, some of which may be anomalies.

        Parameters
        ----------
        X : array, frame or sparse matrix (n_samples, n_features), images, or a Source
            As for ``AnomalyDetector.fit``.
        y : ignored

        Raises
        ------
        InvalidDataError, InvalidParameterError, IncompatiblePartsError, DivergedError
        """
        self._check_settings()
        for name in ("detector_", "decision_scores_"):
            self.__dict__.pop(name, None)
        detector = (AnomalyDetector() if self.detector is None else clone(self.detector)).fit(X)
        return self._take(detector, -detector.score_samples(X))

    def _take(self, detector: AnomalyDetector, scores: Doubles) -> Self:
        """Be the adapter of a fitted detector; the threshold comes from ``scores``."""
        self._check_settings()
        self.detector_, self.decision_scores_ = detector, scores
        self.threshold_ = float(np.quantile(scores, 1.0 - self.contamination))
        self.labels_ = self._labels(scores)
        return self

    def _check_settings(self) -> None:
        check_range("contamination", self.contamination, low=0, high=0.5, open_low=True)
        if not (self.detector is None or isinstance(self.detector, AnomalyDetector)):
            raise InvalidParameterError(
                f"detector must be an AnomalyDetector; got {self.detector!r}. Leave it out for the default."
            )

    # ------------------------------------------------------------------ scores and labels
    def decision_function(self, X: Any) -> Doubles:
        """Return how anomalous each row is, (n_samples,), higher = more: the surprise."""
        check_is_fitted(self)
        return -self.detector_.score_samples(X)

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """Return 1 for anomalies and 0 for normal rows, (n_samples,); with their confidence if asked for."""
        scores = self.decision_function(X)
        labels = self._labels(scores)
        return (labels, self._confidence(scores)) if return_confidence else labels

    def fit_predict(self, X: Any, y: Any = None) -> Labels:
        """Fit, and return the labels of the rows, (n_samples,), 0 or 1."""
        return self.fit(X).labels_

    def _labels(self, scores: Doubles) -> Labels:
        return (scores > self.threshold_).astype(np.int64)

    # ------------------------------------------------------------------ probabilities
    def predict_proba(self, X: Any, method: str = "linear", return_confidence: bool = False) -> Any:
        r"""Return the probability of being normal and that of being an anomaly, (n_samples, 2).

        Parameters
        ----------
        X : as for ``predict``
        method : {"linear", "unify"}, default="linear"
            How a score s becomes a probability: where it lies between the least and the greatest of
            ``decision_scores_``; or :math:`\max(0, \mathrm{erf}((s - \mu) / \sigma\sqrt 2))` with their mean
            and standard deviation.
        return_confidence : bool, default=False
            Whether to return (probabilities, confidence).
        """
        check_name("method", method, _METHODS)
        scores, known = self.decision_function(X), self.decision_scores_
        if method == "linear":
            low, high = known.min(), known.max()
            anomalous = (scores - low) / ((high - low) or 1.0)
        else:
            anomalous = erf((scores - known.mean()) / max(known.std() * sqrt(2.0), _TINY))
        anomalous = anomalous.clip(0.0, 1.0)
        probabilities = np.stack([1.0 - anomalous, anomalous], axis=1)
        return (probabilities, self._confidence(scores)) if return_confidence else probabilities

    def predict_confidence(self, X: Any) -> Doubles:
        r"""Return how likely a detector of another training set would give the same label, (n_samples,).

        With k of the n ``decision_scores_`` at most a row's score, p = (1 + k) / (2 + n) estimates the chance
        that a training row scores no higher, and P(Binomial(n, p) > n - floor(n * contamination)) the chance
        that the row is among the anomalies; for a row that is labelled normal it is one less that.
        """
        return self._confidence(self.decision_function(X))

    def _confidence(self, scores: Doubles) -> Doubles:
        n = len(self.decision_scores_)
        p = (1.0 + np.searchsorted(np.sort(self.decision_scores_), scores, side="right")) / (2.0 + n)
        anomaly = binom.sf(n - int(n * self.contamination), n, p)
        return np.where(self._labels(scores) == 1, anomaly, 1.0 - anomaly)

    # ------------------------------------------------------------------ rejection
    def predict_with_rejection(
        self,
        X: Any,
        T: float = 32,
        return_stats: bool = False,
        delta: float = 0.1,
        c_fp: float = 1,
        c_fn: float = 1,
        c_r: float = -1,
    ) -> Any:
        """Return 1 for anomalies, 0 for normal rows and -2 where the confidence is too low, (n_samples,).

        Parameters
        ----------
        X : as for ``predict``
        T : float > 0, default=32
            Rows are rejected where abs(2 * confidence - 1) is at most 1 - 2 exp(-T); more with a greater T.
        return_stats : bool, default=False
            Whether to return (labels, what ``compute_rejection_stats`` gives for the other arguments).
        delta, c_fp, c_fn, c_r : float
            As for ``compute_rejection_stats``.
        """
        check_range("T", T, low=0, open_low=True)
        labels, confidence = self.predict(X, return_confidence=True)
        self.rejection_threshold_ = float(1.0 - 2.0 * np.exp(-T))
        labels[np.abs(2.0 * confidence - 1.0) <= self.rejection_threshold_] = _REJECTED
        if return_stats:
            return labels, self.compute_rejection_stats(T, delta, c_fp, c_fn, c_r)
        return labels

    def compute_rejection_stats(
        self, T: float = 32, delta: float = 0.1, c_fp: float = 1, c_fn: float = 1, c_r: float = -1
    ) -> list[float]:
        """Return three numbers about rejecting rows: the expected rate, and bounds of rate and cost.

        Parameters
        ----------
        T : float > 0, default=32
            As for ``predict_with_rejection``.
        delta : float in (0, 1), default=0.1
            Chance that the rate is above its bound.
        c_fp, c_fn : float, default=1
            What a false alarm and a missed anomaly cost.
        c_r : float, default=-1
            What a rejected row costs; negative: as much as ``contamination``.

        Raises
        ------
        InvalidDataError
            Where there are fewer training rows than 1 / contamination.
        """
        check_is_fitted(self)
        check_range("T", T, low=0, open_low=True)
        check_range("delta", delta, low=0, high=1, open_low=True, open_high=True)
        n, share = len(self.decision_scores_), self.contamination
        k = int(n * share)
        if not k:
            raise InvalidDataError(
                f"rejection must have an anomaly among the training rows to go by; got {n} rows with a "
                f"contamination of {share:g}. Give more rows, or a higher contamination."
            )
        # the chances at which a binomial of n is below k with probabilities 1 - exp(-T) and exp(-T)
        least = float(betaincinv(k, n - k + 1, np.exp(-T)))
        most = 1.0 - float(betaincinv(n - k + 1, k, np.exp(-T)))
        cost = min(share, least) * c_fp + min(1.0 - most, share) * c_fn
        cost += (most - least) * (share if c_r < 0 else c_r)
        return [most - least, _bound(n, share, T, delta), cost]

    # ------------------------------------------------------------------ judged by labels
    def fit_predict_score(self, X: Any, y: Any, scoring: str = "roc_auc_score") -> float:
        """Fit, and return how well the scores of the rows agree with labels.

        Parameters
        ----------
        X : as for ``fit``
        y : array (n_samples,)
            0 for normal rows, 1 for anomalies; both have to be there.
        scoring : {"roc_auc_score", "prc_n_score"}, default="roc_auc_score"
            Area under the ROC curve, or the precision among as many rows of highest score as are anomalies.
        """
        check_name("scoring", scoring, _SCORINGS)
        truth = np.asarray(y).reshape(-1)
        found = np.unique(truth)
        if not np.array_equal(found, [0, 1]):
            raise InvalidDataError(
                f"y must hold 0 for normal rows and 1 for anomalies, both; got {found[:5].tolist()}. "
                "Give labels of both."
            )
        scores = self.fit(X).decision_scores_
        if len(truth) != len(scores):
            raise InvalidDataError(
                f"y must have a label for each of the {len(scores)} rows of X; got {len(truth)}. "
                "Check how both were selected."
            )
        if scoring == "roc_auc_score":
            return float(roc_auc_score(truth, scores))
        flagged = scores > np.quantile(scores, 1.0 - truth.mean())
        return float(truth[flagged].mean()) if flagged.any() else 0.0

    def __sklearn_is_fitted__(self) -> bool:
        return "decision_scores_" in self.__dict__

    @property
    def n_features_in_(self) -> int:
        """How many values a row of fit had."""
        check_is_fitted(self)
        return self.detector_.n_features_in_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "outlier_detector"
        tags.classifier_tags = ClassifierTags(multi_class=False)  # of predict_proba: two columns, no more
        tags.input_tags.sparse = True
        return tags


def _bound(n: int, share: float, T: float, delta: float) -> float:
    """Return the rate of rejection that is exceeded with a probability of at most ``delta``.

    The width of the interval of scores' ranks where the confidence is too low, by Hoeffding's inequality in
    place of the binomial, and twice the deviation that the ranks of n rows may have.
    """
    right = (n + 1 - share * (n + 2)) / n + (n + 2) / n * sqrt(T / (2 * n))
    root = 2 * n * (4 * share - 3 - 3 * share**2 - 2 * n * (1 - share) ** 2) + T * (n + 2) ** 2 - 8
    left = (2 + n * (1 - share) * (n + 1)) / n**2 - sqrt(max(0.5 * n**5 * root, 0.0)) / n**4
    if root < 0:  # the quadratic that it solves holds everywhere
        left = 0.0
    return min(1.0, right) - max(0.0, left) + 2 * sqrt(log(2 / delta) / (2 * n))
