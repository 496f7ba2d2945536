"""Everything that a report says about one estimator, measured once on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo import metrics
from diabolo.errors import InvalidDataError
from diabolo.report.compare import used_units
from diabolo.report.pictures import SampleView

Array = NDArray[Any]
Floats = NDArray[np.floating[Any]]

MOST_VALUES = 30_000_000  # of the data that a report looks at; more rows are thinned out
MOST_POINTS = 2000  # of a scatter


@dataclass(frozen=True)
class Labels:
    """Labels of the test rows: texts out of ``classes``, or numbers where ``classes`` is empty."""

    values: Array
    classes: tuple[str, ...]

    @classmethod
    def of(cls, y: Any, class_names: Sequence[str] | None) -> Labels:
        """Name the labels; numbers with many different values stay numbers."""
        given = np.asarray(y)
        if given.ndim != 1:
            raise InvalidDataError(
                f"y_test must be one label per test sample, shape (n,); got shape {given.shape}. "
                "Choose one column."
            )
        found = np.unique(given)
        numeric = np.issubdtype(given.dtype, np.number)
        if numeric and class_names is None and len(found) > (20 if given.dtype.kind == "f" else 60):
            return cls(given.astype(float), ())
        names = {value: _label_text(value) for value in found.tolist()}
        if class_names is not None:
            integers = given.dtype.kind in "iub" and found[0] >= 0 and found[-1] < len(class_names)
            if not integers and len(class_names) != len(found):
                raise InvalidDataError(
                    f"class_names must be one name for each of the {len(found)} labels; got "
                    f"{len(class_names)} names. Give them in the order of the sorted labels."
                )
            for i, value in enumerate(found.tolist()):
                names[value] = str(class_names[int(value) if integers else i])
        values = np.array([names[value] for value in given.tolist()], dtype=object)
        return cls(values, tuple(dict.fromkeys(names[value] for value in found.tolist())))

    def take(self, rows: Array) -> Labels:
        """Return the labels of some rows."""
        return Labels(self.values[rows], self.classes)


@dataclass(frozen=True)
class Bench:
    """The data that all estimators of one report are measured on."""

    train: Any
    test: Any
    labels: Labels | None
    rows: Array = field(repr=False)
    n_test: int = 0
    feature_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        X_train: Any,
        X_test: Any,
        y_test: Any,
        class_names: Sequence[str] | None,
        feature_names: Sequence[str] | None = None,
    ) -> Bench:
        """Check the data and thin out what is too much for a page."""
        shapes = np.shape(X_train), np.shape(X_test)
        if shapes[0][1:] != shapes[1][1:] or not shapes[0][0] or not shapes[1][0]:
            raise InvalidDataError(
                "X_test must be samples of the same shape as X_train's, at least one of each; "
                f"got shapes {shapes[1]} and {shapes[0]}."
            )
        labels = None if y_test is None else Labels.of(y_test, class_names)
        if labels is not None and len(labels.values) != shapes[1][0]:
            raise InvalidDataError(
                f"y_test must be one label per test sample; got {len(labels.values)} labels "
                f"for {shapes[1][0]} samples."
            )
        rows = thinned(shapes[1][0], max(1, MOST_VALUES // int(np.prod(shapes[1][1:]))))
        kept = thinned(shapes[0][0], max(1, MOST_VALUES // int(np.prod(shapes[0][1:]))))
        return cls(
            take(X_train, kept),
            take(X_test, rows),
            labels.take(rows) if labels else None,
            rows,
            shapes[1][0],
            tuple(feature_names or ()),
        )

    @cached_property
    def x(self) -> Array:
        """The test rows as an array."""
        return np.asarray(self.test)

    @cached_property
    def x_train(self) -> Array:
        """The training rows as an array."""
        return np.asarray(self.train)

    @cached_property
    def center(self) -> Floats:
        """The mean training sample."""
        return np.asarray(self.x_train.mean(axis=0, dtype=np.float64))

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value of the training rows."""
        return float(self.x_train.min()), float(self.x_train.max())

    @cached_property
    def mean_errors(self) -> Floats:
        """The squared error of the mean predictor on each test row."""
        return metrics.squared_error(self.x, np.broadcast_to(self.center, self.x.shape))

    def pca(self, n_components: int) -> Array:
        """Return PCA's reconstruction of the test rows from ``n_components``, remembered."""
        known: dict[int, Array] = self.__dict__.setdefault("_pca", {})
        if n_components not in known:
            known[n_components] = metrics.pca_reconstruction(self.x_train, self.x, n_components)
        return known[n_components]

    @cached_property
    def spread(self) -> Floats:
        """The standard deviation of each value over the training rows; 1 where it is 0. Flat."""
        spread = metrics.flat(self.x_train).std(axis=0, dtype=np.float64)
        return np.where(spread > 0, spread, 1.0)

    def standardized_pca(self, n_components: int) -> Array:
        """Return PCA's reconstruction where every feature was first divided by its spread; flat."""
        train, test = (metrics.flat(X) / self.spread for X in (self.x_train, self.x))
        return metrics.pca_reconstruction(train, test, n_components) * self.spread

    def input_for(self, estimator: Any, rows: Array | None = None) -> Any:
        """Return test rows as the estimator saw its training rows: with names or without."""
        data = self.test if hasattr(estimator, "feature_names_in_") else self.x
        return data if rows is None else take(data, rows)


