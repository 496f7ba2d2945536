"""The aligned layout of an ``AnomalyMap``: a net that sees whole pictures, small, and what is usual where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import nnls

from diabolo.applications.scale import within_reach
from diabolo.applications.tiles import Floats, enlarged, reduced
from diabolo.estimators import Autoencoder

Doubles = NDArray[np.float64]

POLARITIES = ("both", "bright", "dark")
_STEPS, _BATCH = 1000, 32
_COPIES = 4  # of every picture, moved
_SAMPLES = 20_000  # beyond, there are fewer copies: so many pictures vary enough
_MOVED = 16  # by at most one such part of an extent
_AROUND = 2.0  # standard deviation, in reduced pixels, of the surroundings that the contrast is measured in
_PLACE = 1.0  # the same of what means over pictures are smoothed with
_OTHER = 0.75  # and of what the other side is smoothed with: both sides are never quite alike
_MOST = 1e30  # standard deviations: beyond, single precision has no numbers
_LEAST = 0.01  # of the mean variance, everywhere: else a pixel that hardly varies would count for all


@dataclass(frozen=True)
class Usual:
    """What a value is on good pictures: its mean at each place, its spread by the contrast there.

    ``mean`` is (channels, *extents); ``spread`` (channels, 2) holds a and b of the variance a + b c that is
    usual around the mean where the restored picture has the contrast c.
    """

    mean: Floats
    spread: Doubles

    @classmethod
    def of(cls, values: NDArray[Any], contrast: Doubles) -> Self:
        """Return what is usual of values and contrasts of good pictures, (n, channels, *extents)."""
        mean = blurred(values.mean(0, dtype=np.float64)[None], _PLACE)[0]
        spread = []
        for k in range(values.shape[1]):
            squares = np.square(values[:, k] - mean[k], dtype=np.float64).reshape(-1)
            if not squares.any():
                spread.append([1.0, 0.0])
                continue
            around = contrast[:, k].reshape(-1)
            usual, unit = float(squares.mean()), float(around.mean()) or 1.0  # nnls has thresholds of its own
            level, slope = nnls(np.stack([np.ones_like(squares), around / unit], axis=1), squares / usual)[0]
            spread.append([max(level, _LEAST) * usual, slope * usual / unit])
        return cls(mean.astype(np.float32), np.array(spread))

    def deviation(self, contrast: Doubles) -> Doubles:
        """Return the standard deviation that is usual at contrasts (channels, *extents)."""
        level, slope = (x.reshape(-1, *[1] * (contrast.ndim - 1)) for x in self.spread.T)
        return np.asarray(np.sqrt(level + slope * contrast))


@dataclass(frozen=True)
class Whole:
    """An autoencoder of whole pictures, reduced by ``factor``, and what is usual of good ones.

    ``grey`` is about the smoothed pictures themselves, ``excess`` about by how much they are brighter than
    restored. ``flat`` tells that samples have no axis of channels.
    """

    factor: int
    estimator: Autoencoder
    grey: Usual
    excess: Usual
    flat: bool

    @classmethod
    def trained(
        cls,
        factor: int,
        estimator: Autoencoder,
        samples: Floats,
        good: Floats,
        *,
        size: tuple[int, ...],
        smoothing: float,
        side: int | None,
        flat: bool,
    ) -> Self:
        """Fit to ``samples``, then look at pictures; both reduced, (n, channels, *extents), from ``size``."""
        estimator.fit(samples[:, 0] if flat else samples)
        off = _off(size, factor, side)
        excess, contrast = _excess(estimator, good, smoothing, side, off, flat=flat)
        grey = Usual.of(blurred(good, smoothing), contrast)
        return cls(factor, estimator, grey, Usual.of(excess, contrast), flat)

    def heat(self, image: Floats, *, smoothing: float, side: int | None, polarity: str) -> Floats:
        """Return the map (*extents) of an image (channels, *extents), in standard deviations."""
        image = within_reach(image, self.estimator)
        small = reduced(image, self.factor)[None]
        shape = image.shape[1:]
        off = _off(shape, self.factor, side)
        excess, contrast = (
            x[0] for x in _excess(self.estimator, small, smoothing, side, off, flat=self.flat)
        )
        over = (excess - self.excess.mean) / self.excess.deviation(contrast)
        if polarity == "both":
            return _single(enlarged(np.sqrt(np.square(over).mean(0)), self.factor, shape))
        # the picture's own edges at its own size: an outline is drawn along them
        mean, deviation = (
            np.stack([enlarged(channel, self.factor, shape) for channel in x])
            for x in (self.grey.mean, self.grey.deviation(contrast))
        )
        unusual = (blurred(image[None], smoothing * self.factor)[0] - mean) / deviation
        half = 0.5 if polarity == "bright" else -0.5
        return _single(half * (unusual.mean(0) + enlarged(over.mean(0), self.factor, shape)))


def _single(heat: Doubles) -> Floats:
    return np.clip(heat, -_MOST, _MOST).astype(np.float32)


def _excess(
    estimator: Autoencoder, small: Floats, smoothing: float, side: int | None, off: float, *, flat: bool
) -> tuple[Doubles, Doubles]:
    """Return by how much pictures are brighter than restored, and the contrast of what is restored.

    ``side`` is the axis along which the other side's excess is taken off, ``off`` by how much it lies aside.
    """
    found = estimator.reconstruct(small[:, 0] if flat else small).reshape(small.shape)
    restored = np.nan_to_num(found).astype(np.float64)  # whose squares may be beyond single precision
    excess = blurred(small - restored, smoothing)
    if side is not None:
        other = np.flip(blurred(excess, _OTHER), side)
        if off:
            aside = [0.0] * other.ndim
            aside[side] = -off
            other = ndimage.shift(other, aside, order=1, mode="nearest")
        excess = excess - other
    axes = tuple(range(2, small.ndim))
    centred = restored - restored.mean(axes, keepdims=True)
    mean, square = (blurred(x, _AROUND) for x in (centred, np.square(centred)))
    return excess, np.maximum(square - np.square(mean), 0)


def _off(size: tuple[int, ...], factor: int, side: int | None) -> float:
    """Return how far, in reduced pixels, a picture's middle lies from that of what it is reduced to.

    The last of the reduced pixels is padded where the factor does not go into the extent; turned about, the
    picture would lie that much aside.
    """
    if side is None:
        return 0.0
    block = min(factor, size[side])
    return (-size[side] % block) / block


def blurred(maps: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Return maps (n, channels, *extents), smoothed."""
    if not sigma:
        return maps
    return np.asarray(ndimage.gaussian_filter(maps, (0, 0, *[sigma] * (maps.ndim - 2)), mode="nearest"))


