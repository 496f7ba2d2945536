"""Tables of mixed columns: frames become rows that an autoencoder can learn, and rows become frames again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from diabolo.applications.codings import KINDS, Coding, cells_from, fitted, from_plain, kind_of, to_plain
from diabolo.applications.frames import (
    STORABLE,
    Cell,
    Column,
    Doubles,
    Kept,
    as_table,
    columns_of,
    library_of,
    plain_cells,
    rows_back,
)
from diabolo.errors import InvalidDataError, InvalidParameterError, ModelFileError
from diabolo.estimators.validation import check_twins
from diabolo.names import check_name, quoted
from diabolo.parts import Mixed, check_range

MISSING = "<missing>"
_PARAMETERS = ("kinds", "max_levels", "unseen", "missing")


class TableEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns the columns of a table into numbers, each by its kind, and numbers back into the table.

    A column is *numeric* (one value of mean 0 and variance 1, its heavy tails drawn in), *binary* (one value,
    0 or 1) or *categorical* (one value for each level and one for any other). Where a value is missing, it is
    0 (of a binary column the mean) and an indicator behind it is 1. Kinds follow from types and values:
    booleans, and numbers that are 0 and 1 and nothing else, are binary; other numbers numeric; text and
    categories categorical. ``Autoencoder(loss=Mixed(encoder.layout_))`` then has the loss that fits each
    column.

    Takes pandas and polars frames, arrays and lists. In polars NaN counts as missing, as null does. Dates,
    and columns of text and numbers mixed, are refused in words.

    Parameters
    ----------
    kinds : mapping of column name to kind, default=None
        "numeric", "binary" or "categorical" for columns whose kind does not follow from their values, such
        as codes written as numbers. Columns without names go by their position.
    max_levels : int >= 1, default=50
        Most levels of a categorical column. Where there are more, the most frequent are kept, of those that
        fit saw twice at least, and the rest count as one, the other.
    unseen : "other" or "error", default="other"
        What becomes of a level that fit did not see, or of a third value in a binary column. "other": the
        value for any other level is 1, and a binary value lies beyond 0 or 1: both cost a trained model
        much. "error": refused.
    missing : "seen" or "all", default="seen"
        Which columns have an indicator. "seen": those in which fit saw a missing value; one in another
        column is refused. "all": every column.

    Attributes
    ----------
    layout_ : str
        The kinds and sizes in the order of the columns, for ``Mixed``.
    kinds_ : dict of column name to kind
    column_of_ : ndarray (n_values,) of int
        The position of the column that each value comes from.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X was a frame whose columns have texts as names.
    """

    layout_: str
    kinds_: dict[str | int, str]
    column_of_: NDArray[np.intp]
    n_features_in_: int

    def __init__(
        self,
        *,
        kinds: Mapping[str | int, str] | None = None,
        max_levels: int = 50,
        unseen: str = "other",
        missing: str = "seen",
    ) -> None:
        self.kinds = kinds
        self.max_levels = max_levels
        self.unseen = unseen
        self.missing = missing

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags

    # ------------------------------------------------------------------ frame -> rows
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn kinds, scales and levels of the columns of X (n_samples, n_columns).

        Raises
        ------
        InvalidDataError
            For a table without rows or columns, twins among the names, cells that are neither numbers nor
            truth values nor text, infinities; naming column and row.
        InvalidParameterError
            For settings out of range, and kinds of columns that are not there.
        """
        self._check_parameters()
        X, columns = self._columns(X, reset=True)
        asked = dict(self.kinds or {})
        codings: list[Coding] = []
        absent: list[NDArray[np.bool_]] = []
        for column in columns:
            kind = asked.pop(column.kept.name, None) or kind_of(column)
            codings.append(fitted(column, kind, int(self.max_levels)))
            absent.append(_absent(column))
        if asked:
            raise InvalidParameterError(
                f"kinds must name columns of X, {quoted(c.kept.name for c in columns)}; "
                f"got {next(iter(asked))!r}. Correct the name."
            )
        indicated = [self.missing == "all" or bool(a.any()) for a in absent]
        fills = [
            float(c.encode(column, strict=False)[~a].mean()) if c.kind == "binary" and not a.all() else 0.0
            for c, column, a in zip(codings, columns, absent, strict=True)
        ]
        self._settle(library_of(X), [c.kept for c in columns], codings, indicated, fills)
        return self

    def _settle(
        self,
        library: str,
        kept: list[Kept],
        codings: list[Coding],
        indicated: list[bool],
        fills: list[float],
    ) -> None:
        """Set what fit learned, and what follows from it."""
        self._library, self._kept, self._codings = library, kept, codings
        self._indicated, self._fills = indicated, fills
        words = [
            (f"categorical:{c.size}" if c.kind == "categorical" else c.kind) + "?" * more
            for c, more in zip(codings, indicated, strict=True)
        ]
        self.layout_ = " ".join(words)
        loss = Mixed(self.layout_)
        self._blocks = loss.blocks()
        self.kinds_ = {k.name: c.kind for k, c in zip(kept, codings, strict=True)}
        self.column_of_ = np.array(loss.column_of(), dtype=np.intp)

    def transform(self, X: Any) -> Doubles:
        """Return the rows (n_samples, n_values) of a table with the columns of fit.

        Raises
        ------
        InvalidDataError
            For other columns, cells of another type, missing values in a column without indicator, and with
            unseen="error" for levels that fit did not keep; naming column and row.
        """
        check_is_fitted(self)
        X, columns = self._columns(X, reset=False)
        out = np.zeros((X.shape[0], self._blocks[-1].stop))
        for column, coding, block, fill in zip(
            columns, self._codings, self._blocks, self._fills, strict=True
        ):
            absent = _absent(column)
            if block.missing is not None:
                out[:, block.missing] = absent
            elif absent.any():
                raise InvalidDataError(
                    f"column {column.label} must have a value in every row, as in fit; got none in row "
                    f"{int(np.argmax(absent))}. Fill it in, or fit with missing='all'."
                )
            values = coding.encode(column, strict=self.unseen == "error")
            values[absent] = fill
            out[:, block.start : block.start + block.size] = values
        return out

    def _columns(self, X: Any, *, reset: bool) -> tuple[Any, list[Column]]:
        """Return X as a frame or an array, and its columns."""
        X = as_table(X)
        library = library_of(X)
        if library == "arrays":
            X = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False)
        else:
            if not reset:
                _check_same([k.name for k in self._kept], list(X.columns))
            if 0 in X.shape:
                raise InvalidDataError(f"X must have rows and columns; got {X.shape}. Check the source.")
        columns = columns_of(X)
        if library != "arrays":
            validate_data(self, X, reset=reset, skip_check_array=True)
        return X, columns

    def _check_parameters(self) -> None:
        check_range("max_levels", self.max_levels, low=1, high=900_000, integer=True)
        check_name("unseen", self.unseen, ("other", "error"))
        check_name("missing", self.missing, ("seen", "all"))
        if self.kinds is not None and not isinstance(self.kinds, Mapping):
            raise InvalidParameterError(
                f"kinds must be a mapping of column name to kind; got {self.kinds!r}. "
                "Give for example {'code': 'categorical'}."
            )
        for name, kind in (self.kinds or {}).items():
            check_name(f"kinds[{name!r}]", kind, KINDS)

    # ------------------------------------------------------------------ rows -> frame
    def inverse_transform(self, X: Any) -> Any:
        """Return the table that rows (n_samples, n_values) stand for, of the library and types of fit's.

        Rows may be a model's reconstructions, shares between 0 and 1: the likelier value is taken, and one
        counts as missing where its indicator is above one half. Another level than those that were kept
        comes back as missing. Whole numbers are rounded.

        Raises
        ------
        InvalidDataError
            For rows of another width, or with NaN or inf.
        MissingExtraError
            Where the frame's library is not installed.
        """
        check_is_fitted(self)
        rows = np.asarray(X, dtype=np.float64)
        width = self._blocks[-1].stop
        if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
            raise InvalidDataError(
                f"rows must have the shape (n_samples, {width}); got {rows.shape}. "
                "Give rows as transform returns them."
            )
        if not np.isfinite(rows).all():
            raise InvalidDataError("rows must be finite; got NaN or inf. Drop such rows.")
        values: list[Doubles | list[Cell]] = []
        for coding, block in zip(self._codings, self._blocks, strict=True):
            found = coding.decode(rows[:, block.start : block.start + block.size])
            if block.missing is not None:
                absent = rows[:, block.missing] > 0.5
                if isinstance(found, list):
                    found = [None if a else v for v, a in zip(found, absent.tolist(), strict=True)]
                else:
                    found = np.where(absent, np.nan, found)
            values.append(found)
        return rows_back(self._library, self._kept, values)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return a name for each value: "age", "color=red", "color=<other>", "age=<missing>"."""
        check_is_fitted(self)
        named = self._library != "arrays"
        own = [str(k.name) if named else f"x{k.name}" for k in self._kept]
        given = own if input_features is None else [str(name) for name in input_features]
        if len(given) != len(own) or (named and given != own):
            raise InvalidDataError(
                f"input_features must be the columns of fit, {quoted(own)}; got {quoted(given)}. "
                "Leave it out."
            )
        names: list[str] = []
        for name, coding, more in zip(given, self._codings, self._indicated, strict=True):
            names += [name + end for end in coding.names] + [f"{name}={MISSING}"] * more
        return np.array(names, dtype=object)

    # ------------------------------------------------------------------ files
    def to_dict(self) -> dict[str, Any]:
        """Return all that fit learned as values that JSON holds."""
        check_is_fitted(self)
        columns = [
            {
                "name": k.name,
                "dtype": k.dtype,
                "levels": None if k.levels is None else list(k.levels),
                "ordered": k.ordered,
                "indicator": more,
                "fill": fill,
                "coding": to_plain(coding),
            }
            for k, coding, more, fill in zip(
                self._kept, self._codings, self._indicated, self._fills, strict=True
            )
        ]
        params = {name: getattr(self, name) for name in _PARAMETERS}
        params["kinds"] = None if self.kinds is None else [list(pair) for pair in self.kinds.items()]
        return {"params": params, "library": self._library, "columns": columns}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Build the encoder that ``to_dict`` wrote down.

        Raises
        ------
        ModelFileError
            For values that no encoder writes.
        """
        try:
            return cls._read(data)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
            raise ModelFileError(
                "a stored TableEncoder must be what to_dict returned; got something else "
                f"({' '.join(str(error).split()) or type(error).__name__}). Use a file written by save()."
            ) from error

    @classmethod
    def _read(cls, data: Any) -> Self:
        params = dict(data["params"])
        if sorted(params) != sorted(_PARAMETERS):
            raise ValueError(f"the parameters are {quoted(params)}")
        if params["kinds"] is not None:
            params["kinds"] = dict(params["kinds"])
        encoder = cls(**params)
        encoder._check_parameters()
        library = check_name("library", data["library"], STORABLE)
        kept: list[Kept] = []
        codings: list[Coding] = []
        indicated: list[bool] = []
        fills: list[float] = []
        for i, column in enumerate(data["columns"]):
            kept.append(_kept_from(library, column, i))
            codings.append(from_plain(column["coding"]))
            indicated.append(column["indicator"])
            fills.append(column["fill"])
            _check_type(kept[-1], codings[-1])
        names = [k.name for k in kept]
        if not names or len(set(names)) != len(names):
            raise ValueError("names of columns are not unique, or there are none")
        if not all(type(more) is bool for more in indicated):
            raise ValueError("an indicator is neither there nor not")
        if not all(type(fill) is float and abs(fill) <= 1 for fill in fills):
            raise ValueError("what stands for a missing value is no share")
        encoder._settle(library, kept, codings, indicated, fills)
        encoder.n_features_in_ = len(kept)
        if library != "arrays" and all(isinstance(name, str) for name in names):
            encoder.feature_names_in_ = np.array(names, dtype=object)
        return encoder


def is_mixed(X: Any) -> bool:
    """Whether X is a frame with columns that are not plain numbers, or with missing values."""
    if library_of(X) == "arrays" or 0 in X.shape:
        return False
    return any(c.numbers is None or c.boolean or bool(np.isnan(c.numbers).any()) for c in columns_of(X))


def _check_same(wanted: Sequence[str | int], names: Sequence[Any]) -> None:
    """Raise where a frame's columns are not those of fit: say which are missing, unknown or misplaced."""
    check_twins(names)
    if list(names) == list(wanted):
        return
    missing = [name for name in wanted if name not in names]
    unknown = [name for name in names if name not in wanted]
    wrong = [f"without {quoted(missing)}"] * bool(missing) + [f"with {quoted(unknown)}"] * bool(unknown)
    if not wrong:
        k = next(k for k, (one, other) in enumerate(zip(wanted, names, strict=True)) if one != other)
        wrong = [f"{names[k]!r} where {wanted[k]!r} should be (column {k}, counted from 0)"]
    what_to_do = "Add what is missing." if missing else "Select them with X[...]."
    raise InvalidDataError(
        f"the columns must be those of fit, {quoted(wanted)}, in that order; got a table "
        f"{' and '.join(wrong)}. {what_to_do}"
    )


