"""What comes in, rows or images or a source of them, as the rows that a fitted estimator works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from diabolo.data.chunks import ahead
from diabolo.data.sources import Source
from diabolo.errors import InvalidDataError
from diabolo.estimators import validation
from diabolo.names import quoted

Array = NDArray[Any]
T = TypeVar("T", bound=np.generic)

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_STREAMED = 8192  # rows of a source in memory at a time, about


def _none_alone(parts: Iterable[Array]) -> Iterator[Array]:
    """Join a last part of one row to the one before: a row alone may go another way than among others."""
    held: Array | None = None
    for part in parts:
        if held is not None and len(part) > 1:
            yield held
            held = None
        held = part if held is None else np.concatenate([held, part])
    if held is not None:
        yield held


class Incoming(BaseEstimator):  # type: ignore[misc]
    """What of an estimator looks at its input. Abstract: ``fit`` sets the attributes through ``_check``.

    ``_row_shape`` is the shape of one sample as it came to fit: that of ``sample_shape_``, or
    (n_features,) where rows came flattened and ``input_shape`` says what they are.
    """

    input_shape: Sequence[int] | None
    sample_shape_: tuple[int, ...]
    n_features_in_: int
    _row_shape: tuple[int, ...]
    _least_rows = 2  # that fit takes

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def _rows_per_batch(self) -> int:
        """Return into how many rows a large number of them is split."""
        raise NotImplementedError

    def _check(self, X: Any, *, reset: bool) -> Array:
        """Return X as numeric rows (n_samples, n_features)."""
        if not reset:
            check_is_fitted(self)
        if isinstance(X, Source):
            raise InvalidDataError(
                "X must be rows in memory for this method; got a Source. fit, partial_fit, transform, "
                "reconstruct, reconstruction_error, score_samples and score take one; others a sample of it, "
                "such as next(source.batches(10_000))."
            )
        X = validation.as_array(X)
        shape: tuple[int, ...] | None = None
        if validation.n_extents(X) > 2:
            X = np.asarray(X)
            shape = X.shape[1:]
            if not reset and shape != self.sample_shape_:
                raise InvalidDataError(
                    f"samples must have the shape {self.sample_shape_} they had in fit; got {shape}. "
                    "Resize them."
                )
            X = X.reshape(len(X), prod(shape))
        validation.check_columns(X)
        if isinstance(X, np.ndarray):
            validation.check_cells(X)
        validation.check_n_rows(X, self._least_rows if reset else 1)
        rows: Array = validation.dense(
            validate_data(
                self,
                X,
                reset=reset,
                accept_sparse=["csr", "csc"],
                dtype="numeric",
                ensure_all_finite=False,
                ensure_min_samples=self._least_rows if reset else 1,
            )
        )
        if reset:
            self._row_shape = shape or (rows.shape[1],)
            self.sample_shape_ = self._row_shape
            if self.input_shape is not None:
                self.sample_shape_ = validation.check_shape(self.input_shape, rows.shape[1], shape)
        validation.check_values(rows, getattr(self, "feature_names_in_", None), self.sample_shape_)
        return rows

    def _take_shape(self, source: Source) -> None:
        """Let this estimator be one for samples of a source."""
        self._row_shape = self.sample_shape_ = source.sample_shape
        self.n_features_in_ = prod(source.sample_shape)
        if self.input_shape is not None:
            shape = source.sample_shape if len(source.sample_shape) > 1 else None
            self.sample_shape_ = validation.check_shape(self.input_shape, self.n_features_in_, shape)
        if source.feature_names is not None:
            self.feature_names_in_ = np.array(source.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _applied(self, function: Callable[[Array], NDArray[T]], X: Any) -> NDArray[T]:
        """Apply ``function`` to the checked rows of X, of a source part by part."""
        if self._plain(X):
            return function(X)
        if isinstance(X, Source):
            return np.concatenate(list(self._each(function, X)))
        return function(self._check(X, reset=False))

    def _each(self, function: Callable[[Array], NDArray[T]], source: Source) -> Iterator[NDArray[T]]:
        """Apply ``function`` to the rows of a source, in its order and with a part of it in memory.

        The parts are whole batches of inference, so the results are those of all rows in memory.
        """
        self._check_source(source)
        shape, names = source.sample_shape, getattr(self, "feature_names_in_", None)
        size = self._rows_per_batch()
        first = 0
        with closing(ahead(_none_alone(source.batches(max(1, _STREAMED // size) * size, None)))) as batches:
            for batch in batches:
                rows = batch.reshape(len(batch), -1)
                validation.check_values(rows, names, shape, np.arange(first, first + len(rows)))
                yield function(rows)
                first += len(rows)

    def _check_source(self, source: Source) -> None:
        """Raise where the samples of a source are not such as in fit."""
        check_is_fitted(self)
        shape, names = source.sample_shape, getattr(self, "feature_names_in_", None)
        if prod(shape) != self.n_features_in_ or (len(shape) > 1 and shape != self.sample_shape_):
            raise InvalidDataError(
                f"samples must have the shape {self._row_shape} they had in fit; got {shape}. "
                "Give a source of such samples."
            )
        if names is not None and source.feature_names not in (None, tuple(names)):
            raise InvalidDataError(
                f"the columns of the source must be those of fit, {quoted(names)}; got "
                f"{quoted(source.feature_names or ())}. Choose them with columns=..."
            )

    def _plain(self, X: Any) -> bool:
        """Whether X is rows as ``_check`` returns them, but for their values: ``_scale`` checks these."""
        return (
            type(X) is np.ndarray
            and X.dtype in _FLOATS
            and X.ndim == 2
            and len(X) > 0
            and self.__sklearn_is_fitted__()
            and X.shape[1] == self.n_features_in_
            and not hasattr(self, "feature_names_in_")
        )
