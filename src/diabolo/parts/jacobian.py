r"""The squared Frobenius norm of an encoder's Jacobian, per sample, differentiable in the weights.

Three exact routes, chosen by the encoder at hand:

1. a stack of linear maps and element-wise activations: closed forms and products of the layers'
   weights and slopes, with their gradients by hand (``diabolo.parts.chains``);
2. convolutions with a dense layer on top: each row of that layer's weight is sent back to the input
   through the layers turned around, the rows of all samples in one batch;
3. any other encoder: rows or columns by automatic differentiation, whichever are fewer, in chunks.

Batch normalisation enters with its running statistics and dropout not at all: the Jacobian is that
of the function which ``transform`` computes, and samples do not depend on each other.

Shapes: n samples, d code values, m input values, h hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diabolo.parts.activations import Activate, Activation, activation
from diabolo.parts.architectures.base import SeededDropout
from diabolo.parts.chains import chain_norm
from diabolo.parts.latents import LatentModule, LinearHead
from diabolo.parts.shares import drawn

_CHUNK_VALUES = 4_000_000  # values of the Jacobian held at a time by the general route: 16 MB in float32


@contextmanager
def running_statistics(*modules: nn.Module) -> Iterator[None]:
    """Let every layer inside act as in inference, without touching the others' flags, then restore."""
    switched = [m for module in modules for m in module.modules() if m.training]
    try:
        for m in switched:
            m.training = False
        yield
    finally:
        for m in switched:
            m.training = True


@dataclass
class _Step:
    """A linear map followed by an element-wise activation and a scale per unit."""

    weight: Tensor
    bias: Tensor | None
    activation: Activation
    scale: Tensor | None = None


