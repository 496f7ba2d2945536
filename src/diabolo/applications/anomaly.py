"""``AnomalyDetector``: which rows are unlike the others, how sure that is, and which features tell."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from diabolo.applications import ensemble
from diabolo.applications.calibration import Calibration, check_rate
from diabolo.applications.ensemble import Member
from diabolo.applications.judging import Judging
from diabolo.applications.planted import compare
from diabolo.data.opening import View, gather
from diabolo.data.sources import Source
from diabolo.errors import DetectionWarning, InvalidDataError
from diabolo.estimators import Autoencoder
from diabolo.estimators.validation import check_seed
from diabolo.names import check_name
from diabolo.parts import check_range

Array = NDArray[Any]
Doubles = NDArray[np.float64]
Progress = Callable[[float, str], None]

_MOST_HELD_OUT = 10_000  # rows that the threshold comes from
_ENOUGH_HELD_OUT = 100  # fewer promise too little: each row is then held out once instead
_FOLDS = 5
_LEAST_ROWS = 4
_SAMPLE = 4096  # training rows that say what is typical
_TOLD_APART = 0.6  # area under the curve below which planted anomalies are as good as normal rows


@dataclass(kw_only=True, eq=False, repr=False)
class AnomalyDetector(Judging):
    r"""Detects rows that its autoencoders, trained on mostly normal ones, fail to restore.

    The surprise of a row is the geometric mean of its members' errors, each beside the error that is typical
    of a normal row (1 = typical); ``score_samples`` is its negative. The threshold comes from rows that the
    weights have not seen: a share ``false_alarm_rate`` of fresh normal rows is above it, whatever their
    distribution, as long as the held-out rows are normal. Where fewer than 100 rows could be held out, each
    row is held out of one of five parts instead (cross-conformal: Vovk 2015), and every part has its members.

    Without ``estimator`` the members are four denoising autoencoders with codes as wide as the input, three
    with Gaussian noise of 0.2, 0.5 and 1 standard deviations, one that restores hidden features from the
    others; see ``benchmarks/results/detection.md`` for what was compared.

    Parameters
    ----------
    estimator : Autoencoder or list of Autoencoder, optional
        The members, unfitted; with a corruption that masks, a feature's error is that with which it follows
        from the others. None: the four above, for rows of numbers.
    n_copies : int >= 1, default=1
        Of each member, which differ in their seeds.
    false_alarm_rate : float in (0, 1), default=0.01
        Share of normal rows that may be flagged. ``set_threshold`` changes it after fit.
    calibration_fraction : float in (0, 1), default=0.2
        Share of rows held out for the threshold, at most 10,000 rows.
    trim : float in [0, 0.5), default=0.1
        Share of the training rows that are left out after a first look, as they may be anomalies themselves.
        0 for rows that are known to be normal.
    whitening : {"feature", "joint"} or None, default="feature"
        What residuals are divided by: each feature's standard deviation of residuals on normal rows, the
        square root of their whole covariance, or nothing.
    kinds : mapping of column to {"numeric", "binary", "categorical"}, optional
        For columns of a table whose kind does not follow from their values. A frame with columns that are not
        numbers, or with missing values, is coded by a ``TableEncoder``; members with the default loss then
        get ``Mixed``, which has the loss that fits each column. So is any table where this is given.
    input_shape : sequence of int, optional
        Shape of one sample where rows come flattened.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Where the default's members are trained; members of your own have their own.
    random_state : int, RandomState or None, default=None
        Seed. The same seed on the same machine gives the same bytes.

    Attributes
    ----------
    members_ : list of list of Member
        One list per fold; one list where rows were held out once.
    calibration_ : Calibration
        The surprises of the held-out rows.
    threshold_ : float
        Rows with a greater surprise are anomalies.
    offset_ : float
        ``-threshold_``: ``decision_function`` is ``score_samples`` less this.
    comparison_ : dict
        Area under the ROC curve of this detector, of PCA and of KNN, between held-out rows and anomalies that
        were planted in them: {"diabolo": {"shuffled": ..., "shifted": ...}, "PCA": ..., "KNN": ...}.
    encoder_ : TableEncoder or None
        How a table of mixed columns becomes numbers.
    n_features_in_ : int
    sample_shape_ : tuple of int
    feature_names_in_ : ndarray of str
        Where X was a frame.
    """

    estimator: Autoencoder | Sequence[Autoencoder] | None = None
    n_copies: int = 1
    false_alarm_rate: float = 0.01
    calibration_fraction: float = 0.2
    trim: float = 0.1
    whitening: str | None = "feature"
    kinds: Mapping[str | int, str] | None = None
    input_shape: Sequence[int] | None = None
    device: str = "auto"
    random_state: int | np.random.RandomState | None = None

    # ------------------------------------------------------------------ fitting
    def fit(self, X: Any, y: Any = None, *, progress: Progress | None = None) -> Self:
        """Learn what rows look like.

        Parameters
        ----------
        X : array, frame or sparse matrix (n_samples, n_features), or images; or a Source
            Normal rows; some anomalies among them do little harm (``trim``).
        y : ignored
        progress : callable(share, what), optional
            Called now and then with the share of the work that is done, and what is being done.

        Raises
        ------
        InvalidDataError, InvalidParameterError, IncompatiblePartsError, DivergedError
        """
        self._check_settings()
        if isinstance(X, Source):
            self._take_shape(X)
            self.encoder_, self._width = None, self.n_features_in_
            rows: Array | Source = X
        else:
            rows = self._check(X, reset=True)
        chance = np.random.default_rng(check_seed(self.random_state).randint(np.iinfo(np.int32).max))
        for name in ("members_", "calibration_"):
            self.__dict__.pop(name, None)
        folds = self._folds(len(rows), chance)
        members, surprises = [], np.empty(sum(map(len, folds)))
        start = 0
        for number, held_out in enumerate(folds):
            report = _part_of(progress, number, len(folds))
            members.append(self._fit_members(rows, held_out, int(chance.integers(2**31 - 1)), report))
            (normal,) = _gathered(rows, held_out)
            surprises[start : start + len(normal)] = ensemble.surprise(members[-1], normal)
            start += len(normal)
        self.members_ = members
        self.calibration_ = Calibration(surprises[:start])
        self._sizes = [len(fold) for fold in folds]
        self._look_at_planted(rows, folds[0], chance)
        self._set(self._promised(self.false_alarm_rate))
        if progress is not None:
            progress(1.0, "done")
        return self

    def _check_settings(self) -> None:
        check_rate("false_alarm_rate", self.false_alarm_rate)
        check_rate("calibration_fraction", self.calibration_fraction)
        check_range("trim", self.trim, low=0, high=0.5, open_high=True)
        check_range("n_copies", self.n_copies, low=1, integer=True)
        if self.whitening is not None:
            check_name("whitening", self.whitening, ensemble.WHITENINGS)
        if self.estimator is not None:
            ensemble.check_estimators(self.estimator)

    def _folds(self, n: int, chance: np.random.Generator) -> list[NDArray[np.int64]]:
        """Return the numbers of the rows that are held out: once, or each row in one of several parts."""
        if n < _LEAST_ROWS:
            raise InvalidDataError(
                f"X must have at least {_LEAST_ROWS} rows, some of which set the threshold; "
                f"got {n} sample{'s' if n > 1 else ''}. Give more rows."
            )
        order = chance.permutation(n)
        held_out = min(int(self.calibration_fraction * n), _MOST_HELD_OUT)
        if held_out >= _ENOUGH_HELD_OUT:
            return [np.sort(order[:held_out])]
        return [np.sort(part) for part in np.array_split(order, min(_FOLDS, n // 2))]

    def _fit_members(
        self, X: Array | Source, held_out: NDArray[np.int64], seed: int, report: Progress
    ) -> list[Member]:
        """Train on all rows but those held out, and but those that a first look finds too strange."""
        out = held_out
        n = len(X) - len(out)
        if self.trim:
            first = ensemble.screen(n, self._width, seed, self._loss)
            first.device = self.device
            out = self._trimmed(X, out, self._fitted(first, _without(X, out), report, 0.0, 0.1))
            n = len(X) - len(out)
        rows = _without(X, out)
        sample = _sample(rows)
        several = self._unfitted(n, seed)
        start = 0.1 if self.trim else 0.0
        step = (1.0 - start) / len(several)
        return [
            Member.of(self._fitted(one, rows, report, start + k * step, step), sample, self.whitening)
            for k, one in enumerate(several)
        ]

    def _unfitted(self, n: int, seed: int) -> list[Autoencoder]:
        """Return the members of one fold, each with a seed of its own."""
        if self.estimator is None:
            several = [
                one
                for copy in range(self.n_copies)
                for one in ensemble.default_members(n, self._width, (seed + 100 * copy) % 2**31, self._loss)
            ]
            for one in several:
                one.device = self.device
            return several
        several = []
        for k, one in enumerate(ensemble.check_estimators(self.estimator) * self.n_copies):
            copy = clone(one)
            copy.random_state = (seed + k) % 2**31
            if copy.input_shape is None and len(self.sample_shape_) > 1:
                copy.input_shape = self.sample_shape_
            if self._loss is not None and copy.loss == "squared_error":
                copy.loss = self._loss
            several.append(copy)
        return several

    def _fitted(
        self, estimator: Autoencoder, rows: Array | Source, report: Progress, start: float, share: float
    ) -> Autoencoder:
        def told(row: dict[str, Any], total: int) -> None:
            report(start + share * row["epoch"] / total, str(estimator.recipe_.corruption or "autoencoder"))

        return estimator.fit(rows, progress=told)

    def _trimmed(self, X: Array | Source, out: NDArray[np.int64], first: Autoencoder) -> NDArray[np.int64]:
        """Return which rows are not trained on: those held out, and of the others the most surprising."""
        rest = _without(X, out)
        member = [Member.of(first, _sample(rest), "feature")]
        parts = [rest] if isinstance(rest, np.ndarray) else first._each(lambda rows: rows, rest)
        surprises = np.concatenate([ensemble.surprise(member, rows) for rows in parts])
        strange = surprises > np.quantile(surprises, 1.0 - self.trim)
        kept = _without(X, out)[~strange] if isinstance(rest, np.ndarray) else None
        if kept is not None and (kept == kept[0]).all():  # there is nothing else to learn
            return out
        numbers = np.setdiff1d(np.arange(len(X)), out, assume_unique=True)
        return np.sort(np.concatenate([out, numbers[strange]]))

    def _look_at_planted(self, X: Array | Source, held_out: NDArray[np.int64], chance: Any) -> None:
        """Compare with PCA and KNN on anomalies planted in held-out rows; warn where they go unseen."""
        (normal,) = _gathered(X, held_out)
        members = self.members_[0]
        self.comparison_ = compare(
            lambda rows: ensemble.surprise(members, rows),
            _sample(_without(X, held_out)),
            normal,
            chance,
            self._loss,
        )
        seen = self.comparison_["diabolo"]
        if max(seen.values()) < _TOLD_APART:
            warnings.warn(
                "the detector restores anomalies as well as normal rows: planted ones are told apart with an "
                f"area under the ROC curve of {max(seen.values()):.2f} at best. Give more rows, or members "
                "with a narrower code or more noise.",
                DetectionWarning,
                stacklevel=3,
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AnomalyDetector:
        """Read a detector that ``save`` wrote, with its threshold; nothing is unpickled.

        Raises
        ------
        ModelFileError
            For a file that is missing, damaged, foreign, hostile or of a later version.
        """
        from diabolo.applications.files import read_detector

        return read_detector(path)


def _part_of(progress: Progress | None, number: int, parts: int) -> Progress:
    def report(share: float, what: str) -> None:
        if progress is not None:
            progress((number + share) / parts, what)

    return report


def _without(X: Array | Source, numbers: NDArray[np.int64]) -> Any:
    """Return the rows but those with these numbers, which are in ascending order."""
    return View(X, numbers) if isinstance(X, Source) else np.delete(X, numbers, axis=0)


def _gathered(X: Array | Source, numbers: NDArray[np.int64]) -> list[Array]:
    """Return the rows with these numbers, which are in ascending order, flat."""
    if not isinstance(X, Source):
        return [X[numbers]]
    return [rows.reshape(len(rows), -1) for rows in gather(X, numbers)]


def _sample(X: Array | Source) -> Array:
    """Return up to 4096 rows, evenly spread."""
    return _gathered(X, np.unique(np.linspace(0, len(X) - 1, min(len(X), _SAMPLE)).astype(np.int64)))[0]
