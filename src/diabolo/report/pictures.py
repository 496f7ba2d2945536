"""Samples, filters and differences as small PNG images, one pixel for each value, inlined as data URIs.

The page enlarges them without smoothing, so that a pixel seen is a pixel of the data.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diabolo.errors import MissingExtraError
from diabolo.report.theme import NEGATIVE, POSITIVE

Floats = NDArray[np.floating[Any]]
SIDE = 84  # pixels of the page that an image of the grid takes, at most


@dataclass(frozen=True)
class SampleView:
    """How the samples of one data set are looked at.

    ``kind`` is "image", "signal" or "row"; ``shape`` is one sample's (channels, height, width),
    (channels, length) or (features,); a volume is seen through its middle slice.
    """

    kind: Literal["image", "signal", "row"]
    shape: tuple[int, ...]
    remark: str = ""

    @classmethod
    def of(cls, shape: Sequence[int]) -> SampleView:
        """Tell rows, signals and images apart by the shape of a sample."""
        extents = tuple(int(n) for n in shape)
        if len(extents) == 1:
            return cls("row", extents)
        if len(extents) == 2:
            if min(extents) < 4 or max(extents) > 8 * min(extents):
                return cls("signal", extents)
            return cls("image", (1, *extents))
        if len(extents) == 3:
            return cls("image", extents)
        return cls("image", extents, "The middle slice of each volume is shown.")

    def arrange(self, X: NDArray[Any]) -> Floats:
        """Return ``X`` as (n, channels, height, width), (n, channels, length) or (n, features)."""
        shaped: Floats = np.asarray(X, dtype=np.float64).reshape(len(X), *self.shape)
        return shaped[:, :, self.shape[1] // 2] if len(self.shape) == 4 else shaped


def to_pixels(images: Floats, low: float, high: float) -> NDArray[np.uint8]:
    """Return (n, channels, h, w) as RGBA (n, h, w, 4); 3 channels are colours, others are averaged."""
    scaled = np.clip((images - low) / ((high - low) or 1.0), 0.0, 1.0)
    colors = scaled if images.shape[1] == 3 else np.repeat(scaled.mean(axis=1, keepdims=True), 3, axis=1)
    opaque = np.ones_like(colors[:, :1])
    pixels = np.concatenate([colors, opaque], axis=1).transpose(0, 2, 3, 1)
    return np.asarray(np.round(255 * pixels), dtype=np.uint8)


def to_signed_pixels(images: Floats, largest: float) -> NDArray[np.uint8]:
    """Return signed values (n, channels, h, w) as RGBA: colour by sign, opacity by size."""
    values = np.clip(images.mean(axis=1) / (largest or 1.0), -1.0, 1.0)
    pixels = np.zeros((*values.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where((values >= 0)[..., None], POSITIVE, NEGATIVE)
    pixels[..., 3] = np.maximum(np.round(255 * np.abs(values)), 14)  # the tile's edge stays visible
    return pixels


def montage(tiles: NDArray[np.uint8], columns: int, label: str, side: int = SIDE) -> str:
    """Return an <img> of RGBA tiles (n, h, w, 4) side by side, with a gap of a clear pixel or more."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("a report with images", "pillow", "report") from error
    n, height, width = tiles.shape[:3]
    columns = min(columns, n)
    lines = math.ceil(n / columns)
    gap = max(1, round(width / 14))
    tiles, height, width = _limited(tiles, 64)
    sheet = np.zeros((lines * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet, "RGBA").save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    shown = round(sheet.shape[1] * side / max(width, height))
    return (
        f'<img class="pixels" alt="{escape(label)}" style="width:{shown}px" '
        f'src="data:image/png;base64,{data}">'
    )


def picture(pixels: NDArray[np.uint8], label: str, side: int = 440) -> str:
    """Return an <img> of RGB pixels (height, width, 3) as wide as its place; larger ones are reduced.

    ``side`` is the most pixels that are kept along either axis; ``label`` is plain text.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("a report with images", "pillow", "report") from error
    drawn = Image.fromarray(pixels)
    drawn.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    smooth = "" if max(drawn.size) < 200 else ";image-rendering:auto"
    return (
        f'<img class="pixels" alt="{escape(label)}" style="width:100%{smooth}" '
        f'src="data:image/png;base64,{data}">'
    )


def _limited(tiles: NDArray[np.uint8], largest: int) -> tuple[NDArray[np.uint8], int, int]:
    """Take every k-th pixel of tiles larger than the page would show."""
    step = max(1, math.ceil(max(tiles.shape[1:3]) / largest))
    thin = tiles[:, ::step, ::step]
    return thin, thin.shape[1], thin.shape[2]


def labelled_rows(rows: Sequence[tuple[str, str]]) -> str:
    """Return montages under each other, each with its name on the left (plain text)."""
    inside = "".join(f"<span>{escape(name)}</span>{image}" for name, image in rows)
    return f'<div class="strips">{inside}</div>'
