r"""The fourth axis: what happens at the bottleneck.

Shapes: h (n, p * d, ...) is the encoder's output with p parameters per unit; a code is (n, d, ...),
where the dots stand for the positions of a spatial code. Sums over units are taken over dimension 1.

Longer than 400 lines: six short latents, each a setting and a module, that are read side by side.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diabolo.errors import IncompatiblePartsError
from diabolo.parts.activations import Activation, activation
from diabolo.parts.base import Part, check_range
from diabolo.parts.shares import Shared, drawn


@dataclass
class Code:
    """The bottleneck's state for one batch.

    ``value`` is what the decoder gets, ``mean`` its deterministic counterpart (they are the same
    tensor where nothing is drawn), ``log_variance`` that of a Gaussian posterior, ``auxiliary`` a
    code of dead units only, ``count`` a differentiable number of active units (n,).
    """

    value: Tensor
    mean: Tensor
    pre_activation: Tensor
    log_variance: Tensor | None = None
    auxiliary: Tensor | None = None
    count: Tensor | None = None


@dataclass
class LinearHead:
    """How a deterministic code follows from the encoder's output: ``scale * f(h[:units]) + const``."""

    units: int
    activation: Activation
    scale: Tensor | None = None


class LatentModule(nn.Module):
    """A latent ready to run. Abstract."""

    @abstractmethod
    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Code:
        """Turn the encoder's output into a code; with a generator it is drawn, without it is the mean."""

    @property
    def is_identity(self) -> bool:
        """Whether the code is the encoder's output as it stands."""
        return False

    def linear_head(self) -> LinearHead | None:
        """Return the element-wise form of the mean, or None where it has none (then autograd serves)."""
        return None


@dataclass
class Latent(Part):
    """Base of the latents. Abstract.

    ``parameters_per_unit`` is p; ``auxiliary_weight`` is the weight of the term that revives dead units.
    """

    parameters_per_unit: ClassVar[int] = 1
    overcomplete: ClassVar[bool] = False

    @abstractmethod
    def build(self, latent_dim: int, latent_activation: str | None) -> LatentModule:
        """Return the latent ready to run for ``latent_dim`` units."""

    def _refuse_activation(self, latent_activation: str | None, why: str) -> None:
        if latent_activation not in (None, "linear"):
            raise IncompatiblePartsError(
                f"latent_activation must be None for latent={self.name!r}; got {latent_activation!r}. {why}"
            )


# ----------------------------------------------------------------------------------------------------
class DeterministicModule(LatentModule):
    """The code is an element-wise function of the encoder's output."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.activation = activation(name, "latent_activation")

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Code:
        """Turn the encoder's output into a code; with a generator it is drawn."""
        z = self.activation.function(h)
        return Code(z, z, h)

    @property
    def is_identity(self) -> bool:
        """Whether the code is the encoder's output as it stands."""
        return self.activation.name == "linear"

    def linear_head(self) -> LinearHead:
        """Return the element-wise form of the mean."""
        return LinearHead(-1, self.activation)


@dataclass
class Deterministic(Latent):
    r"""The plain code :math:`z = f(h)`, f the latent activation."""

    name: ClassVar[str] = "deterministic"

    def build(self, latent_dim: int, latent_activation: str | None) -> LatentModule:
        """Return the latent ready to run."""
        return DeterministicModule(latent_activation or "linear")


# ----------------------------------------------------------------------------------------------------
class NoisyModule(LatentModule):
    """The code is normalised over the batch and sent through noise."""

    MOMENTUM, EPS = 0.05, 1e-5

    def __init__(self, latent_dim: int, std: float, name: str) -> None:
        super().__init__()
        self.std = std
        self.activation = activation(name, "latent_activation")
        self.register_buffer("running_mean", torch.zeros(latent_dim))
        self.register_buffer("running_var", torch.ones(latent_dim))
        self.running_mean: Tensor
        self.running_var: Tensor

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Code:
        """Turn the encoder's output into a code; with a generator it is drawn."""
        y = functional.batch_norm(
            self.activation.function(h),
            self.running_mean,
            self.running_var,
            training=self.training,
            momentum=self.MOMENTUM,
            eps=self.EPS,
        )
        if generator is None:
            return Code(y, y, h)
        return Code(y + self.std * torch.empty_like(y).normal_(generator=generator), y, h)

    def linear_head(self) -> LinearHead:
        """Return the element-wise form of the mean."""
        return LinearHead(-1, self.activation, torch.rsqrt(self.running_var + self.EPS))


@dataclass
class Noisy(Latent):
    r"""A Gaussian channel: :math:`z = y + \sigma\varepsilon`, with y of mean 0 and variance 1 per unit.

    The normalisation (over the batch while training, running statistics afterwards) is what makes
    the noise count: without a bound on the code's power the encoder would simply speak louder. Each
    unit carries at most :math:`\tfrac12\log(1 + 1/\sigma^2)` nats, and codes can be drawn from a
    standard normal distribution.

    Parameters
    ----------
    std : float > 0, default=0.3
        Standard deviation of the noise, in units of the code's own.
    """

    name: ClassVar[str] = "noisy"
    std: float = 0.3

    def validate(self) -> None:
        """Check the settings."""
        check_range("std of Noisy", self.std, low=0, open_low=True)

    def build(self, latent_dim: int, latent_activation: str | None) -> LatentModule:
        """Return the latent ready to run."""
        return NoisyModule(latent_dim, self.std, latent_activation or "linear")


