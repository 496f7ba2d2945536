"""The idx format of MNIST: a magic number, the sizes, then big-endian numbers.

offset 0   two zero bytes
offset 2   one byte: the type of the numbers
offset 3   one byte: the number of axes, d
offset 4   d sizes of four bytes each, most significant byte first
then       the numbers, the last axis fastest
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np

from diabolo.data.dataset import Array, Dataset, checked, labels, samples
from diabolo.data.files import opened, system_errors
from diabolo.errors import DataFileError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PARTS = re.compile(r"(train|t10k)-(images|labels)[-.]idx\d-ubyte(\.gz)?", re.IGNORECASE)
_CHUNK = 1 << 20


def looks_like_idx(path: Path) -> bool:
    """Return whether the first four bytes of ``path``, unpacked, can be those of an idx file."""
    with opened(path) as stream:
        head = stream.read(4)
    return len(head) == 4 and head[:2] == b"\0\0" and head[2] in _TYPES and head[3] > 0


def read_idx_array(path: Path) -> Array:
    """Return the array that an idx file holds, plain or gzipped, in native byte order.

    Raises
    ------
    DataFileError
        When the file is not of this format, or holds fewer or more bytes than it announces.
    """
    with opened(path) as stream:
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or head[3] == 0:
            raise DataFileError(
                f"{path} must begin with the magic number of an idx file; got the bytes {head.hex(' ')}. "
                "Fetch it again, or give it the suffix of its true kind."
            )
        sizes = stream.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise DataFileError(
                f"{path} must hold the sizes of its {head[3]} axes; got {len(sizes)} bytes of them. "
                "Fetch or copy it again."
            )
        shape = struct.unpack(f">{head[3]}I", sizes)
        dtype = np.dtype(_TYPES[head[2]])
        expected = math.prod(shape) * dtype.itemsize
        # Read in pieces: a damaged header may announce more than the memory of any machine.
        body = bytearray()
        while len(body) <= expected and (piece := stream.read(min(_CHUNK, expected + 1 - len(body)))):
            body += piece
    if len(body) != expected:
        got = f"{len(body)}" if len(body) < expected else "more"
        raise DataFileError(
            f"{path} must hold {expected} bytes of data, as its header says; got {got}. "
            "Fetch or copy it again."
        )
    if head[3] > 32:  # numpy 1's limit on axes, far above any data set's
        raise DataFileError(f"{path} must have at most 32 axes; got {head[3]}. Fetch it again.")
    return np.frombuffer(body, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx(path: Path) -> Dataset:
    """Return the samples of one idx file, for example ``train-images-idx3-ubyte.gz``.

    Raises
    ------
    DataFileError
        When the file cannot be read, or holds labels only.
    """
    return Dataset(X=samples(read_idx_array(path), str(path)), name=path.name)


def find_parts(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that bear MNIST's names, keyed "train-images", "t10k-labels", ..."""
    found: dict[str, Path] = {}
    with system_errors(folder):
        for path in sorted(folder.iterdir()):
            if (match := _PARTS.fullmatch(path.name)) and path.is_file():
                # Sorted, so an unpacked file comes before its .gz and wins.
                found.setdefault(f"{match[1]}-{match[2]}".lower(), path)
    return found


def read_idx_parts(parts: dict[str, Path], folder: Path) -> Dataset:
    """Return training and test samples with their labels from the files that ``find_parts`` found.

    Parameters
    ----------
    parts : dict
        "train-images" is needed; "train-labels", "t10k-images" and "t10k-labels" may be absent.
    folder : Path
        Names the data set.

    Raises
    ------
    DataFileError
        When a file cannot be read, labels lack their images, or files do not fit each other.
    """
    for split in ("train", "t10k"):
        if f"{split}-labels" in parts and f"{split}-images" not in parts:
            raise DataFileError(
                f"{folder} must hold {split}-images-idx3-ubyte beside its labels; got the labels alone. "
                "Put the images there."
            )
    if "train-images" not in parts:
        raise DataFileError(
            f"{folder} must hold train-images-idx3-ubyte; got t10k-images-idx3-ubyte alone. "
            "Put the training images there, or give the path of the file itself."
        )
    arrays: dict[str, Array] = {}
    for split, X, y in (("train", "X", "y"), ("t10k", "X_test", "y_test")):
        images, marks = parts.get(f"{split}-images"), parts.get(f"{split}-labels")
        if images:
            arrays[X] = samples(read_idx_array(images), str(images))
        if marks:
            arrays[y] = labels(read_idx_array(marks), len(arrays[X]), str(marks))
    return checked({**arrays, "name": folder.name}, folder)
