"""DICOM through pydicom: the slices of one series as a volume with its affine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.dataset import Array
from diabolo.data.files import opened, parsing, system_errors
from diabolo.data.images import natural
from diabolo.errors import DataFileError, InvalidParameterError, MissingExtraError
from diabolo.names import quoted

_TURNED = 1e-3  # by how much directions of slices that are parallel may differ
_OFF = 0.02  # of the step: by how much a slice may lie beside its place
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ASKED = (
    "SeriesInstanceUID", "SeriesDescription", "Modality", "Rows", "Columns", "ImagePositionPatient",
    "ImageOrientationPatient", "EncryptedAttributesSequence",
)  # fmt: skip


def looks_like_dicom(path: Path) -> bool:
    """Return whether this is a file whose bytes or suffix say that it is DICOM."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(
    path: Path, series: str | None, files: Sequence[Path] = ()
) -> tuple[Array, Array, tuple[Any, ...]]:
    """Return the voxels (slices, rows, columns), the affine (4, 4) and the slices' headers, in order.

    ``files`` are those of ``path`` to look at, where that is known; else all of them.

    Raises
    ------
    DataFileError
        When a file cannot be read, or the slices are no stack.
    InvalidParameterError
        When the folder holds several series and ``series`` is none of them.
    MissingExtraError
        When pydicom is not installed.
    """
    needs_pydicom(f"Reading {path}")
    headers = _headers(files or _files(path))
    chosen = _one_series(path, headers, series)
    if len(chosen) > 1:
        chosen = _in_order(path, chosen)
    slices = [_pixels(file) for file, _ in chosen]
    return (
        np.stack(slices),
        _affine([_lps(file, dataset) for file, dataset in chosen]),
        tuple(dataset for _, dataset in chosen),
    )


def scans_among(files: Sequence[Path]) -> list[list[Path]]:
    """Return the files of each scan: of a series, or one file where a series is pictures without a place.

    Raises
    ------
    DataFileError
        When a file cannot be read.
    MissingExtraError
        When pydicom is not installed.
    """
    if not files:
        return []
    needs_pydicom(f"Reading {files[0].parent}")
    scans: list[list[Path]] = []
    for group in _by_series(_headers(files)).values():
        # x-rays share a series, or do not, as their maker has it; slices have a place
        if any("ImagePositionPatient" in dataset for _, dataset in group):
            scans.append([file for file, _ in group])
        else:
            scans += [[file] for file, _ in group]
    return scans


def needs_pydicom(what: str) -> None:
    """Raise MissingExtraError where pydicom is not installed; ``what`` needs it."""
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(what, "pydicom", "medical") from error


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder, in the natural order of their names."""
    with system_errors(folder):
        return [entry for entry in sorted(folder.iterdir(), key=natural) if looks_like_dicom(entry)]


def _files(path: Path) -> list[Path]:
    """Return the DICOM files of a folder, or the one file."""
    if not path.is_dir():
        return [path]
    files = dicom_files(path)
    if not files:
        entries = sorted(path.iterdir(), key=natural)
        got = quoted([entry.name for entry in entries[:3]]) if entries else "nothing"
        raise DataFileError(
            f"{path} must hold the DICOM files of a scan; got {got}. Give the folder in which the slices "
            "lie, or the path of one .nii file."
        )
    return files


def _dataset(path: Path, *, pixels: bool) -> Any:
    """Return pydicom's data set of a file, with its pixels or without."""
    import pydicom

    with opened(path) as stream:
        head = stream.read(132)
        if head[128:] != b"DICM":
            # A secure DICOM file (PS3.15) is an envelope of PKCS #7, which is a sequence in ASN.1.
            sealed = head[:2] in (b"\x30\x80", b"\x30\x82", b"\x30\x83", b"\x30\x84")
            got = "what may be an encrypted envelope" if sealed else "another kind of file"
            way = "Decrypt it first." if sealed else "Fetch it again, or take it out of the folder."
            raise DataFileError(f"{path} must have DICOM's mark at byte 128; got {got}. {way}")
        stream.seek(0)
        with parsing(path, "a DICOM file"), warnings.catch_warnings():
            # pydicom hands back what there is of a file that was cut short
            warnings.filterwarnings("error", message=".*[Uu]nexpected end of file")
            dataset = pydicom.dcmread(stream, stop_before_pixels=not pixels)
            for keyword in _ASKED:  # fields are parsed when they are first asked for, and fail then
                dataset.get(keyword)
    if "EncryptedAttributesSequence" in dataset:
        hidden = (
            "say how its pixels lie"
            if "Rows" not in dataset
            else "hold pixels"
            if pixels and "PixelData" not in dataset
            else None
        )
        if hidden is not None:
            raise DataFileError(
                f"{path} must {hidden}; got a file whose fields are encrypted. Decrypt it first."
            )
    if pixels and "PixelData" not in dataset:
        raise DataFileError(
            f"{path} must hold pixels; got none: it is cut short, or of a kind that has none "
            f"({dataset.get('Modality', 'modality unknown')}). Copy it again, or take it out of the folder."
        )
    return dataset


