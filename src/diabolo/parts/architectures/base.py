"""The first axis: what maps the input to the code and the code back.

Shapes: n samples; `*shape` one sample's shape; `*code` one code's shape, ``(latent_dim,)`` or,
for a spatial code, ``(latent_dim, height, width)``; p parameters that the latent part needs per unit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diabolo.names import check_name
from diabolo.parts.activations import Activate, activation
from diabolo.parts.base import Part, check_range
from diabolo.parts.shares import kept

NORMS = ("batch", "layer")
INITIALISATIONS = ("auto", "he", "xavier", "sparse")


@dataclass(frozen=True)
class Level:
    """One level of the hourglass, for drawings and printed summaries."""

    role: Literal["input", "hidden", "code", "output"]
    shape: tuple[int, ...]
    operation: str = ""
    activation: str = ""

    @property
    def size(self) -> int:
        """Number of values at this level."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size


@dataclass
class Network:
    """What an architecture builds.

    ``encoder`` maps (n, *shape) to (n, p * latent_dim, ...), ``decoder`` maps (n, *code) to
    (n, *shape) before the loss's link. Both are sequences of blocks; where ``pairs`` is set,
    encoder block i and decoder block ``pairs[i]`` mirror each other and can be trained alone.
    """

    encoder: nn.Sequential
    decoder: nn.Sequential
    code_shape: tuple[int, ...]
    levels: list[Level]
    pairs: list[int] | None = None


@dataclass
class Architecture(Part):
    """Base of the architectures. Abstract."""

    @abstractmethod
    def build(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        parameters_per_unit: int,
        generator: torch.Generator | None,
    ) -> Network:
        """Build encoder and decoder for samples of ``shape``, initialised from ``generator``."""

    @property
    def nonlinear(self) -> bool:
        """Whether there is a non-linearity in the layers."""
        return getattr(self, "activation", None) != "linear"


class SeededDropout(nn.Module):
    """Dropout that draws from its own generator, never from torch's global one.

    While training a unit is zeroed with probability ``share`` and the others are scaled by
    ``1 / (1 - share)``; otherwise, or without a generator, nothing happens.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop units, any shape."""
        if not self.training or self.generator is None:
            return x
        return x * kept(x, 1.0 - self.share, self.generator) / (1.0 - self.share)


class LayerNorm(nn.Module):
    """Normalisation of each sample over its features, or over channels and positions; any shape.

    As ``nn.LayerNorm`` and ``nn.GroupNorm(1, ...)``, but of elementary operations: torch 2.13 treats
    the statistics of its fused ones as constants in forward mode and in third derivatives, so that
    the gradient of the contractive penalty came out wrong without a word.
    """

    _EPS = 1e-5

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (n, features, ...)."""
        own = tuple(range(1, x.ndim))
        x = x - x.mean(own, keepdim=True)
        x = x * torch.rsqrt(x.square().mean(own, keepdim=True) + self._EPS)
        by_feature = (1, -1, *[1] * (x.ndim - 2))
        return x * self.weight.view(by_feature) + self.bias.view(by_feature)


class TiedLinear(nn.Module):
    """A linear layer that uses another layer's weight, transposed: ``y = x W + b``."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self._source = [source]  # in a list, so that the weight is registered once
        self.bias = nn.Parameter(torch.zeros(source.in_features, dtype=source.weight.dtype))

    @property
    def weight(self) -> Tensor:
        """The transposed weight, shape (out, in) as in ``nn.Linear``."""
        return self.source.weight.t()

    @property
    def source(self) -> nn.Linear:
        """The layer whose weight it is."""
        return self._source[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in) to (n, out)."""
        return functional.linear(x, self.weight, self.bias)


def validate_common(norm: str | None, dropout: float, init: str, activation_name: str) -> None:
    """Check the settings that all architectures have."""
    activation(activation_name)
    if norm is not None:
        check_name("norm", norm, NORMS)
    check_name("init", init, INITIALISATIONS)
    check_range("dropout", dropout, low=0, high=1, open_high=True)


ModuleType = TypeVar("ModuleType", bound=nn.Module)


def uninitialised(cls: type[ModuleType], *args: Any, **kwargs: Any) -> ModuleType:
    """Make a layer without drawing its weights: torch's default would use the global generator.

    As ``torch.nn.utils.skip_init``, whose way from one device to the other imports sympy: half a second.
    """
    layer = cls(*args, device="meta", **kwargs)
    for name, weight in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype, device="cpu")))
    return layer


def initialise(
    modules: Iterable[nn.Module], rule: str, activation_name: str, generator: torch.Generator | None
) -> None:
    """Draw the weights of ``modules`` (linear or convolutional) from ``generator``; biases are 0.

    ``auto`` is He's rule, variance ``gain^2 / fan_in``, for the rectifier family and Xavier's,
    ``2 / (fan_in + fan_out)``, for the others. ``sparse`` gives each unit at most 15 incoming
    weights (Martens 2010). Without a generator nothing is drawn: the weights will be loaded.
    """
    if generator is None:
        return
    gain = activation(activation_name).gain
    for module in modules:
        weight = getattr(module, "weight", None)
        if isinstance(module, TiedLinear) or not isinstance(weight, Tensor):
            continue
        with torch.no_grad():
            if rule == "sparse":
                # a transposed convolution's weight is (in, out, *kernel)
                _sparse_(weight.transpose(0, 1) if _is_transposed(module) else weight, generator)
            elif rule == "he" or (rule == "auto" and gain is not None):
                fan_in = weight[0].numel() if not _is_transposed(module) else _transposed_fan_in(module)
                weight.normal_(0.0, (gain or 1.0) / fan_in**0.5, generator=generator)
            else:
                nn.init.xavier_normal_(weight, generator=generator)
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                bias.zero_()


def _is_transposed(module: nn.Module) -> bool:
    return isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)


def _transposed_fan_in(module: nn.Module) -> float:
    # every output value of a strided transposed convolution sees in_channels * (kernel / stride)^dims inputs
    weight = module.weight
    assert isinstance(weight, Tensor)
    stride = module.stride
    assert isinstance(stride, tuple)
    overlap = float(weight[0, 0].numel())
    for step in stride:
        overlap /= step
    return weight.shape[0] * max(overlap, 1.0)


def _sparse_(weight: Tensor, generator: torch.Generator, incoming: int = 15) -> None:
    size = weight.shape.numel() // weight.shape[0]
    flat = torch.empty(weight.shape[0], size, dtype=weight.dtype)
    flat.normal_(0.0, 1.0 / min(incoming, size) ** 0.5, generator=generator)
    if size > incoming:
        noise = torch.rand(flat.shape, generator=generator, dtype=torch.float64)
        keep = noise.topk(incoming, dim=1).indices
        flat.mul_(torch.zeros_like(flat).scatter_(1, keep, 1.0))
    weight.copy_(flat.view(weight.shape))


def hidden_tail(
    features: int, norm: str | None, activation_name: str, dropout: float, n_dims: int = 0
) -> list[nn.Module]:
    """Return what follows a linear map inside a hidden layer: normalisation, activation, dropout.

    ``n_dims`` is 0 for rows and 1, 2, 3 for signals, images, volumes.
    """
    tail: list[nn.Module] = []
    if norm == "batch":
        batch_norm = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[n_dims]
        tail.append(batch_norm(features))
    elif norm == "layer":
        tail.append(LayerNorm(features))
    if activation_name != "linear":
        tail.append(Activate(activation_name))
    if dropout:
        tail.append(SeededDropout(dropout))
    return tail
