"""Large images in small overlapping tiles, and maps of tiles as one map without seams; any number of axes.

Images are (channels, *extents). Tiles begin at whole multiples of the stride, and the last one ends where
the image does: nothing beyond the borders is made up, where kinks would be taken for defects. Only an image
smaller than a tile is continued by reflection. What is computed of a pixel depends on its surroundings alone,
so that a part of an image that begins at such a multiple has the map of the whole, borders apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

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
        """Return the image (channels, *extents), continued by reflection where it is smaller than a tile."""
        pads = [(0, max(0, self.tile - n)) for n in image.shape[1:]]
        return np.pad(image, [(0, 0), *pads], mode="symmetric") if any(p for _, p in pads) else image

    def starts(self, extent: int) -> Indices:
        """Return where along an axis tiles begin."""
        last = extent - self.tile
        regular = np.arange(0, last + 1, self.stride)
        return regular if regular[-1] == last else np.append(regular, last)

    def _windows(self, padded: Floats) -> NDArray[Any]:
        """Return the tiles at every pixel as a view, (channels, *places, *tile)."""
        axes = tuple(range(1, padded.ndim))
        return np.lib.stride_tricks.sliding_window_view(padded, (self.tile,) * len(axes), axes)

    def sample(self, image: Floats, n: int, chance: np.random.RandomState) -> Floats:
        """Return up to n tiles from anywhere in the image, (n, channels, *tile), none of them twice."""
        windows = self._windows(self.padded(image))
        counts = windows.shape[1 : image.ndim]
        total = prod(counts)
        # by sorting n numbers and not total of them: a volume has a hundred million tiles
        chosen = np.unique(chance.randint(total, size=n, dtype=np.int64)) if total > n else np.arange(total)
        where: tuple[Any, ...] = (slice(None), *np.unravel_index(chosen, counts))
        return np.moveaxis(windows[where], 0, 1)

    def mapped(self, image: Floats, function: Callable[[Floats], Floats]) -> Floats:
        """Return what ``function`` makes of the tiles, blended to one map: (*extents).

        ``function`` takes tiles (n, channels, *tile) and returns (n, *tile). Where tiles overlap, their
        values are averaged with weights that fall to zero towards a tile's rim, so that no seam shows.
        In memory are the image, the map and some thousand tiles.
        """
        padded = self.padded(image)
        windows = self._windows(padded)
        out = np.zeros(padded.shape[1:], dtype=np.float32)
        window = self._window(out.ndim)
        starts = [self.starts(n) for n in padded.shape[1:]]
        step = max(1, _AT_ONCE // prod(len(s) for s in starts[1:]))
        for first in range(0, len(starts[0]), step):
            part = [starts[0][first : first + step], *starts[1:]]
            where: tuple[Any, ...] = (slice(None), *np.ix_(*part))
            tiles = np.moveaxis(windows[where], 0, len(part))
            made = function(tiles.reshape(-1, *tiles.shape[len(part) :]))
            made = made.reshape(*tiles.shape[: len(part)], *window.shape) * window
            for offset in product(range(self.tile), repeat=len(part)):  # fewer positions than tiles
                places = np.ix_(*(s + o for s, o in zip(part, offset, strict=True)))
                here: tuple[Any, ...] = (..., *offset)
                out[places] += made[here]
        for axis in range(out.ndim):
            total = self._total(out.shape[axis])
            out /= total.reshape([-1 if a == axis else 1 for a in range(out.ndim)])
        return out[tuple(slice(n) for n in image.shape[1:])]

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
        for start in self.starts(extent):
            total[start : start + self.tile] += self._profile()
        return np.where(total > 0, total, 1)


def reduced(image: Floats, factor: int) -> Floats:
    """Return the image (channels, *extents) with means over blocks of ``factor`` pixels along every axis.

    Along an axis with fewer pixels one is left.
    """
    if factor == 1:
        return image
    blocks = [min(factor, n) for n in image.shape[1:]]
    pads = [(0, -n % block) for n, block in zip(image.shape[1:], blocks, strict=True)]
    out = np.pad(image, [(0, 0), *pads], mode="symmetric") if any(p for _, p in pads) else image
    for axis, block in enumerate(blocks, start=1):
        shape = (*out.shape[:axis], out.shape[axis] // block, block, *out.shape[axis + 1 :])
        out = out.reshape(shape).mean(axis + 1, dtype=np.float64).astype(np.float32)
    return out


def enlarged(image: NDArray[Any], factor: int, shape: tuple[int, ...]) -> NDArray[Any]:
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
