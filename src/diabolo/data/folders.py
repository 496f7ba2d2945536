"""A folder of pictures as a source: decoded as their batch comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import TypeVar

import numpy as np

from diabolo.data.chunks import gone, still_there
from diabolo.data.dataset import Array
from diabolo.data.images import find_images, head, survey, tell_left_out, with_pillow
from diabolo.data.sources import Chunk, Chunked
from diabolo.errors import DataFileError
from diabolo.names import check_name

T = TypeVar("T")

BROKEN = ("refuse", "skip")
_THREADS = 4
_CHUNK_BYTES = 4 << 20
_MOST = 256  # pictures of a chunk


class ImageFolderSource(Chunked):
    """The pictures in a folder, or in its sub-folders, decoded by a few threads as their batch comes.

    Their headers are read once at the beginning, which finds what all of them can be turned into.

    Parameters
    ----------
    folder : str or Path
        As ``load`` takes it; classes, told by sub-folders, are its ``labels()``.
    image_size : tuple (height, width) of int, optional
        In pixels: pictures are resized to it. Without it they must have one size.
    broken : {"refuse", "skip"}, default="refuse"
        What is done about a picture that is damaged, vanished or cannot be read: an error that names it,
        or it is left out and counted.

    Attributes
    ----------
    skipped : tuple of Path
        What was left out so far.

    Raises
    ------
    DataFileError
        When the folder holds no pictures, or they do not fit together.
    InvalidParameterError
        When ``broken`` or ``image_size`` is none of these.
    MissingExtraError
        When Pillow is not installed.
    """

    def __init__(
        self, folder: str | Path, *, image_size: tuple[int, int] | None = None, broken: str = "refuse"
    ) -> None:
        self.skips = check_name("broken", broken, BROKEN) == "skip"
        self._skipped: dict[Path, None] = {}
        self._paths, self._classes = find_images(Path(folder))
        if not self._paths:
            raise DataFileError(f"{folder} must hold pictures; got none. Give the path of another folder.")
        tell_left_out(Path(folder))
        with ThreadPoolExecutor(_THREADS) as threads:
            heads = list(threads.map(self._unless_broken(head), with_pillow(self._paths)))
        whole = [(path, found) for path, found in zip(self._paths, heads, strict=True) if found is not None]
        if not whole:
            raise DataFileError(
                f"{folder} must hold pictures that can be read; got {len(heads)} that cannot be, "
                f"{self._paths[0].name} among them. Fetch or write them again."
            )
        self._look = survey(whole, image_size)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one picture: (height, width), or (3, height, width) in colour."""
        return self._look.shape

    @property
    def skipped(self) -> tuple[Path, ...]:
        """The pictures that were left out so far, because they could not be read."""
        return tuple(path for path in self._paths if path in self._skipped)

    def labels(self) -> Array | None:
        """Return the class (n,) of each picture, the name of its sub-folder; None without sub-folders."""
        return None if self._classes is None else np.array(self._classes)

    def chunks(self, generator: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Return every picture once, some at a time, with their numbers; shuffled one by one."""
        order = np.arange(len(self)) if generator is None else generator.permutation(len(self))
        width = prod(self.sample_shape) * self._look.dtype.itemsize
        size = max(1, min(_MOST, _CHUNK_BYTES // width))
        read = self._unless_broken(self._pixels)
        with ThreadPoolExecutor(_THREADS) as threads:
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                found = list(threads.map(read, [self._paths[row] for row in rows]))
                there = [picture is not None for picture in found]
                if any(there):
                    yield rows[there], np.stack([picture for picture in found if picture is not None])

    def _pixels(self, path: Path) -> Array:
        if not path.exists():
            raise gone(path, "vanished")
        with still_there(path):
            return self._look.pixels(path)

    def _unless_broken(self, read: Callable[[Path], T]) -> Callable[[Path], T | None]:
        """Return ``read`` with None, and a count, for what cannot be read where that is to be skipped."""

        def tried(path: Path) -> T | None:
            if path in self._skipped:
                return None
            try:
                return read(path)
            except ValueError:  # DataFileError, InvalidDataError
                if not self.skips:
                    raise
                self._skipped[path] = None
                return None

        return tried
