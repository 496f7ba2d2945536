"""numpy's own files: one array (.npy) or several with names (.npz)."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diabolo.data.dataset import Array, Dataset, checked, labels, samples
from diabolo.data.files import opened, parsing
from diabolo.errors import DataFileError, InvalidParameterError
from diabolo.names import did_you_mean

_ROLES = {
    "X": ("X", "x", "data", "images", "X_train", "x_train", "train_images"),
    "y": ("y", "labels", "y_train", "train_labels"),
    "X_test": ("X_test", "x_test", "test_images"),
    "y_test": ("y_test", "test_labels"),
    "feature_names": ("feature_names", "columns"),
}


@dataclass(frozen=True)
class Layout:
    """How an array lies in a ``.npy`` file: its values begin ``start`` bytes from the file's own begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int


def _layout(stream: BinaryIO, path: Path, *, rowwise: bool = False) -> Layout:
    """Return what the header says, when the file is long enough for it."""
    kind = "a .npy file"
    with parsing(path, kind):
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = header(stream)
    _refuse_objects(dtype, str(path))
    # Sizes are compared before anything is allocated: a damaged header may announce any number.
    expected = math.prod(shape) * dtype.itemsize
    with parsing(path, kind):
        start = stream.tell()
        held = stream.seek(0, 2) - start
    if held < expected:
        raise DataFileError(
            f"{path} must hold {expected} bytes of data, as its header says; got {held}. "
            "Fetch or copy it again."
        )
    if rowwise and fortran_order and len(shape) > 1:
        raise DataFileError(
            f"{path} must hold its rows one after the other (C order) to be read piece by piece; got "
            "column after column. Store numpy.ascontiguousarray(array)."
        )
    return Layout(tuple(shape), dtype, start)


def npy_layout(path: Path) -> Layout:
    """Return how the samples lie in a ``.npy`` file that is to be read piece by piece.

    Raises
    ------
    DataFileError
        When the file is damaged, or holds anything but rows of real numbers one after the other.
    """
    with opened(path) as stream:
        if isinstance(stream, gzip.GzipFile):
            raise DataFileError(
                f"{path} must not be compressed to be read piece by piece; got a gzip file. Unpack it."
            )
        layout = _layout(stream, path, rowwise=True)
    # an array of this shape that takes no memory
    samples(np.broadcast_to(np.zeros((), layout.dtype), layout.shape), str(path))
    return layout


def read_npy(path: Path) -> Dataset:
    """Return the samples of a ``.npy`` file; nothing in it is unpickled.

    Raises
    ------
    DataFileError
        When the file is damaged, or holds anything but rows of real numbers.
    """
    with opened(path) as stream:
        _layout(stream, path)
        stream.seek(0)
        with parsing(path, "a .npy file"):
            array = np.lib.format.read_array(stream, allow_pickle=False)
    return Dataset(X=samples(array, str(path)), name=path.name)


def read_npz(path: Path, label: str | None = None) -> Dataset:
    """Return the data set in a ``.npz`` file, whose arrays are known by their names.

    ====================  ==================================================================
    samples               X, x, data, images, X_train, x_train, train_images
    labels                y, labels, y_train, train_labels, or the one that ``label`` names
    test split            X_test, x_test, test_images; y_test, test_labels
    names of the columns  feature_names, columns
    ====================  ==================================================================

    A file with a single array may call it anything. Arrays with other names (a validation split,
    masks, ids) are left out.

    Parameters
    ----------
    path : Path
        The file; nothing in it is unpickled.
    label : str, optional
        The name of the array to take as y.

    Raises
    ------
    DataFileError
        When the file is damaged, it is not clear which array holds the samples, or arrays do not fit.
    InvalidParameterError
        When no array is called ``label``.
    """
    with opened(path) as stream:
        with parsing(path, "a .npz file"):
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, as a .npy file does")
        with archive:
            return _from_archive(archive, path, label)


def _from_archive(archive: Any, path: Path, label: str | None) -> Dataset:
    """Return the data set whose parts ``archive`` holds."""
    keys = list(archive.files)
    if not keys:
        raise DataFileError(f"{path} must hold an array; got none. Write it again with numpy.savez.")
    if label is not None and label not in keys:
        raise InvalidParameterError(
            f"label must be the name of an array in {path}; got {label!r}. {did_you_mean(label, keys)}"
        )
    names = {role: _pick(role, keys, path, label) for role in _ROLES}
    if label is not None:
        names["y"] = label
    if names["X"] is None:
        others = [key for key in keys if key != label]
        if len(others) != 1:
            raise DataFileError(
                f"{path} must hold its samples under one of the names {', '.join(_ROLES['X'])}; "
                f"got {', '.join(keys)}. Rename the array that holds the samples to X."
            )
        names["X"] = others[0]

    parts: dict[str, Any] = {"name": path.name}
    for role, key in names.items():
        if key is None:
            continue
        what = f"{key!r} in {path}"
        with parsing(path, "a .npz file"):
            array = _member(archive, key, what)
        if role in ("X", "X_test"):
            parts[role] = samples(array, what)
        elif role in ("y", "y_test"):
            holder = "X" if role == "y" else "X_test"
            if holder not in parts:
                raise DataFileError(
                    f"{path} must hold X_test beside {key!r}; got the labels alone. Add the samples."
                )
            parts[role] = labels(array, len(parts[holder]), what)
        elif array.dtype.kind == "U" and array.shape == parts["X"].shape[1:]:
            parts[role] = tuple(array.tolist())
    return checked(parts, path)


def _member(archive: Any, key: str, what: str) -> Array:
    """Return one array of an archive, or say that it is one of Python objects."""
    try:
        array: Array = archive[key]
    except ValueError as error:
        if "Object arrays" in str(error):
            _refuse_objects(np.dtype(object), what)
        raise
    return array


def _pick(role: str, keys: list[str], path: Path, label: str | None) -> str | None:
    """Return the one key that can play ``role``, None where there is none."""
    if role == "y" and label is not None:
        return None
    found = [name for name in _ROLES[role] if name in keys and name != label]
    if len(found) > 1:
        raise DataFileError(
            f"{path} must hold one array that can be {role}; got {' and '.join(found)}. "
            "Keep one, or give the others names of another meaning."
        )
    return found[0] if found else None


def _refuse_objects(dtype: np.dtype[Any], what: str) -> None:
    """Raise when reading would mean to unpickle: a pickle can run any program."""
    if dtype.hasobject:
        raise DataFileError(
            f"{what} must hold numbers; got Python objects, which are never unpickled because a pickle can "
            "run any program. Store it with one numeric type, for example array.astype(float)."
        )