# ----------------------------------------------------------------------------------------------------
class GaussianModule(LatentModule):
    """The code is drawn from a Gaussian whose mean and log-variance the encoder gives."""

    # a standard deviation between 1e-4 and 150: exp() stays finite, no useful posterior lies outside
    LEAST, MOST = -18.0, 10.0

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Code:
        """Turn the encoder's output into a code; with a generator it is drawn."""
        mean, log_variance = h.chunk(2, dim=1)
        log_variance = log_variance.clamp(self.LEAST, self.MOST)
        value = mean
        if generator is not None:
            noise = drawn(Tensor.normal_, torch.empty_like(mean), generator=generator)
            value = mean + torch.exp(0.5 * log_variance) * noise
        return Code(value, mean, h, log_variance=log_variance)

    def linear_head(self) -> LinearHead:
        """Return the element-wise form of the mean."""
        return LinearHead(self.latent_dim, activation("linear"))


@dataclass
class GaussianPosterior(Latent):
    r"""A diagonal Gaussian posterior, :math:`z = \mu(x) + \sigma(x)\varepsilon` (Kingma & Welling 2013).

    The encoder gives mean and log-variance of each unit; gradients pass through the draw.
    ``transform`` gives the mean.
    """

    name: ClassVar[str] = "gaussian"
    parameters_per_unit: ClassVar[int] = 2

    def build(self, latent_dim: int, latent_activation: str | None) -> LatentModule:
        """Return the latent ready to run."""
        self._refuse_activation(latent_activation, "Its mean is unbounded, as the prior is.")
        return GaussianModule(latent_dim)


