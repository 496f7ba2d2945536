"""DICOM series derived from the slices of another: masks and maps that a viewer shows on it."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.dataset import Array
from diabolo.data.dicom import needs_pydicom
from diabolo.data.files import writing
from diabolo.errors import DataFileError

# What says how the source's pixels are shown, and is not so of a mask made from them.
_OF_PIXELS = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence",
    "ModalityLUTSequence", "PresentationLUTShape", "IconImageSequence", "EncryptedAttributesSequence",
)  # fmt: skip


def write_dicom(folder: Path, values: Array, sources: Sequence[Any], what: str) -> None:
    """Write values (slices, rows, columns) as a series derived from ``sources``, one file for each slice.

    Each file is its source's header with pixels of 16 bits, and new UIDs made from the source's and the
    values: the same values twice are the same series. Private fields, overlays and what describes the
    source's own pixels are left out.
    """
    needs_pydicom(f"Writing {folder}")
    from pydicom.uid import generate_uid

    low, high = float(values.min()), float(values.max())
    slope = 1.0 if values.dtype.kind in "iu" or high == low else (high - low) / 65535
    offset = 0.0 if values.dtype.kind in "iu" else low
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    _check_names(sources)
    own = [str(sources[0].get(keyword, "")) for keyword in ("SeriesInstanceUID", "SOPInstanceUID")]
    series = generate_uid(entropy_srcs=[*own, what, digest])
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
                with _deriving(number):
                    derived = _derived(source, series, number, what)
                    derived.RescaleSlope, derived.RescaleIntercept = f"{slope:.9g}", f"{offset:.9g}"
                    derived.WindowCenter = f"{(low + high) / 2:.9g}"
                    derived.WindowWidth = f"{max(high - low, 1e-6):.9g}"
                    steps = np.rint((plane.astype(np.float64) - offset) / slope).astype("<u2")
                    derived.add_new(0x7FE00010, "OW", steps.tobytes())
                    derived.save_as(aside / f"{number:04d}.dcm", enforce_file_format=True)
            if folder.exists():
                folder.rmdir()
            aside.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _check_names(sources: Sequence[Any]) -> None:
    """Raise where a slice lacks what a derived one takes over, or refers to."""
    for number, source in enumerate(sources, start=1):
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"):
            if not source.get(keyword, None):
                raise DataFileError(
                    "slices must say their SOP Class, SOP Instance and Study Instance UID for a DICOM series "
                    f"to be derived from them; got no {keyword} in slice {number}. "
                    "Give a path that ends in .nii.gz."
                )


@contextmanager
def _deriving(number: int) -> Iterator[None]:
    """Turn whatever pydicom raises on a header that it read and cannot write into a ``DataFileError``."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataFileError(
            f"headers of slices must be such as can be written again; got another in slice {number} "
            f"({said}). Give a path that ends in .nii.gz."
        ) from error


def _derived(source: Any, series: str, number: int, what: str) -> Any:
    """Return the header of a derived slice of 16 bits, but for what depends on its values."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    derived = Dataset()  # a new one: pydicom keeps a read one to the byte order it was read in
    for known in copy.deepcopy(source):
        derived.add(known)
    derived.remove_private_tags()
    for keyword in _OF_PIXELS:
        if keyword in derived:
            delattr(derived, keyword)
    for overlay in [field for field in derived if field.tag.group & 0xFF00 == 0x6000]:
        del derived[overlay.tag]
    uid = generate_uid(entropy_srcs=[str(source.SOPInstanceUID), series])
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
    derived.RescaleType = "US"
    return derived


def _refer(derived: Any, source: Any) -> None:
    """Say in the derived slice which one it was made of."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    derived.SourceImageSequence = Items([item])
