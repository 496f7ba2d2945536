"""Large images in small overlapping tiles, and maps of tiles as one map without seams, with any number of axes.

Images are (channels, *extents). The image is continued beyond its borders by reflection, so that every pixel
lies in equally many tiles and an image may be smaller than a tile. Tiles begin at whole multiples of the
stride: what is computed of a pixel depends on its surroundings alone, and a part of an image that begins at
such a multiple has the map of the whole, borders apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_AT_ONCE = 4096  # tiles in memory at a time, about: one row of tiles at least


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Parameters
    ----------
    tile : int >= 1
        Extent of a tile along every axis, in pixels.
    stride : int from 1 to tile
        From the beginning of a tile to that of the next.
    """

    tile: int
    stride: int

    def padded(self, image: Floats) -> Floats:
        """Return the image (channels, *extents) with what lies beyond its borders, by reflection."""
        margin = self.tile - self.stride
        pads = [(margin, margin + -n % self.stride) for n in image.shape[1:]]
        return np.pad(image, [(0, 0), *pads], mode="symmetric")

    def views(self, padded: Floats) -> NDArray[Any]:
        """Return all tiles of a padded image as a view, (*counts, channels, *tile)."""
        axes = tuple(range(1, padded.ndim))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self.tile,) * len(axes), axes)
        strided = windows[(slice(None), *[slice(None, None, self.stride)] * len(axes))]
        return np.moveaxis(strided, 0, len(axes))

    def sample(self, image: Floats, n: int, chance: np.random.RandomState) -> Floats:
        """Return up to n tiles from anywhere in the image, (n, channels, *tile), none of them twice."""
        views = Tiling(self.tile, 1).views(self.padded(image))
        counts = views.shape[: image.ndim - 1]
        total = prod(counts)
        # by sorting n numbers and not total of them: a volume has a hundred million tiles
        chosen = np.unique(chance.randint(total, size=n, dtype=np.int64)) if total > n else np.arange(total)
        return np.ascontiguousarray(views[np.unravel_index(chosen, counts)])

    def mapped(self, image: Floats, function: Callable[[Floats], Floats]) -> Floats:
        """Return what ``function`` makes of the tiles, blended to one map: (*extents).

        ``function`` takes tiles (n, channels, *tile) and returns (n, *tile). Where tiles overlap, their
        values are averaged with weights that fall to zero towards a tile's rim, so that no seam shows.
        In memory are the image, the map and some thousand tiles.
        """
        padded = self.padded(image)
        out = np.zeros(padded.shape[1:], dtype=np.float32)
        views = self.views(padded)
        n_axes = image.ndim - 1
        window = self._window(n_axes)
        for first, last in self._slabs(views.shape[:n_axes]):
            part = views[first:last]
            counts = part.shape[:n_axes]
            made = function(np.ascontiguousarray(part).reshape(-1, *part.shape[n_axes:]))
            made = made.reshape(*counts, *window.shape) * window
            self._add(out[first * self.stride :], made, counts)
        for axis, extent in enumerate(out.shape):
            total = self._total(extent)
            out /= total.reshape([-1 if a == axis else 1 for a in range(n_axes)])
        margin = self.tile - self.stride
        return out[tuple(slice(margin, margin + n) for n in image.shape[1:])]

    def _slabs(self, counts: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        step = max(1, _AT_ONCE // prod(counts[1:]))
        return ((first, min(first + step, counts[0])) for first in range(0, counts[0], step))

    def _add(self, out: Floats, made: Floats, counts: tuple[int, ...]) -> None:
        """Add tiles (*counts, *tile) at their places: by the position within a tile, which are fewer."""
        for offset in product(range(self.tile), repeat=len(counts)):
            places = tuple(
                slice(o, o + (n - 1) * self.stride + 1, self.stride)
                for o, n in zip(offset, counts, strict=True)
            )
            out[places] += made[(..., *offset)]

    def _profile(self) -> Floats:
        return np.sin(np.pi * (np.arange(self.tile) + 0.5) / self.tile).astype(np.float32) ** 2

    def _window(self, n_axes: int) -> Floats:
        window = np.ones((), dtype=np.float32)
        for _ in range(n_axes):
            window = window[..., None] * self._profile()
        return window

    def _total(self, extent: int) -> Floats:
        """Return what the weights along an axis add up to."""
        total = np.zeros(extent, dtype=np.float32)
        for start in range(0, extent - self.tile + 1, self.stride):
            total[start : start + self.tile] += self._profile()
        return np.where(total > 0, total, 1)


def reduced(image: Floats, factor: int) -> Floats:
    """Return the image (channels, *extents) with means over blocks of ``factor`` pixels along every axis."""
    if factor == 1:
        return image
    pads = [(0, -n % factor) for n in image.shape[1:]]
    out = np.pad(image, [(0, 0), *pads], mode="symmetric") if any(p for _, p in pads) else image
    for axis in range(1, image.ndim):
        shape = (*out.shape[:axis], out.shape[axis] // factor, factor, *out.shape[axis + 1 :])
        out = out.reshape(shape).mean(axis + 1, dtype=np.float32)
    return out


def enlarged(image: Floats, factor: int, shape: tuple[int, ...]) -> Floats:
    """Return a map (*extents) of a reduced image at the size of the whole, linear in between."""
    if factor == 1:
        return image
    for axis, n in enumerate(shape):
        place = np.clip((np.arange(n) + 0.5) / factor - 0.5, 0, image.shape[axis] - 1)
        low = np.minimum(place.astype(np.int64), max(image.shape[axis] - 2, 0))
        high = np.minimum(low + 1, image.shape[axis] - 1)
        share = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image
