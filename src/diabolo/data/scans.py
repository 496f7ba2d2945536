"""Medical scans: NIfTI files and DICOM series with their geometry, and masks that open on the scan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.dataset import Array
from diabolo.data.derived import write_dicom
from diabolo.data.dicom import dicom_files, looks_like_dicom, read_dicom, scans_among
from diabolo.data.files import system_errors
from diabolo.data.images import natural
from diabolo.data.nifti import is_nifti, read_nifti, write_nifti
from diabolo.errors import DataFileError, InvalidDataError, InvalidParameterError

_TOWARDS = ("LR", "PA", "IS")
_FLAT = 1e-6  # the least volume of a voxel, as a share of the product of its edges


@dataclass(frozen=True, eq=False)
class Scan:
    r"""A stack of slices and where it lies in space.

    Parameters
    ----------
    voxels : ndarray of shape (slices, rows, columns)
        Grey values: of a DICOM series in its own units (Hounsfield units for CT) with bright meaning a
        high value, of a NIfTI file with its slope and intercept applied. Float32 where there was something
        to apply, else of the type in which they are stored. In NIfTI's words the axes are (k, j, i).
    affine : ndarray of shape (4, 4), float64
        Takes (column, row, slice, 1), that is NIfTI's (i, j, k, 1), to millimetres to the right, to the
        front and to the top of the patient (RAS). For a DICOM series

        .. math:: A = D\,[\,\Delta_c u,\ \Delta_r v,\ s,\ p\,],\qquad D = \mathrm{diag}(-1, -1, 1, 1)

        with the directions u of a row and v of a column (Image Orientation), their Pixel Spacing, the step s
        from slice to slice and the first slice's Image Position p; D turns DICOM's LPS to RAS (DICOM PS3.3,
        section C.7.6.2.1.1).
    path : Path
        Where it was read.
    """

    voxels: Array
    affine: Array
    path: Path
    # What masks are written with: the NIfTI header, or the data sets of the slices without their pixels.
    header: Any = field(default=None, repr=False)
    slices: Sequence[Any] = field(default=(), repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of slices, rows and columns."""
        n, rows, columns = self.voxels.shape
        return n, rows, columns

    @property
    def axes(self) -> str:
        """Where columns, rows and slices run to, such as "RAS": right, left, anterior, posterior, ..."""
        from scipy.optimize import linear_sum_assignment

        edges = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        which = linear_sum_assignment(-np.abs(edges.T))[1]  # the nearest, each of the patient's axes once
        return "".join(_TOWARDS[k][int(edges[k, i] > 0)] for i, k in enumerate(which))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The millimetres from slice to slice, from row to row and from column to column."""
        column, row, step = (float(edge) for edge in np.linalg.norm(self.affine[:3, :3], axis=0))
        return step, row, column


def is_scan(path: Path) -> bool:
    """Return whether this is a file, or a folder with a file, that ``read_scan`` takes for its own.

    Judged by the suffixes ``.nii``, ``.nii.gz`` and ``.dcm``, and by DICOM's mark in the files of a folder.
    """
    with system_errors(path):
        if path.is_dir():
            return any(looks_like_dicom(file) for file in path.iterdir())
    return is_nifti(path) or path.suffix.lower() == ".dcm"


@dataclass(frozen=True)
class ScanPlace:
    """Where a scan lies, to be read when it is asked for.

    Parameters
    ----------
    name : str
        What the scan is called: its file's name without suffix, or its folder's, with a number where that has
        several series. That of a scan in a sub-folder with several begins with the sub-folder's, "a/b".
    path : Path
        The file, or the folder with the slices.
    files : tuple of Path
        The slices, of a DICOM series in a folder.
    """

    name: str
    path: Path
    files: tuple[Path, ...] = ()

    def read(self, *, volume: int | None = None, fill: float | None = None) -> Scan:
        """Return the scan, as ``read_scan``."""
        return _read(self.path, volume, None, fill, self.files)


def find_scans(path: str | Path) -> list[ScanPlace]:
    """Return the scans in a folder, or that in a file, in the natural order of their names.

    Those in a folder are its NIfTI files, its DICOM series and those of the folders in it. Pictures without a
    position, such as x-rays, are a scan each, whether or not they share a series.

    Raises
    ------
    DataFileError
        When a file or folder is missing or cannot be read.
    MissingExtraError
        When pydicom is not installed: it comes with ``diabolo[medical]``.
    """
    place = Path(path).expanduser()
    _check_there(place)
    with system_errors(place):
        if not place.is_dir():
            there = is_scan(place) or looks_like_dicom(place)
            return [ScanPlace(_stem(place), place)] if there else []
        inside = sorted((x for x in place.iterdir() if not x.name.startswith(".")), key=natural)
        found = [ScanPlace(_stem(file), file) for file in inside if is_nifti(file) and file.is_file()]
    found += _series_in(place, "")
    for folder in inside:
        if folder.is_dir():
            found += _series_in(folder, f"{folder.name}/")
    if len({scan.name.casefold() for scan in found}) < len(found):
        found = [scan if scan.files else replace(scan, name=_in_full(scan.name, scan.path)) for scan in found]
    return _told_apart(found)


def _series_in(folder: Path, prefix: str) -> list[ScanPlace]:
    """Return the DICOM scans among the files of a folder."""
    scans = scans_among(dicom_files(folder))
    name, several = folder.resolve().name, sum(len(files) > 1 for files in scans)
    if len(scans) == 1 and prefix:
        return [ScanPlace(name, folder, tuple(scans[0]))]
    found, number = [], 0
    for files in scans:
        if len(files) == 1:
            found.append(ScanPlace(prefix + _stem(files[0]), files[0]))
        else:
            number += 1
            own = f"{name}-{number}" if several > 1 else name
            found.append(ScanPlace(own, folder, tuple(files)))
    return found


def _told_apart(scans: list[ScanPlace]) -> list[ScanPlace]:
    """Return scans of which no two have one name: what is written of one must not replace another's."""
    out: list[ScanPlace] = []
    taken: set[str] = set()
    for scan in scans:
        name, number = scan.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{scan.name} ({number})"
        taken.add(name.casefold())
        out.append(replace(scan, name=name))
    return out


