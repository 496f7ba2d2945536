"""Element-wise non-linearities: function, derivative, range and the initialisation that suits each.

The derivative is written as a differentiable function of the pre-activation ``a`` and the
value ``y = f(a)``, because the contractive penalty has to be differentiated once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from diabolo.names import check_name

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dataclass(frozen=True)
class Activation:
    """One non-linearity.

    ``gain`` is the factor on ``1 / sqrt(fan_in)`` that keeps the variance of the signal; where
    it is None the layer gets Xavier's initialisation, which balances both directions.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]  # (a, f(a)) -> f'(a)
    low: float = -math.inf
    high: float = math.inf
    gain: float | None = None

    def __reduce__(self) -> tuple[Callable[[str], Activation], tuple[str]]:
        return activation, (self.name,)  # the functions are lambdas, which do not pickle


def _gelu_derivative(a: Tensor, y: Tensor) -> Tensor:
    cdf = 0.5 * (1 + torch.erf(a / math.sqrt(2)))
    return cdf + a * torch.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)


def _silu_derivative(a: Tensor, y: Tensor) -> Tensor:
    s = torch.sigmoid(a)
    return s + y * (1 - s)


_HE = math.sqrt(2.0)
_TABLE = (
    Activation("linear", lambda a: a, lambda a, y: torch.ones_like(a)),
    Activation("relu", torch.relu, lambda a, y: (a > 0).to(a.dtype), low=0.0, gain=_HE),
    Activation(
        "leaky_relu",
        lambda a: functional.leaky_relu(a, 0.01),
        lambda a, y: torch.where(a > 0, torch.ones_like(a), 0.01),
        gain=math.sqrt(2.0 / (1 + 0.01**2)),
    ),
    Activation(
        "elu", functional.elu, lambda a, y: torch.where(a > 0, torch.ones_like(a), y + 1), low=-1.0, gain=_HE
    ),
    Activation("gelu", functional.gelu, _gelu_derivative, low=-0.16997, gain=_HE),
    Activation("silu", functional.silu, _silu_derivative, low=-0.27846, gain=_HE),
    Activation("tanh", torch.tanh, lambda a, y: 1 - y * y, low=-1.0, high=1.0),
    Activation("sigmoid", torch.sigmoid, lambda a, y: y * (1 - y), low=0.0, high=1.0),
    Activation(
        "selu",
        functional.selu,
        lambda a, y: torch.where(a > 0, SELU_SCALE * torch.ones_like(a), y + SELU_SCALE * SELU_ALPHA),
        low=-SELU_SCALE * SELU_ALPHA,
        gain=1.0,
    ),
    Activation("softplus", functional.softplus, lambda a, y: torch.sigmoid(a), low=0.0, gain=_HE),
)
ACTIVATIONS: dict[str, Activation] = {a.name: a for a in _TABLE}


def activation(name: str, what: str = "activation") -> Activation:
    """Return the activation called ``name``.

    Raises
    ------
    InvalidParameterError
        For an unknown name, with its nearest neighbours.
    """
    return ACTIVATIONS[check_name(what, name, ACTIVATIONS)]


class Activate(torch.nn.Module):
    """An activation as a layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.activation = activation(name)

    def forward(self, a: Tensor) -> Tensor:
        """Apply the activation, any shape."""
        return self.activation.function(a)

    def extra_repr(self) -> str:
        """Return the name, for printing."""
        return self.activation.name