def squared_jacobian_norm(encoder: nn.Module, latent: LatentModule, x: Tensor) -> Tensor:
    r"""Return :math:`\lVert \partial z / \partial x \rVert_F^2` for every sample, exactly.

    Parameters
    ----------
    encoder, latent : modules
        The code is ``latent(encoder(x)).mean``.
    x : Tensor (n, *shape)
        Where the Jacobian is taken.

    Returns
    -------
    Tensor (n,)
        Differentiable with respect to the weights.
    """
    with running_statistics(encoder, latent):
        steps = _dense_steps(encoder, latent)
        if steps is not None:
            return _of_stack(steps, x.flatten(1))
        head, layers = latent.linear_head(), list(_leaves(encoder))
        top = layers[-1] if layers else None
        if head is None or type(top) is not nn.Linear or not _can_turn(layers):
            return _of_any(encoder, latent, x)
        n_code, n_input = len(top.weight) if head.units < 0 else head.units, x[0].numel()
        if n_code > n_input:
            return _of_any(encoder, latent, x)
        rows = len(x)
        if not torch.is_grad_enabled():  # nothing is kept for a backward pass: bound the memory
            rows = max(1, _CHUNK_VALUES // (n_code * n_input))
        return torch.cat([_of_turned(layers, top, head, part) for part in torch.split(x, rows)])


def estimated_jacobian_norm(
    encoder: nn.Module, latent: LatentModule, x: Tensor, n_probes: int, generator: torch.Generator
) -> Tensor:
    r"""Return an unbiased estimate of the squared norm: the mean of :math:`\lVert v^\top J \rVert^2`.

    The probes v have independent entries of -1 and 1, so that E[v v^T] is the identity.
    """
    keep = torch.is_grad_enabled()
    with running_statistics(encoder, latent), torch.enable_grad():
        x = x.detach().requires_grad_()
        z = latent(encoder(x)).mean
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for _ in range(n_probes):
            probe = drawn(Tensor.bernoulli_, torch.empty_like(z), 0.5, generator=generator).mul_(2).sub_(1)
            (row,) = torch.autograd.grad(z, x, probe, create_graph=keep, retain_graph=True)
            total = total + row.flatten(1).square().sum(1)
        return total / n_probes


def _dense_steps(encoder: nn.Module, latent: LatentModule) -> list[_Step] | None:
    """Read the encoder as a stack of dense steps; None where it is something else."""
    head = latent.linear_head()
    if head is None:
        return None
    steps: list[_Step] = []
    linear = activation("linear")
    for module in _leaves(encoder):
        # types are compared, not tested: a subclass may compute something else
        bare = bool(steps) and steps[-1].activation is linear
        if type(module) in (nn.Flatten, SeededDropout):
            continue
        if type(module) is nn.Linear:
            steps.append(_Step(module.weight, module.bias, linear))
        elif type(module) is Activate and bare:
            steps[-1].activation = module.activation
        elif type(module) is nn.BatchNorm1d and bare:
            steps[-1] = _folded(steps[-1], module)
        else:
            return None
    if not steps or steps[-1].activation is not linear:
        return None
    last = steps[-1]
    if head.units > 0:
        last.weight = last.weight[: head.units]
        last.bias = None if last.bias is None else last.bias[: head.units]
    last.activation, last.scale = head.activation, head.scale
    return steps


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _factor(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> Tensor:
    """Return what a normalisation by running statistics multiplies each feature by."""
    assert norm.running_var is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    return factor * norm.weight if norm.affine else factor


def _folded(step: _Step, norm: nn.BatchNorm1d) -> _Step:
    assert norm.running_mean is not None
    factor = _factor(norm)
    bias = (step.bias if step.bias is not None else 0.0) - norm.running_mean
    return _Step(
        step.weight * factor[:, None], bias * factor + (norm.bias if norm.affine else 0.0), step.activation
    )


def _of_stack(steps: list[_Step], x: Tensor) -> Tensor:
    weights: list[Tensor] = []
    slopes: list[Tensor | None] = []
    for step in steps:
        weights.append(step.weight if step.scale is None else step.weight * step.scale[:, None])
        if step.activation.name == "linear" and step is steps[-1]:
            slopes.append(None)
            break
        a = torch.nn.functional.linear(x, step.weight, step.bias)
        x = step.activation.function(a)
        slopes.append(None if step.activation.name == "linear" else step.activation.derivative(a, x))
    return chain_norm(weights, slopes, len(x))


_TRANSPOSES: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: torch.conv_transpose1d,
    nn.Conv2d: torch.conv_transpose2d,
    nn.Conv3d: torch.conv_transpose3d,
}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_RESHAPES = (nn.Flatten, nn.Unflatten, SeededDropout)


def _can_turn(layers: list[nn.Module]) -> bool:
    """Whether the transposes of all layers' derivatives are known; a subclass may compute something else."""
    for layer in layers:
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and type(layer) in _TRANSPOSES:
            if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                return False
        elif type(layer) not in (*_NORMS, *_RESHAPES, nn.Linear, Activate):
            return False
    return True


def _of_turned(layers: list[nn.Module], top: nn.Linear, head: LinearHead, x: Tensor) -> Tensor:
    """Send every row of the top layer's weight back to the input, through the layers turned around."""
    below = [x]
    for layer in layers:
        below.append(layer(below[-1]))
    weight, a, n = top.weight, below[-1], len(x)
    if head.units > 0:
        weight, a = weight[: head.units], a[:, : head.units]
    slope = head.activation.derivative(a, head.activation.function(a))
    if head.scale is not None:
        slope = slope * head.scale
    rows = (slope[:, :, None] * weight).flatten(0, 1)
    for layer, seen, given in zip(layers[-2::-1], below[-3::-1], below[-2:0:-1], strict=True):
        shape = seen.shape[1:]
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            rows = _turned(layer, rows, shape[1:])
        elif isinstance(layer, nn.Linear):
            rows = rows @ layer.weight
        elif isinstance(layer, Activate):
            inner = layer.activation.derivative(seen, given)
            rows = (rows.view(n, -1, *shape) * inner[:, None]).flatten(0, 1)
        elif isinstance(layer, _NORMS):
            factor = _factor(layer)
            rows = rows * factor.view(-1, *[1] * (len(shape) - 1))
        else:
            rows = rows.reshape(-1, *shape)
    return rows.view(n, -1).square().sum(1)


def _turned(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, y: Tensor, extents: tuple[int, ...]) -> Tensor:
    """Apply a convolution's transpose, (r, out, ...) to (r, in, *extents)."""
    assert not isinstance(layer.padding, str)
    missing = [
        large - ((small - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
        for large, small, stride, padding, dilation, kernel in zip(
            extents, y.shape[2:], layer.stride, layer.padding, layer.dilation, layer.kernel_size, strict=True
        )
    ]
    transpose = _TRANSPOSES[type(layer)]
    return transpose(
        y, layer.weight, None, layer.stride, layer.padding, missing, layer.groups, layer.dilation
    )


def _of_any(encoder: nn.Module, latent: LatentModule, x: Tensor) -> Tensor:
    n_input = x[0].numel()
    x = x.detach().requires_grad_()
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        z = latent(encoder(x)).mean
        n_code = z[0].numel()
        chunk = max(1, _CHUNK_VALUES // (len(x) * max(n_input, n_code)))
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        if n_code <= n_input:
            flat = z.flatten(1)
            for rows in torch.split(torch.eye(n_code, dtype=z.dtype, device=z.device), chunk):
                seeds = rows[:, None, :].expand(-1, len(x), -1)
                (jacobian,) = torch.autograd.grad(
                    flat, x, seeds, create_graph=keep, retain_graph=True, is_grads_batched=True
                )
                total = total + jacobian.flatten(2).square().sum((0, 2))
            return total

        # Columns by differentiating the rows' map u -> u J, which is linear, in u. Not torch.func.jvp:
        # its first call costs a second of imports and a DeprecationWarning (torch 2.13).
        rows_of = torch.zeros_like(z).requires_grad_()
        (combined,) = torch.autograd.grad(z, x, rows_of, create_graph=True)
        for columns in torch.split(torch.eye(n_input, dtype=x.dtype, device=x.device), chunk):
            seeds = columns.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
            (derivatives,) = torch.autograd.grad(
                combined, rows_of, seeds, create_graph=keep, retain_graph=True, is_grads_batched=True
            )
            total = total + derivatives.flatten(2).square().sum((0, 2))
        return total
