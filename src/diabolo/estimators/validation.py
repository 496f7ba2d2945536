"""What comes in: rows, images, frames and sparse matrices, turned into numeric rows or a worded error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import check_random_state

from diabolo.errors import InvalidDataError, InvalidParameterError

Array = NDArray[Any]
_LARGEST = float(np.finfo(np.float32).max)
_EXACT = 2**24  # the largest integer below which float32 holds every integer


def column_label(names: Any, index: int) -> str:
    """Return how messages call a column: its name where it has one, and its position."""
    return f"{index}" if names is None else f"{names[index]!r} (position {index})"


def check_columns(X: Any) -> None:
    """Raise where a frame has no rows, or twins among its columns, or one that is not numeric, naming it."""
    columns = getattr(X, "columns", None)
    if columns is None or not hasattr(X, "dtypes"):
        return
    check_twins(columns)
    if 0 in X.shape:
        raise InvalidDataError(f"X must have rows and columns; got {X.shape}. Check the source.")
    for name in columns:
        values = X[name].to_numpy()
        if values.dtype.kind in "biuf" or not len(values):
            continue
        wrong = values[0]
        try:
            if values.dtype.kind not in "mM":  # times would turn into numbers without a word
                values.astype(np.float64)
                continue
        except (TypeError, ValueError):
            wrong = next((v for v in values.ravel() if not _is_number(v)), wrong)
        raise InvalidDataError(
            f"column {name!r} must be numeric; got {wrong!r}. Encode it as numbers or drop it."
        )


def check_twins(names: Iterable[Any]) -> None:
    """Raise where two columns have one name."""
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise InvalidDataError(f"names of columns must differ; got {name!r} twice. Rename one of them.")
        seen.add(name)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value is None
    return True


def as_array(X: Any) -> Any:
    """Return lists, nested or not, as an array; frames, sparse matrices and arrays as they are.

    Raises
    ------
    InvalidDataError
        For rows of several lengths, and for what holds no rows: one column, a value, a dict, a path.
    """
    if isinstance(X, (list, tuple)):
        try:
            X = np.asarray(X)
        except ValueError:
            raise InvalidDataError(
                "X must be rows of one length; got a list whose rows differ in length. Pad or cut them."
            ) from None
    check_holds_rows(X)
    return X


def check_holds_rows(X: Any) -> None:
    """Raise where X is neither a frame nor a sparse matrix nor an array of real numbers with two extents."""
    if is_sparse(X):
        return
    kind = type(X)  # is asked for methods, since a frame has its columns as attributes
    got = "None" if X is None else kind.__name__
    shape = getattr(X, "shape", None)
    if hasattr(kind, "collect"):
        hint = "Call X.collect()"
    elif hasattr(kind, "to_frame"):
        hint = "Call X.to_frame()"
    elif isinstance(X, np.matrix):
        hint = "Call numpy.asarray(X)"
    elif np.ma.is_masked(X):
        got, hint = "an array with masked values", "Call X.filled(...) with what stands for them"
    elif isinstance(X, Mapping):
        hint = "Call pandas.DataFrame(X)"
    elif isinstance(X, (str, bytes, PathLike)):
        hint = "Read the file with diabolo.data.load, or piece by piece with diabolo.data.open_source"
    elif not hasattr(kind, "__array__"):
        hint = "Turn it into one of these"
    elif isinstance(shape, tuple) and len(shape) < 2:
        got, hint = f"the shape {shape}", "Reshape your data: (-1, 1) is one feature, (1, -1) is one row"
        if isinstance(X, np.ndarray) and X.dtype == object and isinstance(next(iter(X.flat), None), Mapping):
            got, hint = "a list of dicts", "Call pandas.DataFrame(X)"
    elif getattr(getattr(X, "dtype", None), "kind", None) == "c":
        raise InvalidDataError(
            f"X must be real; got the type {X.dtype}. Complex data not supported: give real and imaginary "
            "parts as features."
        )
    else:
        return
    raise InvalidDataError(f"X must be a pandas or polars DataFrame, or an array of rows; got {got}. {hint}.")


def n_extents(X: Any) -> int:
    """Return the number of X's dimensions, whatever kind of array or frame it is."""
    if is_sparse(X) or hasattr(X, "columns"):
        return 2
    return int(X.ndim) if hasattr(X, "ndim") else np.asarray(X).ndim


