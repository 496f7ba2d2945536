"""The areas of a heat map that are above a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from diabolo.applications.tiles import Floats


@dataclass(frozen=True)
class Region:
    """A connected area of a mask.

    Attributes
    ----------
    box : tuple of slice
        The smallest box around it: ``image[..., *box]`` is that part of the image.
    area : int
        Number of its pixels.
    peak : float
        The largest value of the heat map in it.
    position : tuple of int
        Where that is.
    """

    box: tuple[slice, ...]
    area: int
    peak: float
    position: tuple[int, ...]


def regions_of(heat: Floats, threshold: float) -> list[Region]:
    """Return the connected areas above the threshold, the one with the highest peak first."""
    labels, _ = ndimage.label(heat > threshold)
    out = []
    for k, box in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[box] == k
        inside = np.where(own, heat[box], -np.inf)
        place = np.unravel_index(int(inside.argmax()), inside.shape)
        position = tuple(int(p) + s.start for p, s in zip(place, box, strict=True))
        out.append(Region(box, int(own.sum()), float(inside.max()), position))
    return sorted(out, key=lambda region: -region.peak)
