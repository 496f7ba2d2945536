import csv
import gzip
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diabolo.data import load
from diabolo.errors import DataFileError, InvalidDataError, InvalidParameterError, MissingExtraError

TABLES = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5))
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs"]), min_size=1)
NAMES = WORDS.map(lambda word: f"c {word}")


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@settings(deadline=None, max_examples=50)
@given(
    X=TABLES,
    names=st.lists(NAMES.map(str.strip), min_size=5, max_size=5, unique=True),
    header=st.booleans(),
    packed=st.booleans(),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
)
def test_csv_round_trip(tmp_path_factory, X, names, header, packed, delimiter, end, bom):
    path = tmp_path_factory.mktemp("csv") / ("x.csv.gz" if packed else "x.csv")
    names = names[: X.shape[1]]
    if len(names) == 1 and set(names[0]) & set(",;"):
        return  # a separator in the only name, and in no row: the file does not say which it is
    opener = gzip.open if packed else open
    with opener(path, "wt", encoding="utf-8-sig" if bom else "utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator=end)
        if header:
            writer.writerow(names)
        # NaN is written as an empty cell; csv.writer quotes it where a row would else be blank
        writer.writerows([["" if math.isnan(v) else repr(float(v)) for v in row] for row in X])
    if np.isnan(X[0]).all() and not header:
        return  # nothing says whether such a first row is data or names
    data = load(path)
    np.testing.assert_array_equal(data.X, X)
    assert data.X.dtype == np.float64
    assert data.feature_names == (tuple(names) if header else None)


@settings(deadline=None, max_examples=50)
@given(
    X=hnp.arrays(np.float64, (3, 2), elements=st.floats(-1e6, 1e6)), cell=st.sampled_from(["", "NA", " ?"])
)
def test_both_parsers_agree(tmp_path_factory, X, cell):
    folder = tmp_path_factory.mktemp("csv")
    rows = [",".join(repr(float(v)) for v in row) for row in X]
    fast = load(write(folder / "fast.csv", "\n".join(["a,b", *rows])))
    slow = load(write(folder / "slow.csv", "\n".join(["a,b", *rows, f"{cell},1"])))
    np.testing.assert_array_equal(fast.X, slow.X[:3])
    assert math.isnan(slow.X[3, 0])


@settings(deadline=None, max_examples=50)
@given(junk=st.binary(max_size=60))
def test_any_bytes_give_a_table_or_a_worded_error(tmp_path_factory, junk):
    path = write(tmp_path_factory.mktemp("csv") / "x.csv", junk)
    try:
        data = load(path)
    except DataFileError as error:
        assert "x.csv" in str(error)  # noqa: PT017
        assert "; got " in str(error)  # noqa: PT017
    else:
        assert data.X.size > 0
        assert data.X.dtype == np.float64


def test_blocks_of_rows_and_blank_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("diabolo.data.text.BLOCK", 3)
    rows = [f"{i},{i * i}" if i % 4 else f"{i}," for i in range(20)]
    text = "\n\na,b\n" + "\n".join(rows[:7]) + "\n" * 30 + "\n".join(rows[7:]) + "\n\n"
    data = load(write(tmp_path / "x.csv", text))
    np.testing.assert_array_equal(data.X[:, 0], np.arange(20))
    assert np.isnan(data.X[::4, 1]).all()
    with pytest.raises(DataFileError, match=r"got 'x' in row 5 \(line 8; rows count from 0\)"):
        load(write(tmp_path / "y.csv", "\na,b\n" + "1,2\n" * 5 + "3,x\n"))


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "#N/A", "NaN", "nan", "NULL", "None", "?"])
def test_missing_cells_are_nan(tmp_path, cell):
    data = load(write(tmp_path / "x.csv", f"a,b\n1,{cell}\n2,3\n"))
    np.testing.assert_array_equal(data.X, [[1, np.nan], [2, 3]])


@pytest.mark.parametrize(
    ("cells", "wanted", "kind"),
    [
        (["cat", "dog", "cat"], ["cat", "dog", "cat"], "U"),
        (["1", "0", "2"], [1, 0, 2], "i"),
        (["1.0", "0.0", "2.0"], [1, 0, 2], "i"),
        (["1.5", "0", "2"], [1.5, 0, 2], "f"),
        (["1", "", "2"], [1, np.nan, 2], "f"),
        (["9007199254740993", "1", "2"], [9007199254740993, 1, 2], "i"),
        (["1_0", "1", "2"], ["1_0", "1", "2"], "U"),
    ],
)
def test_labels(tmp_path, cells, wanted, kind):
    path = write(tmp_path / "x.csv", "a,kind,b\n" + "".join(f"1,{cell},2\n" for cell in cells))
    data = load(path, label="kind")
    np.testing.assert_array_equal(data.y, wanted)
    assert data.y.dtype.kind == kind
    assert data.feature_names == ("a", "b")
    np.testing.assert_array_equal(data.X, [[1, 2]] * 3)


