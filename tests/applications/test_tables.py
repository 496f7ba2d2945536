"""Tables of mixed columns: there and back, what is refused, what is stored, and that a net learns them."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from polars.testing import assert_frame_equal as assert_polars_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.utils.estimator_checks import parametrize_with_checks

from diabolo import Autoencoder
from diabolo.applications.codings import Numeric
from diabolo.applications.tables import TableEncoder
from diabolo.errors import InvalidDataError, InvalidParameterError, ModelFileError
from diabolo.parts import Mixed

pytestmark = pytest.mark.filterwarnings("ignore:Skipping check check_array_api_input")


def frame() -> pd.DataFrame:
    """One column of each type that pandas has for this, with and without missing values."""
    return pd.DataFrame(
        {
            "age": [1, 2, 3, 4, 50],
            "income": [1.5, np.nan, 3.0, 1e6, 0.0],
            "single": np.array([1.5, 2, 3, 4, 5], dtype="float32"),
            "byte": np.array([1, 2, 3, 250, 255], dtype="uint8"),
            "flag": [True, False, True, True, False],
            "zero": [0, 1, 1, 0, 0],
            "city": ["a", "b", None, "c", "a"],
            "ordered": pd.Categorical(["x", "y", "x", None, "y"], ["z", "y", "x"], ordered=True),
            "codes": pd.Categorical([3, 1, 3, 1, 1], [1, 2, 3]),
            "Int": pd.array([1, None, 3, 4, 5], dtype="Int64"),
            "Bool": pd.array([True, None, False, True, True], dtype="boolean"),
            "string": pd.array(["q", None, "r", "q", "q"], dtype="string"),
            "object": pd.Series([True, None, False, True, True], dtype=object),
            "arrow": pd.array([1, None, 3, 4, 5], dtype="uint16[pyarrow]"),
            "arrow text": pd.array(["q", None, "r", "q", "q"], dtype="string[pyarrow]"),
            "arrow bool": pd.array([True, None, False, True, True], dtype="bool[pyarrow]"),
            "arrow float": pd.array([1, None, 2.5, 4, 5], dtype="double[pyarrow]"),
        }
    )


LAYOUT = (
    "numeric numeric? numeric numeric binary binary categorical:4? categorical:3? categorical:3 numeric? "
    "binary? categorical:3? binary? numeric? categorical:3? binary? numeric?"
)


def polars_frame() -> pl.DataFrame:
    text = ["a", None, "b", "a", "a"]
    return pl.DataFrame(
        {
            "age": [1, 2, 3, 4, 50],
            "income": [1.5, None, 3.0, 1e6, 0.0],
            "flag": [True, False, None, True, False],
            "byte": pl.Series([1, 2, None, 3, 255], dtype=pl.UInt8),
            "single": pl.Series([1, 2, 3, 4, 5], dtype=pl.Float32),
            "text": text,
            "categorical": pl.Series(text, dtype=pl.Categorical),
            "enum": pl.Series(text, dtype=pl.Enum(["b", "a", "unused"])),
            "nothing": [None] * 5,
        }
    )


def stored(encoder: TableEncoder) -> TableEncoder:
    """Return an encoder after a way through JSON."""
    return TableEncoder.from_dict(json.loads(json.dumps(encoder.to_dict(), allow_nan=False)))


# -------------------------------------------------------------------------------- there and back
@parametrize_with_checks([TableEncoder()])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_a_pandas_frame_comes_back_as_it_was() -> None:
    X = frame()
    encoder = TableEncoder().fit(X)
    assert encoder.layout_ == LAYOUT
    rows = encoder.transform(X)
    assert rows.shape[1] == Mixed(LAYOUT).blocks()[-1].stop == len(encoder.get_feature_names_out())
    assert_frame_equal(encoder.inverse_transform(rows), X)
    assert_frame_equal(X, frame())  # nothing was written into it
    again = stored(encoder)
    assert again.transform(X).tobytes() == rows.tobytes()
    assert_frame_equal(again.inverse_transform(rows), X)
    assert again.get_params() == encoder.get_params()
    assert list(again.feature_names_in_) == list(X.columns)


def test_a_polars_frame_comes_back_as_it_was() -> None:
    X = polars_frame()
    encoder = TableEncoder().fit(X)
    rows = encoder.transform(X)
    assert_polars_equal(encoder.inverse_transform(rows), X, check_exact=False)
    assert_polars_equal(stored(encoder).inverse_transform(rows), X)
    assert "flag=<missing>" in encoder.get_feature_names_out()
    with_nan = X.with_columns(income=pl.Series([1.5, math.nan, 3.0, 1e6, 0.0]))
    np.testing.assert_array_equal(encoder.transform(with_nan), rows)


def test_polars_decimals_come_back_as_floats() -> None:
    X = pl.DataFrame({"price": pl.Series([Decimal("1.25"), Decimal("2.50"), Decimal("9.99")])})
    encoder = TableEncoder().fit(X)
    back = encoder.inverse_transform(encoder.transform(X))
    assert back.schema == {"price": pl.Float64}
    np.testing.assert_allclose(back["price"].to_numpy(), [1.25, 2.5, 9.99])


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "bool", object])
def test_an_array_comes_back_as_it_was(dtype: Any) -> None:
    X = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=dtype)
    encoder = TableEncoder().fit(X)
    assert encoder.layout_ == "binary binary binary"
    back = encoder.inverse_transform(encoder.transform(X))
    assert back.dtype == X.dtype
    np.testing.assert_array_equal(back, X)
    np.testing.assert_array_equal(stored(encoder).inverse_transform(encoder.transform(X)), X)


def test_a_float_array_with_nan_and_a_list_of_cells() -> None:
    X = np.array([[1.0, 5.5], [np.nan, 6.0], [4.0, 9.0]])
    encoder = TableEncoder().fit(X)
    np.testing.assert_allclose(encoder.inverse_transform(encoder.transform(X)), X)
    assert list(encoder.get_feature_names_out()) == ["x0", "x0=<missing>", "x1"]
    assert list(encoder.get_feature_names_out(["a", "b"])) == ["a", "a=<missing>", "b"]
    cells = [[1, "a", None], [2, "b", True], [3, math.nan, False]]
    encoder = TableEncoder().fit(cells)
    assert encoder.layout_ == "numeric categorical:3? binary?"
    back = encoder.inverse_transform(encoder.transform(cells))
    assert back.tolist() == [[1, "a", None], [2, "b", True], [3, None, False]]


COLUMNS = {
    "float": st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=8, max_size=8),
    "int": st.lists(st.integers(-(10**9), 10**9), min_size=8, max_size=8),
    "text": st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=8, max_size=8),
    "bool": st.lists(st.booleans(), min_size=8, max_size=8),
    "maybe": st.lists(st.one_of(st.none(), st.booleans()), min_size=8, max_size=8),
}


@settings(deadline=None, derandomize=True, max_examples=25, phases=[Phase.generate, Phase.shrink])
@given(st.fixed_dictionaries(COLUMNS), st.sampled_from(["seen", "all"]), st.integers(1, 8))
def test_any_frame_comes_back(cells: dict[str, list[Any]], missing: str, n: int) -> None:
    cells = {name: cells[name][:n] for name in COLUMNS}  # hypothesis hands them over in any order
    types = {"float": "Float64", "int": "int64", "text": "str", "bool": "bool", "maybe": "boolean"}
    X = pd.DataFrame({name: pd.array(values, dtype=types[name]) for name, values in cells.items()})
    encoder = TableEncoder(missing=missing).fit(X)
    rows = encoder.transform(X)
    assert np.isfinite(rows).all()
    assert_frame_equal(encoder.inverse_transform(rows), X, rtol=1e-9, atol=1e-6)  # of a scale of 1e6
    assert stored(encoder).transform(X[:1]).tobytes() == rows[:1].tobytes()
    schema = {"float": pl.Float64, "int": pl.Int64, "text": pl.String, "bool": pl.Boolean}
    P = pl.DataFrame(cells, schema=schema | {"maybe": pl.Boolean})
    encoder = TableEncoder(missing=missing).fit(P)
    np.testing.assert_array_equal(encoder.transform(P), rows)
    assert_polars_equal(encoder.inverse_transform(rows), P, rel_tol=1e-9, abs_tol=1e-6)


# -------------------------------------------------------------------------------- the values
def test_the_rows_by_hand() -> None:
    X = pd.DataFrame(
        {"x": [1.0, 3.0, None], "yes": [True, None, False], "t": ["b", None, "a"], "k": [4, 4, 4]}
    )
    expected = [
        [-1, 0, 1, 0, 0, 1, 0, 0, 0],
        [1, 0, 0.5, 1, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 1, 0, 0, 0, 0],
    ]
    encoder = TableEncoder().fit(X)
    assert encoder.layout_ == "numeric? binary? categorical:3? numeric"
    np.testing.assert_allclose(encoder.transform(X), expected)
    assert encoder.kinds_ == {"x": "numeric", "yes": "binary", "t": "categorical", "k": "numeric"}
    assert encoder.column_of_.tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 3]
    names = ["x", "x=<missing>", "yes", "yes=<missing>", "t=a", "t=b", "t=<other>", "t=<missing>", "k"]
    assert encoder.get_feature_names_out().tolist() == names
    assert encoder.transform(X.assign(k=[4, 5, 3]))[:, -1].tolist() == [0, 1, -1]


def test_numbers_have_mean_0_and_variance_1_whatever_their_tails() -> None:
    chance = np.random.default_rng(0)
    normal = chance.normal(50, 7, 1000)
    X = pd.DataFrame(
        {
            "normal": normal,
            "one huge": np.r_[normal[:-1], 1e9],
            "lognormal": np.exp(3 * chance.normal(size=1000)),
            "mostly 0": np.where(np.arange(1000) < 5, 1000 + normal, 0.0),
        }
    )
    encoder = TableEncoder().fit(X)
    rows = encoder.transform(X)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(rows.std(0), 1)
    np.testing.assert_allclose(rows[:, 0], (normal - normal.mean()) / normal.std(), rtol=1e-9)
    assert np.ptp(rows[:-1, 1]) > 1  # the bulk keeps its shape beside the huge one
    assert rows[-1, 1] > rows[:-1, 1].max() + 10
    np.testing.assert_allclose(encoder.inverse_transform(rows), X, rtol=1e-9, atol=1e-9)
    assert np.all(
        np.diff(Numeric(0.0, 1.0).encode(_column(np.linspace(-30, 30, 601)), strict=False), axis=0) > 0
    )


def _column(values: np.ndarray) -> Any:
    from diabolo.applications.frames import columns_of

    return columns_of(values[:, None])[0]


def test_a_number_far_beyond_those_of_fit_is_finite() -> None:
    encoder = TableEncoder().fit(np.array([[1e-300], [2e-300], [4e-300]]))
    rows = encoder.transform(np.array([[3e38], [-3e38]]))
    assert np.isfinite(rows).all()
    assert rows[0] > 50 > -50 > rows[1]
    assert np.isfinite(encoder.inverse_transform(np.array([[1e30], [-1e30]]))).all()


def test_reconstructions_become_a_frame() -> None:
    X = pd.DataFrame({"n": [1, 2, 3], "b": [True, False, True], "t": ["u", "v", None]})
    encoder = TableEncoder().fit(X)
    rows = encoder.transform(X)
    soft = np.array([[0.01, 0.3, 0.2, 0.5, 0.3, 0.4], [9.0, 0.6, 0.5, 0.1, 0.4, 0.6]])
    back = encoder.inverse_transform(soft)
    assert back["n"].tolist() == [2, 9]
    assert back["b"].tolist() == [False, True]
    assert back["t"].isna().tolist() == [False, True]
    assert back["t"][0] == "v"
    assert back.dtypes.tolist() == X.dtypes.tolist()
    assert_frame_equal(encoder.inverse_transform(rows.astype(np.float32)), X)


def test_missing_integers_and_booleans_come_back_where_a_type_holds_them() -> None:
    X = pd.DataFrame({"n": [1, 2, 3], "b": [True, False, True]})
    encoder = TableEncoder(missing="all").fit(X)
    rows = encoder.transform(X)
    assert_frame_equal(encoder.inverse_transform(rows), X)
    rows[0, [1, 3]] = 1
    back = encoder.inverse_transform(rows)
    assert back["n"].isna().tolist() == back["b"].isna().tolist() == [True, False, False]
    assert back.dtypes.astype(str).tolist() == ["float64", "boolean"]
    again = encoder.transform(pd.DataFrame({"n": [None, 2.0], "b": pd.array([None, True], dtype="boolean")}))
    assert again[:, [1, 3]].tolist() == [[1, 1], [0, 0]]


def test_rare_levels_are_pooled_where_there_are_many() -> None:
    X = pd.DataFrame({"c": list("aaabbbccde"), "id": [f"row {i}" for i in range(10)]})
    encoder = TableEncoder(max_levels=3).fit(X)
    assert encoder.get_feature_names_out().tolist() == ["c=a", "c=b", "c=c", "c=<other>", "id=<other>"]
    rows = encoder.transform(X)
    assert rows[-2:].tolist() == [[0, 0, 0, 1, 1]] * 2
    assert encoder.inverse_transform(rows)["c"].isna().tolist() == [False] * 8 + [True] * 2
    assert TableEncoder(max_levels=10).fit(X).layout_ == "categorical:6 categorical:11"
    assert (
        TableEncoder(max_levels=4).fit(X).layout_ == "categorical:4 categorical:1"
    )  # d and e were seen once


# -------------------------------------------------------------------------------- what fit did not see
def test_an_unseen_level_is_the_other() -> None:
    X = pd.DataFrame({"c": ["a", "b", "a"], "z": [0, 1, 0]})
    encoder = TableEncoder().fit(X)
    rows = encoder.transform(pd.DataFrame({"c": ["new", "a"], "z": [7, 0]}))
    assert rows.tolist() == [[0, 0, 1, 7], [1, 0, 0, 0]]
    strict = TableEncoder(unseen="error").fit(X)
    with pytest.raises(
        InvalidDataError, match="column 'c' must hold levels that fit kept; got 'new' in row 1"
    ):
        strict.transform(pd.DataFrame({"c": ["a", "new"], "z": [0, 1]}))
    with pytest.raises(InvalidDataError, match="column 'z' must be 0 or 1, as in fit; got 7 in row 0"):
        strict.transform(pd.DataFrame({"c": ["a"], "z": [7]}))


def test_an_unseen_missing_value() -> None:
    X = pd.DataFrame({"x": [1.0, 2.0, 5.0], "c": ["a", "b", "a"]})
    gone = pd.DataFrame({"x": [1.0, 2.0], "c": ["a", None]})
    with pytest.raises(
        InvalidDataError, match=r"column 'c' must have a value in every row, as in fit; got none in row 1"
    ):
        TableEncoder().fit(X).transform(gone)
    assert TableEncoder(missing="all").fit(X).transform(gone)[1, 5] == 1


def test_a_column_read_as_another_type_is_refused() -> None:
    encoder = TableEncoder().fit(pd.DataFrame({"zip": ["10115", "20095", "10115"]}))
    with pytest.raises(InvalidDataError, match=r"column 'zip' must hold text, as in fit; got 10115 in row 0"):
        encoder.transform(pd.DataFrame({"zip": [10115]}))
    encoder = TableEncoder().fit(pd.DataFrame({"n": [1.0, 2.0, 4.0]}))
    assert encoder.transform(pd.DataFrame({"n": ["2"]})).shape == (1, 1)
    with pytest.raises(InvalidDataError, match="column 'n' must hold numbers; got 'two' in row 0"):
        encoder.transform(pd.DataFrame({"n": ["two"]}))


@pytest.mark.parametrize(
    ("columns", "got"),
    [
        (["b", "a"], r"'b' where 'a' should be \(column 0, counted from 0\)\. Select"),
        (["a"], r"a table without 'b'\. Add"),
        (["a", "b", "c"], r"a table with 'c'\. Select"),
        (["a", "x"], r"a table without 'b' and with 'x'\. Add"),
        ([0, 1], r"a table without 'a', 'b' and with 0, 1\. Add"),
    ],
    ids=str,
)
def test_other_columns_are_named(columns: list[Any], got: str) -> None:
    encoder = TableEncoder().fit(pd.DataFrame({"a": [1.0, 2.0], "b": ["u", "v"]}))
    rule = "the columns must be those of fit, 'a', 'b', in that order; got "
    with pytest.raises(InvalidDataError, match=rule + ".*" + got):
        encoder.transform(pd.DataFrame([[1.0] * len(columns)], columns=columns))


def test_one_column_of_many_is_named() -> None:
    X = pd.DataFrame({f"c{k}": [0.5, float(k + 2)] for k in range(30)} | {"t": ["u", "v"]})
    encoder = TableEncoder().fit(X)
    with pytest.raises(InvalidDataError, match=r"got a table without 'c17' and with 'C17'\."):
        encoder.transform(X.rename(columns={"c17": "C17"}))
    with pytest.raises(InvalidDataError, match="'c18' where 'c17' should be"):
        encoder.transform(X[[*X.columns[:17], "c18", "c17", *X.columns[19:]]])
    with pytest.raises(InvalidDataError, match="names of columns must differ; got 'c3' twice"):
        encoder.transform(pd.concat([X, X[["c3"]]], axis=1))


def test_names_that_are_integers() -> None:
    X = pd.DataFrame([[1.0, "u"], [2.0, "v"]])
    encoder = TableEncoder().fit(X)
    assert encoder.kinds_ == {0: "numeric", 1: "categorical"}
    back = stored(encoder).inverse_transform(encoder.transform(X))
    assert back.columns.tolist() == [0, 1]
    with pytest.raises(InvalidDataError, match="the columns must be those of fit"):
        encoder.transform(X[[1, 0]])


# -------------------------------------------------------------------------------- kinds
def test_kinds_can_be_set() -> None:
    X = pd.DataFrame(
        {"zip": [10115, 20095, 10115], "x": ["1.5", None, "3"], "sex": [1, 2, 1], "m": [1, "a", 2]}
    )
    kinds = {"zip": "categorical", "x": "numeric", "sex": "binary", "m": "categorical"}
    encoder = TableEncoder(kinds=kinds).fit(X)
    assert encoder.layout_ == "categorical:3 numeric? binary categorical:4"
    assert encoder.get_feature_names_out()[:2].tolist() == ["zip=10115", "zip=20095"]
    back = stored(encoder).inverse_transform(encoder.transform(X))
    assert back["zip"].tolist() == [10115, 20095, 10115]
    assert back["zip"].dtype == "int64"
    assert back["sex"].tolist() == [1, 2, 1]
    assert back["m"].tolist() == [1, "a", 2]
    np.testing.assert_allclose(back["x"], [1.5, np.nan, 3])
    assert TableEncoder(kinds={1: "categorical"}).fit(np.eye(3)).layout_ == "binary categorical:3 binary"
    assert clone(encoder).get_params()["kinds"] == kinds


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"kinds": {"y": "numeric"}}, InvalidParameterError, r"kinds must name columns of X, .*; got 'y'"),
        ({"kinds": {"x": "nominal"}}, InvalidParameterError, r"kinds\['x'\] must be .* name; got 'nominal'"),
        ({"kinds": ["numeric"]}, InvalidParameterError, r"kinds must be a mapping .*; got \['numeric'\]"),
        ({"kinds": {"x": "binary"}}, InvalidDataError, "column 'x' must hold two values to be binary; got 3"),
        ({"kinds": {"c": "binary"}}, InvalidDataError, "column 'c' must hold numbers; got 'u' in row 0"),
        ({"kinds": {"c": "numeric"}}, InvalidDataError, "column 'c' must hold numbers; got 'u' in row 0"),
        ({"max_levels": 0}, InvalidParameterError, "max_levels must be an integer >= 1"),
        ({"unseen": "ignore"}, InvalidParameterError, "unseen must be a known name; got 'ignore'"),
        ({"missing": True}, InvalidParameterError, "missing must be a known name; got True"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TableEncoder(**settings).fit(pd.DataFrame({"x": [1.0, 2.0, 3.0], "c": ["u", "v", "u"]}))


# -------------------------------------------------------------------------------- odd tables
def test_columns_of_nothing_and_of_one_value() -> None:
    X = pd.DataFrame(
        {
            "nan": [np.nan] * 3,
            "none": [None] * 3,
            "one": [7.5] * 3,
            "word": ["w"] * 3,
            "true": [True] * 3,
            "NA": pd.array([None] * 3, dtype="boolean"),
            "cat": pd.Categorical([None] * 3, ["a"]),
        }
    )
    encoder = TableEncoder().fit(X)
    assert encoder.layout_ == ("numeric? categorical:1? numeric categorical:2 binary binary? categorical:1?")
    rows = encoder.transform(X)
    assert rows.tolist() == [[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]] * 3
    assert_frame_equal(stored(encoder).inverse_transform(rows), X)


def test_one_row() -> None:
    encoder = TableEncoder().fit(frame()[:1])
    assert_frame_equal(encoder.inverse_transform(encoder.transform(frame()[:1])), frame()[:1])
    whole = TableEncoder().fit(frame())
    assert_frame_equal(
        whole.inverse_transform(whole.transform(frame()[3:4])), frame()[3:4].reset_index(drop=True)
    )


def test_nan_none_and_na_are_one_missing() -> None:
    X = pd.DataFrame({"o": pd.Series([1.5, None, np.nan, pd.NA, 2.5], dtype=object)})
    encoder = TableEncoder().fit(X)
    assert encoder.transform(X)[:, 1].tolist() == [0, 1, 1, 1, 0]
    assert TableEncoder().fit(X.to_numpy()).layout_ == "numeric?"


REFUSED: list[tuple[Any, str]] = [
    (pd.DataFrame({"a": []}), r"X must have rows and columns; got \(0, 1\)"),
    (pd.DataFrame(index=[0, 1]), r"X must have rows and columns; got \(2, 0\)"),
    (pl.DataFrame(), r"X must have rows and columns"),
    (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), "names of columns must differ; got 'a' twice. Rename"),
    (pd.DataFrame([[1.0]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "must be texts or integers"),
    (pd.DataFrame({"m": [1, "a"]}), "column 'm' must hold cells of one type; got 1 and 'a'. Put None for"),
    (pd.DataFrame({"m": [True, 3]}), "column 'm' must hold cells of one type; got True and 3"),
    (
        pd.DataFrame({"d": pd.to_datetime(["2020-01-01"])}),
        r"column 'd' must .*; got the type datetime64.*Turn",
    ),
    (pd.DataFrame({"d": pd.to_timedelta([3])}), "column 'd' must .*; got the type timedelta64"),
    (pd.DataFrame({"d": [datetime.date(2020, 1, 1)]}), r"column 'd' must .*date\(2020, 1, 1\) in row 0"),
    (pd.DataFrame({"d": [1j]}), "column 'd' must .*; got the type complex128"),
    (
        pd.DataFrame({"d": pd.Categorical(pd.to_datetime(["2020-01-01"]))}),
        "column 'd' must .*category of dat",
    ),
    (pl.DataFrame({"d": [datetime.date(2020, 1, 1)]}), "column 'd' must .*; got the type Date. Turn it"),
    (pl.DataFrame({"d": [[1, 2]]}), "column 'd' must .*; got the type List"),
    (pd.DataFrame({"t": [("a", 1)]}), r"column 't' must .*; got \('a', 1\) in row 0"),
    (pd.DataFrame({"x": [1.0, np.inf]}), "column 'x' must be finite and within .*; got inf in row 1"),
    (np.array([[1.0], [1e39]]), r"column 0 must be finite and within .*; got 1e\+39 in row 1"),
    (pd.Series([1, 2]), r"X must be a pandas or polars DataFrame, or an array of rows; got Series. Call"),
    (polars_frame().lazy(), r"X must be a pandas .*; got LazyFrame. Call X.collect\(\)"),
    ([[1, 2], [3]], "X must be rows of one length"),
]


@pytest.mark.parametrize(("X", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_tables_that_are_refused(X: Any, message: str) -> None:
    with pytest.raises(InvalidDataError, match=message):
        TableEncoder().fit(X)


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.zeros(4), np.zeros((0, 4)), np.full((1, 4), np.nan)])
def test_rows_that_are_refused(rows: np.ndarray) -> None:
    encoder = TableEncoder().fit(pd.DataFrame({"x": [1.0, 2.0], "c": ["u", "v"]}))
    with pytest.raises(InvalidDataError, match=r"rows must (have the shape \(n_samples, 4\)|be finite); got"):
        encoder.inverse_transform(rows)


def test_set_output_gives_frames() -> None:
    X = pd.DataFrame({"x": [1.0, 2.0], "c": ["u", "v"]}, index=["first", "second"])
    out = TableEncoder().set_output(transform="pandas").fit_transform(X)
    assert out.columns.tolist() == ["x", "c=u", "c=v", "c=<other>"]
    assert out.index.tolist() == ["first", "second"]


def test_arrays_need_no_library_of_frames() -> None:
    script = (
        "import sys, numpy as np\n"
        "sys.modules.update(pandas=None, polars=None, pyarrow=None)  # an import of them fails\n"
        "from diabolo.applications.tables import TableEncoder\n"
        "X = np.array([[1.0, np.nan], [0.0, 3.0]])\n"
        "e = TableEncoder().fit(X)\n"
        "print(e.inverse_transform(e.transform(X)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[1.0, nan], [0.0, 3.0]]"


# -------------------------------------------------------------------------------- files
def changed(path: list[Any], value: Any) -> dict[str, Any]:
    """Return what ``to_dict`` writes with one value replaced; a path that ends in None removes it."""
    data = json.loads(json.dumps(TableEncoder(kinds={"age": "numeric"}).fit(frame()).to_dict()))
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is None and isinstance(place, dict):
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


HOSTILE: list[tuple[list[Any], Any]] = [
    (["params"], {"kinds": None}),
    (["params", "max_levels"], "many"),
    (["params", "unseen"], "ignore"),
    (["params", "kinds"], 5),
    (["library"], "os"),
    (["library"], None),
    (["columns"], []),
    (["columns"], None),
    (["columns", 0], 3),
    (["columns", 0, "name"], ["a"]),
    (["columns", 0, "name"], "income"),
    (["columns", 0, "dtype"], "datetime64[ns]"),
    (["columns", 0, "dtype"], "category"),
    (["columns", 0, "indicator"], 1),
    (["columns", 0, "fill"], math.nan),
    (["columns", 0, "coding"], {"kind": "eval"}),
    (["columns", 0, "coding"], {"kind": ["numeric"]}),
    (["columns", 0, "coding", "scale"], 0.0),
    (["columns", 0, "coding", "scale"], math.inf),
    (["columns", 0, "coding", "center"], "1"),
    (["columns", 0, "coding", "extra"], 1.0),
    (["columns", 0, "coding"], {"kind": "categorical", "levels": ["a"]}),
    (["columns", 4, "coding", "truth"], 1.0),
    (["columns", 5, "coding", "high"], 0.0),
    (["columns", 6, "coding", "levels"], ["a", "a"]),
    (["columns", 6, "coding", "levels"], [["a"]]),
    (["columns", 6, "coding", "levels"], [math.nan]),
    (["columns", 6, "coding", "levels"], "abc"),
    (["columns", 7, "levels"], None),
    (["columns", 7, "levels"], ["x"]),
    (["columns", 7, "ordered"], "yes"),
]


@pytest.mark.parametrize(("path", "value"), HOSTILE, ids=str)
def test_hostile_values_are_refused(path: list[Any], value: Any) -> None:
    with pytest.raises(
        ModelFileError, match=r"a stored TableEncoder must be what to_dict returned; got some"
    ):
        TableEncoder.from_dict(changed(path, value))


@pytest.mark.parametrize("data", [None, 3, "x", [], {}, {"params": {}, "library": "pandas", "columns": []}])
def test_something_else_is_refused(data: Any) -> None:
    with pytest.raises(ModelFileError, match="a stored TableEncoder must be what to_dict returned"):
        TableEncoder.from_dict(data)


# -------------------------------------------------------------------------------- learning
@pytest.fixture(scope="module")
def tumours() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measurements of tumours, the verdict, a size in words, a flag, and a value missing here and there."""
    bunch = load_breast_cancer(as_frame=True)
    X = bunch.data.iloc[:, :10].copy()
    X["verdict"] = np.where(bunch.target == 1, "benign", "malignant")
    X["size"] = pd.qcut(X.pop("mean area"), 4, labels=["small", "middle", "large", "huge"])
    X["dented"] = X.pop("mean concave points") > 0.05
    chance = np.random.default_rng(0)
    X.loc[chance.random(len(X)) < 0.1, "mean texture"] = np.nan
    X.loc[chance.random(len(X)) < 0.1, "verdict"] = None
    order = chance.permutation(len(X))
    return X.iloc[order[:400]], X.iloc[order[400:]].reset_index(drop=True)