def _stem(path: Path) -> str:
    return re.sub(r"(\.nii|\.nii\.gz|\.dcm)$", "", path.name, flags=re.IGNORECASE)


def _in_full(name: str, path: Path) -> str:
    """Return a scan's name with its file's suffix."""
    return name.removesuffix(_stem(path)) + path.name


def read_scan(
    path: str | Path, *, volume: int | None = None, series: str | None = None, fill: float | None = None
) -> Scan:
    """Read a NIfTI file, a DICOM file, or the slices of a DICOM series in a folder.

    Slices are put in order by their position along the normal of their plane, whatever the files' names.

    Parameters
    ----------
    path : str or Path
        A ``.nii`` or ``.nii.gz`` file, a DICOM file of one frame, or a folder of such.
    volume : int, optional
        Which volume of a NIfTI file with several (time points, directions) to take, from 0.
    series : str, optional
        The Series Instance UID to take from a folder with several series.
    fill : float, optional
        The value put where voxels are NaN or infinite, as some programs write the background.

    Returns
    -------
    Scan

    Raises
    ------
    DataFileError
        When a file is missing, damaged, cut short, encrypted, compressed in a way that cannot be undone
        here, has no or coloured pixels or a geometry that is none; when the slices of a series do not
        fit together; or voxels are not finite.
    InvalidParameterError
        When ``volume`` or ``series`` is missing, unknown or without effect.
    MissingExtraError
        When nibabel or pydicom is not installed: they come with ``diabolo[medical]``.
    """
    return _read(Path(path).expanduser(), volume, series, fill)


def _read(
    place: Path, volume: int | None, series: str | None, fill: float | None, files: Sequence[Path] = ()
) -> Scan:
    _check_there(place)
    with system_errors(place):
        nifti = is_nifti(place) and not place.is_dir()
    if nifti:
        _without_effect(series, "series", "DICOM", place)
        voxels, affine, header = read_nifti(place, volume)
        scan = Scan(voxels, affine, place, header=header)
    else:
        _without_effect(volume, "volume", "NIfTI", place)
        voxels, affine, slices = read_dicom(place, series, files)
        scan = Scan(voxels, affine, place, slices=slices)
    _check_affine(scan)
    return _finite(scan, fill)


def _check_there(place: Path) -> None:
    with system_errors(place):
        if not place.exists():
            raise DataFileError(
                f"{place} must be a scan; got a path that does not exist. Give a .nii, .nii.gz or DICOM "
                "file, or a folder of DICOM slices."
            )