def test_labels_of_a_table_without_names(tmp_path):
    path = write(tmp_path / "iris.csv", "5.1,3.5,setosa\n4.9,3.0,virginica\n")
    with pytest.raises(
        DataFileError, match=r"'setosa' in row 0 \(line 1; rows count from 0\). label='column_3' makes it"
    ):
        load(path)
    data = load(path, label="column_3")
    assert data.y.tolist() == ["setosa", "virginica"]
    assert data.feature_names is None


@pytest.mark.parametrize("start", [0, 1])
def test_row_numbers_that_pandas_and_r_write_are_left_out(tmp_path, start):
    text = ",a,b\n" + "".join(f"{i},{i * 2},7\n" for i in range(start, start + 4))
    data = load(write(tmp_path / "x.csv", text))
    assert data.feature_names == ("a", "b")
    np.testing.assert_array_equal(data.X[:, 1], 7)


def test_quotes_names_and_separators(tmp_path):
    data = load(write(tmp_path / "x.csv", '"height, cm";b\n"1";2\n3;4\n'))
    assert data.feature_names == ("height, cm", "b")
    data = load(write(tmp_path / "one.csv", "a\n1\n2\n"))
    np.testing.assert_array_equal(data.X, [[1], [2]])
    np.testing.assert_array_equal(load(write(tmp_path / "x.tsv", "a\tb\n1\t2\n")).X, [[1, 2]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x.csv must hold data; got an empty file"),
        ("\n\n\n", "x.csv must hold data; got blank lines alone"),
        ("a,b\n", "x.csv must hold a row of data; got the names of its columns alone"),
        (
            "age,b\n1,2\nforty,3\n",
            r"Column 'age' of .*x.csv must hold numbers; got 'forty' in row 1 \(line 3; rows count from 0\)",
        ),
        ("a,b\n1,2\n1_000,3\n", "got '1_000' in row 1"),
        ("a;b\n1,5;2\n", "got '1,5' in row 0"),
        (
            "1,5;2,5\n3,5;4,5\n",
            r"must hold numbers; got '1,5' in row 0 \(line 1; rows count from 0\). Write its",
        ),
        ("a,b\n1," + "z" * 99 + "\n", r"got 'z{37}\.\.\.' in row 0"),
        ("a,b\n1,2\n3\n", "Every row of .*x.csv must have 2 cells, as the first has; got 1 in line 3"),
        ("a,a\n1,2\n", "Names of columns in .*x.csv must differ; got 'a' twice"),
        ("a,,c\n1,2,3\n", "Every column of .*x.csv must have a name; got none for column 2"),
        (
            ",a\nMazda,1\n",
            r"Column 1 of .*got 'Mazda' in row 0 \(line 2; rows count from 0\). Encode the column",
        ),
        (b"a,b\n1,\xff\n", r"x.csv must be text in UTF-8; got other bytes at position \d+. Save it as UTF-8"),
        ("a,b\n1," + "9" * 200_000 + "x\n", "must be a table as text.*field larger than field limit"),
    ],
)
def test_csv_errors(tmp_path, text, said):
    with pytest.raises(DataFileError, match=said):
        load(write(tmp_path / "x.csv", text))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("klass", r"label must be the name of a column in .*x.csv; got 'klass'. Did you mean 'class'\?"),
        ("zzz", "got 'zzz'. Choose one of 'a', 'class'."),
        ("", "got ''."),
    ],
)
def test_unknown_label(tmp_path, label, said):
    with pytest.raises(InvalidParameterError, match=said):
        load(write(tmp_path / "x.csv", "a,class\n1,2\n"), label=label)


def test_labels_alone_are_no_data(tmp_path):
    with pytest.raises(DataFileError, match="must have a column of features beside labels"):
        load(write(tmp_path / "x.csv", "class\n1\n2\n"), label="class")


def test_csv_needs_no_extra(tmp_path, missing):
    for library in ("pandas", "pyarrow"):
        missing(library)
    assert load(write(tmp_path / "x.csv", "a,b\n1,2\n")).X.shape == (1, 2)
    with pytest.raises(MissingExtraError, match=r"Reading .*x.parquet needs pyarrow.*diabolo\[tables\]"):
        load(write(tmp_path / "x.parquet", "PAR1"))


