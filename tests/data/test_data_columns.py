"""Columns of any kind: what is a number, a truth value, text or missing, in text tables and in Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diabolo.data import ShardSource, load
from diabolo.data.columns import ColumnTable, column_names, is_table, read_columns
from diabolo.errors import DataFileError, InvalidDataError, InvalidParameterError

TEXT = """\
age, job ,fit,code,none,label
31, clerk,true,7,,a
?,clerk,False,8,NA,b
40.5,NA,TRUE,A1,,a
12,smith,,9,null,b
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("block", [1, 2, 10_000])
def test_cells_say_what_a_column_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("diabolo.data.text.BLOCK", block)
    found = read_columns(write(tmp_path / "t.csv", TEXT), "label")
    assert list(found.features) == ["age", "job", "fit", "code", "none"]
    np.testing.assert_array_equal(found.features["age"], [31, np.nan, 40.5, 12])
    assert found.features["job"].tolist() == ["clerk", "clerk", None, "smith"]
    assert found.features["fit"].tolist() == [True, False, True, None]
    assert found.features["code"].tolist() == ["7", "8", "A1", "9"]
    assert np.isnan(found.features["none"]).all()
    assert found.odd == {"job": ("clerk", 0), "code": ("A1", 2)}
    assert found.y is not None
    assert found.y.tolist() == ["a", "b", "a", "b"]
    assert len(found) == 4


@pytest.mark.parametrize("block", [1, 10_000])
@pytest.mark.parametrize("slip", ["oops", "true"])
def test_a_slip_in_the_first_row_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, slip: str
) -> None:
    monkeypatch.setattr("diabolo.data.text.BLOCK", block)
    numbers = "".join(f"{k},{k}\n" for k in range(5))
    found = read_columns(write(tmp_path / "t.csv", f"a,b\n{slip},1\n{numbers}"))
    assert found.odd == {"a": (slip, 0)}


def test_columns_are_read_as_they_were_before(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "b,a\n7,1\n8,2\n")
    found = read_columns(path, columns=["a", "b"], texts=["b"], numbers=["a"])
    assert list(found.features) == ["a", "b"]
    assert found.features["b"].tolist() == ["7", "8"]
    write(path, "b,a,c\n7,1,0\n8,many,1\n")
    with pytest.raises(
        DataFileError, match=r"'a'.* must hold numbers; got 'many' in row 1 \(line 3; rows count from 0\)"
    ):
        read_columns(path, columns=["a", "b"], texts=["b"], numbers=["a"])
    assert read_columns(path, columns=["a", "b"]).left_out == ("c",)
    with pytest.raises(InvalidDataError, match="must have the column 'd'"):
        read_columns(path, columns=["d"])


def test_a_column_that_counts_the_rows_and_has_no_name_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ",a\n0,x\n1,y\n")
    assert list(read_columns(path).features) == ["a"]
    with pytest.raises(DataFileError, match="must have a name"):
        read_columns(write(path, ",a\n5,x\n1,y\n"))


def test_a_table_without_names_has_made_up_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "1,x\n2,y\n")
    assert column_names(path, "column_1") == ["column_2"]
    found = read_columns(path, "column_1")
    assert found.features["column_2"].tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got an empty file"),
        ("a,b\n", "must hold a row of data"),
        ("a,b\nx,1\ny\n", "must have 2 cells"),
        ("label\nx\n", "must have a column of features"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(DataFileError, match=message):
        read_columns(path, "label" if text.startswith("label") else None)


def test_labels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="Did you mean 'label'"):
        read_columns(write(tmp_path / "t.csv", TEXT), "lable")


# ------------------------------------------------------------------------------------------------ Parquet
def test_parquet_files_say_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {
        "age": pa.array([31, None, 40.5, 12]),
        "job": pa.array(["clerk", "clerk", None, "smith"]).dictionary_encode(),
        "fit": [True, False, True, None],
        "code": ["7", "8", "A1", "9"],
        "none": pa.nulls(4),
        "label": ["a", "b", "a", "b"],
    }
    folder = tmp_path / "parts"
    folder.mkdir()
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "t.parquet")
    pq.write_table(table.slice(0, 2), folder / "1.parquet")  # where "code" looks like numbers
    pq.write_table(table.slice(2, 0), folder / "2.parquet")
    pq.write_table(table.slice(2), folder / "3.parquet")
    text = read_columns(write(tmp_path / "t.csv", TEXT.replace(" job ", "job")), "label")
    for path in (tmp_path / "t.parquet", folder):
        assert is_table(path)
        assert column_names(path, "label") == list(text.features)
        found = read_columns(path, "label")
        for name, values in text.features.items():
            np.testing.assert_array_equal(found.features[name], values)
        assert found.y is not None
        assert text.y is not None
        assert found.y.tolist() == text.y.tolist()
        assert found.odd == text.odd
    forced = read_columns(tmp_path / "t.parquet", columns=["age", "fit"], texts=["age", "fit"])
    assert forced.features["age"].tolist() == ["31", None, "40.5", "12"]
    assert forced.features["fit"].tolist() == ["true", "false", "true", None]
    with pytest.raises(DataFileError, match=r"'job'.* must hold numbers; got 'clerk' in row 0"):
        read_columns(tmp_path / "t.parquet", numbers=["job"])


