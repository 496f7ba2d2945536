"""The activations' derivatives in place, by torch's own kernels: what autograd would call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diabolo.parts.activations import SELU_ALPHA, SELU_SCALE

_aten = torch.ops.aten


@dataclass(frozen=True)
class Derivative:
    """How an activation is applied and differentiated in buffers.

    ``forward(a, out)`` writes f(a) to ``out``, which is ``a`` itself unless ``of_input``.
    ``backward(g, saved)`` multiplies g by f' in place; ``saved`` is a where ``of_input``, else f(a).
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    of_input: bool = False


DERIVATIVES: dict[str, Derivative] = {
    "relu": Derivative(
        lambda a, out: torch.relu_(a),
        lambda g, y: _aten.threshold_backward.grad_input(g, y, 0, grad_input=g),
    ),
    "leaky_relu": Derivative(
        lambda a, out: _aten.leaky_relu_(a, 0.01),
        lambda g, y: _aten.leaky_relu_backward.grad_input(g, y, 0.01, True, grad_input=g),
    ),
    "elu": Derivative(
        lambda a, out: _aten.elu_(a),
        lambda g, y: _aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, y, grad_input=g),
    ),
    "selu": Derivative(
        lambda a, out: torch.selu_(a),
        lambda g, y: _aten.elu_backward.grad_input(g, SELU_ALPHA, SELU_SCALE, 1.0, True, y, grad_input=g),
    ),
    "tanh": Derivative(
        lambda a, out: torch.tanh_(a),
        lambda g, y: _aten.tanh_backward.grad_input(g, y, grad_input=g),
    ),
    "sigmoid": Derivative(
        lambda a, out: torch.sigmoid_(a),
        lambda g, y: _aten.sigmoid_backward.grad_input(g, y, grad_input=g),
    ),
    "gelu": Derivative(
        lambda a, out: _aten.gelu.out(a, out=out),
        lambda g, a: _aten.gelu_backward.grad_input(g, a, grad_input=g),
        of_input=True,
    ),
    "silu": Derivative(
        lambda a, out: _aten.silu.out(a, out=out),
        lambda g, a: _aten.silu_backward.grad_input(g, a, grad_input=g),
        of_input=True,
    ),
    "softplus": Derivative(
        lambda a, out: _aten.softplus.out(a, 1, 20, out=out),
        lambda g, a: _aten.softplus_backward.grad_input(g, a, 1, 20, grad_input=g),
        of_input=True,
    ),
}
