"""A file or a folder as a source, and how much memory it would take as one array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np

from diabolo.data.arrays import npy_layout
from diabolo.data.chunks import among
from diabolo.data.dataset import Array
from diabolo.data.folders import ImageFolderSource
from diabolo.data.idx import find_parts
from diabolo.data.images import check_image_size, find_images, head
from diabolo.data.loading import refuse
from diabolo.data.parquet import ParquetSource
from diabolo.data.shards import ShardSource, find_shards
from diabolo.data.sources import Chunk, Chunked, NpySource, Source
from diabolo.errors import DataFileError, DiaboloError, InvalidParameterError

_KINDS = "a .npy or .parquet file or a folder of pictures or of such files"


_SHARDS = ("shards.parquet", "shards.npy")


def open_source(
    path: str | Path,
    *,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    broken: str | None = None,
) -> Source:
    """Return the samples in a file or a folder to be read piece by piece.

    Parameters
    ----------
    path : str or Path
        A ``.npy`` or ``.parquet`` file, or a folder of pictures or of such files (shards).
    label : str, optional
        The column of Parquet files that is no feature.
    columns : sequence of str, optional
        The features, in this order, of Parquet files; without effect elsewhere, as for ``load``.
    image_size : tuple (height, width) of int, optional
        In pixels: pictures are resized to it.
    broken : {"refuse", "skip"}, optional
        What is done about a picture or a shard that cannot be read; None refuses.

    Raises
    ------
    DataFileError, InvalidDataError, MissingExtraError
        As ``NpySource``, ``ParquetSource``, ``ImageFolderSource`` and ``ShardSource`` do.
    InvalidParameterError
        When the data are of another kind, or an option does not apply to this kind.
    """
    place = Path(path).expanduser()
    kind = _kind(place)
    if kind is None:
        got = str(place) if place.exists() else f"{place}, which does not exist"
        raise InvalidParameterError(
            f"data must be {_KINDS} to be read piece by piece; got {got}. Convert it, or load it as a whole."
        )
    if kind != "folder":
        refuse(image_size, "image_size", "pictures", place)
    if kind not in ("folder", *_SHARDS):
        refuse(broken, "broken", "folders", place)
    if kind not in (".parquet", _SHARDS[0]):
        refuse(label, "label", "a table", place)
    if kind in _SHARDS:
        return ShardSource(place, label=label, columns=columns, broken=broken or "refuse")
    if kind == "folder":
        return ImageFolderSource(place, image_size=image_size, broken=broken or "refuse")
    return NpySource(place) if kind == ".npy" else ParquetSource(place, label=label, columns=columns)


def size_in_memory(path: str | Path, image_size: tuple[int, int] | None = None) -> int | None:
    """Return about how many bytes the samples of ``open_source(path)`` take as one array.

    None where that is not known: for data of another kind, and for such as cannot be read.
    """
    place = Path(path).expanduser()
    try:
        kind = _kind(place)
        if kind in _SHARDS:
            sizes = [size_in_memory(path) for path in find_shards(place)]
            return None if None in sizes else sum(size for size in sizes if size is not None)
        if kind == ".npy":
            layout = npy_layout(place)
            return prod(layout.shape) * layout.dtype.itemsize
        if kind == ".parquet":
            import pyarrow.parquet as pq

            about = pq.read_metadata(place)
            return int(about.num_rows) * int(about.num_columns) * 8
        if kind == "folder":
            paths, _ = find_images(place)
            first = head(paths[0])
            size = first.size if image_size is None else check_image_size(image_size)
            return len(paths) * prod(size) * (1 if first.mode == "L" else 3)
    except (DiaboloError, OSError, ValueError, ImportError):
        return None  # who reads it will say what is wrong
    return None


def _kind(place: Path) -> str | None:
    if not place.is_dir():
        suffix = place.suffix.lower()
        return suffix if suffix in (".npy", ".parquet") and place.is_file() else None
    if find_parts(place):
        return None
    if find_images(place)[0]:
        return "folder"
    shards = find_shards(place)
    return "shards" + shards[0].suffix.lower() if shards else None


class View(Chunked):
    """The rows of another source without some of them, each piece passed through a function.

    Parameters
    ----------
    source : Source
    without : ndarray of int
        Numbers of the rows that are left out, in ascending order; the others are numbered anew from 0.
    function : callable(rows (k, ...), their numbers in the other source (k,)) -> rows (k, ...), optional
        Keeps the shape.

    Attributes
    ----------
    left_out : tuple of str
        The columns that the other source leaves out.
    skips : bool
        Whether it leaves out what it cannot read.
    skipped : tuple of Path
        The files that it left out so far, be their rows among these or not.
    """

    def __init__(
        self,
        source: Source,
        without: Array | None = None,
        function: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        self._source, self._function = source, function
        self._without = np.zeros(0, dtype=np.int64) if without is None else without
        self.left_out: tuple[str, ...] = getattr(source, "left_out", ())
        self.skips: bool = getattr(source, "skips", False)

    def __len__(self) -> int:
        return len(self._source) - len(self._without)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self._source.sample_shape

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns, where they have some."""
        return self._source.feature_names

    @property
    def skipped(self) -> tuple[Path, ...]:
        """The files that the other source left out so far."""
        found: tuple[Path, ...] = getattr(self._source, "skipped", ())
        return found

    def labels(self) -> Array | None:
        """Return the labels (n,) of these rows, where the other source has some."""
        read: Callable[[], Array | None] | None = getattr(self._source, "labels", None)
        found = None if read is None else read()
        return None if found is None else np.delete(found, self._without)

    def chunks(self, generator: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Return every sample once, in the pieces of the other source, with the new numbers of their rows."""
        for numbers, rows in self._source.chunks(generator):
            out = among(numbers, self._without)
            if out.any():
                numbers, rows = numbers[~out], rows[~out]
            if len(rows):
                new = numbers - np.searchsorted(self._without, numbers)
                yield new, rows if self._function is None else self._function(rows, numbers)


def gather(source: Source, *wanted: Array) -> list[Array]:
    """Return the rows with these numbers, for each array of numbers in ascending order, in one pass."""
    kept: list[list[Array]] = [[] for _ in wanted]
    for numbers, rows in source.chunks(None):
        for parts, some in zip(kept, wanted, strict=True):
            parts.append(rows[among(numbers, some)])
    if not kept[0]:
        raise DataFileError("The data must hold a sample that can be read; got none. Check the source.")
    return [np.concatenate(parts) for parts in kept]
