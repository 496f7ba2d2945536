"""One of the scales of an ``AnomalyMap``: an autoencoder of tiles and the errors it usually makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import ndimage

from diabolo.applications.tiles import Floats, Tiling, reduced
from diabolo.estimators import Autoencoder

_SOME = 4096  # tiles that say where in a tile errors are large
_LEAST_SHARE = 1e-3  # of the mean error: where less is usual, a pixel that never varies would count for all
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Typical:
    """The logarithms of errors on good images.

    ``level`` and ``level_spread`` are mean and standard deviation of the images' medians, ``spread`` that of
    the pixels around their image's median.
    """

    level: float
    level_spread: float
    spread: float

    @classmethod
    def of(cls, maps: Iterable[Floats]) -> Self:
        """Return what is typical of these maps, of which one at a time is looked at."""
        levels, inside = [], []
        for errors in maps:
            levels.append(float(np.median(errors)))
            inside.append(float(np.square(errors - np.float32(levels[-1])).mean(dtype=np.float64)))
        return cls(float(np.mean(levels)), float(np.std(levels)), float(np.sqrt(np.mean(inside))))

    def compared(self, errors: Floats, *, within: bool) -> Floats:
        """Return errors in standard deviations: from the image's own median, or from good images' mean."""
        level = float(np.median(errors)) if within else self.level
        spread = self.spread if within else float(np.hypot(self.spread, self.level_spread))
        return (errors - np.float32(level)) / np.float32(spread or 1.0)


@dataclass(frozen=True)
class Scale:
    """An autoencoder of tiles of images that are reduced by ``factor``.

    ``weight`` (channels, *tile) is one over the mean squared error at each place of a tile: errors are larger
    at its rim, of whose surroundings less is known. ``flat`` tells that its samples have no axis of channels.
    """

    factor: int
    estimator: Autoencoder
    weight: Floats
    flat: bool

    @classmethod
    def trained(cls, factor: int, estimator: Autoencoder, tiles: Floats, *, flat: bool) -> Self:
        """Fit ``estimator`` to tiles (n, channels, *tile) of reduced images."""
        samples = tiles[:, 0] if flat else tiles
        estimator.fit(samples)
        some = samples[:: -(-len(samples) // _SOME)]
        error = np.square(estimator.reconstruct(some) - some, dtype=np.float64).mean(0)
        weight = 1.0 / np.maximum(error, _LEAST_SHARE * error.mean() or 1.0)
        return cls(factor, estimator, weight.astype(np.float32).reshape(tiles.shape[1:]), flat)

    def errors(self, image: Floats, tiling: Tiling, smoothing: float) -> Floats:
        """Return the logarithm of an image's smoothed error (channels, *extents), at its reduced size."""

        def squares(tiles: Floats) -> Floats:
            samples = tiles[:, 0] if self.flat else tiles
            error = np.square(self.estimator.reconstruct(samples) - samples).reshape(tiles.shape)
            return np.asarray((error * self.weight).mean(1))

        error = tiling.mapped(reduced(image, self.factor), squares)
        if smoothing:
            error = ndimage.gaussian_filter(error, smoothing, mode="reflect")
        return np.log(np.maximum(error, _TINY))


def default_estimator(n_tiles: int, size: int) -> Autoencoder:
    """Return the autoencoder of a scale: about 4000 steps over so many tiles of so many values."""
    return Autoencoder(
        latent_dim=max(1, min(64, size // 4)),
        hidden_dims=[min(256, 2 * size)],
        activation="silu",
        output_activation="linear",
        corruption="gaussian:0.5",
        scaling="center",
        optimizer="adam",
        learning_rate=0.001,
        weight_decay=0.0,
        batch_size=256,
        epochs=max(1, round(4000 * 256 / n_tiles)),
        validation_fraction=0.05,
    )
