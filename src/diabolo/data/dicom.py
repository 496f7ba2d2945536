"""DICOM through pydicom: the slices of one series as a volume with its affine, and derived series out."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.dataset import Array
from diabolo.data.files import opened, parsing, system_errors, writing
from diabolo.data.images import natural
from diabolo.errors import DataFileError, InvalidParameterError, MissingExtraError
from diabolo.names import quoted

_TURNED = 1e-3  # by how much directions of slices that are parallel may differ
_OFF = 0.02  # of the step: by how much a slice may lie beside its place
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# What says how the source's pixels are shown, and is not so of a mask made from them.
_OF_PIXELS = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence",
    "ModalityLUTSequence", "PresentationLUTShape", "IconImageSequence", "EncryptedAttributesSequence",
)  # fmt: skip


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


def read_dicom(path: Path, series: str | None) -> tuple[Array, Array, tuple[Any, ...]]:
    """Return the voxels (slices, rows, columns), the affine (4, 4) and the slices' headers, in order.

    Raises
    ------
    DataFileError
        When a file cannot be read, or the slices are no stack.
    InvalidParameterError
        When the folder holds several series and ``series`` is none of them.
    MissingExtraError
        When pydicom is not installed.
    """
    _pydicom(f"Reading {path}")
    headers = [(file, _dataset(file, pixels=False)) for file in _files(path)]
    chosen = _one_series(path, headers, series)
    if len(chosen) > 1:
        chosen = _in_order(path, chosen)
    slices = [_pixels(file) for file, _ in chosen]
    return (
        np.stack(slices),
        _affine([_lps(file, dataset) for file, dataset in chosen]),
        tuple(dataset for _, dataset in chosen),
    )


def write_dicom(folder: Path, values: Array, sources: Sequence[Any], what: str) -> None:
    """Write values (slices, rows, columns) as a series derived from ``sources``, one file for each slice.

    Each file is its source's header with pixels of 16 bits, and new UIDs made from the source's and the
    values: the same values twice are the same series. Private fields, overlays and what describes the
    source's own pixels are left out.
    """
    _pydicom(f"Writing {folder}")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    low, high = float(values.min()), float(values.max())
    slope = 1.0 if values.dtype.kind in "iu" or high == low else (high - low) / 65535
    offset = 0.0 if values.dtype.kind in "iu" else low
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    series = generate_uid(entropy_srcs=[str(sources[0].get("SeriesInstanceUID", "")), what, digest])
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataFileError(
                f"{folder} must be a new or an empty folder for a DICOM series; got one that is in use. "
                "Give another name."
            )
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            aside.mkdir(parents=True)
            for number, (plane, source) in enumerate(zip(values, sources, strict=True), start=1):
                derived = Dataset()  # a new one: pydicom keeps a read one to the byte order it was read in
                for known in copy.deepcopy(source):
                    derived.add(known)
                derived.remove_private_tags()
                for keyword in _OF_PIXELS:
                    if keyword in derived:
                        delattr(derived, keyword)
                for overlay in [field for field in derived if field.tag.group & 0xFF00 == 0x6000]:
                    del derived[overlay.tag]
                uid = generate_uid(entropy_srcs=[str(source.get("SOPInstanceUID", number)), series])
                meta = FileMetaDataset()
                meta.TransferSyntaxUID = ExplicitVRLittleEndian
                meta.MediaStorageSOPClassUID = source.SOPClassUID
                meta.MediaStorageSOPInstanceUID = uid
                derived.file_meta = meta
                _refer(derived, source)
                derived.SOPInstanceUID, derived.SeriesInstanceUID = uid, series
                kind = list(source.get("ImageType", None) or ["ORIGINAL", "PRIMARY"])
                derived.ImageType = ["DERIVED", "SECONDARY", *kind[2:]]
                derived.SeriesDescription = f"anomaly {what}, derived, not for diagnosis"
                derived.DerivationDescription = f"anomaly {what} computed by diabolo; no medical device"
                derived.SeriesNumber = 9000 + int(source.get("SeriesNumber", None) or 0) % 1000
                derived.InstanceNumber = number
                derived.SamplesPerPixel, derived.PhotometricInterpretation = 1, "MONOCHROME2"
                derived.BitsAllocated = derived.BitsStored = 16
                derived.HighBit, derived.PixelRepresentation = 15, 0
                derived.RescaleSlope, derived.RescaleIntercept = f"{slope:.9g}", f"{offset:.9g}"
                derived.RescaleType = "US"
                derived.WindowCenter, derived.WindowWidth = (
                    f"{(low + high) / 2:.9g}", f"{max(high - low, 1e-6):.9g}"
                )  # fmt: skip
                steps = np.rint((plane.astype(np.float64) - offset) / slope).astype("<u2")
                derived.add_new(0x7FE00010, "OW", steps.tobytes())
                derived.save_as(aside / f"{number:04d}.dcm", enforce_file_format=True)
            if folder.exists():
                folder.rmdir()
            aside.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _refer(derived: Any, source: Any) -> None:
    """Say in the derived slice which one it was made of."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    derived.SourceImageSequence = Items([item])


def _pydicom(what: str) -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(what, "pydicom", "medical") from error


def _files(path: Path) -> list[Path]:
    """Return the DICOM files of a folder, or the one file."""
    if not path.is_dir():
        return [path]
    with system_errors(path):
        entries = sorted(path.iterdir(), key=natural)
        files = [entry for entry in entries if looks_like_dicom(entry)]
    if not files:
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
    if "EncryptedAttributesSequence" in dataset and "Rows" not in dataset:
        raise DataFileError(
            f"{path} must say how its pixels lie; got a file whose fields are encrypted. Decrypt it first."
        )
    if pixels and "PixelData" not in dataset:
        raise DataFileError(
            f"{path} must hold pixels; got none: it is cut short, or of a kind that has none "
            f"({dataset.get('Modality', 'modality unknown')}). Copy it again, or take it out of the folder."
        )
    return dataset


def _one_series(path: Path, headers: list[tuple[Path, Any]], series: str | None) -> list[tuple[Path, Any]]:
    """Return the slices of the one series, or of the one that is wanted."""
    groups: dict[str, list[tuple[Path, Any]]] = {}
    for file, dataset in headers:
        groups.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append((file, dataset))
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
        "Give one of them, or move each series to a folder of its own."
    )


def _in_order(path: Path, slices: list[tuple[Path, Any]]) -> list[tuple[Path, Any]]:
    """Return the slices by their position along the normal, where they are one stack with even steps."""
    first, about = slices[0][0], slices[0][1]
    places: list[Array] = []
    for file, dataset in slices:
        if "ImagePositionPatient" not in dataset or "ImageOrientationPatient" not in dataset:
            raise DataFileError(
                f"{file} must have Image Position and Image Orientation to be one of {len(slices)} slices; "
                "got none. Read such pictures one by one."
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
    if not np.isfinite(matrix).all() or math.isclose(float(np.linalg.norm(matrix[:3, 2])), 0, abs_tol=1e-9):
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
    stored = _decoded(path, dataset)
    if kind == "MONOCHROME1":
        bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
        stored = (-1 if signed else (1 << bits) - 1) - stored
    linear = "ModalityLUTSequence" not in dataset
    slope, offset = dataset.get("RescaleSlope", None), dataset.get("RescaleIntercept", None)
    if linear and slope in (None, 1) and offset in (None, 0):
        return stored
    return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)


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
