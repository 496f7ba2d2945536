"""The common latents and penalties differentiated by hand, for the dense step.

Each latent maps the encoder's output h to the code z, and the gradient at z back to that at h; between
the two the penalties add theirs to the gradient at the code's mean. What is not here (BatchTopK, JumpReLU,
free bits) goes through autograd in ``dense.py``; the contractive one is in ``contraction.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diabolo.autoencoder import AutoencoderModule
from diabolo.objective import REVIVAL, Objective, revival
from diabolo.parts import L1, Code, ForwardPass, KLSparsity, PosteriorKL
from diabolo.parts.latents import DeterministicModule, GaussianModule, NoisyModule, TopKModule
from diabolo.parts.penalties import posterior_divergence
from diabolo.parts.shares import Shared, drawn
from diabolo.training.costs import Terms
from diabolo.training.derivatives import DERIVATIVES, Derivative

Array = np.ndarray[Any, np.dtype[Any]]
_NARROW = 128  # units of a code up to which NumPy has less overhead than torch


class Bottleneck(ABC):
    """A latent by hand. ``h`` (n, p * d) is the encoder's output, which may be overwritten."""

    mean: Tensor
    value: Tensor
    in_place = False  # whether value is h itself, changed, and the gradient at h that at the mean, changed
    narrow = False  # whether it writes the code to where ``place`` says, whatever its layout

    def place(self, h: Tensor, value: Tensor, g: Tensor, out: Tensor) -> None:  # noqa: B027  (few use it)
        """Be told, before the first batch of n rows, where everything will lie.

        The encoder's output h, the code (n, d) for the decoder, the gradient g at that and ``out`` at h.
        """

    @property
    def has_dead(self) -> bool:
        """Whether there were dead units in the last batch, for ``revive``."""
        return False

    @abstractmethod
    def forward(self, h: Tensor, generator: torch.Generator) -> None:
        """Set ``value``, which the decoder gets, and ``mean``."""

    @abstractmethod
    def backward(self, g: Tensor, out: Tensor) -> None:
        """Write the gradient at h, given that at the mean (n, d), to ``out``; g may be overwritten."""

    def code(self) -> Code:
        """Return what the penalties look at."""
        return Code(self.value, self.mean, self.mean)

    def revive(
        self, module: AutoencoderModule, objective: Objective, passed: ForwardPass
    ) -> dict[str, Tensor]:
        """Return the reviving term of the dead units, after adding its gradient to the decoder's."""
        return {}


class Activated:
    """The element-wise activation before a latent's own work, in place."""

    def __init__(self, name: str) -> None:
        self.rule: Derivative | None = DERIVATIVES.get(name)

    def forward(self, h: Tensor) -> Tensor:
        """Return f(h)."""
        self._saved = h
        if self.rule is None:
            return h
        out = torch.empty_like(h) if self.rule.of_input else h
        self.rule.forward(h, out)
        return out

    def backward(self, g: Tensor) -> None:
        """Multiply g by f'(h)."""
        if self.rule is not None:
            self.rule.backward(g, self._saved)


class _Deterministic(Bottleneck):
    def __init__(self, latent: DeterministicModule) -> None:
        self.activated = Activated(latent.activation.name)
        self.in_place = self.activated.rule is None or not self.activated.rule.of_input

    def forward(self, h: Tensor, generator: torch.Generator) -> None:
        self.value = self.mean = self.activated.forward(h)

    def backward(self, g: Tensor, out: Tensor) -> None:
        self.activated.backward(g)
        if out is not g:
            out.copy_(g)


class _Noisy(Bottleneck):
    def __init__(self, latent: NoisyModule) -> None:
        self.latent = latent
        self.activated = Activated(latent.activation.name)

    def forward(self, h: Tensor, generator: torch.Generator) -> None:
        latent, self._a = self.latent, self.activated.forward(h)
        self.mean, *self._statistics = torch.native_batch_norm(
            self._a, None, None, latent.running_mean, latent.running_var, True, latent.MOMENTUM, latent.EPS
        )
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        self.value = self.mean.add(noise, alpha=latent.std)

    def backward(self, g: Tensor, out: Tensor) -> None:
        latent = self.latent
        down, _, _ = torch.ops.aten.native_batch_norm_backward(
            g, self._a, None, latent.running_mean, latent.running_var, *self._statistics, True, latent.EPS,
            [True, False, False],
        )  # fmt: skip
        self.activated.backward(down)
        out.copy_(down)


