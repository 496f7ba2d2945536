"""What a fitted detector does: scores, verdicts, p-values, explanations, its threshold, a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from diabolo.applications import ensemble
from diabolo.applications.calibration import Calibration, check_rate
from diabolo.applications.ensemble import Member
from diabolo.applications.frames import library_of
from diabolo.applications.memory import Memory
from diabolo.applications.tables import TableEncoder, is_mixed
from diabolo.data.sources import Source
from diabolo.errors import CalibrationWarning, InvalidDataError, InvalidParameterError, outside
from diabolo.estimators.incoming import Incoming
from diabolo.estimators.validation import check_values
from diabolo.parts import Mixed, check_range

Array = NDArray[Any]
Doubles = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)

_ROWS_PER_BATCH = 512


def refuse_shape(input_shape: Any) -> None:
    """Raise where a shape is given for the rows of a table of mixed columns."""
    if input_shape is not None:
        raise InvalidParameterError(
            f"input_shape must be left out for a table of mixed columns; got {input_shape!r}. Leave it out."
        )


class Judging(OutlierMixin, Incoming):  # type: ignore[misc]
    """All that needs trained members and no training. Abstract: ``AnomalyDetector`` sets the attributes."""

    kinds: Mapping[str | int, str] | None
    members_: list[list[Member]]
    memories_: list[Memory]
    calibration_: Calibration
    comparison_: dict[str, dict[str, float]]
    threshold_: float
    offset_: float
    encoder_: TableEncoder | None
    _width: int
    _least_rows = 4  # some of which set the threshold

    # ------------------------------------------------------------------ what comes in
    def _check(self, X: Any, *, reset: bool) -> Array:
        """Return X as numeric rows; a table of mixed columns as its encoder has it."""
        if reset:
            mixed = self.kinds is not None or is_mixed(X)
            if mixed:
                refuse_shape(self.input_shape)
            # a value may be missing for the first time when scored: that is a surprise, and no error
            self.encoder_ = TableEncoder(kinds=self.kinds, missing="all").fit(X) if mixed else None
        if not reset:
            check_is_fitted(self)
        if self.encoder_ is None:
            rows = super()._check(X, reset=reset)
            self._width = self.n_features_in_
            return rows
        if reset:
            self._take_columns(self.encoder_)
        elif library_of(X) == "arrays" and hasattr(self, "feature_names_in_"):
            # as scikit-learn says it of plain numbers; the encoder would say it in its own name
            warnings.warn(
                f"X does not have valid feature names, but {type(self).__name__} was fitted with feature "
                "names",
                UserWarning,
                stacklevel=outside(),
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "X does not have valid feature names, but TableEncoder")
                return self.encoder_.transform(X)
        return self.encoder_.transform(X)

    def _take_columns(self, encoder: TableEncoder) -> None:
        """Let this detector be one for tables of such columns."""
        self.n_features_in_, self._width = encoder.n_features_in_, len(encoder.column_of_)
        self.sample_shape_ = self._row_shape = (self.n_features_in_,)
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(encoder, "feature_names_in_"):
            self.feature_names_in_ = encoder.feature_names_in_

    def _plain(self, X: Any) -> bool:
        return self.__dict__.get("encoder_") is None and super()._plain(X)

    def _check_source(self, source: Source) -> None:
        check_is_fitted(self)
        if self.encoder_ is not None:
            raise InvalidDataError(
                "X must be a frame for a detector of mixed columns; got a Source, whose columns are all "
                "numbers. Give frames, some rows at a time where they are many."
            )
        super()._check_source(source)

    def _applied(self, function: Callable[[Array], NDArray[T]], X: Any) -> NDArray[T]:
        if self._plain(
            X
        ):  # members get some thousand rows at a time, and would count from the first of these
            check_values(X, None, self.sample_shape_)
        return super()._applied(function, X)

    @property
    def _loss(self) -> Mixed | None:
        return None if self.encoder_ is None else Mixed(self.encoder_.layout_)

    # ------------------------------------------------------------------ the threshold
    def set_threshold(
        self,
        *,
        false_alarm_rate: float | None = None,
        contamination: float | None = None,
        value: float | None = None,
    ) -> Self:
        """Set what counts as an anomaly, without training anew. Give one of the three.

        Parameters
        ----------
        false_alarm_rate : float in (0, 1), optional
            Share of fresh normal rows that may be flagged.
        contamination : float in (0, 1), optional
            Share of rows like those of fit that are to be flagged, normal or not.
        value : float, optional
            The surprise above which rows are anomalies.
        """
        check_is_fitted(self)
        given = [x for x in (false_alarm_rate, contamination, value) if x is not None]
        if len(given) != 1:
            raise InvalidParameterError(
                "set_threshold must be given one of false_alarm_rate, contamination and value; got "
                f"{len(given)} of them. Give for example false_alarm_rate=0.01."
            )
        if false_alarm_rate is not None:
            self._set(self._promised(false_alarm_rate))
        elif contamination is not None:
            share = 1.0 - check_rate("contamination", contamination)
            self._set(float(np.quantile(self.calibration_.scores, share, method="higher")))
        else:
            check_range("value", value)
            self._set(float(value))  # type: ignore[arg-type]
        return self

    def _promised(self, rate: float) -> float:
        calibration = self.calibration_
        threshold = calibration.threshold(rate)
        if np.isfinite(threshold):
            return threshold
        n = len(calibration.scores)
        held_out = f"{n} held-out row{'s' if n > 1 else ''}"
        warnings.warn(
            f"a false-alarm rate must be at least 1 / {n + 1} = {calibration.least_rate:.2g} to be promised "
            f"by {held_out}; got {rate:g}. Rows beyond the most surprising of these are flagged; give "
            "more rows, or a higher rate.",
            CalibrationWarning,
            stacklevel=outside(),
        )
        return float(calibration.scores[-1])

    def _set(self, threshold: float) -> None:
        self.threshold_, self.offset_ = threshold, -threshold

    # ------------------------------------------------------------------ what goes out
    def score_samples(self, X: Any) -> Doubles:
        """Return how normal each row is, (n_samples,), higher = more normal: the negative surprise."""
        return -self._applied(self._surprise, X)

    def decision_function(self, X: Any) -> Doubles:
        """Return ``score_samples`` less the threshold's, (n_samples,); negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return 1 for normal rows and -1 for anomalies, (n_samples,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_value(self, X: Any) -> Doubles:
        """Return the share of normal rows that are at least so surprising, (n_samples,), in (0, 1].

        Of fresh normal rows a share of at most p has a p-value of at most p.
        """
        check_is_fitted(self)
        return self.calibration_.p_value(-self.score_samples(X))

    def explain(self, X: Any) -> Doubles:
        """Return each value's part of its row's surprise, of X's shape; a row's parts sum to the surprise."""
        out = self._applied(lambda rows: ensemble.shares(self.voters, rows), X)
        if self.encoder_ is not None:
            column_of = self.encoder_.column_of_
            return np.add.reduceat(out, np.flatnonzero(np.diff(column_of, prepend=-1)), axis=1)
        return out.reshape(len(out), *self._row_shape)

    def _surprise(self, rows: Array) -> Doubles:
        return ensemble.surprise(self.voters, rows)

    @property
    def members(self) -> list[Member]:
        """All members, those of every fold."""
        return [member for fold in self.members_ for member in fold]

    @property
    def voters(self) -> list[Member | Memory]:
        """What makes up the surprise: all members, and the memory of every fold."""
        return [*self.members, *self.memories_]

    def _rows_per_batch(self) -> int:
        return _ROWS_PER_BATCH

    def __sklearn_is_fitted__(self) -> bool:
        return "calibration_" in self.__dict__

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ------------------------------------------------------------------ files
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted detector to one file, whole or not at all; ``AnomalyDetector.load`` reads it.

        Raises
        ------
        ModelFileError
            Where the place cannot be written.
        """
        from diabolo.applications.files import write_detector

        check_is_fitted(self)
        return write_detector(self, path)
