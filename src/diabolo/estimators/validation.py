"""What comes in: rows, images, frames and sparse matrices, turned into numeric rows or a worded error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from diabolo.errors import InvalidDataError

Array = NDArray[Any]
_EXACT = 2**24  # the largest integer below which float32 holds every integer


def column_label(names: Any, index: int) -> str:
    """Return how messages call a column: its name where it has one, and its position."""
    return f"{index}" if names is None else f"{names[index]!r} (position {index})"


def check_columns(X: Any) -> None:
    """Raise where a frame's column is not numeric, naming it and its first value."""
    columns = getattr(X, "columns", None)
    if columns is None or not hasattr(X, "dtypes"):
        return
    for name in columns:
        column = X[name]
        values = column.to_numpy()
        if values.dtype.kind in "biuf":
            continue
        try:
            values.astype(np.float64)
        except (TypeError, ValueError):
            wrong = next(
                (v for v in values if not isinstance(v, (int, float, np.number, type(None)))), values[0]
            )
            raise InvalidDataError(
                f"column {name!r} must be numeric; got {wrong!r}. Encode it as numbers or drop it."
            ) from None


def check_cells(X: Array) -> None:
    """Raise where a cell of an object or text array is no number, naming row and column."""
    if X.dtype.kind not in "OUS" or X.ndim != 2:
        return
    for (i, j), value in np.ndenumerate(X):
        if isinstance(value, (str, bytes)):
            try:
                float(value)
            except ValueError:
                raise InvalidDataError(
                    f"X must be numeric; got {value!r} at row {i}, column {j}. Encode it as numbers or drop the column."
                ) from None


def check_values(X: Array, names: Any) -> None:
    """Raise for NaN and inf, naming row and column, and for integers that float32 cannot hold."""
    if X.dtype.kind in "iu" and X.size:
        for extreme in (X.max(0), X.min(0)):
            beyond = np.abs(extreme.astype(np.float64)) > _EXACT
            if beyond.any():
                j = int(np.argmax(beyond))
                raise InvalidDataError(
                    f"integers must be within +-{_EXACT} to be exact in single precision; got {int(extreme[j])} in "
                    f"column {column_label(names, j)}. Drop the column if it is an identifier, or pass floats."
                )
    if X.dtype.kind != "f" or bool(np.isfinite(np.sum(X, dtype=np.float64))):
        return
    finite = np.isfinite(X)
    if finite.all():
        return
    i, j = (int(k) for k in np.argwhere(~finite)[0])
    value = "NaN" if np.isnan(X[i, j]) else "inf"
    raise InvalidDataError(
        f"X must be finite, without NaN or inf; got {value} at row {i}, column {column_label(names, j)} "
        f"({int((~finite).sum())} such values in all). Impute or drop them."
    )


def is_sparse(X: Any) -> bool:
    """Whether X is a scipy sparse matrix or array."""
    return bool(sparse.issparse(X))


def dense(X: Any) -> Any:
    """Return sparse input as a dense array (the networks read every value anyway)."""
    return X.toarray() if sparse.issparse(X) else X
