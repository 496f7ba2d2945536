"""Opening a file so that whatever goes wrong is said in one sentence that names it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from diabolo.errors import DataFileError, DiaboloError

_GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Turn what the system or gzip says about ``path`` into a ``DataFileError``."""
    try:
        yield
    except DiaboloError:
        raise
    except PermissionError as error:
        raise DataFileError(
            f"{path} must be readable; got 'permission denied'. "
            "Grant yourself the right to read it, or copy it to a folder of your own."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataFileError(
            f"{path} must be a whole gzip file; got one that is damaged or cut short ({error}). "
            "Fetch or copy it again."
        ) from error
    except OSError as error:
        raise DataFileError(
            f"{path} must be a file that can be read; got {error.strerror or error}. "
            "Check the path and the disk it is on."
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about writing ``path`` into a ``DataFileError``."""
    try:
        yield
    except OSError as error:
        raise DataFileError(
            f"{path} must be in a place that can be written; got {error.strerror or error}. "
            "Choose another folder or make room."
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for reading, through gzip when its first bytes say so.

    Browsers and web servers unpack or rename ``.gz`` files as they like, so the name is not asked.

    Raises
    ------
    DataFileError
        When the file is empty, cannot be read, or is a damaged gzip file.
    """
    with system_errors(path), path.open("rb") as raw:
        magic = raw.read(2)
        if not magic:
            raise DataFileError(f"{path} must hold data; got an empty file. Fetch or write it again.")
        raw.seek(0)
        if magic != _GZIP_MAGIC:
            yield raw
            return
        with gzip.open(raw, "rb") as unpacked:
            yield cast(BinaryIO, unpacked)


@contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library's parser raises on a damaged file into a ``DataFileError``.

    Parsers of numpy, Pillow, Arrow and SciPy raise nearly any exception on bytes made to hurt them,
    from ``struct.error`` to ``RecursionError``, so this catches them all; keep its body to the one call.
    """
    try:
        yield
    except DiaboloError:
        raise
    except PermissionError:
        raise  # says more than the parser does; system_errors words it
    except Exception as error:
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataFileError(
            f"{path} must be {kind}; got one that is damaged, cut short or of another kind ({said}). "
            "Fetch or write it again, or give it the suffix of its true kind."
        ) from error
