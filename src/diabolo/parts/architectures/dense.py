"""Fully connected encoder and decoder, any depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn

from diabolo.errors import IncompatiblePartsError
from diabolo.parts.architectures.base import (
    Architecture,
    Level,
    Network,
    TiedLinear,
    hidden_tail,
    initialise,
    uninitialised,
    validate_common,
)
from diabolo.parts.base import check_flag, check_widths


@dataclass
class Dense(Architecture):
    r"""Layers that connect every unit with every unit below.

    .. math:: h_{i+1} = f(\mathrm{norm}(W_i h_i + b_i)), \qquad h_0 = x

    The decoder mirrors the encoder: 784-512-256-32-256-512-784 for ``hidden_dims=(512, 256)``.

    Parameters
    ----------
    hidden_dims : sequence of int, default=(256,)
        Widths of the hidden layers on the encoder's side, each >= 1. Empty: input and code are
        connected directly.
    activation : str, default="relu"
        Non-linearity of the hidden layers.
    norm : {"batch", "layer"} or None, default=None
        Normalisation before the activation of every hidden layer.
    dropout : float in [0, 1), default=0.0
        Share of hidden units dropped while training.
    tied_weights : bool, default=False
        The decoder's matrices are the encoder's, transposed; the biases stay its own.
    init : {"auto", "he", "xavier", "sparse"}, default="auto"
        How the weights start; "auto" goes by the activation.
    """

    name: ClassVar[str] = "dense"
    hidden_dims: Sequence[int] = (256,)
    activation: str = "relu"
    norm: str | None = None
    dropout: float = 0.0
    tied_weights: bool = False
    init: str = "auto"

    def validate(self) -> None:
        """Check the settings."""
        check_widths("hidden_dims", self.hidden_dims)
        validate_common(self.norm, self.dropout, self.init, self.activation)
        check_flag("tied_weights", self.tied_weights)
        if self.norm == "layer" and any(int(width) == 1 for width in self.hidden_dims):
            raise IncompatiblePartsError(
                "norm must not be 'layer' with a hidden layer of width 1, which it makes constant; got "
                f"hidden_dims={tuple(self.hidden_dims)!r}. Use norm='batch' or a wider layer."
            )

    @property
    def nonlinear(self) -> bool:
        """Whether there is a non-linearity in the layers."""
        return bool(self.hidden_dims) and super().nonlinear

    def build(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        parameters_per_unit: int,
        generator: torch.Generator | None,
    ) -> Network:
        """Build the two halves; images are flattened on the way in and restored on the way out."""
        if self.tied_weights and parameters_per_unit != 1:
            raise IncompatiblePartsError(
                "tied_weights must be False for a latent with several parameters per unit (gaussian); "
                "got True. Untie the weights or choose another latent."
            )
        n_features = 1
        for extent in shape:
            n_features *= extent
        widths = [n_features, *(int(w) for w in self.hidden_dims)]
        down = [uninitialised(nn.Linear, a, b) for a, b in pairwise(widths)]
        down.append(uninitialised(nn.Linear, widths[-1], parameters_per_unit * latent_dim))
        hidden = down[:-1]
        if self.tied_weights:
            up: list[nn.Module] = [TiedLinear(layer) for layer in reversed(down)]
        else:
            sizes = [latent_dim, *reversed(widths)]
            up = [uninitialised(nn.Linear, a, b) for a, b in pairwise(sizes)]
        initialise([*hidden, *up[:-1]], self.init, self.activation, generator)
        initialise([down[-1], up[-1]], self.init, "linear", generator)

        def tail(width: int) -> list[nn.Module]:
            return hidden_tail(width, self.norm, self.activation, self.dropout)

        encoder_blocks = [
            nn.Sequential(layer, *(tail(widths[i + 1]) if i < len(hidden) else []))
            for i, layer in enumerate(down)
        ]
        decoder_blocks = [
            nn.Sequential(layer, *(tail(widths[-1 - i]) if i < len(hidden) else []))
            for i, layer in enumerate(up)
        ]
        if len(shape) > 1:
            encoder_blocks[0].insert(0, nn.Flatten())
            decoder_blocks[-1].append(nn.Unflatten(1, shape))
        return Network(
            encoder=nn.Sequential(*encoder_blocks),
            decoder=nn.Sequential(*decoder_blocks),
            code_shape=(latent_dim,),
            levels=self._levels(shape, widths[1:], latent_dim),
            pairs=list(reversed(range(len(down)))),
        )

    def _levels(self, shape: tuple[int, ...], widths: list[int], latent_dim: int) -> list[Level]:
        notes = [
            note
            for note in (f"{self.norm} norm" if self.norm else "", "tied" if self.tied_weights else "")
            if note
        ]
        operation = ", ".join(["dense", *notes])
        hidden = [Level("hidden", (w,), operation, self.activation) for w in widths]
        return [
            Level("input", shape),
            *hidden,
            Level("code", (latent_dim,), "dense"),
            *reversed(hidden),
            Level("output", shape, "dense, tied" if self.tied_weights else "dense"),
        ]
