"""One of the scales of an ``AnomalyMap``: an autoencoder of tiles and the errors it usually makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diabolo.applications.tiles import Floats, Tiling, reduced
from diabolo.estimators import Autoencoder

Doubles = NDArray[np.float64]

_MOST_EPOCHS = 400  # a handful of tiles would be learned by heart
_SOME = 4096  # tiles that say where in a tile errors are large
_LEAST_SHARE = 1e-3  # of the mean error: where less is usual, a pixel that never varies would count for all
_LEAST_CONTRAST = 0.01  # of the mean contrast: below, it is noise of the sensor
_AROUND = 2.0  # standard deviation, in pixels, of the surroundings that the contrast is measured in
_AGREED = 10.0  # times the usual error: of smaller ones the mean is nearly the arithmetic one
_TOO_WELL = 0.3  # what an error counts that is smaller than usual: a blurred place, one without texture
_PER_IMAGE = 10_000  # pixels that say what errors are usual
_LEAST_ERROR = 1e-4  # times the usual one: less is rounding, and no longer more remarkable
_FAR = 1e12  # root mean squares of the error: what is further off counts as that, whose square is a number
_LARGEST = float(np.finfo(np.float32).max)
_MOST_SCALED = 1e30  # in an autoencoder's units: layers have room beyond it


@dataclass(frozen=True)
class Typical:
    """The logarithms of errors on good images, given the logarithm c of the contrast around a pixel.

    A surface rich in contrast is restored less well, so that its error is put beside a + b c + d c^2, the
    ``curve`` (a, b, d) of good images, c being kept between ``low`` and ``high``, where they were seen.
    ``level`` and ``level_spread`` are mean and standard deviation of the images' medians of what remains,
    ``spread`` is that of the pixels around their image's median. ``floor`` is added to the contrast.
    """

    curve: tuple[float, float, float]
    low: float
    high: float
    floor: float
    level: float
    level_spread: float
    spread: float

    @classmethod
    def of(cls, samples: Iterable[Sequence[Floats]]) -> Self:
        """Return what is typical of these errors and contrasts, (n_pixels,) of each image."""
        pairs = [(errors.astype(np.float64), contrast.astype(np.float64)) for errors, contrast in samples]
        floor = _LEAST_CONTRAST * float(np.mean([contrast.mean() for _, contrast in pairs])) or 1.0
        logs = [np.log(contrast + floor) for _, contrast in pairs]
        every = np.concatenate(logs)
        curve = np.linalg.lstsq(_powers(every), np.concatenate([e for e, _ in pairs]), rcond=None)[0]
        left = [errors - _powers(log) @ curve for (errors, _), log in zip(pairs, logs, strict=True)]
        levels = [float(np.median(rest)) for rest in left]
        inside = [np.square(rest - level).mean() for rest, level in zip(left, levels, strict=True)]
        a, b, d = (float(c) for c in curve)
        return cls(
            (a, b, d),
            float(every.min()),
            float(every.max()),
            floor,
            float(np.mean(levels)),
            float(np.std(levels)),
            float(np.sqrt(np.mean(inside))),
        )

    def compared(self, errors: Floats, contrast: Floats, *, within: bool) -> Floats:
        """Return errors in standard deviations: from good images' mean, or from the image's own median.

        Those that are smaller than usual count too, a third as much.
        """
        log = np.clip(np.log(contrast + np.float32(self.floor)), self.low, self.high)
        a, b, d = self.curve
        left = errors - (a + log * (b + log * d))
        level = float(np.median(left)) if within else self.level
        spread = self.spread if within else float(np.hypot(self.spread, self.level_spread))
        heat = (left - np.float32(level)) / np.float32(spread or 1.0)
        return np.asarray(np.maximum(heat, np.float32(-_TOO_WELL) * heat), dtype=np.float32)


def _powers(values: Doubles) -> Doubles:
    return np.stack([np.ones_like(values), values, values**2], axis=1)


@dataclass(frozen=True)
class Scale:
    """An autoencoder of tiles of images that are reduced by ``factor``.

    ``weight`` (channels, *tile) is one over the mean squared error at each place of a tile: errors are larger
    at its rim, of whose surroundings less is known. ``flat`` tells that its samples have no axis of channels.
    """

    factor: int
    estimator: Autoencoder
    weight: Doubles
    flat: bool

    @classmethod
    def trained(cls, factor: int, estimator: Autoencoder, tiles: Floats, *, flat: bool) -> Self:
        """Fit ``estimator`` to tiles (n, channels, *tile) of reduced images."""
        samples = tiles[:, 0] if flat else tiles
        estimator.fit(samples)
        some = samples[:: -(-len(samples) // _SOME)]
        error = np.square(estimator.reconstruct(some) - some, dtype=np.float64).mean(0)
        weight = 1.0 / np.maximum(error, _LEAST_SHARE * error.mean() or 1.0)
        return cls(factor, estimator, weight.reshape(tiles.shape[1:]), flat)

    def errors(self, image: Floats, tiling: Tiling, smoothing: float) -> tuple[Floats, Floats]:
        """Return the logarithm of the smoothed error and the contrast of an image (channels, *extents).

        Both are (*extents) of the reduced image. The contrast is the variance around a pixel, in units of
        the mean squared error. Where tiles overlap, the harmonic mean of their errors is taken: a defect
        spoils whole tiles, but a good pixel beside it is in some tile that restores it.
        """
        root = np.sqrt(self.weight).astype(np.float32)  # squares of images' units may leave single precision

        def restored(tiles: Floats) -> Floats:
            samples = tiles[:, 0] if self.flat else tiles
            found = self.estimator.reconstruct(samples).reshape(tiles.shape)
            with np.errstate(over="ignore", invalid="ignore"):
                left = _near((found - tiles) * root)
            return np.asarray(1 / (np.square(left).mean(1) + np.float32(_AGREED)))

        small = reduced(within_reach(image, self.estimator), self.factor)
        error = np.maximum(1 / tiling.mapped(small, restored) - np.float32(_AGREED), 0)
        if smoothing:
            error = ndimage.gaussian_filter(error, smoothing, mode="reflect")
        contrast = np.zeros_like(error)
        for channel, weight in zip(small, self.weight, strict=True):
            # around the median: a single value far off would leave the others nothing of their differences
            centred = np.subtract(channel, np.median(channel), dtype=np.float64)
            centred = _near(centred * np.sqrt(weight.mean()))
            variance = ndimage.gaussian_filter(np.square(centred), _AROUND)
            variance -= np.square(ndimage.gaussian_filter(centred, _AROUND))
            contrast += np.maximum(variance, 0) / len(small)
        return np.log(np.maximum(error, np.float32(_LEAST_ERROR))), contrast


def _near(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in units of the usual error, where what is not finite is as far off as can be."""
    np.fmax(values, -_FAR, out=values)  # of a NaN and a number this is the number
    np.fmin(values, _FAR, out=values)
    return values


def within_reach(image: Floats, estimator: Autoencoder) -> Floats:
    """Return an image whose values stay in single precision when an autoencoder scales them."""
    scaler = estimator._scaler
    low = max(float(np.max(scaler.offset - _MOST_SCALED * scaler.scale)), -_LARGEST)
    high = min(float(np.min(scaler.offset + _MOST_SCALED * scaler.scale)), _LARGEST)
    return image if low <= image.min() and image.max() <= high else np.clip(image, low, high)


def default_estimator(n_tiles: int, size: int) -> Autoencoder:
    """Return the autoencoder of a scale: about 4000 steps over so many tiles of so many values.

    Fewer where there are so few tiles that they would be learned by heart.
    """
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
        epochs=max(1, min(_MOST_EPOCHS, round(4000 * 256 / n_tiles))),
        validation_fraction=0.05,
    )


def some_pixels(chance: np.random.RandomState, *maps: Floats, most: int = _PER_IMAGE) -> list[Floats]:
    """Return the values of maps of one size at up to ``most`` places, flat."""
    n = maps[0].size
    if n <= most:
        return [values.reshape(-1) for values in maps]
    places = chance.randint(n, size=most)
    return [values.reshape(-1)[places] for values in maps]