@pytest.fixture(scope="module")
def learned(tumours: tuple[pd.DataFrame, pd.DataFrame]) -> tuple[TableEncoder, Autoencoder]:
    encoder = TableEncoder(missing="all").fit(tumours[0])
    model = Autoencoder(
        loss=Mixed(encoder.layout_), latent_dim=6, scaling=None, epochs=40, engine="dense", random_state=0
    )
    return encoder, model.fit(encoder.transform(tumours[0]))


Tables = tuple[pd.DataFrame, pd.DataFrame]
Learned = tuple[TableEncoder, Autoencoder]


def test_a_net_learns_every_kind_of_column(tumours: Tables, learned: Learned) -> None:
    (train, test), (encoder, model) = tumours, learned
    back = encoder.inverse_transform(model.reconstruct(encoder.transform(test)))
    for name in ("verdict", "size", "dented"):
        known = test[name].notna() & back[name].notna()
        assert known.sum() >= 0.98 * test[name].notna().sum()  # it does not get by with "missing"
        right = (back[name].astype(object) == test[name].astype(object))[known].mean()
        most_frequent = (test[name] == train[name].mode()[0])[known].mean()
        assert right > most_frequent + 0.5 * (1 - most_frequent), name
    numeric = [name for name, kind in encoder.kinds_.items() if kind == "numeric"]
    assert len(numeric) == 8
    for name in numeric:
        error = ((back[name] - test[name]) ** 2).mean()
        assert error < 0.5 * ((test[name] - train[name].mean()) ** 2).mean(), name