def check_cells(X: Array) -> None:
    """Raise where a cell of an object or text array is no number, naming row and column."""
    if X.dtype.kind not in "OUS" or X.ndim != 2 or not X.size:
        return
    for (i, j), value in np.ndenumerate(X):
        if isinstance(value, (str, bytes)) and not _is_number(value):
            value = value.item() if isinstance(value, np.generic) else value
            raise InvalidDataError(
                f"X must be numeric; got {value!r} at row {i}, column {j}. "
                "Encode it as numbers or drop the column."
            )
    if X.dtype.kind in "US":
        raise InvalidDataError(f"X must be numeric; got text such as {str(X[0, 0])!r}. Call X.astype(float).")


def check_n_rows(X: Any, least: int) -> None:
    """Raise where there are fewer rows than ``least``."""
    n = X.shape[0] if hasattr(X, "shape") and len(X.shape) > 1 and 0 not in X.shape[1:] else least
    if n < least:
        many = "1 sample" if n == 1 else f"{n} samples"
        raise InvalidDataError(
            f"X must have at least {least} row{'s' if least > 1 else ''}; got {many}. "
            "Check how X was selected."
        )


def check_shape(input_shape: Any, n_features: int, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return ``input_shape`` as integers if it holds as many values as a sample has."""
    extents = input_shape if isinstance(input_shape, (tuple, list, np.ndarray)) else [input_shape]
    good = bool(len(extents)) and all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in extents
    )
    if not good or isinstance(input_shape, (str, int)):
        raise InvalidParameterError(
            f"input_shape must be a sequence of integers >= 1; got {input_shape!r}. "
            "Give one sample's shape, such as (28, 28)."
        )
    wanted = tuple(int(n) for n in extents)
    if prod(wanted) != n_features or (shape is not None and shape != wanted):
        raise InvalidParameterError(
            f"input_shape must hold as many values as a sample of X, {shape or n_features}; got {wanted}. "
            "Leave it out for images that are not flattened."
        )
    return wanted


def check_values(X: Array, names: Any, shape: tuple[int, ...], rows: Array | None = None) -> None:
    """Raise for NaN and inf, naming row and column, and for numbers that float32 cannot hold.

    ``shape`` is one sample's: in images a position is named by all its indices. ``rows`` are the numbers
    of the rows where X is a part of them.
    """
    if X.dtype.kind not in "biuf":
        raise InvalidDataError(f"X must be numeric; got the type {X.dtype}. Encode it as numbers.")
    if X.dtype.kind in "iu" and X.dtype.itemsize > 2 and X.size:
        for extreme in (X.max(0), X.min(0)):
            beyond = np.abs(extreme.astype(np.float64)) > _EXACT
            if beyond.any():
                j = int(np.argmax(beyond))
                raise InvalidDataError(
                    f"integers must be within +-{_EXACT} to be exact in single precision; got "
                    f"{int(extreme[j])} in column {column_label(names, j)}. "
                    "Drop the column if it is an identifier, or pass floats."
                )
    if X.dtype.kind != "f" or not X.size:
        return
    if float(np.max(X)) <= _LARGEST and float(np.min(X)) >= -_LARGEST:  # false for NaN too
        return
    finite = np.isfinite(X)
    if finite.all():
        i, j = (int(k) for k in np.argwhere(np.abs(X) > _LARGEST)[0])
        raise InvalidDataError(
            f"X must stay within +-{_LARGEST:.3g}, the range of single precision; got {X[i, j]:.4g} at "
            f"{_place(i if rows is None else int(rows[i]), j, names, shape)}. Rescale X."
        )
    i, j = (int(k) for k in np.argwhere(~finite)[0])
    value = "NaN" if np.isnan(X[i, j]) else "inf"
    raise InvalidDataError(
        f"X must be finite, without NaN or inf; got {value} at "
        f"{_place(i if rows is None else int(rows[i]), j, names, shape)} "
        f"({int((~finite).sum())} such values in {'all' if rows is None else 'this part'}). "
        "Impute or drop them."
    )


def _place(i: int, j: int, names: Any, shape: tuple[int, ...]) -> str:
    if len(shape) > 1:
        return f"row {i}, position {tuple(int(k) for k in np.unravel_index(j, shape))}"
    return f"row {i}, column {column_label(names, j)}"


def check_seed(random_state: Any) -> np.random.RandomState:
    """Return numpy's generator for a seed, or the generator given."""
    try:
        chance: np.random.RandomState = check_random_state(random_state)
    except ValueError:
        raise InvalidParameterError(
            "random_state must be None, an integer from 0 to 4294967295 or a numpy.random.RandomState; got "
            f"{random_state!r}. Give for example 0."
        ) from None
    return chance


def is_sparse(X: Any) -> bool:
    """Whether X is a scipy sparse matrix or array."""
    return bool(sparse.issparse(X))


def dense(X: Any) -> Any:
    """Return sparse input as a dense array (the networks read every value anyway)."""
    return X.toarray() if is_sparse(X) else X
