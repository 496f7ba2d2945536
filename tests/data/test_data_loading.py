import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diabolo.data
from diabolo.data import Dataset, load
from diabolo.errors import DataFileError, InvalidDataError, InvalidParameterError


def test_exports():
    sources = ["ArraySource", "ImageFolderSource", "NpySource", "ParquetSource", "ShardSource", "Source"]
    scans = ["Scan", "ScanPlace", "find_scans", "read_scan", "write_map", "write_mask"]
    assert set(diabolo.data.__all__) == {"Dataset", *sources, *scans, "known_names", "load", "open_source"}


def test_importing_costs_numpy_only():
    heavy = ["torch", "sklearn", "scipy", "pandas", "pyarrow", "PIL", "pooch", "nibabel", "pydicom"]
    program = f"import sys, diabolo.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("mnits", r"known name; got 'mnits', which is neither. Did you mean 'mnist'( or 'fashion-mnist')?\?"),
        ("no/such.csv", r"got 'no/such\.csv', which is neither. Choose one of 'digits', "),
        ("a\0b", r"got 'a\\x00b', which is neither"),
        ("x" * 5000, "must be a file that can be read; got File name too long|which is neither"),
    ],
)
def test_neither_a_file_nor_a_name(offline, source, said):
    with pytest.raises(DataFileError, match=said):
        load(source)


@pytest.mark.parametrize("source", ["", None, 3, np.zeros((2, 2)), b"mnist"])
def test_sources_of_another_type(source):
    with pytest.raises(InvalidParameterError, match="source must be a path or the name of a data set; got "):
        load(source)


def test_a_path_comes_before_a_name(tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((2, 2)))
    Path("x.npy").rename("digits")
    with pytest.raises(DataFileError, match="digits must be of a known kind"):
        load("digits")
    Path("digits").unlink()
    Path("digits").mkdir()
    said = "digits must hold pictures, .*; got nothing. .* call from another folder: this one hides its name"
    with pytest.raises(DataFileError, match=said):
        load("digits")


def test_a_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    assert load("~/x.npy").n_samples == 2


def test_folders_without_data(tmp_path):
    for name in ("b.txt", "a.txt", "d.txt", "c.txt"):
        (tmp_path / name).write_text("text")
    said = r"must hold pictures, sub-folders.*, or MNIST's idx.*; got a\.txt, b\.txt, c\.txt, \.\.\.\. Give"
    with pytest.raises(DataFileError, match=said):
        load(tmp_path)


@pytest.mark.parametrize("name", ["x.docx", "x", "x.txt", "x.pkl", "x.gz", "x.npy.gz"])
def test_unknown_kinds(tmp_path, name):
    (tmp_path / name).write_bytes(b"some text")
    with pytest.raises(DataFileError, match=r"must be of a known kind \(\.npy, .*\); got the suffix "):
        load(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["x.npy", "x.npz", "x.csv", "x.tsv", "x.parquet", "x.idx", "x.png", "x", "x.csv.gz"]
)
def test_empty_and_forbidden_files(tmp_path, name, monkeypatch):
    path = tmp_path / name
    path.touch()
    with pytest.raises(DataFileError, match=r"must hold data; got an empty file. Fetch or write it again."):
        load(path)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    said = rf"{name.replace('.', '[.]')} must be readable; got 'permission denied'. Grant yourself the right"
    with pytest.raises(DataFileError, match=said):
        load(path)


def test_a_forbidden_folder_and_a_failing_disk(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    def fail(self, *args, **kwargs):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        with pytest.raises(DataFileError, match="must be readable; got 'permission denied'"):
            load(tmp_path)
    (tmp_path / "x.csv").write_text("a\n1\n")
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(
        DataFileError, match=r"can be read; got Input/output error. Check the path and the disk"
    ):
        load(tmp_path / "x.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(DataFileError, match="must be an existing file or folder"):
        load(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.npy", "x.png", "x.idx"])
def test_label_is_refused_where_nothing_has_a_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"any")
    with pytest.raises(
        InvalidParameterError, match=r"label must be left out for .*meant for a table or a .npz"
    ):
        load(tmp_path / name, label="a")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.parquet", "x.idx"])
def test_image_size_is_refused_where_nothing_is_a_picture(tmp_path, name):
    (tmp_path / name).write_bytes(b"any")
    with pytest.raises(InvalidParameterError, match=r"image_size must be left out for .*meant for pictures"):
        load(tmp_path / name, image_size=(2, 2))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"X": np.zeros(3)}, r"X must have one row for each sample; got the shape \(3,\)"),
        ({"y": np.zeros(3)}, r"labels of X must have the shape \(4,\); got \(3,\)"),
        ({"y_test": np.zeros(3)}, r"labels of X_test must have the shape \(0,\)"),
        (
            {"X_test": np.zeros((2, 3))},
            r"Samples of X_test must have the shape \(2,\) that X has; got \(3,\)",
        ),
        ({"feature_names": ("a",)}, "must name each column of X.*; got 1 names"),
    ],
)
def test_data_sets_that_do_not_fit(parts, said):
    with pytest.raises(InvalidDataError, match=said):
        Dataset(**{"X": np.zeros((4, 2)), **parts})


def test_data_sets_are_frozen():
    data = Dataset(np.zeros((4, 2)))
    with pytest.raises(AttributeError):
        data.X = np.ones((4, 2))
    assert data == data
    assert data != Dataset(np.zeros((4, 2)))
