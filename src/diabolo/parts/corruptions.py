"""The second axis: noise put on the input while training, in the scaled units that the network sees."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from diabolo.errors import InvalidParameterError
from diabolo.parts.base import Part, as_part, check_range
from diabolo.parts.shares import drawn, kept

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass
class Corruption(Part):
    """Base of the corruptions. Abstract."""

    @abstractmethod
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a corrupted copy of ``x`` (n, *shape); ``generator`` is the only source of chance."""


@dataclass
class GaussianNoise(Corruption):
    r"""Additive noise, :math:`\tilde x = x + \sigma\varepsilon`, epsilon standard normal.

    Parameters
    ----------
    std : float > 0, default=0.5
        Standard deviation in scaled units: with the scalings "standard" and "center" a share
        of the data's own standard deviation, with "minmax" and "unit" a share of its range.
    """

    name: ClassVar[str] = "gaussian"
    std: float = 0.5

    def validate(self) -> None:
        """Check the settings."""
        check_range("std of GaussianNoise", self.std, low=0, open_low=True)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` plus noise."""
        return torch.add(x, drawn(Tensor.normal_, torch.empty_like(x), generator=generator), alpha=self.std)


@dataclass
class CoarseNoise(Corruption):
    r"""Additive noise that is smooth over many pixels, :math:`\tilde x = x + \sigma\,U\varepsilon`.

    Epsilon is standard normal on a grid of ``cells`` points along each extent, and U interpolates it linearly
    to the sample's size. A net that takes such blotches away takes away lesions of their size too,
    where fine noise only teaches it to smooth (Kascenas, Pugeault, O'Neil 2022).

    Samples (length,), (height, width), (channels, height, width) or (channels, depth, height, width): each
    channel gets noise of its own. (channels, length) counts as a picture. Along an extent of no more than
    ``cells`` every value is a point of the grid.

    Parameters
    ----------
    std : float > 0, default=0.2
        Standard deviation at the points of the grid, in scaled units; between the points it is
        less, down to half of it in a picture.
    cells : int >= 1, default=16
        Points of the grid along each extent.
    """

    name: ClassVar[str] = "coarse"
    std: float = 0.2
    cells: int = 16

    def validate(self) -> None:
        """Check the settings."""
        check_range("std of CoarseNoise", self.std, low=0, open_low=True)
        check_range("cells of CoarseNoise", self.cells, low=1, integer=True)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` plus noise."""
        first = 1 if x.ndim < 4 else 2
        channels, extents = x.shape[1:first], x.shape[first:]
        grid = [min(n, self.cells) for n in extents]
        coarse = drawn(Tensor.normal_, x.new_empty(len(x), *channels, *grid), generator=generator)
        stacked = coarse.reshape(len(x), -1, *grid)
        mode = _LINEAR[len(extents)]
        fine = functional.interpolate(stacked, size=tuple(extents), mode=mode, align_corners=True)
        return torch.add(x, fine.reshape(x.shape), alpha=self.std)


@dataclass
class MaskingNoise(Corruption):
    r"""Each value is set to 0 with probability ``fraction`` (Vincent et al. 2008).

    Zero is meant in scaled units: the feature's mean under "standard" and "center", its lowest
    value under "minmax" and "unit".

    Parameters
    ----------
    fraction : float in (0, 1), default=0.25
        Share of values that are masked.
    """

    name: ClassVar[str] = "masking"
    fraction: float = 0.25

    def validate(self) -> None:
        """Check the settings."""
        check_range("fraction of MaskingNoise", self.fraction, low=0, high=1, open_low=True, open_high=True)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` with some values zeroed."""
        return x * kept(x, 1.0 - self.fraction, generator)


@dataclass
class SaltAndPepper(Corruption):
    r"""Each value is, with probability ``fraction``, replaced by the lowest or the highest one.

    Parameters
    ----------
    fraction : float in (0, 1), default=0.25
        Share of values replaced; half of them by ``low``, half by ``high``.
    low, high : float or None, default=None
        The two extremes in scaled units. None: the least and the greatest value of the batch.
    """

    name: ClassVar[str] = "salt_and_pepper"
    fraction: float = 0.25
    low: float | None = None
    high: float | None = None

    def validate(self) -> None:
        """Check the settings."""
        check_range("fraction of SaltAndPepper", self.fraction, low=0, high=1, open_low=True, open_high=True)
        for name, value in (("low", self.low), ("high", self.high)):
            if value is not None:
                check_range(f"{name} of SaltAndPepper", value)
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise InvalidParameterError(
                f"low of SaltAndPepper must be less than high; got low={self.low!r}, high={self.high!r}. "
                "Give for example low=0, high=1."
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` with some values replaced."""
        low = x.amin() if self.low is None else torch.as_tensor(self.low, dtype=x.dtype, device=x.device)
        high = x.amax() if self.high is None else torch.as_tensor(self.high, dtype=x.dtype, device=x.device)
        chance = drawn(Tensor.uniform_, torch.empty_like(x), generator=generator)
        x = torch.where(chance < self.fraction / 2, low, x)
        return torch.where((chance >= self.fraction / 2) & (chance < self.fraction), high, x)


@dataclass
class Chain(Corruption):
    """Several corruptions, one after the other.

    Parameters
    ----------
    steps : sequence of corruptions
        Applied in this order; at least one.
    """

    name: ClassVar[str] = "chain"
    steps: Sequence[Corruption] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        given = self.steps if isinstance(self.steps, list | tuple) else ()
        if any(isinstance(s, dict | str) for s in given):  # texts, or dicts read back from a file
            self.steps = tuple(
                as_part(Corruption, "corruption", s) if isinstance(s, dict | str) else s  # type: ignore[type-abstract]
                for s in self.steps
            )
        super().__post_init__()

    def validate(self) -> None:
        """Check the settings."""
        good = isinstance(self.steps, tuple) and all(isinstance(step, Corruption) for step in self.steps)
        if not good or not self.steps:
            raise InvalidParameterError(
                f"steps of Chain must be corruptions, at least one; got {self.steps!r}. "
                "Give for example ('masking', 'gaussian')."
            )
        for step in self.steps:
            step.validate()

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` after all steps."""
        for step in self.steps:
            x = step(x, generator)
        return x
