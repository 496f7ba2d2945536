"""What an ``AnomalyMap`` takes: images or volumes, of one size or of several, or a worded error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data.sources import Source
from diabolo.errors import InvalidDataError

Floats = NDArray[np.float32]

_AXES = {2: "height, width", 3: "depth, height, width"}


@dataclass(frozen=True)
class Pictures:
    """Images as they came, each turned into numbers, and looked at, when it is asked for.

    ``images`` is a sequence, or a source of images of one size, which is read from its begin. ``n_channels``
    is 0 where images have no axis of channels, None as long as no image was looked at.
    """

    images: Any
    n_dims: int
    n_channels: int | None
    size: tuple[int, ...] | None = None
    reference: str = "image 0"

    def __len__(self) -> int:
        return len(self.images)

    def each(self, which: Sequence[int] | None = None) -> Iterator[Floats]:
        """Return images as (channels, *extents) in single precision, one by one: all, or some in order.

        Raises
        ------
        InvalidDataError
            For an image that is none, or not such as in fit.
        """
        for i, values in self._read(range(len(self)) if which is None else which):
            image = self.checked(i, values).astype(np.float32)
            yield image if self.n_channels else image[None]

    def _read(self, which: Sequence[int]) -> Iterator[tuple[int, Any]]:
        if not isinstance(self.images, Source):
            yield from ((i, self.images[i]) for i in which)
            return
        left = set(which)
        if not left:
            return
        for numbers, rows in self.images.chunks():
            for i, values in zip(numbers.tolist(), rows, strict=True):
                if i in left:
                    left.remove(i)
                    yield i, values
            if not left:
                return
        raise InvalidDataError(
            f"images must all be there; got a source that left out {len(left)}, image {min(left)} among "
            "them. Give one that refuses what it cannot read, or take that out."
        )

    def checked(self, i: int, values: Any) -> NDArray[Any]:
        """Return image i as an array if it is such as the others."""
        image = _as_array(values, f"image {i}")
        channels = _channels(image, i, self.n_dims)
        if self.n_channels is not None and channels != self.n_channels:
            raise InvalidDataError(
                f"images must have {_said(self.n_channels)} as {self.reference}; "
                f"got image {i} with {_said(channels)}, shape {image.shape}. Convert it."
            )
        _check_values(image, i)
        extents = image.shape[1 if channels else 0 :]
        if self.size is not None and extents != self.size:
            raise InvalidDataError(
                f"aligned images must all have the extents {self.size}, as {self.reference}; got image {i} "
                f"with {extents}. Bring them to one size, the same thing in the same place, or give "
                "layout='tiles'."
            )
        return image


@dataclass(frozen=True)
class Surveyed(Pictures):
    """The same, all of which were looked at once; ``extents`` are theirs."""

    extents: tuple[tuple[int, ...], ...] = ()

    @property
    def smallest(self) -> int:
        """The smallest extent of any image along any axis."""
        return min(min(one) for one in self.extents)

    @property
    def typical(self) -> float:
        """The median over images of the geometric mean of their extents."""
        return float(np.median([prod(one) ** (1 / len(one)) for one in self.extents]))


def check_pictures(
    images: Any, n_dims: int, n_channels: int | None = None, size: tuple[int, ...] | None = None
) -> Pictures:
    """Return images that are to be like those of fit, which had ``n_channels`` and, if aligned, ``size``.

    Those in memory are looked at now, all others when they are asked for.

    Raises
    ------
    InvalidDataError
    """
    pictures = Pictures(_gathered(images, n_dims), n_dims, n_channels, size, "in fit")
    if isinstance(pictures.images, list):
        for i, image in enumerate(pictures.images):
            pictures.checked(i, image)
    return pictures


def survey(images: Any, n_dims: int, *, aligned: bool) -> Surveyed:
    """Return images to learn from, after a look at each: all have as many channels, and one size if aligned.

    Raises
    ------
    InvalidDataError
    """
    pictures = Pictures(_gathered(images, n_dims), n_dims, None)
    extents: list[tuple[int, ...]] = []
    for i, values in pictures._read(range(len(pictures))):
        image = pictures.checked(i, values)
        if not extents:
            n_channels = _channels(image, i, n_dims)
            own = image.shape[1 if n_channels else 0 :]
            pictures = replace(pictures, n_channels=n_channels, size=own if aligned else None)
        extents.append(image.shape[1 if pictures.n_channels else 0 :])
    return Surveyed(pictures.images, n_dims, pictures.n_channels, pictures.size, extents=tuple(extents))


def _gathered(images: Any, n_dims: int) -> Any:
    """Return a list of arrays, or what gives images one by one as it came."""
    found: Any
    if isinstance(images, (list, tuple)):
        found = [_as_array(image, f"image {i}") for i, image in enumerate(images)]
    elif isinstance(images, Source) or (
        isinstance(images, Sequence) and not isinstance(images, (str, bytes))
    ):
        found = images
    else:
        whole = _as_array(images, "images")
        if whole.ndim not in (n_dims + 1, n_dims + 2):
            raise InvalidDataError(
                f"images must be (n, {_AXES[n_dims]}) or (n, channels, {_AXES[n_dims]}); got the shape "
                f"{whole.shape}. {_one_image(whole, n_dims)}"
            )
        found = list(whole)
    if not len(found):
        raise InvalidDataError("images must be at least one; got none. Check how they were selected.")
    return found


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
