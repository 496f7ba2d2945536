"""What a fitted ``AnomalyMap`` does: heat maps, scores, verdicts, masks, areas, its thresholds, a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from diabolo.applications.calibration import Calibration
from diabolo.applications.grouped import GroupedCalibration, beyond_promise
from diabolo.applications.pictures import check_pictures
from diabolo.applications.regions import Region, regions_of
from diabolo.applications.scale import Scale, Typical
from diabolo.applications.tiles import Floats, Tiling, enlarged
from diabolo.applications.whole import Whole
from diabolo.errors import CalibrationWarning, InvalidParameterError, outside
from diabolo.parts import check_range

Doubles = NDArray[np.float64]

_HIGHEST, _HIGHEST_ALIGNED = 100, 10  # one in so many pixels makes the image's score


class Locating(BaseEstimator):  # type: ignore[misc]
    """All that needs trained autoencoders and no training. Abstract: ``AnomalyMap`` sets the attributes."""

    settings_: dict[str, Any]
    scales_: list[Scale]
    typical_: list[Typical]
    whole_: Whole | None
    tile_: int
    stride_: int
    smoothing_: float
    n_channels_: int
    size_: tuple[int, ...] | None
    origin_: dict[str, str]  # what the command line notes of the images in fit; else empty
    calibration_: Calibration
    pixel_calibration_: Calibration
    threshold_: float
    pixel_threshold_: float

    def _settings(self) -> dict[str, Any]:
        """Return the parameters: a fit keeps those that it was called with, for maps and files."""
        settings = {name: getattr(self, name) for name in self._get_param_names()}
        if settings["estimator"] is not None:
            settings["estimator"] = clone(settings["estimator"])  # whose own may be set after fit
        return settings

    # ------------------------------------------------------------------ maps
    @property
    def _tiling(self) -> Tiling:
        return Tiling(self.tile_, self.stride_)

    @property
    def factors(self) -> list[int]:
        """By what images are reduced for each autoencoder."""
        return [scale.factor for scale in self.scales_] if self.whole_ is None else [self.whole_.factor]

    def _errors(self, scale: Scale, image: Floats) -> tuple[Floats, Floats]:
        return scale.errors(image, self._tiling, self.smoothing_)

    def _heat(self, image: Floats) -> Floats:
        heat = self._compared(image)
        heat[np.isnan(heat)] = np.inf  # beyond what can be computed is beyond every threshold
        return heat

    def _compared(self, image: Floats) -> Floats:
        if self.whole_ is not None:
            return self.whole_.heat(
                image,
                smoothing=self.smoothing_,
                side=self.settings_["symmetry"],
                polarity=self.settings_["polarity"],
            )
        within = self.settings_["reference"] == "image"
        total = np.zeros(image.shape[1:], dtype=np.float32)
        for scale, typical in zip(self.scales_, self.typical_, strict=True):
            heat = typical.compared(*self._errors(scale, image), within=within)
            total += enlarged(heat, scale.factor, total.shape)
        return total / np.float32(np.sqrt(len(self.scales_)))

    def heatmap(self, images: Any) -> Any:
        """Return how unlike good images each place is, higher = more anomalous.

        On good images about 0.5 on average, 0.7 with two scales; with ``layout="aligned"`` and both
        polarities about 1.

        Parameters
        ----------
        images : array (n, [channels,] [depth,] height, width), sequence of arrays, or source
            As in ``fit``.

        Returns
        -------
        array (n, [depth,] height, width), or a list of arrays where images came as a sequence
        """
        maps = list(self.heatmaps(images))
        return maps if isinstance(images, Sequence) else np.stack(maps)

    def heatmaps(self, images: Any) -> Iterator[Floats]:
        """Return the same one by one, so that one map at a time is in memory.

        So is one image, where they are read as they are asked for.
        """
        check_is_fitted(self, "calibration_")
        pictures = check_pictures(images, self.settings_["n_dims"], self.n_channels_, self.size_)
        return (self._heat(image) for image in pictures.each())

    def _image_score(self, heat: Floats) -> float:
        n = max(1, heat.size // (_HIGHEST if self.whole_ is None else _HIGHEST_ALIGNED))
        return float(np.partition(heat.reshape(-1), heat.size - n)[-n:].mean(dtype=np.float64))

    # ------------------------------------------------------------------ verdicts
    def score_samples(self, images: Any) -> Doubles:
        """Return how normal each image is, (n,), higher = more normal.

        The negative mean of the highest hundredth of its heat map, of the highest tenth with
        ``layout="aligned"``.
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

        Valid for images that are exchangeable with the held-out ones: see ``Calibration``. Where fit got
        groups, every group held out counts as one, and what is exchangeable are the groups: see
        ``GroupedCalibration``. n of these give no p-value below 1 / (n + 1).
        """
        return self.calibration_.p_value(-self.score_samples(images))

    def mask(self, images: Any, threshold: float | None = None) -> Any:
        """Return where the heat map is above the threshold, of the shape that ``heatmap`` returns.

        ``threshold`` is in units of the map; None: ``pixel_threshold_``.
        """
        level = self._level(threshold)
        masks = [heat > level for heat in self.heatmaps(images)]
        return masks if isinstance(images, Sequence) else np.stack(masks)

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
            The images' holds whatever their distribution where at least 1 / false_alarm_rate - 1 images, or
            groups, were held out; with fewer it goes by a normal distribution of the scores of these, and is
            the highest of them at least; with a single one it is the highest.
        value : float, optional
            The images' threshold itself: images with a higher score are anomalies.
        pixel : float, optional
            The pixels' threshold itself, in units of the map.

        Raises
        ------
        InvalidParameterError
            Where nothing is given, or a rate beside one of the others.

        Warns
        -----
        CalibrationWarning
            Where too few images or groups are held out to promise the rate for images.
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
        n, one, several = len(self.calibration_.scores), "image", "images"
        if isinstance(self.calibration_, GroupedCalibration):
            n, one, several = self.calibration_.n_groups, "group of images", "groups of images"
        rests = "is now the highest score of this one, which tells nothing of how far good ones differ"
        if n > 1:
            rests = "now rests on a normal distribution of the scores of these"
        warnings.warn(
            f"a false-alarm rate must be at least 1 / {n + 1} = {self.calibration_.least_rate:.2g} to be "
            f"promised for images by {n} {several if n > 1 else one} held out; got {rate:g}. Their threshold "
            f"{rests}; give more {several}, or a higher rate.",
            CalibrationWarning,
            stacklevel=outside(),
        )
        return beyond_promise(self.calibration_, rate)

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
