"""Pictures: a folder of them, or a single one, as one array of pixels."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diabolo.data.dataset import Array, Dataset
from diabolo.data.files import opened, parsing, system_errors
from diabolo.errors import DataFileError, InvalidParameterError, MissingExtraError, SkippedWarning

if TYPE_CHECKING:
    from PIL.Image import Image

# fmt: off
SUFFIXES = frozenset({
    ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})
# Pictures as well, which not every Pillow from 10 on reads by itself, or not as they are meant.
_OTHER = frozenset({
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".emf", ".eps", ".exr", ".heic", ".heif", ".ico",
    ".jxl", ".nef", ".orf", ".psd", ".raf", ".svg", ".wmf",
})
# fmt: on

# Pillow's modes, as the pixels that we keep. A palette is looked up, transparency dropped.
_GREY_8 = frozenset({"1", "L", "LA", "La"})
_DEEP = {"I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112


def check_image_size(image_size: object) -> tuple[int, int]:
    """Return ``image_size`` when it is a pair of whole numbers (height, width), both from 1 up.

    Raises
    ------
    InvalidParameterError
        When it is not.
    """
    if isinstance(image_size, (tuple, list)) and len(image_size) == 2:
        height, width = image_size
        if all(isinstance(side, (int, np.integer)) and side >= 1 for side in image_size):
            return int(height), int(width)
    raise InvalidParameterError(
        f"image_size must be two whole numbers from 1 up, (height, width) in pixels; got {image_size!r}. "
        "Give for example (64, 64)."
    )


def find_images(folder: Path) -> tuple[list[Path], list[str] | None]:
    """Return the pictures in a folder, in natural order (img2 before img10), and their classes.

    Parameters
    ----------
    folder : Path
        Holds pictures (then the classes are None), or sub-folders, one for each class, that hold them.
        Files of other kinds and names that begin with a dot or ``__`` are passed over.

    Raises
    ------
    DataFileError
        When pictures lie both in the folder and in its sub-folders, or it cannot be listed.
    """
    with system_errors(folder):
        entries = _listed(folder)
        loose = [entry for entry in entries if _is_image(entry)]
        classes = {
            sub.name: [entry for entry in _listed(sub) if _is_image(entry)] for sub in entries if sub.is_dir()
        }
    classes = {name: paths for name, paths in classes.items() if paths}
    if loose and classes:
        raise DataFileError(
            f"{folder} must hold pictures or one sub-folder for each class; "
            f"got both, {loose[0].name} and {next(iter(classes))}/. Move the loose pictures to a class."
        )
    if loose:
        return loose, None
    return [path for paths in classes.values() for path in paths], [
        name for name, paths in classes.items() for _ in paths
    ]


def tell_left_out(folder: Path) -> None:
    """Warn of pictures in a folder, or in its sub-folders, that are of a kind that is not read."""
    with system_errors(folder):
        entries = _listed(folder)
        inside = [file for sub in entries if sub.is_dir() for file in _listed(sub)]
    counts = Counter(file.suffix.lower() for file in (*entries, *inside) if file.suffix.lower() in _OTHER)
    if counts:
        kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in sorted(counts.items()))
        warnings.warn(
            f"{folder}: pictures of kinds that are not read are left out: {kinds}. Convert them, for example "
            "to .png",
            SkippedWarning,
            stacklevel=3,
        )


def read_images(
    paths: list[Path],
    classes: list[str] | None = None,
    *,
    name: str = "",
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Return pictures as one array, turned upright as their EXIF note says.

    Grey pictures give X of shape (n, height, width), colour or mixed ones (n, 3, height, width); both
    uint8 in 0..255. Grey pictures of more than 8 bits keep their type (uint16, int32 or float32).

    Parameters
    ----------
    paths : list of Path
        At least one picture.
    classes : list of str, optional
        One label for each picture.
    name : str
        The name of the data set.
    image_size : tuple (height, width) of int, optional
        In pixels: pictures are resized to it, with bicubic interpolation. Without it they must have one
        size.

    Raises
    ------
    DataFileError
        When a picture cannot be read, or sizes or depths differ.
    InvalidParameterError
        When ``image_size`` is not such a pair.
    MissingExtraError
        When Pillow is not installed.
    """
    look = survey([(path, head(path)) for path in with_pillow(paths)], image_size)
    X = np.empty((len(paths), *look.shape), dtype=look.dtype)
    for i, path in enumerate(paths):
        X[i] = look.pixels(path)
    return Dataset(X=X, y=None if classes is None else np.array(classes, dtype=np.str_), name=name)


def with_pillow(paths: list[Path]) -> list[Path]:
    """Return ``paths`` where Pillow is there to read them; else say how to get it."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"Reading {paths[0]}", "pillow", "images") from error
    return paths


class Head(NamedTuple):
    """What a picture's header says."""

    size: tuple[int, int]  # (height, width), upright
    mode: str  # Pillow's
    several: bool = False  # whether it holds more pictures than the one that is read


