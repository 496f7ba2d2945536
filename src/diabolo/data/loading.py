"""One door: a file, a folder or a name becomes a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diabolo.data.arrays import read_npy, read_npz
from diabolo.data.catalogue import known_names, load_named
from diabolo.data.dataset import Array, Dataset, with_columns
from diabolo.data.files import system_errors
from diabolo.data.idx import find_parts, looks_like_idx, read_idx, read_idx_parts
from diabolo.data.images import SUFFIXES as IMAGE_SUFFIXES
from diabolo.data.images import check_image_size, find_images, read_images, tell_left_out
from diabolo.data.scans import find_scans, is_scan, read_scan
from diabolo.data.shards import find_shards, read_shards
from diabolo.data.tables import read_csv, read_parquet
from diabolo.errors import DataFileError, InvalidParameterError
from diabolo.names import did_you_mean

_TABLES = {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet}
_KINDS = ".npy, .npz, .csv, .tsv, .parquet, .nii, .dcm, an idx file or a picture"


def load(
    source: str | Path,
    *,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    data_home: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Return the data set in a file or a folder, or the one with a known name.

    An existing path comes first, so a folder called ``mnist`` hides the name ``mnist``.

    Parameters
    ----------
    source : str or Path
        A file (``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.parquet``, idx as MNIST has it, a picture, a scan
        in ``.nii`` or ``.dcm``), a folder (of pictures, of one sub-folder of pictures for each class, of
        ``.parquet`` or ``.npy`` files that are parts of one table, of the DICOM slices of one scan or DICOM
        pictures without a position, or of MNIST's files), or one of ``known_names()``. Text tables, idx
        files and ``.nii`` may be gzipped. The samples of a scan are its slices; ``diabolo.data.read_scan``
        keeps its geometry too.
    label : str, optional
        The column of a table, or the array of a ``.npz`` file, to take as y.
    columns : sequence of str, optional
        The features, in this order, of a source whose columns have names; its other columns may hold
        anything. A source without such names is taken as it is.
    data_home : path, optional
        Where data sets with a name are looked for first, and downloaded to; then come the environment's
        DIABOLO_DATA and the user's cache.
    image_size : tuple (height, width) of int, optional
        In pixels: pictures are resized to it.

    Returns
    -------
    Dataset
        With X of shape (n, features), (n, height, width) or (n, channels, height, width), in the type in
        which it is stored. Missing cells of tables are NaN.

    Raises
    ------
    DataFileError
        When the source does not exist or cannot be read; the message names the file and the way out.
    InvalidDataError
        When one of ``columns`` is not there.
    InvalidParameterError
        When ``label`` is unknown, or an option does not apply to this kind of source.
    DownloadError
        When a data set with a name could not be fetched.
    MissingExtraError
        When the source needs an optional library that is not installed.

    Examples
    --------
    >>> load("digits").X.shape
    (1797, 8, 8)
    """
    if not isinstance(source, (str, Path)) or not str(source):
        raise InvalidParameterError(
            f"source must be a path or the name of a data set; got {source!r:.60}. "
            "Arrays need no loading: give them to the estimator."
        )
    if image_size is not None:
        image_size = check_image_size(image_size)
    path = Path(source).expanduser()
    with system_errors(path):
        is_file, is_folder = path.is_file(), path.is_dir()
    if is_folder:
        return _load_folder(path, label, columns, image_size)
    if is_file:
        return _load_file(path, label, columns, image_size)
    name = str(source)
    if name not in known_names():
        raise DataFileError(
            f"source must be an existing file or folder, or a known name; got {name!r}, which is neither. "
            f"{did_you_mean(name, known_names())}"
        )
    refuse(label, "label", "a table or a .npz file", name)
    refuse(image_size, "image_size", "pictures", name)
    return load_named(name, data_home)