def _headers(files: Sequence[Path]) -> list[tuple[Path, Any]]:
    return [(file, _dataset(file, pixels=False)) for file in files]


def _by_series(headers: list[tuple[Path, Any]]) -> dict[str, list[tuple[Path, Any]]]:
    groups: dict[str, list[tuple[Path, Any]]] = {}
    for file, dataset in headers:
        groups.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append((file, dataset))
    return groups


def _one_series(path: Path, headers: list[tuple[Path, Any]], series: str | None) -> list[tuple[Path, Any]]:
    """Return the slices of the one series, or of the one that is wanted."""
    groups = _by_series(headers)
    if series is None and len(groups) == 1:
        return headers
    if series in groups:
        return groups[series]
    found = "; ".join(
        f"{uid or '(none)'} ({len(group)} files, {group[0][1].get('SeriesDescription', 'without a name')})"
        for uid, group in list(groups.items())[:5]
    )
    raise InvalidParameterError(
        f"series must be one of the {len(groups)} Series Instance UIDs in {path}: {found}; got {series!r}. "
        "Give one of them, or go through all of them with diabolo.data.find_scans."
    )


def _in_order(path: Path, slices: list[tuple[Path, Any]]) -> list[tuple[Path, Any]]:
    """Return the slices by their position along the normal, where they are one stack with even steps."""
    first, about = slices[0][0], slices[0][1]
    places: list[Array] = []
    for file, dataset in slices:
        if "ImagePositionPatient" not in dataset or "ImageOrientationPatient" not in dataset:
            raise DataFileError(
                f"{file} must have Image Position and Image Orientation to be one of {len(slices)} slices; "
                "got none. Read such pictures one by one, as diabolo.data.find_scans lists them."
            )
        place = _lps(file, dataset)
        size, expected = (
            (dataset.get("Rows"), dataset.get("Columns")),
            (about.get("Rows"), about.get("Columns")),
        )
        if size != expected:
            raise DataFileError(
                f"Slices of a series must have one size; got {expected} in {first} and {size} in {file}. "
                "Move those of another size, often a scout view, to another folder."
            )
        if not np.allclose(
            place[:3, :2], (places[0] if places else place)[:3, :2], rtol=_TURNED, atol=_TURNED
        ):
            raise DataFileError(
                f"Slices of a series must be parallel, with pixels of one size; got others in {file} than in "
                f"{first}. Move them to different folders."
            )
        places.append(place)
    normal = places[0][:3, 2] / np.linalg.norm(places[0][:3, 2])
    depth = np.array([place[:3, 3] @ normal for place in places])
    order = np.argsort(depth, kind="stable")
    points = np.array([places[i][:3, 3] for i in order])
    step = (points[-1] - points[0]) / (len(points) - 1)
    gap = float(step @ normal)
    gaps = np.diff(depth[order])
    if (same := np.flatnonzero(gaps <= _OFF * max(gap, 0.0))).size:
        one, other = (slices[order[same[0] + k]][0].name for k in (0, 1))
        raise DataFileError(
            f"Slices of {path} must lie at different places; got {one} and {other} at the same one. Move the "
            "copies, or the other time points or echoes, to a folder of their own."
        )
    beside = np.linalg.norm(points - points[0] - np.arange(len(points))[:, None] * step, axis=1)
    if (beside > _OFF * np.linalg.norm(step)).any():
        widest = int(gaps.argmax())
        one, other = (slices[order[widest + k]][0].name for k in (0, 1))
        raise DataFileError(
            f"Slices of {path} must follow each other in even steps; got steps from {gaps.min():.4g} to "
            f"{gaps.max():.4g} mm, the widest between {one} and {other}. Fetch what is missing there, or "
            "resample the series with a tool for it."
        )
    return [slices[i] for i in order]


