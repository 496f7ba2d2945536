"""Images of DATA and slices of its scans as a map learns and judges them: read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diabolo.cli.console import Output, counted
from diabolo.errors import InvalidDataError
from diabolo.names import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diabolo.cli.pictures import Images

    Array = NDArray[Any]


class Frames(Sequence["Array"]):
    """Images, and slices of scans, one after the other; one image, or one scan, is in memory at a time."""

    def __init__(self, images: Images, chosen: list[int], n_dims: int) -> None:
        self._images, self._n_dims = images, n_dims
        self._read: tuple[int, list[tuple[str, Array]]] = (-1, [])
        slices = images.scans and n_dims == 2
        self.places = [(i, k) for i in chosen for k in range(len(self._of(i)) if slices else 1)]

    def _of(self, i: int) -> list[tuple[str, Array]]:
        if self._read[0] != i:
            self._read = (-1, [])  # let go of one before the next is read
            self._read = (i, frames_of(self._images, i, self._n_dims))
        return self._read[1]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: Any) -> Any:
        i, k = self.places[at]
        return self._of(i)[k][1]


def frames_of(images: Images, i: int, n_dims: int) -> list[tuple[str, Array]]:
    """Return an image, or the slices of a scan where the map is one of slices, with their names."""
    array, name = images.array(i), images.names[i]
    if images.scans and n_dims == 2:
        if len(array) == 1:  # an x-ray
            return [(name, array[0])]
        return [(f"{name}:{k}", part) for k, part in enumerate(array)]
    return [(name, array)]


def origin_of(out: Output, images: Images) -> dict[str, str]:
    """Return what a map is to remember of the images that it learned, all of which were read."""
    found = {"pixels": images.pixels} if images.pixels else {}
    kinds = {axes: images.names[i] for i, axes in images.axes.items()}
    if len(kinds) > 1:
        told = " and ".join(f"{axes} in {name!r}" for axes, name in list(kinds.items())[:2])
        out.note(
            f"{images.name}: columns, rows and slices do not run alike in all scans, but {told}: slices lie "
            "in other planes, or are mirrored. Turn them alike"
        )
    return found | ({"axes": next(iter(kinds))} if len(kinds) == 1 else {})


def check_pixels(images: Images, origin: dict[str, str]) -> None:
    """Raise where pictures are stored in other units than in fit."""
    known = origin.get("pixels")
    if images.pixels and known is not None and images.pixels != known:
        raise InvalidDataError(
            f"IMAGES must be stored with {known} per value, as those that the map was fitted on; got "
            f"{images.pixels}, hence other units. Convert them, or fit a map on such."
        )


def note_axes(out: Output, images: Images, origin: dict[str, str]) -> None:
    """Say which scans, all of which were read, have axes that run otherwise than those in fit."""
    known = origin.get("axes")
    others = {images.names[i]: axes for i, axes in images.axes.items() if axes != known}
    if known is not None and others:
        named = f"{counted(len(others), 'scan')}, {quoted(others, 3)} ({next(iter(others.values()))})"
        out.note(
            f"{images.name}: columns, rows and slices run to {known} in the scans of the map, "
            f"but not in {named}: slices in other planes, or mirrored ones, look anomalous. Turn them alike"
        )


def note_sub_folders(out: Output, images: Images) -> None:
    """Say where the pictures of several sub-folders are all taken for good ones."""
    folders = dict.fromkeys(images.classes or ())
    if len(folders) > 1:
        out.note(
            f"{images.name}: the images of all {len(folders)} sub-folders are learned from as good ones, "
            f"{quoted(folders)}; --normal NAME learns from one of them only"
        )
