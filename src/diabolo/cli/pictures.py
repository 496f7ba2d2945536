"""IMAGES for maps: pictures, arrays and scans, each of a size of its own, and how they are drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diabolo.cli import inputs
from diabolo.cli.options import ScanOptions, SourceOptions
from diabolo.data.files import system_errors
from diabolo.data.idx import find_parts
from diabolo.data.images import Look, find_images, head, survey, tell_left_out, with_pillow
from diabolo.data.loading import refuse
from diabolo.data.scans import find_scans, is_scan
from diabolo.errors import InvalidDataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diabolo.data import Scan

    Array = NDArray[Any]

_RED = (228, 26, 28)
_STRONGEST = 0.85  # of the colour: what is under it stays visible


@dataclass(frozen=True)
class Images:
    """Images by name, each read when it is asked for.

    Attributes
    ----------
    names : list of str
        Of pictures the path within the folder.
    places : list of str, optional
        What files made of them are called: the names without a suffix where they stay different. None: the
        names.
    classes : list of str or None
        The sub-folder of each picture, where they lie in such.
    scans : bool
        Whether each is a scan, (slices, rows, columns).
    pixels : str
        How pictures are stored: with "8 bits", which are divided by 255, or with "more than 8 bits". "" of
        other images.
    axes : dict of int to str
        Where the axes run to of the scans that were read so far.
    """

    name: str
    names: list[str]
    read: Callable[[int], Any] = field(repr=False)
    classes: list[str] | None = None
    scans: bool = False
    pixels: str = ""
    places: list[str] | None = None
    axes: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def arrays(self) -> Iterator[Array]:
        """Return every image as an array, 8-bit values divided by 255, or every scan as it is stored."""
        for i in range(len(self)):
            yield self.array(i)

    def array(self, i: int) -> Array:
        """Return one of them."""
        return self.scan(i).voxels if self.scans else inputs.unit(self.read(i))

    def scan(self, i: int) -> Scan:
        """Return a scan with its geometry."""
        found: Scan = self.read(i)
        self.axes[i] = found.axes
        return found


def is_for_maps(data: str) -> bool:
    """Return whether DATA is a folder of pictures, a scan, or a folder of scans."""
    path = Path(data).expanduser()
    if not path.exists():
        return False
    return _holds_scans(path) or (path.is_dir() and bool(find_images(path)[0]))


def open_images(
    data: str, source: SourceOptions, scans: ScanOptions, n_channels: int | None = None
) -> Images:
    """Return the images of DATA: a picture, a folder of them, a scan, a folder of scans, or an array.

    Parameters
    ----------
    n_channels : int, optional
        What pictures are turned into: 3 for colours, 0 for grey; None: colours if one of them has some.

    Raises
    ------
    DataFileError, InvalidParameterError, MissingExtraError
    """
    path = Path(data).expanduser()
    found = find_scans(path) if path.exists() and _holds_scans(path) else []
    if found:
        refuse(source.image_size, "image_size", "pictures", path)

        def read(i: int) -> Scan:
            return found[i].read(volume=scans.volume, fill=scans.fill)

        return Images(path.resolve().name, [scan.name for scan in found], read, scans=True)
    for name, value in asdict(scans).items():
        refuse(value, name, "scans", path)
    paths, classes = find_images(path) if path.is_dir() else ([], None)
    if paths:
        tell_left_out(path)
        return _pictures(path, paths, classes, inputs.image_size(source), n_channels)
    dataset = inputs.load_data(data, source)
    X = dataset.X
    if X.ndim < 3:
        raise InvalidDataError(
            f"IMAGES must be pictures, scans, or an array (n, height, width) or (n, channels, height, "
            f"width); got rows of {X.shape[1]} values. Use 'diabolo detect score' for rows."
        )
    digits = len(str(len(X) - 1))
    return Images(dataset.name, [f"{i:0{digits}d}" for i in range(len(X))], lambda i: X[i])


def names_of_pictures(data: str) -> list[str] | None:
    """Return the paths of the pictures within a folder, in the order of its rows; None of other DATA."""
    folder = Path(data).expanduser()
    if not folder.is_dir() or find_parts(folder):
        return None
    return [_name(path, folder) for path in find_images(folder)[0]] or None


def _name(path: Path, folder: Path) -> str:
    """Return the path within the folder as text: bytes of it that are no UTF-8 are spelt out."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")


def _holds_scans(path: Path) -> bool:
    """Return whether a path is a scan, or a folder with NIfTI or DICOM files, or with folders of DICOM."""
    if is_scan(path):
        return True
    with system_errors(path):
        return path.is_dir() and any(
            is_scan(place) for place in path.iterdir() if not place.name.startswith(".")
        )


def _pictures(
    folder: Path,
    paths: list[Path],
    classes: list[str] | None,
    size: tuple[int, int] | None,
    n_channels: int | None,
) -> Images:
    heads = [(path, head(path)) for path in with_pillow(paths)]
    first = heads[0][1].size
    look = survey([(path, head._replace(size=first)) for path, head in heads], size)  # sizes may differ here
    if look.mode is not None and n_channels is not None:
        look = replace(look, mode="RGB" if n_channels == 3 else "L")

    def read(i: int) -> Array:
        path, own = heads[i]
        return Look(size or own.size, look.mode, look.dtype).pixels(path)

    names = [_name(path, folder) for path in paths]
    pixels = "8 bits" if look.dtype == "uint8" else "more than 8 bits"
    places = [_name(path.with_suffix(""), folder) for path in paths]
    if len(set(places)) < len(places):
        places = names
    return Images(folder.resolve().name, names, read, classes, pixels=pixels, places=places)


def overlay(image: Array, heat: Array, threshold: float) -> Any:
    """Return an image (height, width) or (channels, height, width) with its heat map in red over it.

    Red begins at half the threshold and is full at twice the threshold; the mask's edge is drawn.
    """
    import numpy as np
    from PIL import Image
    from scipy import ndimage

    grey = image.mean(0) if image.ndim == 3 and image.shape[0] != 3 else image
    low, high = float(grey.min()), float(grey.max())
    if low >= 0 and high <= 1 and np.issubdtype(grey.dtype, np.floating):
        low, high = 0.0, 1.0
    under = 255 * (np.asarray(grey, dtype=np.float64) - low) / ((high - low) or 1.0)
    under = np.moveaxis(under, 0, -1) if under.ndim == 3 else np.repeat(under[..., None], 3, axis=2)
    reference = abs(threshold) or 1.0
    weight = np.clip((heat - threshold + reference / 2) / (1.5 * reference), 0, 1)[..., None] * _STRONGEST
    mixed = (1 - weight) * under + weight * np.array(_RED)
    mask = heat > threshold
    mixed[mask & ~ndimage.binary_erosion(mask)] = (255, 255, 0)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def mask_picture(mask: NDArray[np.bool_]) -> Any:
    """Return a mask as a picture: white inside."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
