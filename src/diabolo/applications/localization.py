"""``AnomalyMap``: where in an image something is unlike the good images it was trained on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from diabolo.applications.calibration import Calibration, check_rate
from diabolo.applications.pictures import Pictures, check_pictures
from diabolo.applications.regions import Region, regions_of
from diabolo.applications.scale import Scale, Typical, default_estimator, some_pixels
from diabolo.applications.tiles import Floats, Tiling, enlarged, reduced
from diabolo.errors import CalibrationWarning, InvalidDataError, InvalidParameterError
from diabolo.estimators import Autoencoder
from diabolo.estimators.validation import check_seed
from diabolo.names import check_name
from diabolo.parts import check_range

Doubles = NDArray[np.float64]
Progress = Callable[[float, str], None]

REFERENCES = ("training", "image")
_TILES = 40_000  # that a scale learns from
_TYPICAL = 64  # training images that say what errors are typical
_PIXELS = 200_000  # of held-out images that the pixels' threshold comes from
_HIGHEST = 100  # one in so many pixels makes the image's score
_MOST_SCALES, _SCALES = 4, 3  # of 1, 2, 4, 8 the coarsest three that fit


@dataclass(kw_only=True, eq=False, repr=False)
class AnomalyMap(BaseEstimator):  # type: ignore[misc]
    r"""Finds the areas of images that its autoencoders, trained on good images, fail to restore.

    Images, at several scales, are cut into overlapping tiles, which one autoencoder per scale restores. The
    logarithm of the squared error, in units of what is usual at its place in a tile, smoothed, is put beside
    what is typical of good images:

    .. math:: h(p) = \frac{1}{\sqrt{K}} \sum_{k=1}^{K} \frac{\log e_k(p) - f_k(c_k(p)) - m_k}{s_k}

    where :math:`f_k` is a parabola fitted to good images that tells the error usual for the contrast
    :math:`c_k` around a pixel, :math:`m_k` the mean of what remains (``reference="training"``) or its
    median over the image itself (``reference="image"``: only what is unlike its surroundings, whatever the
    lighting), and :math:`s_k` the standard deviation of the numerator on good images. An image's score is
    the mean of the highest hundredth of its map: a single pixel would be a matter of chance, the more the
    larger the image is.
    Both thresholds come from whole images that the weights have not seen.

    Images are (height, width) or (channels, height, width), all with the same number of channels; volumes
    likewise with (depth, height, width). Each may have a size of its own.

    Parameters
    ----------
    estimator : Autoencoder, optional
        Unfitted; a copy is trained on the tiles of every scale, (n, [channels,] tile, tile). None: a
        denoising one of dense layers.
    tile : int >= 4, optional
        Extent of a tile along every axis, in pixels of its scale. None: 16, for volumes 8.
    overlap : float in [0, 1), default=0.75
        Share of a tile that the next one covers too.
    scales : sequence of int >= 1, optional
        Factors by which images are reduced. None: of 1, 2, 4, 8 those up to the first at which a tile is as
        large as half of the smallest image, the coarsest three of them.
    smoothing : float >= 0, default=2
        Standard deviation of the Gaussian that errors are smoothed with, in pixels of their scale.
    reference : {"training", "image"}, default="training"
        What the errors of an image are compared with.
    n_dims : {2, 3}, default=2
        3 for volumes.
    false_alarm_rate : float in (0, 1), default=0.01
        Share of good images that may be flagged, and of pixels of good images that a mask may show.
        ``set_threshold`` changes it after fit.
    calibration_fraction : float in (0, 1), default=0.2
        Share of images, or of groups, held out for the thresholds; at least one.
    random_state : int, RandomState or None, default=None
        Seed. The same seed on the same machine gives the same bytes.

    Attributes
    ----------
    scales_ : list of Scale
        Per scale its factor, the autoencoder and the errors that are usual.
    tile_ : int
    n_channels_ : int
        0 for images without an axis of channels.
    typical_ : list of Typical
        What errors are like on good images, per scale.
    calibration_ : Calibration
        Scores of the held-out images, higher = more anomalous.
    pixel_calibration_ : Calibration
        Values of the heat maps at some of their pixels.
    threshold_ : float
        Images with a higher score are anomalies.
    pixel_threshold_ : float
        Pixels with a higher value are in the mask.
    """

    estimator: Autoencoder | None = None
    tile: int | None = None
    overlap: float = 0.75
    scales: Sequence[int] | None = None
    smoothing: float = 2.0
    reference: str = "training"
    n_dims: int = 2
    false_alarm_rate: float = 0.01
    calibration_fraction: float = 0.2
    random_state: int | np.random.RandomState | None = None

    # ------------------------------------------------------------------ fitting
    def fit(
        self, images: Any, y: Any = None, *, groups: Any = None, progress: Progress | None = None
    ) -> Self:
        """Learn what good images look like.

        Parameters
        ----------
        images : array (n, [channels,] [depth,] height, width), or list of arrays of different sizes
            Good images only, 2 at least.
        y : ignored
        groups : array (n,), optional
            What belongs together, such as the pictures of one part or the slices of one patient: it is held
            out together, as otherwise the thresholds would be too low for parts and patients not seen yet.
        progress : callable(share, what), optional
            Called now and then with the share of the work that is done, and what is being done.

        Raises
        ------
        InvalidDataError, InvalidParameterError, IncompatiblePartsError, DivergedError

        Warns
        -----
        CalibrationWarning
            Where too few images are held out for the false-alarm rate: with n of them it is 1 / (n + 1) at
            least. The pixels' threshold is not concerned.
        """
        self._check_settings()
        pictures = check_pictures(images, self.n_dims)
        chance = np.random.RandomState(check_seed(self.random_state).randint(np.iinfo(np.int32).max))
        held_out = self._held_out(len(pictures), groups, chance)
        for name in ("scales_", "calibration_"):
            self.__dict__.pop(name, None)
        self.n_channels_ = pictures.n_channels
        self.tile_, factors = self._sizes(pictures)
        tell = progress or (lambda share, what: None)
        training = [i for i in range(len(pictures)) if i not in held_out]
        scales: list[Scale] = []
        for k, factor in enumerate(factors):
            tell(k / (len(factors) + 1), f"training at scale 1/{factor}")
            scales.append(self._trained(pictures, training, factor, chance))
        tell(len(factors) / (len(factors) + 1), "looking at images held out")
        self.scales_ = scales
        some = sorted(chance.permutation(training)[:_TYPICAL].tolist())
        self.typical_ = [
            Typical.of(some_pixels(chance, *self._errors(scale, pictures[i])) for i in some)
            for scale in scales
        ]
        scores: list[float] = []
        pixels: list[Floats] = []
        for i in sorted(held_out):
            heat = self._heat(pictures[i])
            scores.append(self._image_score(heat))
            pixels.extend(some_pixels(chance, heat, most=max(1, _PIXELS // len(held_out))))
        self.calibration_ = Calibration(np.array(scores))
        self.pixel_calibration_ = Calibration(np.concatenate(pixels))
        self.set_threshold(false_alarm_rate=self.false_alarm_rate)
        tell(1.0, "done")
        return self

    def _check_settings(self) -> None:
        if self.estimator is not None and not isinstance(self.estimator, Autoencoder):
            raise InvalidParameterError(
                f"estimator must be one of diabolo's autoencoders; got {type(self.estimator).__name__}. "
                "Leave it out for the default."
            )
        if self.tile is not None:
            check_range("tile", self.tile, low=4, integer=True)
        check_range("overlap", self.overlap, low=0, high=1, open_high=True)
        check_range("smoothing", self.smoothing, low=0)
        check_name("reference", self.reference, REFERENCES)
        if self.n_dims not in (2, 3):
            raise InvalidParameterError(f"n_dims must be 2 or 3; got {self.n_dims!r}. Give 3 for volumes.")
        check_rate("false_alarm_rate", self.false_alarm_rate)
        check_rate("calibration_fraction", self.calibration_fraction)

    def _sizes(self, pictures: Pictures) -> tuple[int, tuple[int, ...]]:
        tile = (16 if self.n_dims == 2 else 8) if self.tile is None else int(self.tile)
        if self.scales is not None:
            scales = tuple(self.scales)
            for scale in scales:
                check_range("scales", scale, low=1, integer=True)
            if not scales or len(set(scales)) < len(scales):
                raise InvalidParameterError(
                    f"scales must be different integers, at least one; got {self.scales!r}. "
                    "Give for example (1, 2, 4)."
                )
            return tile, tuple(int(s) for s in scales)
        n = 1
        while n < _MOST_SCALES and pictures.smallest > tile * 2 ** (n - 1):
            n += 1
        return tile, tuple(2**k for k in range(n))[-_SCALES:]

    @property
    def _tiling(self) -> Tiling:
        return Tiling(self.tile_, max(1, round(self.tile_ * (1 - self.overlap))))

    def _held_out(self, n: int, groups: Any, chance: np.random.RandomState) -> set[int]:
        labels = np.arange(n) if groups is None else np.asarray(groups)
        if labels.shape != (n,):
            raise InvalidDataError(
                f"groups must hold one label per image, {n}; got the shape {labels.shape}. "
                "Give an array of labels."
            )
        each = np.unique(labels)
        if len(each) < 2:
            raise InvalidDataError(
                f"images must be at least 2{'' if groups is None else ' groups'}, as some are held out for "
                f"the thresholds; got {len(each)}. Give more good images; a large one can be cut into parts."
            )
        k = min(max(1, round(self.calibration_fraction * len(each))), len(each) - 1)
        return set(np.flatnonzero(np.isin(labels, chance.permutation(each)[:k])).tolist())

    def _trained(
        self, pictures: Pictures, training: list[int], factor: int, chance: np.random.RandomState
    ) -> Scale:
        n = -(-_TILES // len(training))
        small = (reduced(pictures[i], factor) for i in training)
        tiles = np.concatenate([self._tiling.sample(image, n, chance) for image in small])
        estimator = (
            default_estimator(len(tiles), tiles[0].size) if self.estimator is None else clone(self.estimator)
        )
        estimator.set_params(random_state=int(chance.randint(np.iinfo(np.int32).max)))
        return Scale.trained(factor, estimator, tiles, flat=not self.n_channels_)

    # ------------------------------------------------------------------ maps
    def _errors(self, scale: Scale, image: Floats) -> tuple[Floats, Floats]:
        return scale.errors(image, self._tiling, self.smoothing)

    def _heat(self, image: Floats) -> Floats:
        total = np.zeros(image.shape[1:], dtype=np.float32)
        for scale, typical in zip(self.scales_, self.typical_, strict=True):
            heat = typical.compared(*self._errors(scale, image), within=self.reference == "image")
            total += enlarged(heat, scale.factor, total.shape)
        return total / np.float32(np.sqrt(len(self.scales_)))

    def heatmap(self, images: Any) -> Any:
        """Return how unlike good images each place is, higher = more anomalous, about 0 on average.

        Parameters
        ----------
        images : array (n, [channels,] [depth,] height, width), or list of arrays of different sizes

        Returns
        -------
        array (n, [depth,] height, width), or a list of arrays where images came as a list
        """
        maps = list(self.heatmaps(images))
        return maps if isinstance(images, list) else np.stack(maps)

    def heatmaps(self, images: Any) -> Iterator[Floats]:
        """Return the same one by one, so that one map at a time is in memory."""
        pictures = self._pictures(images)
        return (self._heat(pictures[i]) for i in range(len(pictures)))

    def _pictures(self, images: Any) -> Pictures:
        check_is_fitted(self, "calibration_")
        return check_pictures(images, self.n_dims, self.n_channels_)

    @staticmethod
    def _image_score(heat: Floats) -> float:
        n = max(1, heat.size // _HIGHEST)
        return float(np.partition(heat.reshape(-1), heat.size - n)[-n:].mean(dtype=np.float64))

    # ------------------------------------------------------------------ verdicts
    def score_samples(self, images: Any) -> Doubles:
        """Return how normal each image is, (n,), higher = more normal.

        The negative mean of the highest hundredth of its heat map.
        """
        return -np.array([self._image_score(heat) for heat in self.heatmaps(images)])

    def decision_function(self, images: Any) -> Doubles:
        """Return ``score_samples`` beside the threshold, (n,): negative = anomalous."""
        return self.score_samples(images) + self.threshold_

    def predict(self, images: Any) -> NDArray[np.int64]:
        """Return 1 for images that look normal and -1 for others, (n,)."""
        return np.where(self.decision_function(images) < 0, -1, 1).astype(np.int64)

    def p_value(self, images: Any) -> Doubles:
        """Return the share of good images that would look at least so anomalous, (n,), in (0, 1].

        Valid for images that are exchangeable with the held-out ones: see ``Calibration``.
        """
        return self.calibration_.p_value(-self.score_samples(images))

    def mask(self, images: Any, threshold: float | None = None) -> Any:
        """Return where the heat map is above the threshold, of the shape that ``heatmap`` returns.

        ``threshold`` is in units of the map; None: ``pixel_threshold_``.
        """
        level = self._level(threshold)
        masks = [heat > level for heat in self.heatmaps(images)]
        return masks if isinstance(images, list) else np.stack(masks)

    def regions(self, images: Any, threshold: float | None = None) -> list[list[Region]]:
        """Return the connected areas of each image's mask, the one with the highest peak first."""
        level = self._level(threshold)
        return [regions_of(heat, level) for heat in self.heatmaps(images)]

    def _level(self, threshold: float | None) -> float:
        check_is_fitted(self, "calibration_")
        if threshold is None:
            return self.pixel_threshold_
        check_range("threshold", threshold)
        return float(threshold)

    def set_threshold(
        self, *, false_alarm_rate: float | None = None, value: float | None = None, pixel: float | None = None
    ) -> Self:
        """Choose the thresholds anew, without training.

        Parameters
        ----------
        false_alarm_rate : float in (0, 1), optional
            Share of good images, and of pixels of good images, that may be flagged: sets both thresholds.
        value : float, optional
            The images' threshold itself: images with a higher score are anomalies.
        pixel : float, optional
            The pixels' threshold itself, in units of the map.

        Raises
        ------
        InvalidParameterError
            Where nothing is given, or a rate beside one of the others.
        """
        check_is_fitted(self, "calibration_")
        if (false_alarm_rate is not None) == (value is not None or pixel is not None):
            raise InvalidParameterError(
                "set_threshold must get either a false_alarm_rate or the thresholds themselves; got "
                f"false_alarm_rate={false_alarm_rate!r}, value={value!r}, pixel={pixel!r}. Give one of them."
            )
        if false_alarm_rate is not None:
            pixels = self.pixel_calibration_
            self.pixel_threshold_ = min(pixels.threshold(false_alarm_rate), float(pixels.scores[-1]))
            self.threshold_ = self._promised(false_alarm_rate)
        if value is not None:
            check_range("value", value)
            self.threshold_ = float(value)
        if pixel is not None:
            check_range("pixel", pixel)
            self.pixel_threshold_ = float(pixel)
        return self

    def _promised(self, rate: float) -> float:
        threshold = self.calibration_.threshold(rate)
        if np.isfinite(threshold):
            return threshold
        n = len(self.calibration_.scores)
        warnings.warn(
            f"a false-alarm rate must be at least 1 / {n + 1} = {self.calibration_.least_rate:.2g} to be "
            f"promised for images by {n} held out; got {rate:g}. Images beyond the most anomalous of these "
            "are flagged; give more images, or a higher rate.",
            CalibrationWarning,
            stacklevel=3,
        )
        return float(self.calibration_.scores[-1])

    # ------------------------------------------------------------------ files
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted map to one file, whole or not at all; ``AnomalyMap.load`` reads it.

        Raises
        ------
        ModelFileError
            Where the place cannot be written.
        """
        from diabolo.applications.localization_files import write_map

        check_is_fitted(self, "calibration_")
        return write_map(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AnomalyMap:
        """Read a map that ``save`` wrote; nothing is unpickled.

        Raises
        ------
        ModelFileError
            For a file that is missing, damaged, foreign, hostile or of a later version.
        """
        from diabolo.applications.localization_files import read_map

        return read_map(path)