def _load_file(
    path: Path, label: str | None, columns: Sequence[str] | None, image_size: tuple[int, int] | None
) -> Dataset:
    """Return the data set in a file, whose suffix says its kind; an idx file may have any."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = Path(path.stem).suffix.lower()
        if suffix not in (".csv", ".tsv"):
            suffix = ""
    if suffix in IMAGE_SUFFIXES:
        refuse(label, "label", "a table or a .npz file", path)
        return read_images([path], name=path.name, image_size=image_size)
    refuse(image_size, "image_size", "pictures", path)
    if is_scan(path):
        return _load_scan(path, label)
    if suffix in _TABLES:
        return _TABLES[suffix](path, label, columns)
    if suffix == ".npz":
        return with_columns(read_npz(path, label), columns, str(path))
    refuse(label, "label", "a table or a .npz file", path)
    if suffix == ".npy":
        return read_npy(path)
    if "ubyte" in path.name or suffix == ".idx" or looks_like_idx(path):
        return read_idx(path)
    raise DataFileError(
        f"{path} must be of a known kind ({_KINDS}); got the suffix {path.suffix!r}. "
        "Convert it, or give it the suffix of its true kind."
    )


def _load_folder(
    folder: Path, label: str | None, columns: Sequence[str] | None, image_size: tuple[int, int] | None
) -> Dataset:
    """Return the data set in a folder: MNIST's files, pictures, or the shards of a table."""
    name = folder.resolve().name
    if parts := find_parts(folder):
        refuse(label, "label", "a table or a .npz file", folder)
        refuse(image_size, "image_size", "pictures", folder)
        return read_idx_parts(parts, folder)
    paths, classes = find_images(folder)
    shards = [] if paths else find_shards(folder)
    if not shards or shards[0].suffix.lower() == ".npy":
        refuse(label, "label", "a table or a .npz file", folder)
    if paths:
        tell_left_out(folder)
        return read_images(paths, classes, name=name, image_size=image_size)
    if shards:
        refuse(image_size, "image_size", "pictures", folder)
        return read_shards(shards, name, label, columns)
    if is_scan(folder):
        refuse(image_size, "image_size", "pictures", folder)
        return _load_scan(folder, label)
    hint = ""
    if str(folder) in known_names():
        hint = f" To get the data set {folder}, call from another folder: this one hides its name."
    with system_errors(folder):
        inside = sorted(entry.name for entry in folder.iterdir())
    got = "nothing" if not inside else ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
    raise DataFileError(
        f"{folder} must hold pictures, sub-folders of pictures, .parquet or .npy files, DICOM slices, or "
        f"MNIST's idx files; got {got}. Give the path of one file, or of another folder.{hint}"
    )


def _load_scan(path: Path, label: str | None) -> Dataset:
    """Return the slices of a scan."""
    refuse(label, "label", "a table or a .npz file", path)
    name = path.resolve().name
    if path.is_dir() and len(found := find_scans(path)) > 1 and not any(scan.files for scan in found):
        return Dataset(X=_pictures([(scan.path, scan.read().voxels) for scan in found]), name=name)
    return Dataset(X=read_scan(path).voxels, name=name)


def _pictures(scans: list[tuple[Path, Array]]) -> Array:
    """Return pictures that are scans each, as x-rays, (n, rows, columns)."""
    first, size = scans[0][0], scans[0][1].shape
    for path, voxels in scans:
        if voxels.shape != size:
            raise DataFileError(
                f"pictures must have one size; got {size[1:]} in {first} and {voxels.shape[1:]} in {path}. "
                "Go through them with diabolo.data.find_scans, and resize them."
            )
    return np.concatenate([voxels for _, voxels in scans])


def refuse(value: object, option: str, meant_for: str, source: Path | str) -> None:
    """Raise when an option is given that would have no effect."""
    if value is not None:
        raise InvalidParameterError(
            f"{option} must be left out for {source}; got {value!r}. It is meant for {meant_for}."
        )