class _TopK(Bottleneck):
    def __init__(self, latent: TopKModule) -> None:
        self.latent = latent
        self.activated = Activated(latent.activation.name)
        self.auxiliary: Tensor | None = None

    def forward(self, h: Tensor, generator: torch.Generator) -> None:
        before = h.clone() if self.activated.rule is not None else h
        values, self._places = self.activated.forward(h).topk(self.latent.k, dim=1)
        self.value = self.mean = torch.zeros_like(h).scatter_(1, self._places, values)
        self.auxiliary = self.latent.auxiliary(before, self.value)

    def backward(self, g: Tensor, out: Tensor) -> None:
        out.zero_().scatter_(1, self._places, g.gather(1, self._places))
        self._down(out)

    def _down(self, out: Tensor) -> None:
        """Take the gradient at the kept values in ``out`` down to h."""
        self._activated_down(out)
        if self.auxiliary is not None and self.auxiliary.grad is not None:
            # it holds pre-activations of dead units as they stand, and nothing elsewhere
            out.add_(self.auxiliary.grad * (self.auxiliary != 0))

    def _activated_down(self, out: Tensor) -> None:
        self.activated.backward(out)

    @property
    def has_dead(self) -> bool:
        return self.auxiliary is not None

    def code(self) -> Code:
        return Code(self.value, self.mean, self.mean, auxiliary=self.auxiliary)

    def revive(
        self, module: AutoencoderModule, objective: Objective, passed: ForwardPass
    ) -> dict[str, Tensor]:
        assert self.auxiliary is not None
        leaf = self.auxiliary.requires_grad_()
        with torch.enable_grad():
            term = objective.revival_weight * revival(module, passed, leaf).mean()
            term.backward()  # type: ignore[no-untyped-call]
        return {REVIVAL: term.detach()}


# The same by NumPy: for narrow codes most of the time goes into calls, and it needs fewer and lighter ones.
# What ``place`` was told is looked up as an array once: forward and backward must be given the same tensors.
class _NarrowNoisy(_Noisy):
    narrow = True

    def place(self, h: Tensor, value: Tensor, g: Tensor, out: Tensor) -> None:
        """Set where all lies, and make room of the code's shape and layout."""
        self.value, self.mean = value, torch.empty_like(value)
        n = len(value)
        self._g, self._out = g.numpy(), out.numpy()
        self._running = self.latent.running_mean.numpy(), self.latent.running_var.numpy()
        self._noise = value.new_empty(value.shape)  # by rows: so the same noise comes as by autograd
        self._drawn, self._z, self._y = self._noise.numpy(), value.numpy(), self.mean.numpy()
        self._room, self._share = np.empty_like(self._y), np.full(n, 1.0 / n, dtype=self._y.dtype)

    def forward(self, h: Tensor, generator: torch.Generator) -> None:
        latent, n = self.latent, len(h)
        a, y = self.activated.forward(h).numpy(), self._y
        mean = np.dot(self._share, a)
        np.subtract(a, mean, out=y)
        variance = np.dot(self._share, np.multiply(y, y, out=self._room))
        self._scale = 1.0 / np.sqrt(variance + latent.EPS)
        np.multiply(y, self._scale, out=y)
        variance *= n / (n - 1)
        for running, found in zip(self._running, (mean, variance), strict=True):
            running += latent.MOMENTUM * (found - running)
        self._noise.normal_(0.0, latent.std, generator=generator)
        np.add(self._drawn, y, out=self._z)

    def backward(self, g: Tensor, out: Tensor) -> None:
        above, below, room, share = self._g, self._out, self._room, self._share
        together = np.dot(share, np.multiply(above, self._y, out=room))
        np.subtract(above, np.dot(share, above), out=below)
        np.subtract(below, np.multiply(self._y, together, out=room), out=below)
        np.multiply(below, self._scale, out=below)
        self.activated.backward(out)


class _NarrowTopK(_TopK):
    narrow = True

    def __init__(self, latent: TopKModule) -> None:
        super().__init__(latent)
        # under relu only what is above zero is kept, so that it changes nothing that is kept
        self._relu = self.activated.rule is DERIVATIVES["relu"]

    def place(self, h: Tensor, value: Tensor, g: Tensor, out: Tensor) -> None:
        """Set where all lies, and make room of the code's shape and layout."""
        self.value = self.mean = value
        self._h, self._z, self._g, self._out = h.numpy(), value.numpy(), g.numpy(), out.numpy()
        self._silent = self.latent.silent.numpy()
        self._chosen, self._room = np.empty_like(self._z), np.empty_like(self._z)
        self._ranked = np.empty(self._z.shape, dtype=self._z.dtype)
        self._ones, self._units = (np.ones(k, dtype=self._z.dtype) for k in self._z.shape)
        self._least = np.nextafter(self._z.dtype.type(0), self._z.dtype.type(1))

    def forward(self, h: Tensor, generator: torch.Generator) -> None:
        before = h if self._relu or self.activated.rule is None else h.clone()
        a = self._h if self._relu else self.activated.forward(h).numpy()
        self._choose(a)
        np.multiply(a, self._chosen, out=self._z)
        kept = self._chosen if self._relu else np.multiply(self._z, self._z, out=self._room)
        active = np.dot(self._ones, kept) > 0
        latent, n, silent = self.latent, len(h), self._silent
        self.auxiliary = None
        if isinstance(generator, Shared):
            dead = latent.dead_units(torch.from_numpy(active), n)
        else:
            silent += n
            silent[active] = 0
            if silent[silent.argmax()] <= latent.revive_after:
                return
            dead = latent.silent > latent.revive_after
        self.auxiliary = latent.revived(before, dead)

    def _choose(self, a: Array) -> None:
        """Mark the k largest of each row of a."""
        chosen, ranked, k = self._chosen, self._ranked, self.latent.k
        if k == a.shape[1]:
            chosen[:] = a > 0.0 if self._relu else 1.0
            return
        np.copyto(ranked, a)
        ranked.sort(axis=1)  # of so few, in half the time of partition()
        bound = ranked[:, -k]
        if self._relu:
            np.maximum(bound, self._least, out=bound)
        np.greater_equal(a, bound[:, None], out=chosen, casting="unsafe")
        kept = np.dot(chosen, self._units)
        if kept[kept.argmax()] > k:  # of equal ones some are too many; max() costs twice as much
            places = torch.from_numpy(a).topk(k, dim=1)
            chosen[:] = 0.0
            np.put_along_axis(chosen, places.indices.numpy(), 1.0, axis=1)
            if self._relu:
                chosen[a <= 0.0] = 0.0

    def backward(self, g: Tensor, out: Tensor) -> None:
        np.multiply(self._g, self._chosen, out=self._out)
        self._down(out)

    def _activated_down(self, out: Tensor) -> None:
        if not self._relu:
            super()._activated_down(out)