def write_mask(path: str | Path, mask: Array, like: Scan) -> Path:
    """Write a mask, 1 inside and 0 outside, that lies on the scan.

    Parameters
    ----------
    path : str or Path
        With the suffix ``.nii`` or ``.nii.gz``: a NIfTI file with the scan's geometry. Without a suffix, for
        a scan that was read from DICOM: a folder, new or empty, for a derived DICOM series, with new UIDs and
        the patient, study, frame of reference and positions of the slices it was made of.
    mask : ndarray of bool of the shape of ``like.voxels``
        Where something was found.
    like : Scan
        The scan that was looked at.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    InvalidDataError
        When the mask has another shape or other values than True and False (0 and 1).
    InvalidParameterError
        When the path has another suffix, or ``like`` was not read from DICOM where that is asked for.
    DataFileError
        When the place cannot be written.
    """
    mask = _on(like, mask, "mask")
    if mask.dtype.kind not in "bui" or (mask.size and (mask.min() < 0 or mask.max() > 1)):
        raise InvalidDataError(
            f"mask must hold True and False; got the type {mask.dtype} and values up to {mask.max()}. "
            "Give map > threshold, or write a map of scores with write_map."
        )
    return _write(path, mask.astype(np.uint8), like, "mask")


def write_map(path: str | Path, scores: Array, like: Scan) -> Path:
    """Write a map, one number for each voxel, that lies on the scan.

    Parameters
    ----------
    path : str or Path
        As for ``write_mask``. A DICOM series holds the map in 65,536 steps between its least and its greatest
        value, a NIfTI file in float32.
    scores : ndarray of the shape of ``like.voxels``
        Finite numbers.
    like : Scan
        The scan that was looked at.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    InvalidDataError
        When the map has another shape or holds numbers that are not finite in float32.
    InvalidParameterError
        When the path has another suffix, or ``like`` was not read from DICOM where that is asked for.
    DataFileError
        When the place cannot be written.
    """
    scores = _on(like, scores, "scores")
    if scores.dtype.kind not in "buif":
        raise InvalidDataError(f"scores must hold real numbers; got the type {scores.dtype}. Give floats.")
    with np.errstate(over="ignore"):
        scores = scores.astype(np.float32)
    if not np.isfinite(scores).all():
        raise InvalidDataError(
            f"scores must be finite; got {int((~np.isfinite(scores)).sum())} of {scores.size} that are not. "
            "Replace them with numpy.nan_to_num."
        )
    return _write(path, scores, like, "map")


def _write(path: str | Path, values: Array, like: Scan, what: str) -> Path:
    place = Path(path).expanduser()
    if is_nifti(place):
        write_nifti(place, values, like.affine, like.header)
    elif place.suffix or not like.slices:
        raise InvalidParameterError(
            f"path must end in .nii or .nii.gz, or be a folder for a DICOM series made from one; got {place} "
            f"for a scan from {like.path}. Name the file for example {place.stem}.nii.gz."
        )
    else:
        write_dicom(place, values, like.slices, what)
    return place


def _on(like: Scan, values: Array, what: str) -> Array:
    values = np.asarray(values)
    if values.shape != like.shape:
        raise InvalidDataError(
            f"{what} must have the scan's shape {like.shape}, (slices, rows, columns); got {values.shape}. "
            "Give one value for each voxel of like.voxels."
        )
    return values


def _check_affine(scan: Scan) -> None:
    """Raise where voxels are not solid: nothing found in them could be shown anywhere."""
    edges = scan.affine[:3, :3]
    solid = np.isfinite(scan.affine).all() and (
        abs(np.linalg.det(edges)) > _FLAT * np.prod(np.linalg.norm(edges, axis=0))
    )
    if not solid:
        raise DataFileError(
            f"{scan.path} must have an affine that can be inverted; got {np.round(scan.affine, 6).tolist()}. "
            "Repair its geometry with the program that wrote it, or set it with nibabel's set_sform."
        )


def _finite(scan: Scan, fill: float | None) -> Scan:
    if scan.voxels.dtype.kind != "f":
        return scan
    bad = ~np.isfinite(scan.voxels)
    if not bad.any():
        return scan
    if fill is None:
        raise DataFileError(
            f"{scan.path} must hold finite voxels; got {int(bad.sum())} of {bad.size} that are not. "
            "If they are background, give fill=0."
        )
    if not np.isfinite(fill):
        raise InvalidParameterError(f"fill must be a finite number; got {fill!r}. Give for example 0.")
    scan.voxels[bad] = fill
    return scan


def _without_effect(value: object, option: str, meant_for: str, path: Path) -> None:
    if value is not None:
        raise InvalidParameterError(
            f"{option} must be left out for {path}; got {value!r}. It is meant for {meant_for}."
        )
