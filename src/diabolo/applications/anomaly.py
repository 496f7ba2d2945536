"""``AnomalyDetector``: which rows are unlike the others, how sure that is, and which features tell."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import IsolationForest

from diabolo.applications import ensemble
from diabolo.applications.calibration import Calibration, check_rate, held_out_rows
from diabolo.applications.ensemble import Member
from diabolo.applications.judging import Judging
from diabolo.applications.memory import Memory
from diabolo.applications.planted import compare, unseen
from diabolo.applications.rows import gathered, parts, sample, spread, without
from diabolo.data.sources import Source
from diabolo.errors import DetectionWarning, InvalidDataError, InvalidParameterError, outside
from diabolo.estimators import Autoencoder
from diabolo.estimators.validation import check_seed
from diabolo.parts import GaussianNoise, check_range

if TYPE_CHECKING:
    from diabolo.applications.pyod import PyodDetector

Array = NDArray[Any]
Doubles = NDArray[np.float64]
Progress = Callable[[float, str], None]

_MOST_HELD_OUT = 10_000  # rows that the threshold comes from
_ENOUGH_HELD_OUT = 100  # fewer promise too little: each row is then held out once instead
_FOLDS = 5
_LEAST_LEARNED = 2
_SET_APART = 0.2  # share of rows that an isolation forest isolates soonest


@dataclass(kw_only=True, eq=False, repr=False)
class AnomalyDetector(Judging):
    r"""Detects rows that its autoencoders, trained on mostly normal ones, fail to restore.

    The surprise of a row is the geometric mean of its members' errors and of its distance from remembered
    rows, each beside what is typical of a normal row (1 = typical); ``score_samples`` is its negative. The
    threshold comes from rows that the weights have not seen: a share ``false_alarm_rate`` of fresh normal
    rows is above it, whatever their distribution, as long as the held-out rows are normal. Where fewer than
    100 rows could be held out, each row is held out of one of five parts instead, and every part has its
    members; since all of these vote on a new row, it tends to score lower than a held-out one, and fewer
    normal rows are flagged than promised.

    Without ``estimator`` the members are six denoising autoencoders with codes as wide as the input (of 16
    for rows of more than 48 features), three with Gaussian noise of 0.2, 0.5 and 1 standard deviations, three
    that restore hidden features from the others. See ``benchmarks/results/detection.md`` for what was tried.

    Parameters
    ----------
    estimator : Autoencoder or list of Autoencoder, optional
        The members, unfitted; with a corruption that masks, a feature's error is that with which it follows
        from the others. None: those above.
    n_copies : int >= 1, default=1
        Of each member, which differ in their seeds.
    false_alarm_rate : float in (0, 1), default=0.05
        Share of normal rows that may be flagged. ``set_threshold`` changes it after fit.
    calibration_fraction : float in (0, 1), default=0.2
        Share of rows held out for the threshold, at most 10,000 rows and all but two.
    trim : "auto" or float in [0, 0.5), default="auto"
        Share of the training rows that the members do not learn, as they may be anomalies: those that an
        isolation forest isolates soonest. "auto": a fifth, which only the default's members with Gaussian
        noise learn too, and which are remembered as such. 0 for rows known to be normal. None
        are set apart where nothing but equal rows would be left.
    remember : "auto" or int >= 0, default="auto"
        Number of training rows at most, of each fold, that are kept, in files too, so that a row counts as
        strange where it is far from the nearest five of them, even if it is restored well. "auto": 20,000
        beside the default's members for rows of at most 48 numbers (a column of a mixed table becomes one or
        several), else none.
    whitening : {"auto", "feature", "joint"} or None, default="auto"
        What residuals are divided by: each feature's standard deviation of residuals on normal rows, the
        square root of their whole covariance, or nothing beyond the scaling. Members that mask judge feature
        by feature: for them "joint" is "feature", and an error where all members of your own do. "auto":
        "feature" with the default's members for rows of at most 48 numbers, else None.
    scaling : {"auto", "standard", "center", "minmax", "unit"} or None, default="auto"
        How the default's members scale rows, as ``Autoencoder`` has it. "center" where features share their
        unit, such as the steps of a signal: those that hardly vary are then not blown up.
    kinds : mapping of column to {"numeric", "binary", "categorical"}, optional
        For columns of a table whose kind does not follow from their values. A frame with columns that are not
        numbers, or with missing values, is coded by a ``TableEncoder``; members with the default loss then
        get ``Mixed``, which has the loss that fits each column. So is any table where this is given.
    input_shape : sequence of int, optional
        Shape of one sample where rows come flattened. Not for tables of mixed columns.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Where the default's members are trained; members of your own have their own.
    random_state : int, RandomState or None, default=None
        Seed; those of the members, whatever they have, are drawn with it. The same seed on the same machine
        gives the same bytes.

    Attributes
    ----------
    members_ : list of list of Member
        One list per fold; one list where rows were held out once.
    memories_ : list of Memory
        The remembered rows, one per fold; none where none are to be remembered.
    calibration_ : Calibration
        The surprises of the held-out rows.
    set_apart_ : ndarray of int
        The numbers of the training rows that were set apart (``trim``), in any fold.
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
    false_alarm_rate: float = 0.05
    calibration_fraction: float = 0.2
    trim: float | str = "auto"
    remember: int | str = "auto"
    whitening: str | None = "auto"
    scaling: str | None = "auto"
    kinds: Mapping[str | int, str] | None = None
    input_shape: Sequence[int] | None = None
    device: str = "auto"
    random_state: int | np.random.RandomState | None = None

    # ------------------------------------------------------------------ fitting
    def fit(self, X: Any, y: Any = None, *, held_out: Any = None, progress: Progress | None = None) -> Self:
        """Learn what rows look like.

        Parameters
        ----------
        X : array, frame or sparse matrix (n_samples, n_features), or images; or a Source
            Normal rows; some anomalies among them do little harm (``trim``).
        y : ignored
        held_out : array of int, optional
            The numbers of the rows that set the threshold and are not trained on, where rows depend on each
            other: whole stretches of a series, all rows of some patients. None: drawn by chance, as
            ``calibration_fraction`` has it.
        progress : callable(share, what), optional
            Called now and then with the share of the work that is done, and what is being done.

        Raises
        ------
        InvalidDataError, InvalidParameterError, IncompatiblePartsError, DivergedError
        """
        self._check_settings()
        for name in ("members_", "memories_", "calibration_"):  # a fit that fails leaves no mixture of two
            self.__dict__.pop(name, None)
        if isinstance(X, Source):
            if self.kinds is not None:
                raise InvalidParameterError(
                    f"kinds must be left out for a Source, whose columns are numbers; got {self.kinds!r}. "
                    "Leave it out, or give a frame."
                )
            self._take_shape(X)
            self.encoder_, self._width = None, self.n_features_in_
            rows: Array | Source = X
        else:
            rows = self._check(X, reset=True)
        chance = np.random.default_rng(check_seed(self.random_state).randint(np.iinfo(np.int32).max))
        folds = self._folds(len(rows), chance) if held_out is None else [held_out_rows(held_out, len(rows))]
        self.set_apart_ = np.zeros(0, dtype=np.int64)
        members: list[list[Member]] = []
        memories: list[Memory] = []
        surprises = np.empty(sum(map(len, folds)))
        start = 0
        for number, held_out in enumerate(folds):
            report = _part_of(progress, number, len(folds))
            one, memory = self._fit_voters(rows, held_out, chance, report)
            members.append(one)
            memories += memory
            (normal,) = gathered(rows, held_out)
            surprises[start : start + len(normal)] = ensemble.surprise([*one, *memory], normal)
            start += len(normal)
        self.members_, self.memories_ = members, memories
        self._look_at_planted(rows, folds[0], chance)
        self.calibration_ = Calibration(surprises[:start])  # last, since with it the detector is fitted
        self._set(self._promised(self.false_alarm_rate))
        if progress is not None:
            progress(1.0, "done")
        return self

    def _check_settings(self) -> None:
        check_rate("false_alarm_rate", self.false_alarm_rate)
        check_rate("calibration_fraction", self.calibration_fraction)
        if self.trim != "auto":
            check_range("trim", self.trim, low=0, high=0.5, open_high=True, hint="Or give 'auto'.")
        if self.remember != "auto":
            check_range("remember", self.remember, low=0, integer=True, hint="Or give 'auto'.")
        check_range("n_copies", self.n_copies, low=1, integer=True)
        own = [] if self.estimator is None else ensemble.check_estimators(self.estimator)
        ensemble.check_whitening(self.whitening, own)
        if own:
            for name in ("scaling", "device"):
                if (value := getattr(self, name)) != "auto":
                    raise InvalidParameterError(
                        f"{name} must be left out where estimator is given, which has its own; got "
                        f"{value!r}. Set it there."
                    )
            given = self.input_shape
            shapes = [one.input_shape for one in own if one.input_shape is not None]
            if given is not None and not all(np.array_equal(shape, given) for shape in shapes):
                raise InvalidParameterError(
                    f"input_shape must be that of the estimator, {shapes[0]!r}; got {given!r}. Leave one of "
                    "them out."
                )

    def _folds(self, n: int, chance: np.random.Generator) -> list[NDArray[np.int64]]:
        """Return the numbers of the rows that are held out: once, or each row in one of several parts."""
        if n < self._least_rows:
            raise InvalidDataError(
                f"X must have at least {self._least_rows} rows, some of which set the threshold; "
                f"got {n} row{'s' if n > 1 else ''}. Give more rows."
            )
        order = chance.permutation(n)
        held_out = min(int(self.calibration_fraction * n), _MOST_HELD_OUT, n - _LEAST_LEARNED)
        if held_out >= _ENOUGH_HELD_OUT:
            return [np.sort(order[:held_out])]
        return [np.sort(part) for part in np.array_split(order, min(_FOLDS, n // 2))]

    def _fit_voters(
        self, X: Array | Source, held_out: NDArray[np.int64], chance: np.random.Generator, report: Progress
    ) -> tuple[list[Member], list[Memory]]:
        """Train on all rows but those held out, and but those that are set apart as anomalies."""
        report(0.0, "first look")
        apart = self._set_apart(X, held_out, chance) if self.trim else held_out[:0]
        every = without(X, held_out)
        _check_differ(X, every)
        rest = without(X, np.sort(np.concatenate([held_out, apart]))) if len(apart) else every
        several = self._unfitted(len(rest), int(chance.integers(2**31 - 1)))
        self.set_apart_ = np.union1d(self.set_apart_, apart)
        members = []
        for number, one in enumerate(several):
            part = _part_of(report, number, len(several))
            rows = every if self._takes_all(one) else rest
            members.append(Member.of(self._fitted(one, rows, part), sample(rows), self._whitening()))
        most = self._most_remembered()
        if not most:
            return members, []
        first = members[0].estimator
        to_one = first.recipe_.scaling in ("standard", "center")
        normal = np.delete(np.arange(len(X)), np.concatenate([held_out, apart]))
        if self.estimator is not None or self.trim != "auto":
            apart = apart[:0]
        aside = spread(apart, most * len(apart) // (len(normal) + len(apart)))
        known, strange = gathered(X, spread(normal, most - len(aside)), aside)
        memory = Memory.of(
            np.concatenate([known, strange]), first._scaler, unit_variance=to_one, n_apart=len(strange)
        )
        return members, [memory]

    def _whitening(self) -> str | None:
        """Return what the members' residuals are divided by."""
        if self.whitening != "auto":
            return self.whitening
        return ensemble.default_whitening(self._width) if self.estimator is None else None

    def _most_remembered(self) -> int:
        """Return how many rows of a fold are remembered at most."""
        if self.remember != "auto":
            return int(self.remember)
        return ensemble.default_memory(self._width) if self.estimator is None else 0

    def _takes_all(self, member: Autoencoder) -> bool:
        """Whether a member learns rows too that are set apart: the default's that see all features do."""
        return self.estimator is None and self.trim == "auto" and isinstance(member.corruption, GaussianNoise)

    def _unfitted(self, n: int, seed: int) -> list[Autoencoder]:
        """Return the members of one fold, each with a seed of its own."""
        if self.estimator is None:
            several = [
                one
                for copy in range(self.n_copies)
                for one in ensemble.default_members(n, self._width, (seed + 100 * copy) % 2**31, self._loss)
            ]
            for one in several:
                one.device, one.scaling = self.device, self.scaling
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

    def _fitted(self, estimator: Autoencoder, rows: Array | Source, report: Progress) -> Autoencoder:
        def told(row: dict[str, Any], total: int) -> None:
            report(row["epoch"] / total, str(estimator.recipe_.corruption or "autoencoder"))

        estimator.fit(rows, progress=told)
        estimator.__dict__.pop("feature_names_in_", None)  # a source's: the detector looks at the names
        return estimator

    def _set_apart(
        self, X: Array | Source, held_out: NDArray[np.int64], chance: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return the numbers of the rows to leave out: those that isolate soonest."""
        rest = without(X, held_out)
        some = sample(rest)
        forest = IsolationForest(random_state=int(chance.integers(2**31 - 1))).fit(some)
        scored = [(numbers, -forest.score_samples(rows)) for numbers, rows in parts(rest)]
        numbers, scores = (np.concatenate(column) for column in zip(*scored, strict=True))
        share = _SET_APART if self.trim == "auto" else float(self.trim)
        limit = np.quantile(scores, 1.0 - share)
        strange = -forest.score_samples(some) > limit
        if strange.all() or not np.ptp(some[~strange], axis=0).any():  # nothing to learn would be left
            return held_out[:0]
        kept = np.setdiff1d(np.arange(len(X)), held_out, assume_unique=True)
        return np.sort(kept[numbers[scores > limit]])

    def _look_at_planted(self, X: Array | Source, held_out: NDArray[np.int64], chance: Any) -> None:
        """Compare with PCA and KNN on anomalies planted in held-out rows; warn where they go unseen."""
        (normal,) = gathered(X, held_out)
        voters: list[Member | Memory] = [*self.members_[0], *self.memories_[:1]]
        self.comparison_ = compare(
            lambda rows: ensemble.surprise(voters, rows),
            sample(without(X, held_out)),
            normal,
            chance,
            self._loss,
        )
        said = unseen(self.comparison_)
        if said is not None:
            warnings.warn(said, DetectionWarning, stacklevel=outside())

    def as_pyod(self, contamination: float = 0.1) -> PyodDetector:
        """Return an adapter with PyOD's methods and attributes, in which anomalies score high and are 1.

        That of a fitted detector can be used at once, with the quantile 1 - contamination of its held-out
        rows' scores as its threshold. Else, and to have the scores of training rows, call its ``fit``.
        """
        from diabolo.applications.pyod import PyodDetector

        adapter = PyodDetector(contamination, self)
        return adapter._take(self, self.calibration_.scores) if self.__sklearn_is_fitted__() else adapter

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


def _check_differ(X: Array | Source, learned: Any) -> None:
    """Raise where rows of X differ, and those that are left to learn from do not."""
    if isinstance(X, Source) or (learned[-1] != learned[0]).any() or (learned != learned[0]).any():
        return
    same = int((learned[0] == X).all(axis=1).sum())
    if same < len(X):  # else the members say that X does not vary
        raise InvalidDataError(
            f"X must have several rows that differ from the others; got {len(X)} rows, {same} of them equal, "
            "and only such are left to learn from where some are held out for the threshold. Give more rows, "
            "or hold out fewer (calibration_fraction)."
        )


def _part_of(progress: Progress | None, number: int, parts: int) -> Progress:
    def report(share: float, what: str) -> None:
        if progress is not None:
            progress((number + share) / parts, what)

    return report
