"""NIfTI files through nibabel: voxels with slope and intercept, and the affine, in and out."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.dataset import Array
from diabolo.data.files import opened, parsing, writing
from diabolo.errors import DataFileError, InvalidParameterError, MissingExtraError

_MOST = 32_767  # voxels along an axis of NIfTI-1
_MILLIMETRES = {"meter": 1e3, "micron": 1e-3}  # other units are millimetres, or not said


def is_nifti(path: Path) -> bool:
    """Return whether the name ends in ``.nii`` or ``.nii.gz``."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path, volume: int | None) -> tuple[Array, Array, Any]:
    """Return the voxels (slices, rows, columns), the affine (4, 4) and nibabel's header of a file.

    Raises
    ------
    DataFileError
        When the file is not whole, or holds something else than one or several volumes of grey values.
    InvalidParameterError
        When the file has several volumes and ``volume`` is none of them, or it has one and it is given.
    MissingExtraError
        When nibabel is not installed.
    """
    nibabel = _nibabel(f"Reading {path}")
    with opened(path) as stream, parsing(path, "a NIfTI file"):
        head = stream.read(4)
        stream.seek(0)
        second = head[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # 540, the length of its header
        kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        image = kind.from_stream(stream)
        shape, stored = tuple(int(side) for side in image.shape), image.get_data_dtype()
        _check_length(path, image, stored)
        place = _place(path, shape, stored, volume)
        proxy = image.dataobj
        whole = stored.kind in "iu" and proxy.slope == 1 and proxy.inter == 0
        with np.errstate(over="ignore"):  # what becomes infinite is looked for
            voxels = np.asarray(proxy[place], dtype=stored if whole else np.float32)
        affine = np.array(image.affine, dtype=np.float64)
        affine[:3] *= _MILLIMETRES.get(_unit(image.header), 1.0)
        while stream.read(1 << 20):  # to the end, where gzip compares its checksum
            pass
    voxels = voxels.reshape(voxels.shape + (1,) * (3 - voxels.ndim)).T
    return voxels.astype(voxels.dtype.newbyteorder("="), order="C"), affine, image.header


def write_nifti(path: Path, values: Array, affine: Array, header: Any) -> None:
    """Write values (slices, rows, columns) with an affine; both affines of ``header``, where there is one.

    Viewers differ in which of the two affines of a NIfTI file they follow, so a file made from one gets
    both of them, with their codes. NIfTI-2 where an axis is longer than NIfTI-1 can say.
    """
    nibabel = _nibabel(f"Writing {path}")
    kind = nibabel.Nifti1Image if max(values.shape) <= _MOST else nibabel.Nifti2Image
    image = kind(np.ascontiguousarray(values.T), affine if header is None else header.get_best_affine())
    if header is None:
        image.set_sform(affine, code="scanner")
        image.set_qform(affine, code="scanner")
        image.header.set_xyzt_units("mm")
    else:
        image.set_sform(header.get_sform(), code=int(header["sform_code"]))
        image.set_qform(*_qform(header, image.affine))
        image.header.set_xyzt_units(_unit(header))
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, mtime=0)  # the same values give the same bytes
    with writing(path):
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            aside.write_bytes(content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def _qform(header: Any, affine: Array) -> tuple[Array, int]:
    """Return the affine by quaternions with its code; without a code where no viewer can follow it."""
    try:
        found, code = header.get_qform(), int(header["qform_code"])
    except ValueError:  # quaternions that turn nothing
        return affine, 0
    good = code and np.isfinite(found).all() and np.linalg.det(found[:3, :3]) != 0
    return (found, code) if good else (affine, 0)


def _unit(header: Any) -> str:
    """Return the unit of the affines, "unknown" where the header holds none."""
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError:
        return "unknown"


def _check_length(path: Path, image: Any, stored: np.dtype[Any]) -> None:
    """Raise before memory is asked for, where a plain file is shorter than its header says."""
    proxy, size = image.dataobj, path.stat().st_size
    needed = int(proxy.offset) + math.prod(image.shape) * stored.itemsize
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed and size < needed:
        raise DataFileError(
            f"{path} must hold the {needed} bytes that its header announces; got {size}. Copy it again."
        )


def _place(path: Path, shape: tuple[int, ...], stored: np.dtype[Any], volume: int | None) -> tuple[Any, ...]:
    """Return the index of the one volume that is wanted."""
    if stored.kind not in "iuf":
        raise DataFileError(
            f"{path} must hold one real number for each voxel; got the type {stored}. Convert colours or "
            "complex numbers to grey values first."
        )
    trimmed = shape
    while len(trimmed) > 3 and trimmed[-1] == 1:
        trimmed = trimmed[:-1]
    if len(trimmed) < 2 or 0 in shape or len(trimmed) > 4:
        raise DataFileError(
            f"{path} must have the axes of a slice, a volume, or volumes one after the other; got the shape "
            f"{shape}. Split vectors, colours and other further axes into files of their own."
        )
    rest = (0,) * (len(shape) - len(trimmed))
    if len(trimmed) < 4:
        if volume is not None:
            raise InvalidParameterError(
                f"volume must be left out for {path}; got {volume!r}. The file has only one volume."
            )
        return (slice(None),) * len(trimmed) + rest
    whole = isinstance(volume, (int, np.integer)) and not isinstance(volume, bool)
    if not whole or not 0 <= int(volume or 0) < trimmed[3]:
        raise InvalidParameterError(
            f"volume must be a whole number from 0 to {trimmed[3] - 1} for {path}, whose shape is {shape}; "
            f"got {volume!r}. Give for example volume=0 for the first."
        )
    return (slice(None), slice(None), slice(None), volume, *rest)


def _nibabel(what: str) -> Any:
    """Return nibabel, or say how to get it."""
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError(what, "nibabel", "medical") from error
    return nibabel