def parquet(path, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float32", "float64", "bool"])
def test_parquet_keeps_the_type(tmp_path, dtype):
    X = np.array([[0, 1], [1, 1], [1, 0]], dtype)
    data = load(parquet(tmp_path / "x.parquet", a=X[:, 0], b=X[:, 1]))
    np.testing.assert_array_equal(data.X, X)
    assert data.X.dtype == (np.uint8 if dtype == "bool" else dtype)
    assert data.feature_names == ("a", "b")


def test_parquet_of_mixed_columns(tmp_path):
    from decimal import Decimal

    import pyarrow as pa

    path = parquet(
        tmp_path / "x.parquet",
        whole=[1, None, 3],
        real=[0.5, 1.5, None],
        text=["1", "", "3"],
        coded=pa.array(["7", "8", None]).dictionary_encode(),
        money=[Decimal("1.50"), None, Decimal("2.25")],
        flag=[True, None, False],
        empty=pa.nulls(3),
        kind=pa.array(["x", "y", None]).dictionary_encode(),
        number=[1, 2, 3],
    )
    data = load(path, label="kind")
    nan = np.nan
    np.testing.assert_array_equal(
        data.X,
        [
            [1, 0.5, 1, 7, 1.5, 1, nan, 1],
            [nan, 1.5, nan, 8, nan, nan, nan, 2],
            [3, nan, 3, nan, 2.25, 0, nan, 3],
        ],
    )
    assert data.y.tolist() == ["x", "y", ""]
    with pytest.raises(
        DataFileError, match=r"Column 'kind' of .* must hold numbers; got 'x' in row 0 .*\. label='kind'"
    ):
        load(path, label="number")


def test_parquet_with_the_index_of_pandas(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}, index=pd.Index([10, 20], name="id"))
    frame.to_parquet(tmp_path / "x.parquet")
    assert load(tmp_path / "x.parquet").feature_names == ("a", "b")
    data = load(tmp_path / "x.parquet", label="id")
    assert data.y.tolist() == [10, 20]


def test_parquet_errors(tmp_path):
    import datetime

    import pyarrow as pa

    path = tmp_path / "x.parquet"
    when = datetime.datetime(2020, 1, 2)
    for columns, said in (
        ({"t": [None, when]}, r"Column 't' of .* must hold numbers; got datetime.*2020.* in row 1"),
        ({"t": [[1, 2], [3]]}, r"must hold numbers; got \[1, 2\] in row 0"),
        ({"a": pa.array([], pa.float64())}, "must hold a row of data"),
    ):
        with pytest.raises(DataFileError, match=said):
            load(parquet(path, **columns))
    whole = parquet(path, a=[1.0, 2.0]).read_bytes()
    for cut in (0, 3, 20, len(whole) - 1):
        with pytest.raises(DataFileError, match=r"x\.parquet must "):
            load(write(path, whole[:cut]))
    with pytest.raises(InvalidParameterError, match=r"column in .*got 'aa'. Did you mean 'a'\?"):
        load(write(path, whole), label="aa")


# ------------------------------------------------------------------ columns by name
def write_named(path, columns):
    """Write columns of text or numbers as the suffix says."""
    if path.suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join(",".join(map(str, row)) for row in [columns, *rows]) + "\n")
    elif path.suffix == ".parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pytest.importorskip("pyarrow").table(columns), path)
    else:
        np.savez(
            path, X=np.stack(list(columns.values()), 1), X_test=[[7.0] * len(columns)], columns=[*columns]
        )
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_columns_are_taken_by_name_in_the_order_asked_for(tmp_path, suffix):
    columns = {"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]}
    path = write_named(tmp_path / f"x{suffix}", columns)
    data = load(path, columns=["c", "a"])
    np.testing.assert_array_equal(data.X, [[5, 1], [6, 2]])
    assert (data.feature_names, data.left_out) == (("c", "a"), ("b",))
    assert data.X_test is None or data.X_test.tolist() == [[7, 7]]
    assert load(path).left_out == ()
    with pytest.raises(InvalidDataError, match=r"columns 'd', 'e' among its features; got 'a', 'b', 'c'\."):
        load(path, columns=["a", "d", "e"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_that_are_left_out_may_hold_anything(tmp_path, suffix):
    path = write_named(tmp_path / f"x{suffix}", {"a": [1.0, 2.0], "word": ["x", "y"], "y": [0, 1]})
    data = load(path, label="y", columns=["a"])
    assert (data.X.tolist(), data.y.tolist(), data.left_out) == ([[1], [2]], [0, 1], ("word",))
    with pytest.raises(InvalidDataError, match="column 'y' among its features; got 'a', 'word'"):
        load(path, label="y", columns=["a", "y"])


def test_row_numbers_are_no_column_to_leave_out(tmp_path):
    (tmp_path / "x.csv").write_text(",a,b\n0,1,2\n1,3,4\n")
    data = load(tmp_path / "x.csv", columns=["b", "a"])
    assert (data.X.tolist(), data.left_out) == ([[2, 1], [4, 3]], ())


def test_sources_without_names_are_taken_as_they_are(tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    np.save(tmp_path / "x.npy", np.eye(2))
    for name in ("x.csv", "x.npy", "digits"):
        data = load(name if name == "digits" else tmp_path / name, columns=["a"])
        assert (data.feature_names, data.left_out) == (None, ())
        assert data.X.shape[1] > 1