def test_parquet_numbers_as_text_are_the_words_of_a_text_table(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    words = ["0.1", "7", "-2", "", "1234567.25", "10000000000000000"]
    pq.write_table(pa.table({"a": [float(word) if word else None for word in words]}), tmp_path / "t.parquet")
    text = write(tmp_path / "t.csv", "a,b\n" + "".join(f"{word},1\n" for word in words))
    found = read_columns(tmp_path / "t.parquet", texts=["a"]).features["a"].tolist()
    assert found == read_columns(text, texts=["a"]).features["a"].tolist()
    assert found == [word or None for word in words]


def test_parquet_files_may_lack_truth_values_but_not_hold_numbers(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"t": [True, None]}), tmp_path / "1.parquet")
    for missing in (pa.nulls(2), pa.array([None, None], pa.float64())):
        pq.write_table(pa.table({"t": missing}), tmp_path / "2.parquet")
        assert read_columns(tmp_path).features["t"].tolist() == [True, None, None, None]
        assert read_columns(tmp_path, texts=["t"]).features["t"].tolist() == ["true", None, None, None]
    pq.write_table(pa.table({"t": [None, 1, 0]}), tmp_path / "2.parquet")
    with pytest.raises(DataFileError, match=r"'t' of .* got truth values and 1 in row 3"):
        read_columns(tmp_path)


def test_parquet_columns_of_other_types_and_damaged_files_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1.0], "when": pa.array([0], pa.timestamp("s"))}), path)
    with pytest.raises(DataFileError, match=r"'when'.* got the type timestamp"):
        read_columns(path)
    assert list(read_columns(path, columns=["a"]).features) == ["a"]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataFileError, match="must be a Parquet file"):
        read_columns(path)
    pq.write_table(pa.table({"a": pa.array([], pa.float64())}), path)
    with pytest.raises(DataFileError, match="must hold a row"):
        read_columns(path)


def test_shards_of_text_beside_such_of_numbers_or_truth_values_are_joined_by_their_words(
    tmp_path: Path,
) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    shards = [
        {"a": ["x", "1"], "b": ["7", None], "c": ["true", ""], "d": ["0.1", "y"]},
        {"a": [1.0, None], "b": [8.5, 9.0], "c": [False, None], "d": pa.array([0.1, 2], pa.float32())},
        {"a": [True, False], "b": [1, 2], "c": [None, True], "d": [0.25, 1e30]},
    ]
    for i, columns in enumerate(shards):
        pq.write_table(pa.table(columns), tmp_path / f"{i}.parquet")
    found = read_columns(tmp_path).features
    assert found["a"].tolist() == ["x", "1", "1", None, "true", "false"]
    np.testing.assert_array_equal(found["b"], [7, np.nan, 8.5, 9, 1, 2])
    assert found["c"].tolist() == [True, None, False, None, None, True]
    assert found["d"].tolist() == ["0.1", "y", "0.1", "2", "0.25", str(int(1e30))]


def test_labels_of_text_beside_numbers_are_joined_by_their_words(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for i, labels in enumerate((["0", "bad"], [0.0, 1.0], [1, None])):
        pq.write_table(pa.table({"x": [1.0, 2.0], "y": labels}), tmp_path / f"{i}.parquet")
    words = ["0", "bad", "0", "1", "1", ""]
    for found in (
        read_columns(tmp_path, "y").y,
        ShardSource(tmp_path, label="y").labels(),
        load(tmp_path, label="y").y,
    ):
        assert found is not None
        assert found.tolist() == words


# ------------------------------------------------------------------------------------------------ pieces
@pytest.mark.parametrize("kind", ["text", "parquet", "shards"])
def test_pieces_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for module in ("text", "columns"):
        monkeypatch.setattr(f"diabolo.data.{module}.BLOCK", 3)
    frame = pd.DataFrame(
        {
            "n": [1.5, None, 3, 4, 5, 6, 7],
            "t": list("aabbcca"),
            "b": [True, False] * 3 + [True],
            "y": range(7),
        }
    )
    path = tmp_path / {"text": "t.csv", "parquet": "t.parquet", "shards": "parts"}[kind]
    if kind == "text":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        path.mkdir()
        frame[:2].to_parquet(path / "1.parquet")
        frame[2:].to_parquet(path / "2.parquet")
    table = ColumnTable(path, "y")
    assert (len(table), table.holes, table.plain) == (7, ("n",), False)
    assert table.kinds == {"n": "numbers", "t": "text", "b": "truth"}
    whole = table.rows()
    numbers, parts = zip(*table.pieces(), strict=True)
    assert max(map(len, numbers)) == 3
    assert np.concatenate(numbers).tolist() == list(range(7))
    some = table.rows(np.array([1, 3, 6]))
    assert some.y is not None
    assert some.y.tolist() == [1, 3, 6]
    for name, values in whole.features.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
        np.testing.assert_array_equal(some.features[name], values[[1, 3, 6]])


def test_a_file_that_changes_between_two_passes_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,t\n1,x\n2,y\n")
    table = ColumnTable(path)
    for text in ("a,t\n1,x\n", "a\n1\n", "a,t\n1,x\nz,y\n"):
        write(path, text)
        with pytest.raises(InvalidDataError, match="must stay as it is while its data are used"):
            table.rows()
    path.unlink()
    with pytest.raises(InvalidDataError, match=r"vanished|cannot be read any more"):
        table.rows()


def test_numbers_beyond_single_precision_are_placed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,t\n1,1e40\n" + "1,x\n" * 3 + "inf,x\n")
    with pytest.raises(InvalidDataError, match=r"column 'a' must be finite .*; got inf in row 4"):
        ColumnTable(path).rows()
    assert ColumnTable(path, columns=["t"]).rows().features["t"][0] == "1e40"


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_a_table_that_changes_while_it_is_read_is_told(tmp_path: Path, change: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,x\n2,y\n" * 5)
    table = ColumnTable(path)
    path.write_text("a,b\n" + "1,x\n2,y\n" * (6 if change == "more" else 4))
    with pytest.raises(InvalidDataError, match="has other rows"):
        list(table.pieces())
