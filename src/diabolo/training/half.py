"""Dense layers whose products are taken in bfloat16; everything else about them stays in single precision."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import IncompatiblePartsError
from diabolo.parts.architectures.base import TiedLinear
from diabolo.training.dense import DenseStep
from diabolo.training.layers import Call, Layer

_WIDE = 64  # layers with a side below this gain nothing by half precision


class HalfLayer(Layer):
    """A layer of the dense step. Weights, biases, sums and activations are in single precision."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer.linear)
        self.activation, self.dropout = layer.activation, layer.dropout
        self.by_rows = True  # oneDNN's products in half precision are faster so

    def allocate(self, h: Tensor, *, by_rows: bool = False) -> None:
        """Make the buffers for batches like h (n, in)."""
        super().allocate(h, by_rows=by_rows)
        self.narrow = False
        half, weight = torch.bfloat16, self.linear.weight.detach()
        self._weight, self._weight_gradient = (torch.empty_like(weight, dtype=half) for _ in range(2))
        self._h, self._h_gradient = (h.new_empty(h.shape, dtype=half) for _ in range(2))
        self._y, self._g = (torch.empty_like(self.before, dtype=half) for _ in range(2))

    def up(self, h: Tensor) -> list[Call]:
        """Return the calls that write the linear map of h to ``before``."""
        return [
            partial(self._weight.copy_, self.linear.weight.detach()),
            partial(self._h.copy_, h),
            partial(torch.mm, self._h, self._weight.t(), out=self._y),
            partial(torch.add, self._y, self.linear.bias.detach(), out=self.before),
        ]

    def down(self, h: Tensor, g: Tensor, *, add: bool, shared: bool, first: bool) -> list[Call]:
        """Return the calls of ``backward`` below the activation: g is the gradient of the linear map."""
        weight, bias = self.gradients()
        tied = isinstance(self.linear, TiedLinear)
        ones, sums_of_g = g.new_ones(1, len(g)), bias.view(1, -1)
        sums = self._weight_gradient.t() if tied else self._weight_gradient
        calls: list[Call] = [
            partial(self._g.copy_, g),
            partial(torch.mm, self._g.t(), self._h, out=self._weight_gradient),
            partial(weight.add_ if add or shared else weight.copy_, sums),
            partial(sums_of_g.addmm_, ones, g) if add else partial(torch.mm, ones, g, out=sums_of_g),
        ]
        if not first:
            calls += [
                partial(torch.mm, self._g, self._weight, out=self._h_gradient),
                partial(self.gradient.copy_, self._h_gradient),
            ]
        return calls


class HalfStep(DenseStep):
    """The dense step with half precision in the products of layers at least 64 wide on both sides."""

    @staticmethod
    def read(module: AutoencoderModule) -> tuple[list[Layer], list[Layer]] | None:
        """Read encoder and decoder; None where they hold other than dense layers."""
        both = DenseStep.read(module)
        if both is None:
            return None
        encoder, decoder = ([HalfLayer(m) if _is_wide(m.linear) else m for m in layers] for layers in both)
        return encoder, decoder


def check_half(module: AutoencoderModule) -> None:
    """Raise IncompatiblePartsError where half precision would change nothing in a net of dense layers."""
    both = DenseStep.read(module)
    if both is not None and not any(_is_wide(layer.linear) for layers in both for layer in layers):
        raise IncompatiblePartsError(
            f"precision='bf16' must meet a layer at least {_WIDE} wide on both sides to bring anything; "
            "got none. Use precision='float32'."
        )


def _is_wide(linear: nn.Linear | TiedLinear) -> bool:
    return min(linear.weight.shape) >= _WIDE
