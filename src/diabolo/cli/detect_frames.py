"""Images of DATA and slices of its scans as a map learns and judges them: read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
