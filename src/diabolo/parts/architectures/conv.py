"""Convolutional encoder and decoder for signals, images and volumes: one class, ``n_dims`` from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diabolo.errors import IncompatiblePartsError, InvalidParameterError
from diabolo.names import check_name
from diabolo.parts.architectures.base import (
    Architecture,
    Level,
    Network,
    hidden_tail,
    initialise,
    uninitialised,
    validate_common,
)
from diabolo.parts.base import check_range, check_widths

_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MAX_POOL: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class Resize(nn.Module):
    """Nearest-neighbour resizing to a fixed spatial size."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, *any) to (n, channels, *size)."""
        return functional.interpolate(x, size=self.size, mode="nearest")


@dataclass
class Conv(Architecture):
    """Stages that halve the resolution and share their filters over all positions.

    A stage maps an extent of n to ``ceil(n / 2)``; the way back restores n exactly, odd or even:
    the transposed convolution's output padding and the resize's size are computed per extent.

    Parameters
    ----------
    n_dims : {1, 2, 3} or None, default=None
        Signals, images or volumes. None: by a sample's shape: (length,), (height, width),
        (channels, height, width) or (channels, depth, height, width). Where a sample has as many
        extents as ``n_dims`` it counts as one channel; with one more, the first is the channels:
        ``n_dims=1`` reads (2, 500) as two channels of 500 values.
    channels : sequence of int, default=(16, 32)
        Filters of each stage, each >= 1; at least one stage.
    kernel_size : int, default=3
        Odd extent of the filters, >= 1.
    activation : str, default="relu"
        Non-linearity of the stages.
    down : {"stride", "pool"}, default="stride"
        How a stage halves: a convolution of stride 2, or stride 1 followed by max pooling.
    up : {"transposed", "resize"}, default="transposed"
        How a stage doubles: a transposed convolution, or nearest resizing and a convolution
        (free of checkerboards).
    code : {"dense", "spatial"}, default="dense"
        A vector of ``latent_dim``, or a map with ``latent_dim`` channels.
    norm : {"batch", "layer"} or None, default=None
        Normalisation before the activation; "layer" normalises over channels and positions.
    dropout : float in [0, 1), default=0.0
        Share of values dropped while training.
    init : {"auto", "he", "xavier", "sparse"}, default="auto"
        How the weights start.
    """

    name: ClassVar[str] = "conv"
    n_dims: int | None = None
    channels: Sequence[int] = (16, 32)
    kernel_size: int = 3
    activation: str = "relu"
    down: str = "stride"
    up: str = "transposed"
    code: str = "dense"
    norm: str | None = None
    dropout: float = 0.0
    init: str = "auto"

    def validate(self) -> None:
        """Check the settings."""
        check_widths("channels", self.channels)
        if not len(self.channels):
            raise InvalidParameterError(
                "channels must be at least one number; got (). Use architecture='dense'."
            )
        if self.n_dims is not None:
            check_range("n_dims of Conv", self.n_dims, low=1, high=3, integer=True)
        check_range("kernel_size", self.kernel_size, low=1, integer=True)
        if self.kernel_size % 2 == 0:
            raise InvalidParameterError(
                f"kernel_size must be odd; got {self.kernel_size}. Use {self.kernel_size + 1}."
            )
        check_name("down", self.down, ("stride", "pool"))
        check_name("up", self.up, ("transposed", "resize"))
        check_name("code", self.code, ("dense", "spatial"))
        validate_common(self.norm, self.dropout, self.init, self.activation)

    def build(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        parameters_per_unit: int,
        generator: torch.Generator | None,
    ) -> Network:
        """Build for samples of shape (*extents) or (channels, *extents)."""
        n_dims = self.n_dims or {1: 1, 2: 2, 3: 2, 4: 3}.get(len(shape), 0)
        if len(shape) not in (n_dims, n_dims + 1) or n_dims == 0:
            raise IncompatiblePartsError(
                f"a sample must have {n_dims or '1 to 3'} extents, or one more for its channels; "
                f"got shape {shape}. Set n_dims of Conv, or use architecture='dense'."
            )
        one_channel = len(shape) == n_dims
        stored = (1, *shape) if one_channel else tuple(shape)
        widths = [stored[0], *(int(c) for c in self.channels)]
        extents = [stored[1:]]
        for _ in self.channels:
            extents.append(tuple(-(-n // 2) for n in extents[-1]))
        hidden: list[nn.Module] = []
        encoder: list[nn.Module] = [nn.Unflatten(1, stored[:2])] if one_channel else []
        for a, b in pairwise(widths):
            convolution = self._convolution(n_dims, a, b, stride=2 if self.down == "stride" else 1)
            hidden.append(convolution)
            encoder += [convolution, *hidden_tail(b, self.norm, self.activation, self.dropout, n_dims)]
            if self.down == "pool":
                encoder.append(_MAX_POOL[n_dims](2, ceil_mode=True))
        head, code_shape, entry = self._code(widths[-1], extents[-1], latent_dim, parameters_per_unit, n_dims)
        encoder += head
        decoder = list(entry)
        hidden += [m for m in entry if hasattr(m, "weight")]
        decoder += hidden_tail(widths[-1], self.norm, self.activation, self.dropout, n_dims)
        ups: list[nn.Module] = []
        for i in reversed(range(len(self.channels))):
            layers = self._up(n_dims, widths[i + 1], widths[i], extents[i + 1], extents[i])
            ups.append(layers[-1])
            decoder += layers
            if i:
                decoder += hidden_tail(widths[i], self.norm, self.activation, self.dropout, n_dims)
        if one_channel:
            decoder.append(nn.Flatten(1, 2))
        initialise([*hidden, *ups[:-1]], self.init, self.activation, generator)
        initialise([m for m in head if hasattr(m, "weight")] + ups[-1:], self.init, "linear", generator)
        return Network(
            nn.Sequential(*encoder),
            nn.Sequential(*decoder),
            code_shape,
            self._levels(shape, widths, extents, code_shape),
        )

    def _convolution(self, n_dims: int, a: int, b: int, stride: int = 1) -> nn.Module:
        convolution: nn.Module = uninitialised(
            _CONV[n_dims], a, b, self.kernel_size, stride=stride, padding=self.kernel_size // 2
        )
        return convolution

    def _code(
        self, width: int, extents: tuple[int, ...], latent_dim: int, parameters_per_unit: int, n_dims: int
    ) -> tuple[list[nn.Module], tuple[int, ...], list[nn.Module]]:
        """Return the last layers of the encoder, the code's shape and the first layers of the decoder."""
        if self.code == "spatial":
            head = uninitialised(_CONV[n_dims], width, parameters_per_unit * latent_dim, 1)
            return [head], (latent_dim, *extents), [uninitialised(_CONV[n_dims], latent_dim, width, 1)]
        size = width
        for n in extents:
            size *= n
        down = uninitialised(nn.Linear, size, parameters_per_unit * latent_dim)
        up = uninitialised(nn.Linear, latent_dim, size)
        return [nn.Flatten(), down], (latent_dim,), [up, nn.Unflatten(1, (width, *extents))]

    def _up(
        self, n_dims: int, a: int, b: int, small: tuple[int, ...], large: tuple[int, ...]
    ) -> list[nn.Module]:
        """Return layers that map a channels at ``small`` to b channels at ``large``."""
        if self.up == "resize":
            return [Resize(large), self._convolution(n_dims, a, b)]
        # stride 2 gives 2 * small - 1 + padding values: the padding makes it `large`, odd or even
        padding = tuple(n - (2 * m - 1) for m, n in zip(small, large, strict=True))
        return [
            uninitialised(
                _TRANSPOSED[n_dims],
                a,
                b,
                self.kernel_size,
                stride=2,
                padding=self.kernel_size // 2,
                output_padding=padding,
            )
        ]

    def _levels(
        self,
        shape: tuple[int, ...],
        widths: list[int],
        extents: list[tuple[int, ...]],
        code_shape: tuple[int, ...],
    ) -> list[Level]:
        size = "x".join([str(self.kernel_size)] * len(extents[0]))
        norm = f", {self.norm} norm" if self.norm else ""
        down = f"conv {size}, {'stride 2' if self.down == 'stride' else 'max pool 2'}{norm}"
        up = f"transposed conv {size}" if self.up == "transposed" else f"resize, conv {size}"
        stages = [(w, *e) for w, e in zip(widths[1:], extents[1:], strict=True)]
        step = "dense" if self.code == "dense" else "conv 1x1"
        back = [Level("hidden", stages[-1], step + norm, self.activation)]
        back += [Level("hidden", s, up + norm, self.activation) for s in reversed(stages[:-1])]
        return [
            Level("input", shape),
            *(Level("hidden", s, down, self.activation) for s in stages),
            Level("code", code_shape, step),
            *back,
            Level("output", shape, up),
        ]
