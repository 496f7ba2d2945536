"""The common losses differentiated by hand, for the dense step; others go by autograd on the output alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diabolo.parts.activations import Activate
from diabolo.parts.losses import (
    BinaryCrossEntropyModule,
    Clip,
    GaussianLossModule,
    Linked,
    LossModule,
    SquaredErrorModule,
)
from diabolo.training.derivatives import DERIVATIVES

Terms = dict[str, "Tensor | float"]
Cost = Callable[[], "Tensor | float"]
Residual = Callable[[], object]
_FEW = 65_536  # values up to which NumPy has less overhead than torch brings by a second thread


def cost(loss: LossModule, raw: Tensor, target: Tensor, g: Tensor, shape: tuple[int, ...]) -> Cost:
    """Return the call that gives the mean of ``loss`` over the rows and writes its gradient to ``g``.

    Parameters
    ----------
    loss : LossModule
        Gradients of its own parameters are written to where they are kept.
    raw, target, g : Tensor (n, d)
        The decoder's output, the rows to restore, and room for the gradient at the output.
    shape : tuple of int
        That of the rows as the loss knows them, (n, *shape).
    """
    output, inner = (loss.output, loss.inner) if type(loss) is Linked else (None, loss)
    if type(inner) is BinaryCrossEntropyModule and output is None:
        return partial(_cross_entropy, raw, target, g)
    if type(inner) is SquaredErrorModule or type(inner) is GaussianLossModule:
        passed = _passed(output, raw, target, g)
        if passed is not None:
            residual, back = passed
            squares = _Squares(residual, g)
            if type(inner) is SquaredErrorModule:
                return partial(_squared, squares, back, 2.0 / len(g))
            assert isinstance(inner, GaussianLossModule)
            if isinstance(inner.log_variance, nn.Parameter):
                return partial(_learned, squares, back, inner)
            return partial(_likelihood, squares, back, float(inner.log_variance))
    return partial(_by_autograd, loss, raw, target, g, shape)


class _Squares:
    """Writes the residual to ``g`` (n, d) and returns the mean over the rows of its square."""

    def __init__(self, residual: Residual, g: Tensor) -> None:
        self.residual, self.g, self.n = residual, g, len(g)
        self.small = g.numpy() if g.device.type == "cpu" and g.numel() <= _FEW else None

    def __call__(self) -> Tensor | float:
        self.residual()
        if self.small is not None:
            flat = self.small.reshape(-1)
            return float(np.dot(flat, flat)) / self.n
        flat_tensor = self.g.view(-1)
        return torch.dot(flat_tensor, flat_tensor) / self.n

    def times(self, factor: float | Tensor) -> None:
        """Multiply ``g``."""
        if self.small is not None and isinstance(factor, float):
            np.multiply(self.small, factor, out=self.small)
        else:
            self.g.mul_(factor)


def _passed(
    output: nn.Module | None, raw: Tensor, target: Tensor, g: Tensor
) -> tuple[Residual, Residual | None] | None:
    """Return the call that writes output(raw) - target to g, and the one that takes g back through output."""
    if output is None:
        if g.device.type == "cpu" and g.numel() <= _FEW:
            return partial(np.subtract, raw.numpy(), target.numpy(), out=g.numpy()), None
        return partial(torch.sub, raw, target, out=g), None
    if type(output) is Clip:
        low, high = output.low.view(-1), output.high.view(-1)

        def clipped() -> None:
            torch.clamp(raw, low, high, out=g).sub_(target)

        return clipped, None
    if type(output) is Activate and output.activation.name in DERIVATIVES:
        rule = DERIVATIVES[output.activation.name]
        image = torch.empty_like(raw)

        def activated() -> None:
            if not rule.of_input:
                image.copy_(raw)
            rule.forward(raw if rule.of_input else image, image)
            torch.sub(image, target, out=g)

        return activated, partial(rule.backward, g, raw if rule.of_input else image)
    return None


def _squared(squares: _Squares, back: Residual | None, factor: float) -> Tensor | float:
    mean = squares()
    squares.times(factor)
    if back is not None:
        back()
    return mean


def _likelihood(squares: _Squares, back: Residual | None, log_variance: float) -> Tensor | float:
    precision = math.exp(-log_variance)
    size = squares.g.shape[1]
    mean = _squared(squares, back, precision / squares.n)
    return 0.5 * (mean * precision + size * (log_variance + math.log(2 * math.pi)))


def _learned(squares: _Squares, back: Residual | None, loss: GaussianLossModule) -> Tensor:
    learned = loss.log_variance
    assert learned.grad is not None
    log_variance = learned.detach().clamp(min=loss.LEAST)
    precision = torch.exp(-log_variance)
    size = squares.g.shape[1]
    explained = squares() * precision
    squares.times(precision / squares.n)
    if back is not None:
        back()
    learned.grad.copy_(0.5 * (size - explained) * (learned.detach() >= loss.LEAST))
    return 0.5 * (explained + size * (log_variance + math.log(2 * math.pi)))


def _cross_entropy(raw: Tensor, target: Tensor, g: Tensor) -> Tensor:
    n = len(g)
    value = functional.binary_cross_entropy_with_logits(raw, target, reduction="sum")
    torch.sigmoid(raw, out=g).sub_(target).div_(n)
    return value / n


def _by_autograd(loss: LossModule, raw: Tensor, target: Tensor, g: Tensor, shape: tuple[int, ...]) -> Tensor:
    for w in loss.parameters():
        if w.grad is not None:
            w.grad.zero_()
    with torch.enable_grad():
        leaf = raw.detach().requires_grad_()
        mean: Tensor = loss(leaf.view(shape), target.view(shape)).mean()
        mean.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    g.copy_(leaf.grad)
    return mean.detach()