def test_the_cost_of_each_column_tells_which_is_wrong(tumours: Tables, learned: Learned) -> None:
    (_, test), (encoder, model) = tumours, learned
    swapped = test.assign(verdict=test["verdict"].map({"benign": "malignant", "malignant": "benign"}))
    costs = []
    for table in (test, swapped):
        x = torch.from_numpy(encoder.transform(table).astype(np.float32))
        with torch.inference_mode():
            by_column = model.module_.loss.by_column(model.module_(x).raw, x).numpy()
        np.testing.assert_allclose(by_column.sum(1), -model.score_samples(x.numpy()), rtol=1e-4, atol=1e-4)
        costs.append(by_column)
    more = (costs[1] - costs[0])[test["verdict"].notna().to_numpy()]
    assert np.median(more.sum(1)) > 0


def test_what_fit_did_not_see_costs_a_trained_model_much(tumours: Tables, learned: Learned) -> None:
    (_, test), (encoder, model) = tumours, learned
    usual = model.score_samples(encoder.transform(test))
    unseen = model.score_samples(encoder.transform(test.assign(verdict="unknown")))
    gone = test.assign(dented=pd.array([None] * len(test), dtype="boolean"))
    assert np.median(usual - unseen) > 3
    assert np.median(usual - model.score_samples(encoder.transform(gone))) > 3