def _absent(column: Column) -> NDArray[np.bool_]:
    """Return where a column's value is missing, (n,)."""
    if column.numbers is not None:
        return np.isnan(column.numbers)
    return np.array([cell is None for cell in plain_cells(column)], dtype=bool)


def _kept_from(library: str, data: dict[str, Any], position: int) -> Kept:
    name, dtype, levels, ordered = (data[key] for key in ("name", "dtype", "levels", "ordered"))
    if type(name) not in (str, int) or (library == "arrays" and name != position):
        raise ValueError(f"a column is called {name!r}")
    if not isinstance(dtype, str) or not STORABLE[library].fullmatch(dtype):
        raise ValueError(f"the type of column {name!r} is {dtype!r}")
    if type(ordered) is not bool or (levels is None) == (dtype in ("category", "Enum")):
        raise ValueError(f"the categories of column {name!r} do not fit its type")
    return Kept(name, dtype, None if levels is None else tuple(cells_from(levels)), ordered)


def _check_type(kept: Kept, coding: Coding) -> None:
    """Raise ValueError where a stored column's values cannot be of its type."""
    lower = kept.dtype.lower()
    number = any(word in lower for word in ("int", "float", "double", "bool"))
    levels = getattr(coding, "levels", ())
    if number and any(isinstance(level, str) for level in levels):
        raise ValueError(f"column {kept.name!r} is of numbers, and its levels are text")
    if kept.levels is not None and not set(levels) <= set(kept.levels):
        raise ValueError(f"levels of column {kept.name!r} are not among its categories")
