"""Columns of pandas and polars frames and of arrays: read as numbers or cells, put back as they came.

Neither library is imported: who gives a frame has it loaded.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.errors import InvalidDataError, MissingExtraError
from diabolo.estimators.validation import check_holds_rows, check_twins, is_sparse

Array = NDArray[Any]
Doubles = NDArray[np.float64]
Cell = str | bool | int | float | None

# dtypes that a column can be given back in; a file may name no other
_NUMBER = r"u?int(8|16|32|64)|float(16|32|64)|U?Int(8|16|32|64|128)|Float(32|64)"
_ARROW = r"(u?int(8|16|32|64)|halffloat|float|double|bool|string|large_string)\[pyarrow\]"
STORABLE = {
    "pandas": re.compile(rf"{_NUMBER}|{_ARROW}|bool|boolean|object|str|string|category"),
    "polars": re.compile(r"U?Int(8|16|32|64|128)|Float(32|64)|Boolean|String|Categorical|Enum|Null|Object"),
    "arrays": re.compile(rf"{_NUMBER}|bool|object"),
}


@dataclass(frozen=True)
class Kept:
    """What is remembered of a column so that it can be put back.

    ``dtype`` is the library's name of its type; ``levels`` are the categories of a categorical type, in
    their order, and ``ordered`` whether that order means something.
    """

    name: str | int
    dtype: str
    levels: tuple[Cell, ...] | None = None
    ordered: bool = False


@dataclass(frozen=True)
class Column:
    """A column as it came: ``numbers`` (n,) with NaN where missing, or ``cells`` with None there.

    ``boolean`` says that numbers stand for False and True.
    """

    kept: Kept
    numbers: Doubles | None
    cells: list[Any] | None = None
    boolean: bool = False

    @property
    def label(self) -> str:
        """How messages call the column."""
        return repr(self.kept.name)


def library_of(X: Any) -> str:
    """Return whose frame X is: "pandas", "polars", or "arrays" where it is none."""
    for name in ("pandas", "polars"):
        module = sys.modules.get(name)
        if module is not None and isinstance(X, module.DataFrame):
            return name
    return "arrays"


def columns_of(X: Any) -> list[Column]:
    """Return the columns of a frame or of an array (n, d), in their order.

    Raises
    ------
    InvalidDataError
        For names that are not unique, or neither texts nor integers, and for types that are neither numbers
        nor truth values, text or categories.
    """
    library = library_of(X)
    if library == "arrays":
        return [_of_array(X[:, i], i) for i in range(X.shape[1])]
    names = list(X.columns)
    for name in names:
        if not isinstance(name, (str, int, np.integer)) or isinstance(name, bool):
            raise InvalidDataError(
                f"names of columns must be texts or integers; got {name!r}. Rename the column."
            )
    check_twins(names)
    read = _of_pandas if library == "pandas" else _of_polars
    plain = [int(name) if isinstance(name, np.integer) else name for name in names]
    return [
        read(X.iloc[:, i] if library == "pandas" else X.to_series(i), plain[i]) for i in range(len(plain))
    ]


def as_table(X: Any) -> Any:
    """Return rows that are no frame as an array (n, d); lists keep the type of each cell.

    Raises
    ------
    InvalidDataError
        For what is no table.
    """
    if library_of(X) != "arrays":
        return X
    if is_sparse(X):
        raise InvalidDataError("X must be a frame or a dense array; got a sparse matrix. Call X.toarray().")
    if isinstance(X, (list, tuple)):
        lengths = {len(row) if isinstance(row, (list, tuple, np.ndarray)) else -1 for row in X}
        if len(lengths) > 1:
            raise InvalidDataError(
                "X must be rows of one length; got a list whose rows differ in length. Pad or cut them."
            )
        X = np.array(X, dtype=object)
    check_holds_rows(X)
    return np.asarray(X)


def _of_array(values: Array, position: int) -> Column:
    if values.dtype.kind in "biuf":
        return Column(
            Kept(position, str(values.dtype)),
            values.astype(np.float64),
            boolean=values.dtype.kind == "b",
        )
    if values.dtype.kind in "OUS":
        cells = [None if _is_missing(v) else v for v in values.tolist()]
        return Column(Kept(position, "object"), None, cells)
    raise _wrong_type(str(position), values.dtype)


def _of_pandas(series: Any, name: str | int) -> Column:
    pd = sys.modules["pandas"]
    dtype, types = series.dtype, pd.api.types
    missing = series.isna().to_numpy()
    if isinstance(dtype, pd.CategoricalDtype):
        cells = [None if m else v for v, m in zip(series.tolist(), missing, strict=True)]
        levels = [_plain(level) for level in dtype.categories.tolist()]
        if not all(isinstance(level, (str, bool, int, float)) for level in levels):
            raise _wrong_type(repr(name), f"category of {dtype.categories.dtype}")
        return Column(Kept(name, "category", tuple(levels), bool(dtype.ordered)), None, cells)
    boolean = bool(types.is_bool_dtype(dtype))
    if boolean or (types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)):
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan).copy()
        numbers[missing] = np.nan
        return Column(Kept(name, _storable("pandas", dtype, "float64")), numbers, boolean=boolean)
    if types.is_object_dtype(dtype) or types.is_string_dtype(dtype):
        cells = [None if m else v for v, m in zip(series.tolist(), missing, strict=True)]
        return Column(Kept(name, _storable("pandas", dtype, "object")), None, cells)
    raise _wrong_type(repr(name), dtype)


def _of_polars(series: Any, name: str | int) -> Column:
    pl = sys.modules["polars"]
    dtype = series.dtype
    word = str(dtype.base_type())
    if dtype.is_numeric() or dtype == pl.Boolean:
        numbers = series.cast(pl.Float64).to_numpy(writable=True)
        kept = Kept(name, _storable("polars", word, "Float64"))
        return Column(kept, numbers, boolean=dtype == pl.Boolean)
    if word in ("String", "Categorical", "Enum", "Null", "Object"):
        levels = tuple(dtype.categories.to_list()) if word == "Enum" else None
        cells = [None if _is_missing(v) else v for v in series.to_list()]
        return Column(Kept(name, word, levels, word == "Enum"), None, cells)
    raise _wrong_type(repr(name), dtype)


def _storable(library: str, dtype: object, otherwise: str) -> str:
    return str(dtype) if STORABLE[library].fullmatch(str(dtype)) else otherwise


def _wrong_type(label: str, dtype: object) -> InvalidDataError:
    return InvalidDataError(
        f"column {label} must hold numbers, truth values, text or categories; got the type {dtype}. "
        "Turn it into numbers (a date into the days since another), or drop it."
    )


def _is_missing(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, (float, np.floating)) and bool(value != value))
        or type(value).__name__ in ("NAType", "NaTType")
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def plain_cells(column: Column) -> list[Cell]:
    """Return the cells of a column as text, truth values and numbers, None where missing.

    Raises
    ------
    InvalidDataError
        For a cell that is none of them, naming its row.
    """
    if column.cells is None:
        assert column.numbers is not None
        cells = [None if v != v else v for v in column.numbers.tolist()]
        if column.boolean:
            return [None if v is None else bool(v) for v in cells]
        return [int(v) if v is not None and v.is_integer() else v for v in cells]
    plain: dict[type, Any] = {str: None, bool: None, int: None, float: None, type(None): None}
    if all(type(v) in plain for v in column.cells):
        return column.cells
    out: list[Cell] = []
    for i, value in enumerate(column.cells):
        cell = _plain(value)
        if isinstance(cell, Decimal):
            cell = float(cell)
        elif isinstance(cell, str):
            cell = str(cell)
        if type(cell) not in plain:
            raise InvalidDataError(
                f"column {column.label} must hold numbers, truth values or text; got {value!r} in row {i}. "
                "Turn it into one of them, or drop the column."
            )
        out.append(cell)
    return out


def rows_back(library: str, kept: Sequence[Kept], values: Sequence[Doubles | list[Cell]]) -> Any:
    """Return the frame or array of which these are the columns, in the types they had where those can.

    Whole numbers are rounded. A missing value turns integers into floating point numbers and truth values
    into pandas' nullable ones, where the type itself has none.

    Raises
    ------
    MissingExtraError
        Where the library is not installed.
    """
    if library == "arrays":
        columns = [_in_array(k, v) for k, v in zip(kept, values, strict=True)]
        same = {column.dtype for column in columns}
        if object not in same:
            return np.column_stack(columns)
        out = np.empty((len(columns[0]), len(columns)), dtype=object)
        for i, column in enumerate(columns):
            out[:, i] = column
        return out
    try:
        module = import_module(library)
    except ImportError as error:
        raise MissingExtraError("Giving the frame back", library, "tables") from error
    put = _in_pandas if library == "pandas" else _in_polars
    return module.DataFrame({k.name: put(module, k, v) for k, v in zip(kept, values, strict=True)})


def _as_numbers(values: Doubles | list[Cell]) -> Doubles:
    if isinstance(values, list):
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return values


def _whole(values: Doubles, dtype: str) -> Doubles:
    """Return whole numbers that the integer type can hold, still as doubles."""
    info = np.iinfo(dtype.lower().replace("128", "64"))
    low, high = float(info.min), float(info.max)
    return np.clip(np.rint(values), low, high if high <= info.max else np.nextafter(high, 0))


def _in_array(kept: Kept, values: Doubles | list[Cell]) -> Array:
    if kept.dtype == "object":
        cells = values if isinstance(values, list) else [None if v != v else v for v in values.tolist()]
        out = np.empty(len(cells), dtype=object)
        out[:] = cells
        return out
    numbers = _as_numbers(values)
    if np.isnan(numbers).any():
        return numbers
    if "int" in kept.dtype:
        numbers = _whole(numbers, kept.dtype)
    return numbers.astype(kept.dtype)


def _in_pandas(pd: Any, kept: Kept, values: Doubles | list[Cell]) -> Any:
    dtype = kept.dtype
    if dtype == "category":
        cells = values if isinstance(values, list) else values.tolist()
        cells = [None if _is_missing(v) else v for v in cells]
        return pd.Series(pd.Categorical(cells, categories=list(kept.levels or ()), ordered=kept.ordered))
    if dtype in ("object", "str", "string") or "string" in dtype:
        if isinstance(values, list):
            return pd.Series(values, dtype=object).astype(dtype)
        return pd.Series(values)  # numbers that came as text
    numbers = _as_numbers(values)
    missing = bool(np.isnan(numbers).any())
    if "bool" in dtype:
        dtype = "boolean" if dtype == "bool" and missing else dtype
        return pd.Series(pd.array(numbers, dtype="Float64")).astype("boolean").astype(dtype)
    if "int" in dtype.lower():
        arrow = dtype.endswith("[pyarrow]")
        bare = dtype.removesuffix("[pyarrow]")
        numbers = _whole(numbers, bare)
        if missing and not arrow and bare.islower():
            return pd.Series(numbers)
        nullable = bare.lower().capitalize().replace("Uint", "UInt")
        return pd.Series(pd.array(numbers, dtype="Float64")).astype(nullable).astype(dtype)
    if dtype.endswith("[pyarrow]"):
        return pd.Series(pd.array(numbers, dtype="Float64")).astype(dtype)
    return pd.Series(numbers).astype(dtype)


def _in_polars(pl: Any, kept: Kept, values: Doubles | list[Cell]) -> Any:
    name, dtype = str(kept.name), kept.dtype
    if dtype in ("String", "Categorical", "Enum", "Null", "Object"):
        if not isinstance(values, list):
            return pl.Series(name, values).fill_nan(None)  # numbers that came as text
        if dtype == "Object":
            return pl.Series(name, values, dtype=pl.Object)
        series = pl.Series(name, values, dtype=pl.Null if dtype == "Null" else pl.String)
        if dtype == "Enum":
            return series.cast(pl.Enum(list(kept.levels or ())))
        return series.cast(getattr(pl, dtype))
    numbers = _as_numbers(values)
    if "Int" in dtype:
        numbers = _whole(numbers, dtype)
    return pl.Series(name, numbers).fill_nan(None).cast(getattr(pl, dtype))
