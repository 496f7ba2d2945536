"""What an ``AnomalyMap`` takes: images or volumes, of one size or of several, or a worded error."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.errors import InvalidDataError

Floats = NDArray[np.float32]

_AXES = {2: "height, width", 3: "depth, height, width"}


@dataclass(frozen=True)
class Pictures:
    """Images as they came, each turned into numbers when it is asked for.

    ``n_channels`` is 0 where they have no axis of channels.
    """

    images: list[NDArray[Any]]
    n_channels: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Floats:
        """Return image i as (channels, *extents) in single precision."""
        image = self.images[i].astype(np.float32)
        return image if self.n_channels else image[None]

    @property
    def smallest(self) -> int:
        """The smallest extent of any image along any axis."""
        first = 1 if self.n_channels else 0
        return min(int(n) for image in self.images for n in image.shape[first:])

    @property
    def typical(self) -> float:
        """The median over images of the geometric mean of their extents."""
        first = 1 if self.n_channels else 0
        return float(np.median([prod(i.shape[first:]) ** (1 / (i.ndim - first)) for i in self.images]))

    def one_size(self, size: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return the extents of every image, those of fit where they are given.

        Raises
        ------
        InvalidDataError
            Where an image has others.
        """
        first = 1 if self.n_channels else 0
        own = self.images[0].shape[first:] if size is None else size
        for i, image in enumerate(self.images):
            if image.shape[first:] != own:
                where = "image 0" if size is None else "in fit"
                raise InvalidDataError(
                    f"aligned images must all have the extents {own}, as {where}; got image {i} with "
                    f"{image.shape[first:]}. Bring them to one size, the same thing in the same place, or "
                    "give layout='tiles'."
                )
        return own


def check_pictures(images: Any, n_dims: int, n_channels: int | None = None) -> Pictures:
    """Return images as they are if they are such as in fit.

    ``n_channels`` is the number they had there; None in fit.

    Raises
    ------
    InvalidDataError
    """
    if isinstance(images, (list, tuple)):
        arrays = [_as_array(image, f"image {i}") for i, image in enumerate(images)]
    else:
        whole = _as_array(images, "images")
        if whole.ndim not in (n_dims + 1, n_dims + 2):
            raise InvalidDataError(
                f"images must be (n, {_AXES[n_dims]}) or (n, channels, {_AXES[n_dims]}); got the shape "
                f"{whole.shape}. {_one_image(whole, n_dims)}"
            )
        arrays = list(whole)
    if not arrays:
        raise InvalidDataError("images must be at least one; got none. Check how they were selected.")
    first = n_channels if n_channels is not None else _channels(arrays[0], 0, n_dims)
    for i, image in enumerate(arrays):
        channels = _channels(image, i, n_dims)
        if channels != first:
            raise InvalidDataError(
                f"images must have {_said(first)} as {'image 0' if n_channels is None else 'in fit'}; "
                f"got image {i} with {_said(channels)}, shape {image.shape}. Convert it."
            )
        _check_values(image, i)
    return Pictures(arrays, first)


def _as_array(values: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InvalidDataError(
            f"images must be arrays of numbers; got {what}, a {type(values).__name__} that is none "
            f"({error}). Convert it."
        ) from None


def _said(channels: int) -> str:
    if channels == 0:
        return "no axis of channels"
    return "1 channel" if channels == 1 else f"{channels} channels"


def _one_image(whole: NDArray[Any], n_dims: int) -> str:
    if whole.ndim == n_dims:
        return "Give one image as image[None]."
    return "Give n_dims=3 for volumes." if n_dims == 2 and whole.ndim == 5 else "Reshape them."


def _channels(image: NDArray[Any], i: int, n_dims: int) -> int:
    """Return the number of channels of image i, 0 where it has no axis of channels."""
    if image.ndim not in (n_dims, n_dims + 1) or 0 in image.shape:
        raise InvalidDataError(
            f"an image must be ({_AXES[n_dims]}) or (channels, {_AXES[n_dims]}); got image {i} of the shape "
            f"{image.shape}. Reshape it."
        )
    if image.ndim == n_dims:
        return 0
    if image.shape[-1] in (3, 4) and image.shape[0] > 4:  # as Pillow and matplotlib have it
        raise InvalidDataError(
            f"channels must come first, (channels, {_AXES[n_dims]}); got image {i} of the shape "
            f"{image.shape}. Use numpy.moveaxis(image, -1, 0)."
        )
    return int(image.shape[0])


def _check_values(image: NDArray[Any], i: int) -> None:
    if image.dtype.kind not in "biuf":
        raise InvalidDataError(f"images must be numeric; got image {i} of type {image.dtype}. Read it anew.")
    if image.dtype.kind != "f":
        return
    limit = float(np.finfo(np.float32).max)
    if float(image.max()) <= limit and float(image.min()) >= -limit:  # false for NaN too
        return
    wrong = ~(np.abs(image.astype(np.float64)) <= limit)
    place = tuple(int(k) for k in np.argwhere(wrong)[0])
    raise InvalidDataError(
        f"images must be finite, without NaN or inf; got {image[place]} in image {i} at {place} "
        f"({int(wrong.sum())} such pixels in it). Fill or crop them."
    )