def _lps(path: Path, dataset: Any) -> Array:
    """Return what takes (column, row, slice, 1) to DICOM's millimetres (LPS), by this slice alone.

    A picture without a position, as an x-ray, is put at the origin, facing as a transverse slice does.
    """
    with parsing(path, "a DICOM file"):
        turn = [float(x) for x in dataset.get("ImageOrientationPatient", None) or (1, 0, 0, 0, 1, 0)]
        at = [float(x) for x in dataset.get("ImagePositionPatient", None) or (0, 0, 0)]
        rows_columns = dataset.get("PixelSpacing", None) or dataset.get("ImagerPixelSpacing", None) or (1, 1)
        down, across = (float(x) for x in rows_columns)
        step = float(dataset.get("SpacingBetweenSlices", None) or dataset.get("SliceThickness", None) or 1)
        u, v = np.array(turn[:3]), np.array(turn[3:])
        matrix = np.eye(4)
        matrix[:3] = np.column_stack([across * u, down * v, abs(step) * np.cross(u, v), at])
    spans = np.isfinite(matrix).all() and not math.isclose(np.linalg.norm(matrix[:3, 2]), 0, abs_tol=1e-9)
    if not spans or down <= 0 or across <= 0:
        raise DataFileError(
            f"{path} must have directions, distances and a position that span space; got the orientation "
            f"{turn}, the spacing {[down, across]} and the position {at}. Export the series again."
        )
    return matrix


def _affine(places: list[Array]) -> Array:
    """Return the affine of a stack of slices in NIfTI's directions (RAS)."""
    matrix = places[0].copy()
    if len(places) > 1:
        matrix[:3, 2] = (places[-1][:3, 3] - places[0][:3, 3]) / (len(places) - 1)
    affine: Array = _LPS_TO_RAS @ matrix
    return affine


def _pixels(path: Path) -> Array:
    """Return the grey values (rows, columns) of a file, bright high, in the modality's units."""
    with parsing(path, "a DICOM file"):
        return _grey(path, _dataset(path, pixels=True))


def _grey(path: Path, dataset: Any) -> Array:
    """Return the same of a data set that was read."""
    from pydicom.pixels.processing import apply_modality_lut

    colours, kind = int(dataset.get("SamplesPerPixel", 1)), str(dataset.get("PhotometricInterpretation", ""))
    if colours != 1 or not kind.startswith("MONOCHROME"):
        raise DataFileError(
            f"{path} must be grey (MONOCHROME1 or MONOCHROME2); got {kind or 'nothing said about it'}. "
            "Export it as a picture, or convert it to grey first."
        )
    frames = int(dataset.get("NumberOfFrames", None) or 1)
    if frames != 1:
        raise DataFileError(
            f"{path} must have one frame; got {frames}. Convert it to NIfTI, as dcm2niix does, or split it."
        )
    stored, inverted = _decoded(path, dataset), kind == "MONOCHROME1"
    if dataset.get("ModalityLUTSequence", None):
        looked_up = apply_modality_lut(stored, dataset).astype(np.float32)
        largest = (1 << int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])) - 1
        return np.asarray(largest - looked_up if inverted else looked_up)
    if inverted:  # within what can be stored, which is within what these values become by slope and intercept
        bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
        stored = (-1 if signed else (1 << bits) - 1) - stored
    slope, offset = (dataset.get(f"Rescale{word}", None) for word in ("Slope", "Intercept"))
    if slope in (None, 1) and offset in (None, 0):
        return stored
    slope, offset = 1.0 if slope is None else float(slope), float(offset or 0)
    if slope == 0:
        raise DataFileError(
            f"{path} must have a Rescale Slope that is not 0; got 0, which makes all pixels equal. "
            "Export it again."
        )
    return np.asarray(stored * slope + offset, dtype=np.float32)


def _decoded(path: Path, dataset: Any) -> Array:
    """Return the stored numbers, unpacked where they are compressed."""
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if syntax is None or not syntax.is_transfer_syntax or syntax.is_private:
        raise DataFileError(
            f"{path} must name a transfer syntax that is known; got {syntax}. "
            "Export it again without compression."
        )
    try:
        with parsing(path, "a DICOM file"):
            return np.asarray(dataset.pixel_array)
    except DataFileError as error:
        if syntax.is_compressed:
            raise DataFileError(
                f"{path} must hold pixels that can be unpacked; got {syntax.name} ({error.__cause__}). "
                "Install a decoder (pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg python-gdcm), "
                "or export it without compression."
            ) from error
        raise