@dataclass(frozen=True)
class Look:
    """What all pictures of a data set are turned into."""

    size: tuple[int, int]
    mode: str | None
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one picture."""
        return (*((3,) if self.mode == "RGB" else ()), *self.size)

    def pixels(self, path: Path) -> Array:
        """Return the pixels of one picture."""
        return _pixels(path, self.size, self.mode, self.dtype)


def survey(heads: Sequence[tuple[Path, Head]], image_size: tuple[int, int] | None) -> Look:
    """Return what these pictures can all be turned into.

    Headers come first: a wrong size is told before minutes of decoding.

    Raises
    ------
    DataFileError
        When sizes or depths differ.
    """
    size = None if image_size is None else check_image_size(image_size)
    first, (target, mode, _) = heads[0]
    for path, head in heads:
        if size is None and head.size != target:
            raise DataFileError(
                f"Pictures must have one size; got {_size(target)} in {first} and {_size(head.size)} in "
                f"{path}. image_size=(height, width) resizes them all."
            )
    kinds = {_kind(head.mode) for _, head in heads}
    deep = kinds - {"grey", "colour"}
    if deep and len(kinds) > 1:
        one, one_mode = next((p, head.mode) for p, head in heads if _kind(head.mode) in deep)
        other, other_mode = next((p, h.mode) for p, h in heads if _kind(h.mode) != _kind(one_mode))
        raise DataFileError(
            f"Pictures must have one depth; got the mode {one_mode} in {one} "
            f"and {other_mode} in {other}. Convert them to one."
        )
    if several := [path for path, head in heads if head.several]:
        of = "a picture" if len(several) == 1 else f"{len(several):,} pictures"
        warnings.warn(
            f"{of} with several frames or pages, {several[0]}{' and others' * (len(several) > 1)}: only the "
            "first of each is read. Save the others as pictures of their own",
            SkippedWarning,
            stacklevel=3,
        )
    dtype = np.dtype(_DEEP[mode] if deep else np.uint8)
    return Look(size or target, None if deep else "RGB" if "colour" in kinds else "L", dtype)


def _listed(folder: Path) -> list[Path]:
    """Return what a folder holds, in natural order, without hidden and system entries."""
    return sorted((p for p in folder.iterdir() if not p.name.startswith((".", "__"))), key=natural)


def natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sorting key under which img2 comes before img10."""
    pieces = re.split(r"([0-9]+)", path.name.casefold())
    # Numbers before words, each compared among its own kind; the name itself breaks ties.
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces if p], path.name


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _kind(mode: str) -> str:
    """Return "grey" or "colour" for 8 bits, else the name of the deeper type."""
    if mode in _DEEP:
        return np.dtype(_DEEP[mode]).name
    return "grey" if mode in _GREY_8 else "colour"


def head(path: Path) -> Head:
    """Return what a picture's header says, decoding no pixels but those of palettes.

    A GIF is read as far as the header of its second frame.
    """
    from PIL import Image

    with opened(path) as stream, parsing(path, "a picture"), Image.open(stream) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION) in _TURNED
        grey = image.mode == "P" and _is_grey(image)
        size = (width, height) if turned else (height, width)
        return Head(size, "L" if grey else image.mode, _has_several(image))


def _has_several(image: Image) -> bool:
    """Whether a file holds more than the picture that is read: previews beside a photo do not count."""
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # what follows the first picture is damaged, in any of a dozen formats' ways
        return True


def _is_grey(image: Image) -> bool:
    """Whether all colours of an image's palette are grey."""
    colours = np.array(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
    return not np.ptp(colours, axis=1).any()


def _pixels(path: Path, size: tuple[int, int], mode: str | None, dtype: np.dtype[Any]) -> Array:
    """Return the pixels of one picture, colours first: (height, width) or (3, height, width)."""
    from PIL import Image, ImageOps

    with opened(path) as stream, parsing(path, "a picture"), Image.open(stream) as raw:
        image: Image.Image = ImageOps.exif_transpose(raw)
        if mode is not None:
            image = image.convert(mode)
            resized = _resized(image, size)
        elif (image.height, image.width) == size:
            resized = image
        else:
            # Pillow interpolates deep pictures only as floats.
            resized = _resized(Image.fromarray(np.asarray(image, dtype=np.float32)), size)
        array = np.asarray(resized)
    if np.dtype(dtype).kind in "iu" and array.dtype.kind == "f":
        # Bicubic interpolation overshoots at edges.
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array), limits.min, limits.max)
    return array.transpose(2, 0, 1) if array.ndim == 3 else array


def _resized(image: Image, size: tuple[int, int]) -> Image:
    from PIL.Image import Resampling

    return image if (image.height, image.width) == size else image.resize(size[::-1], Resampling.BICUBIC)