# ----------------------------------------------------------------------------------------------------
class Selecting(LatentModule):
    """Common to the latents that keep few units: counts how long each unit has been silent.

    ``generator`` is that of the training, which knows whether other workers have rows of the batch too.
    """

    generator: torch.Generator | None = None

    def __init__(self, latent_dim: int, revive_after: int) -> None:
        super().__init__()
        self.revive_after = revive_after
        self.register_buffer("silent", torch.zeros(latent_dim, dtype=torch.int64))
        self.silent: Tensor

    def auxiliary(self, h: Tensor, z: Tensor) -> Tensor | None:
        """Note which units are active and return a code of the dead ones, or None."""
        if not self.training:
            return None
        return self.revived(h, self.dead_units((z != 0).transpose(0, 1).flatten(1).any(1), len(z)))

    def revived(self, h: Tensor, dead: Tensor) -> Tensor | None:
        """Return a code of the ``dead`` units (d,) alone, from pre-activations h; None without any."""
        if not dead.any():
            return None
        n_dead = int(dead.sum())
        # the pre-activation itself, not its rectified value: a unit below zero must get a gradient too
        masked = h.transpose(0, 1).masked_fill(~dead.view(-1, *[1] * (h.ndim - 1)), -math.inf).transpose(0, 1)
        top = masked.topk(min(n_dead, self.most_revived), dim=1)
        return torch.zeros_like(h).scatter(1, top.indices, top.values)

    @property
    def most_revived(self) -> int:
        """Number of dead units at most in a sample's auxiliary code."""
        return max(1, len(self.silent) // 2)

    @torch.no_grad()
    def dead_units(self, active: Tensor, n_samples: int) -> Tensor:
        """Note which units a batch made active, (d,), and return which are dead now, (d,)."""
        if isinstance(self.generator, Shared):
            active, n_samples = self.generator.any(active), self.generator.whole
        self.silent.add_(n_samples).masked_fill_(active, 0)
        return self.silent > self.revive_after


class TopKModule(Selecting):
    """The code keeps each sample's k largest units."""

    def __init__(self, latent_dim: int, k: int, name: str, revive_after: int) -> None:
        super().__init__(latent_dim, revive_after)
        self.k = k
        self.activation = activation(name, "latent_activation")

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Code:
        """Turn the encoder's output into a code; with a generator it is drawn."""
        top = self.activation.function(h).topk(self.k, dim=1)
        z = torch.zeros_like(h).scatter(1, top.indices, top.values)
        return Code(z, z, h, auxiliary=self.auxiliary(h, z))


class _BatchTopK(Selecting):
    _MOMENTUM = 0.02

    def __init__(self, latent_dim: int, k: int, name: str, revive_after: int) -> None:
        super().__init__(latent_dim, revive_after)
        self.k = k
        self.activation = activation(name, "latent_activation")
        self.register_buffer("threshold", torch.tensor(-1.0))
        self.threshold: Tensor

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Code:
        a = self.activation.function(h)
        if self.training:
            kept = self.k * (a.numel() // a.shape[1])
            least = a.detach().flatten().topk(kept).values[-1].clamp(min=0.0)
            with torch.no_grad():  # the first batch sets the threshold, later ones move it
                step = torch.where(self.threshold < 0, 1.0, self._MOMENTUM)
                self.threshold.add_(step * (least - self.threshold))
            z = a * (a >= least)
        else:
            z = a * (a >= self.threshold)
        return Code(z, z, h, auxiliary=self.auxiliary(h, z))


@dataclass
class _Top(Latent):
    """Settings shared by TopK and BatchTopK. Abstract: it has no name of its own."""

    overcomplete: ClassVar[bool] = True
    k: int | None = None
    auxiliary_weight: float = 1 / 32
    revive_after: int = 10_000

    def validate(self) -> None:
        """Check the settings."""
        who = type(self).__name__
        if self.k is not None:
            check_range(f"k of {who}", self.k, low=1, integer=True)
        check_range(f"auxiliary_weight of {who}", self.auxiliary_weight, low=0)
        check_range(f"revive_after of {who}", self.revive_after, low=1, integer=True)

    def _k(self, latent_dim: int) -> int:
        k = max(1, latent_dim // 10) if self.k is None else int(self.k)
        if k > latent_dim:
            raise IncompatiblePartsError(
                f"k of {type(self).__name__} must be at most latent_dim={latent_dim}; got {k}. "
                "Lower k or widen the code."
            )
        return k


@dataclass
class TopK(_Top):
    r"""Keeps the k largest units of every sample and sets the others to 0 (Makhzani & Frey 2013).

    Units that were silent for ``revive_after`` samples are dead; an auxiliary term lets them
    reconstruct what the living ones leave over (Gao et al. 2024), which revives them.

    Parameters
    ----------
    k : int in [1, latent_dim] or None, default=None
        Units kept. None: a tenth of the code.
    auxiliary_weight : float >= 0, default=1/32
        Weight of the reviving term.
    revive_after : int >= 1, default=10000
        Samples after which a silent unit counts as dead.
    """

    name: ClassVar[str] = "topk"

    def build(self, latent_dim: int, latent_activation: str | None) -> LatentModule:
        """Return the latent ready to run."""
        return TopKModule(latent_dim, self._k(latent_dim), latent_activation or "relu", self.revive_after)


@dataclass
class BatchTopK(_Top):
    r"""Keeps the k * n largest units of a batch of n (Bussmann et al. 2024): easy samples use fewer.

    After training a unit is kept where it exceeds the running average of the batches' thresholds,
    so a sample's code does not depend on its neighbours. Same settings as TopK.
    """

    name: ClassVar[str] = "batch_topk"

    def build(self, latent_dim: int, latent_activation: str | None) -> LatentModule:
        """Return the latent ready to run."""
        return _BatchTopK(latent_dim, self._k(latent_dim), latent_activation or "relu", self.revive_after)


# ----------------------------------------------------------------------------------------------------
def jump(h: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    r"""Return :math:`h\,[h > \theta]` and :math:`[h > \theta]` with straight-through derivatives for theta.

    These are :math:`-\tfrac{\theta}{b} K` and :math:`-\tfrac{1}{b} K`, with K = 1 where
    :math:`|h - \theta| < b / 2` (Rajamanoharan et al. 2024, equations 11 and 12).
    """
    passes = (h > threshold).to(h.dtype)
    window = ((h - threshold).abs() < bandwidth / 2).to(h.dtype) / bandwidth
    pull = window * (threshold - threshold.detach())  # nothing in value, the window in derivative
    return h * passes - threshold.detach() * pull, passes - pull


class _JumpReLU(LatentModule):
    def __init__(self, latent_dim: int, threshold: float, bandwidth: float) -> None:
        super().__init__()
        self.bandwidth = bandwidth
        self.log_threshold = nn.Parameter(torch.full((latent_dim,), math.log(threshold)))

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Code:
        threshold = torch.exp(self.log_threshold).view(1, -1, *[1] * (h.ndim - 2))
        z, active = jump(h, threshold, self.bandwidth)
        return Code(z, z, h, count=active.flatten(1).sum(1))


@dataclass
class JumpReLU(Latent):
    r"""Keeps a unit where it exceeds its own learned threshold: :math:`z = h\,[h > \theta]`.

    See Rajamanoharan et al. (2024).
    The thresholds learn through straight-through derivatives; the penalty "l0" sets how many units
    stay active.

    Parameters
    ----------
    threshold : float > 0, default=0.1
        Where every threshold starts.
    bandwidth : float > 0, default=0.1
        Width of the window around the threshold in which values teach it.
    """

    name: ClassVar[str] = "jumprelu"
    overcomplete: ClassVar[bool] = True
    threshold: float = 0.1
    bandwidth: float = 0.1

    def validate(self) -> None:
        """Check the settings."""
        check_range("threshold of JumpReLU", self.threshold, low=0, open_low=True)
        check_range("bandwidth of JumpReLU", self.bandwidth, low=0, open_low=True)

    def build(self, latent_dim: int, latent_activation: str | None) -> LatentModule:
        """Return the latent ready to run."""
        self._refuse_activation(latent_activation, "The jump is its activation.")
        return _JumpReLU(latent_dim, self.threshold, self.bandwidth)