def copies(
    pictures: Iterator[Floats], n: int, factor: int, side: int | None, chance: np.random.RandomState
) -> Floats:
    """Return n pictures (channels, *extents), reduced, and copies of them, moved and from the other side.

    A net that has seen a picture in one place only takes a head that lies a little aside for a finding.
    """
    n_moved = min(_COPIES, _SAMPLES // n)
    out = []
    for picture in pictures:
        for one in (picture,) if side is None else (picture, np.flip(picture, side)):
            out.append(reduced(one, factor))
            margins = [max(1, round(extent / _MOVED)) if extent > 1 else 0 for extent in one.shape[1:]]
            wide = np.pad(one, [(0, 0), *((m, m) for m in margins)], mode="edge")
            for _ in range(n_moved):
                starts = [int(chance.randint(2 * m + 1)) for m in margins]
                cut = tuple(slice(s, s + e) for s, e in zip(starts, one.shape[1:], strict=True))
                out.append(reduced(wide[(slice(None), *cut)], factor))
    return np.stack(out)


def factor_for(shape: tuple[int, ...], tile: int) -> int:
    """Return by what to reduce pictures (*extents), that they have about tile pixels along an axis."""
    extent: float = prod(shape) ** (1 / len(shape))
    return max(1, round(extent / tile))


def default_net(n: int, size: int) -> Autoencoder:
    """Return the autoencoder of n samples of so many values: over-complete, some thousand steps."""
    return Autoencoder(
        latent_dim=max(1, min(512, size // 2)),
        hidden_dims=[min(1024, 2 * size)],
        activation="silu",
        corruption="gaussian:1",
        scaling="center",
        optimizer="adam",
        batch_size=_BATCH,
        validation_fraction=0.0,
        epochs=max(1, round(_STEPS * _BATCH / n)),
    )
