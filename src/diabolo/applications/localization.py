"""``AnomalyMap``: where in an image something is unlike the good images it was trained on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import clone

from diabolo.applications.calibration import Calibration, check_rate
from diabolo.applications.grouped import GroupedCalibration
from diabolo.applications.maps import Locating
from diabolo.applications.pictures import Surveyed, survey
from diabolo.applications.scale import Scale, Typical, default_estimator, some_pixels
from diabolo.applications.tiles import Floats, reduced
from diabolo.applications.whole import POLARITIES, Whole, copies, default_net, factor_for
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.estimators import Autoencoder
from diabolo.estimators.validation import check_seed
from diabolo.names import check_name
from diabolo.parts import check_range

Progress = Callable[[float, str], None]

LAYOUTS = ("tiles", "aligned")
REFERENCES = ("training", "image")
_TILES = 40_000  # that a scale learns from
_TYPICAL = 64  # training images that say what errors are typical
_HELD_OUT = 5  # images or groups, at least: fewer say next to nothing about how far good ones differ
_PIXELS = 200_000  # of held-out images that the pixels' threshold comes from
_WHOLE = 500  # the same where images are aligned
_MOST_SCALES, _SCALES = 4, 3  # of 1, 2, 4, 8 the coarsest three that fit
_SIDE_BY_SIDE = 2.5  # tiles in the median image, at least
_TILE = {2: 16, 3: 8}
_MOST_SMOOTHING = 100  # a kernel beyond takes as much memory as a file asks for
_MOST_TILE = {2: 1024, 3: 128}


@dataclass(kw_only=True, eq=False, repr=False)
class AnomalyMap(Locating):
    r"""Finds the areas of images that its autoencoders, trained on good images, fail to restore.

    ``layout="tiles"`` is for surfaces, where anything may lie anywhere. Images, at several scales, are cut
    into overlapping tiles, which one autoencoder per scale restores. The logarithm of the squared error, in
    units of what is usual at its place in a tile, smoothed, 1e-4 at least, is put beside what is typical of
    good images:

    .. math:: h_k(p) = \frac{\log e_k(p) - f_k(c_k(p)) - m_k}{s_k}, \qquad
              h(p) = \frac{1}{\sqrt{K}} \sum_{k=1}^{K} \max(h_k(p), -0.3\, h_k(p))

    where :math:`f_k` is a parabola fitted to good images that tells the error usual for the contrast
    :math:`c_k` around a pixel, :math:`m_k` the mean of what remains (``reference="training"``) or its
    median over the image itself (``reference="image"``: only what is unlike its surroundings, whatever the
    lighting), and :math:`s_k` the standard deviation of the numerator on good images. What is restored too
    well counts a little: a place that is blurred, or without its texture.

    ``layout="aligned"`` is for images of one size that show the same thing in the same place: parts in a
    holder, faces, slices of heads. One autoencoder sees the whole image x, reduced, and restores it as
    :math:`\hat x`. With G for smoothing, and means and variances of good images,

    .. math:: z(p) = \frac{[G(x - \hat x)](p) - m(p)}{\sqrt{a + b\,c(p)}}, \qquad
              u(p) = \frac{[G x](p) - \bar x(p)}{\sqrt{a' + b' c(p)}},

    where m and :math:`\bar x` are the means at that place and c is the variance of :math:`\hat x` around
    the pixel: where a picture has edges, these lie here today and there tomorrow. The map is abs(z), or with
    ``polarity="bright"`` the mean of z and u, by how much it is brighter than restored and brighter than
    usual there, with ``"dark"`` that of -z and -u. Several channels: the root mean square of z; the means
    of z and u.

    An image's score is the mean of the highest hundredth of its map (aligned: tenth): a single pixel would be
    a matter of chance, the more the larger the image is. Both thresholds come from whole images that the
    weights have not seen.

    Images are (height, width) or (channels, height, width), all with the same number of channels; volumes
    likewise with (depth, height, width). Each may have a size of its own unless they are aligned.

    Parameters
    ----------
    layout : {"tiles", "aligned"}, default="tiles"
        Whether anything may lie anywhere, or every image shows the same in the same place.
    estimator : Autoencoder, optional
        Unfitted; a copy is trained on the tiles of every scale, (n, [channels,] tile, tile), or on the
        reduced images. None: a denoising one of dense layers.
    tile : int >= 4, optional
        Extent of a tile along every axis, in pixels of its scale. None: 16, for volumes 8; less, down to
        half of it, where the median image has no place for 2.5 of these side by side. Aligned: about as
        many pixels along an axis are left of the image; None: 32, for volumes 16.
    overlap : float in [0, 1), optional
        Share of a tile that the next one covers too. None: 0.75. Not with ``layout="aligned"``.
    scales : sequence of int >= 1, optional
        Factors by which images are reduced, at most the smallest extent. None: 1, and of 2, 4, 8 those at
        which 2.5 tiles fit side by side into the median image, the coarsest three of them: a tile that is
        nearly the image does not tell where. Not with ``layout="aligned"``.
    smoothing : float in [0, 100], optional
        Standard deviation of the Gaussian that errors are smoothed with, in pixels of their scale, or of
        the reduced image. None: 2; 1 where images are so small that there is the scale 1 only, and where
        they are aligned.
    reference : {"training", "image"}, default="training"
        What the errors of an image are compared with. Aligned: "training" only.
    polarity : {"both", "bright", "dark"}, default="both"
        What counts: any difference, or what is brighter, or darker, than it should be. Aligned only.
    symmetry : int from -n_dims to -1, optional
        Axis along which both halves of an image look alike, -1 for left and right: then only counts what is
        not restored on the one side but is on the other. Aligned only.
    n_dims : {2, 3}, default=2
        3 for volumes.
    false_alarm_rate : float in (0, 1), default=0.01
        Share of good images that may be flagged, and of pixels of good images that a mask may show.
        ``set_threshold`` changes it after fit.
    calibration_fraction : float in (0, 1), default=0.2
        Share of images, or of groups, held out for the thresholds; 5 at least, or a third of fewer than 15.
    random_state : int, RandomState or None, default=None
        Seed. The same seed on the same machine gives the same bytes.

    Attributes
    ----------
    scales_ : list of Scale
        Per scale its factor, the autoencoder and the errors that are usual. Empty where aligned.
    typical_ : list of Typical
        What errors are like on good images, per scale.
    whole_ : Whole or None
        Where aligned: the factor, the autoencoder and what is usual at each place.
    tile_ : int
    n_channels_ : int
        0 for images without an axis of channels.
    size_ : tuple of int or None
        Where aligned: the extents of every image.
    calibration_ : Calibration
        Scores of the held-out images, higher = more anomalous. ``GroupedCalibration`` where fit got groups.
    pixel_calibration_ : Calibration
        Values of the heat maps at some of their pixels.
    threshold_ : float
        Images with a higher score are anomalies.
    pixel_threshold_ : float
        Pixels with a higher value are in the mask.
    settings_ : dict
        The parameters that fit was called with: maps and files go by these.
    """

    layout: str = "tiles"
    estimator: Autoencoder | None = None
    tile: int | None = None
    overlap: float | None = None
    scales: Iterable[int] | None = None
    smoothing: float | None = None
    reference: str = "training"
    polarity: str = "both"
    symmetry: int | None = None
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
        images : array (n, [channels,] [depth,] height, width), sequence of arrays, or source
            Good images only, 2 at least. The arrays of a list or another sequence may differ in size. A
            source such as ``diabolo.data.ImageFolderSource`` is read several times, one chunk at a time; a
            sequence of your own, whose items are made when they are asked for, one image at a time.
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
            Where too few images, or groups, are held out for the false-alarm rate: n of them can promise
            1 / (n + 1) at least. The pixels' threshold is not concerned.
        """
        self._check_settings()
        tell = progress or (lambda share, what: None)
        tell(0.0, "looking at images")
        pictures = survey(images, self.n_dims, aligned=self.layout == "aligned")
        assert pictures.n_channels is not None
        chance = np.random.RandomState(check_seed(self.random_state).randint(np.iinfo(np.int32).max))
        held_out = self._held_out(len(pictures), groups, chance)
        for name in ("scales_", "whole_", "calibration_"):
            self.__dict__.pop(name, None)
        self.settings_ = self._settings()
        self.n_channels_, self.size_, self.origin_ = pictures.n_channels, pictures.size, {}
        training = [i for i in range(len(pictures)) if i not in held_out]
        if self.size_ is None:
            self._learn_tiles(pictures, training, chance, tell)
        else:
            self._learn_whole(pictures, training, chance, tell)
        scores: list[float] = []
        pixels: list[Floats] = []
        for image in pictures.each(sorted(held_out)):
            heat = self._heat(image)
            scores.append(self._image_score(heat))
            pixels.extend(some_pixels(chance, heat, most=max(1, _PIXELS // len(held_out))))
        self.calibration_ = Calibration(np.array(scores))
        if groups is not None:
            of = [np.asarray(groups, dtype=object)[i] for i in sorted(held_out)]
            numbers = np.unique(np.array(of, dtype=object), return_inverse=True)[1]
            self.calibration_ = GroupedCalibration(np.array(scores), numbers)
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
        if self.n_dims not in (2, 3) or isinstance(self.n_dims, bool):
            raise InvalidParameterError(f"n_dims must be 2 or 3; got {self.n_dims!r}. Give 3 for volumes.")
        if self.tile is not None:
            check_range("tile", self.tile, low=4, high=_MOST_TILE[self.n_dims], integer=True)
        if self.overlap is not None:
            check_range("overlap", self.overlap, low=0, high=1, open_high=True)
        if self.smoothing is not None:
            check_range("smoothing", self.smoothing, low=0, high=_MOST_SMOOTHING)
        if self.symmetry is not None:
            check_range("symmetry", self.symmetry, low=-self.n_dims, high=-1, integer=True)
        self._factors()
        check_name("layout", self.layout, LAYOUTS)
        check_name("reference", self.reference, REFERENCES)
        check_name("polarity", self.polarity, POLARITIES)
        aligned = self.layout == "aligned"
        idle = {"overlap": None, "scales": None, "reference": "training"}
        for name, default in (idle if aligned else {"polarity": "both", "symmetry": None}).items():
            given = getattr(self, name)
            if given is not None and (default is None or given != default):
                raise InvalidParameterError(
                    f"{name} must be left out with layout={self.layout!r}, where it has no effect; got "
                    f"{given!r}. Leave it out, or give layout={'tiles' if aligned else 'aligned'!r}."
                )
        check_rate("false_alarm_rate", self.false_alarm_rate)
        check_rate("calibration_fraction", self.calibration_fraction)

    def _factors(self) -> tuple[int, ...] | None:
        if self.scales is None:
            return None
        wrong = InvalidParameterError(
            f"scales must be different integers, at least one; got {self.scales!r}. "
            "Give for example (1, 2, 4)."
        )
        sequence = isinstance(self.scales, (list, tuple, range, np.ndarray))
        if not sequence or getattr(self.scales, "ndim", 1) != 1:
            raise wrong
        for scale in self.scales:
            check_range("scales", scale, low=1, integer=True)
        factors = tuple(int(scale) for scale in self.scales)
        if not factors or len(set(factors)) < len(factors):
            raise wrong
        return factors

    def _tile_for(self, pictures: Surveyed) -> int:
        if self.tile is not None:
            return int(self.tile)
        tile = _TILE[self.n_dims]
        if self.layout == "aligned":
            return 2 * tile
        return max(tile // 2, min(tile, int(pictures.typical / _SIDE_BY_SIDE)))

    def _settle(self, tile: int, factors: Sequence[int] = ()) -> None:
        """Fill in what was left to the layout and the scales."""
        check_range("tile", tile, low=4, high=_MOST_TILE[self.n_dims], integer=True)
        aligned = self.layout == "aligned"
        self.tile_ = tile
        overlap = 0.75 if self.overlap is None else self.overlap
        self.stride_ = max(1, round(self.tile_ * (1 - overlap)))
        fine = aligned or tuple(factors) == (1,)  # a mask twice as wide as a small defect is of no use
        self.smoothing_ = float((1 if fine else 2) if self.smoothing is None else self.smoothing)

    def _sizes(self, pictures: Surveyed) -> tuple[int, ...]:
        """Return the factors of the scales."""
        factors = self._factors()
        if factors is None:
            n = 1
            while n < _MOST_SCALES and pictures.typical >= _SIDE_BY_SIDE * self.tile_ * 2**n:
                n += 1
            return tuple(2**k for k in range(n))[-_SCALES:]
        if max(factors) > pictures.smallest:
            raise InvalidParameterError(
                f"scales must be at most the smallest extent of the images, {pictures.smallest}; got "
                f"{max(factors)}. Leave it out for scales that fit."
            )
        return factors

    def _held_out(self, n: int, groups: Any, chance: np.random.RandomState) -> set[int]:
        labels = np.arange(n) if groups is None else np.asarray(groups, dtype=object)
        if labels.shape != (n,):
            raise InvalidDataError(
                f"groups must hold one label per image, {n}; got the shape {labels.shape}. "
                "Give an array of labels."
            )
        kinds = {_kind_of(label) for label in labels}
        if kinds not in ({"text"}, {"number"}):
            raise InvalidDataError(
                "groups must be labels of one kind, all texts or all numbers; got "
                f"{', '.join(sorted(kinds))}. Give every image a label of its part or patient."
            )
        each = np.unique(labels)
        if len(each) < 2:
            raise InvalidDataError(
                f"images must be at least 2{'' if groups is None else ' groups'}, as some are held out for "
                f"the thresholds; got {len(each)}. Give more good images; a large one can be cut into parts."
            )
        least = max(1, min(_HELD_OUT, len(each) // 3))
        k = min(max(least, round(self.calibration_fraction * len(each))), len(each) - 1)
        return set(np.flatnonzero(np.isin(labels, chance.permutation(each)[:k])).tolist())

    def _learn_tiles(
        self, pictures: Surveyed, training: list[int], chance: np.random.RandomState, tell: Progress
    ) -> None:
        self._settle(self._tile_for(pictures))
        factors = self._sizes(pictures)
        self._settle(self.tile_, factors)
        scales: list[Scale] = []
        for k, factor in enumerate(factors):
            tell(k / (len(factors) + 1), f"training at scale 1/{factor}")
            scales.append(self._trained(pictures, training, factor, chance))
        tell(len(factors) / (len(factors) + 1), "looking at images held out")
        some = sorted(chance.permutation(training)[:_TYPICAL].tolist())
        self.scales_, self.whole_ = scales, None
        self.typical_ = [
            Typical.of(some_pixels(chance, *self._errors(scale, image)) for image in pictures.each(some))
            for scale in scales
        ]

    def _learn_whole(
        self, pictures: Surveyed, training: list[int], chance: np.random.RandomState, tell: Progress
    ) -> None:
        self._settle(self._tile_for(pictures))
        assert self.size_ is not None
        factor = factor_for(self.size_, self.tile_)
        tell(0.0, f"training on images at scale 1/{factor}")
        samples = copies(pictures.each(training), len(training), factor, self.symmetry, chance)
        some = sorted(chance.permutation(training)[:_WHOLE].tolist())
        good = np.stack([reduced(image, factor) for image in pictures.each(some)])
        whole = Whole.trained(
            factor,
            self._estimator(default_net, samples, chance),
            samples,
            good,
            size=self.size_,
            smoothing=self.smoothing_,
            side=self.symmetry,
            flat=not self.n_channels_,
        )
        tell(0.9, "looking at images held out")
        self.scales_, self.typical_, self.whole_ = [], [], whole

    def _trained(
        self, pictures: Surveyed, training: list[int], factor: int, chance: np.random.RandomState
    ) -> Scale:
        n = -(-_TILES // len(training))
        small = (reduced(image, factor) for image in pictures.each(training))
        tiles = np.concatenate([self._tiling.sample(image, n, chance) for image in small])
        estimator = self._estimator(default_estimator, tiles, chance)
        return Scale.trained(factor, estimator, tiles, flat=not self.n_channels_)

    def _estimator(
        self, default: Callable[[int, int], Autoencoder], samples: Floats, chance: np.random.RandomState
    ) -> Autoencoder:
        one = default(len(samples), samples[0].size) if self.estimator is None else clone(self.estimator)
        one.set_params(random_state=int(chance.randint(np.iinfo(np.int32).max)))
        return one

    # ------------------------------------------------------------------ files
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


def _kind_of(label: Any) -> str:
    if isinstance(label, (int, float, np.number, np.bool_)):
        return "NaN" if np.isnan(label) else "number"
    return "text" if isinstance(label, str) else type(label).__name__