class Study:
    """One estimator on the test bed; every number is computed when first asked for."""

    def __init__(self, name: str, estimator: Any, bed: Bench, frugal: bool = False) -> None:
        self.name, self.estimator, self.bed, self.frugal = name, estimator, bed, frugal
        shape = tuple(estimator.sample_shape_)
        self.view = SampleView.of(shape)

    @cached_property
    def restored(self) -> Array:
        """Reconstructions, shape of the test rows."""
        return np.asarray(self.estimator.reconstruct(self.bed.input_for(self.estimator)))

    @cached_property
    def codes(self) -> Floats:
        """Codes, (n, code_size)."""
        return metrics.flat(self.estimator.transform(self.bed.input_for(self.estimator))).astype(np.float64)

    @cached_property
    def errors(self) -> Floats:
        """Squared error of each test row, summed over its values."""
        return metrics.squared_error(self.bed.x, self.restored)

    @cached_property
    def diagnostics(self) -> dict[str, Any]:
        """What the estimator says of its own code."""
        return dict(self.estimator.diagnostics(self.bed.input_for(self.estimator, self.some(1000))))

    @property
    def shown(self) -> int:
        """Images of a grid; fewer where many models share the page."""
        return 8 if self.frugal else 12

    @property
    def code_size(self) -> int:
        """Number of values of a code."""
        return int(self.codes.shape[1])

    @property
    def n_values(self) -> int:
        """Number of values of a sample."""
        return int(np.prod(self.bed.x.shape[1:]))

    @property
    def pca_size(self) -> int:
        """Components that PCA gets: the units that a sample uses, cut to what the data allow."""
        return min(self.used_units or self.code_size, self.n_values, len(self.bed.x_train))

    @cached_property
    def used_units(self) -> int | None:
        """Units that a sample uses on average, where the code is sparse."""
        return used_units(self.codes, self.diagnostics, self.n_values)

    @property
    def features_alike(self) -> bool:
        """Whether the estimator scales every feature by its own spread."""
        return self.estimator.recipe_.scaling in ("standard", "minmax")

    @cached_property
    def pca_errors(self) -> Floats:
        """Squared error of PCA with ``pca_size`` components on each test row."""
        return metrics.squared_error(self.bed.x, self.bed.pca(self.pca_size))

    @property
    def r2(self) -> float:
        """1 - error / error of the mean of the training rows."""
        return 1.0 - float(self.errors.sum()) / float(self.bed.mean_errors.sum() or np.nan)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The rows of the learning history."""
        return list(self.estimator.history_.rows)

    @property
    def best_row(self) -> int | None:
        """Index in ``history`` of the epoch whose weights were kept."""
        best = self.estimator.history_.best_epoch
        stage = self.history[-1].get("stage") if self.history else None
        for i in range(len(self.history) - 1, -1, -1):
            if self.history[i].get("stage") == stage and self.history[i].get("epoch") == best:
                return i
        return None

    @cached_property
    def feature_names(self) -> list[str]:
        """Names of the values of a sample."""
        names: Any = self.bed.feature_names or getattr(self.estimator, "feature_names_in_", None)
        if names is None:
            names = getattr(self.bed.train, "columns", None)
        if names is None or len(names) != self.n_values:
            names = [f"x{i}" for i in range(self.n_values)]
        return [str(name) for name in names]

    def some(self, n: int) -> Array:
        """Return the indices of at most ``n`` test rows, the same for every estimator."""
        return thinned(len(self.bed.x), n)


def thinned(n: int, most: int) -> Array:
    """Return ``most`` of ``n`` indices drawn without a change of the global random state, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def take(X: Any, rows: Array) -> Any:
    """Return some rows of an array or a pandas frame."""
    return X.iloc[rows] if hasattr(X, "iloc") else np.asarray(X)[rows]


def _label_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
