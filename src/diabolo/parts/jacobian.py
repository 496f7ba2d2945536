r"""The squared Frobenius norm of an encoder's Jacobian, per sample, differentiable in the weights.

Two exact routes, chosen by the encoder at hand:

1. a stack of linear maps and element-wise activations: closed forms and products of the layers'
   weights and slopes, with their gradients by hand (``diabolo.parts.chains``);
2. any other encoder: rows or columns by automatic differentiation, whichever are fewer, in chunks.

Batch normalisation enters with its running statistics and dropout not at all: the Jacobian is that
of the function which ``transform`` computes, and samples do not depend on each other.

Shapes: n samples, d code values, m input values, h hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diabolo.parts.activations import Activate, Activation, activation
from diabolo.parts.architectures.base import SeededDropout
from diabolo.parts.chains import chain_norm
from diabolo.parts.latents import LatentModule
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
        if steps is None:
            return _of_any(encoder, latent, x)
        return _of_stack(steps, x.flatten(1))


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
        match module:
            case nn.Flatten() | SeededDropout():
                continue
            case nn.Linear():
                steps.append(_Step(module.weight, module.bias, linear))
            case Activate() if steps and steps[-1].activation is linear:
                steps[-1].activation = module.activation
            case nn.BatchNorm1d() if steps and steps[-1].activation is linear:
                steps[-1] = _folded(steps[-1], module)
            case _:
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


def _folded(step: _Step, norm: nn.BatchNorm1d) -> _Step:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        factor = factor * norm.weight
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