class _Gaussian(Bottleneck):
    def __init__(self, latent: GaussianModule) -> None:
        self.latent = latent

    def forward(self, h: Tensor, generator: torch.Generator) -> None:
        self.mean, self._raw = h.chunk(2, dim=1)
        self.log_variance = self._raw.clamp(self.latent.LEAST, self.latent.MOST)
        self._noise = drawn(Tensor.normal_, torch.empty_like(self.mean), generator=generator)
        self._noise.mul_(torch.exp(0.5 * self.log_variance))
        self.value = self.mean + self._noise
        self.divergence = 0.0  # the weight of the divergence in the coming gradient, per sample

    def backward(self, g: Tensor, out: Tensor) -> None:
        mean, log_variance = out.chunk(2, dim=1)
        torch.mul(g, self._noise, out=log_variance).mul_(0.5)
        mean.copy_(g)
        if self.divergence:
            mean.add_(self.mean, alpha=self.divergence)
            log_variance.add_(torch.expm1(self.log_variance), alpha=0.5 * self.divergence)
        log_variance.mul_(self._raw == self.log_variance)

    def code(self) -> Code:
        return Code(self.value, self.mean, self.mean, log_variance=self.log_variance)


_LATENTS: dict[type, type] = {
    DeterministicModule: _Deterministic,
    NoisyModule: _Noisy,
    TopKModule: _TopK,
    GaussianModule: _Gaussian,
}
_NARROW_LATENTS: dict[type, type] = {NoisyModule: _NarrowNoisy, TopKModule: _NarrowTopK}


def by_hand(module: AutoencoderModule, objective: Objective) -> Bottleneck | None:
    """Return the bottleneck by hand; None where a part of it has to go through autograd."""
    for penalty in objective.penalties:
        plain_divergence = type(penalty) is PosteriorKL and not penalty.free_bits
        if not plain_divergence and type(penalty) not in (L1, KLSparsity):
            return None
    latent = module.latent
    narrow = prod(module.code_shape) <= _NARROW and next(module.parameters()).device.type == "cpu"
    others = any(type(penalty) is not PosteriorKL for penalty in objective.penalties)
    if type(latent) is GaussianModule and others:  # whose gradient at the mean must not reach the variance
        return None
    kind = (_NARROW_LATENTS if narrow else {}).get(type(latent)) or _LATENTS.get(type(latent))
    return None if kind is None else kind(latent)


def penalties(bottleneck: Bottleneck, objective: Objective, step: int, g: Tensor) -> Terms:
    """Return the mean of every term besides the loss, and add its gradient at the code's mean to ``g``."""
    terms: Terms = {}
    n, z = len(g), bottleneck.mean
    for penalty in objective.penalties:
        weight = penalty.weight_at(step)
        if isinstance(penalty, L1):
            if z.device.type != "cpu" or z.shape[1] > _NARROW:
                terms[penalty.name] = torch.linalg.vector_norm(z, 1) * (weight / n)
                g.add_(torch.sign(z), alpha=weight / n)
            else:
                signs, gradient = np.sign(z.numpy()), g.numpy()
                terms[penalty.name] = float(np.vdot(signs, z.numpy())) * (weight / n)
                np.multiply(signs, weight / n, out=signs)
                np.add(gradient, signs, out=gradient)
        elif isinstance(penalty, KLSparsity):
            rho, mean = penalty.target, z.mean(0)
            inside = mean.clamp(1e-6, 1 - 1e-6)
            terms[penalty.name] = (
                weight * (rho * (rho / inside).log() + (1 - rho) * ((1 - rho) / (1 - inside)).log()).sum()
            )
            slope = ((1 - rho) / (1 - inside) - rho / inside) * (inside == mean)
            g.add_(slope, alpha=weight / n)
        else:
            assert isinstance(bottleneck, _Gaussian)
            divergence = posterior_divergence(z, bottleneck.log_variance)
            terms[penalty.name] = divergence.sum() * (weight / n)
            bottleneck.divergence = weight / n
    return terms
