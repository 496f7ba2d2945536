r"""The fifth axis: what is added to the loss.

A penalty returns its *unweighted* value per sample, shape (n,), *summed* over units; the objective
multiplies by ``weight_at(step)``. A penalty over a whole batch gives every sample the same value.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from diabolo.errors import IncompatiblePartsError
from diabolo.names import check_name
from diabolo.parts.base import Part, check_range
from diabolo.parts.jacobian import estimated_jacobian_norm, squared_jacobian_norm
from diabolo.parts.latents import Code, GaussianPosterior, JumpReLU, Latent, LatentModule
from diabolo.parts.losses import per_sample


@dataclass
class ForwardPass:
    """One batch on its way through: what the penalties and the loss are computed from.

    ``target`` (n, *shape) is the clean input, ``seen`` what the encoder got (corrupted or not),
    ``code`` the bottleneck's state, ``raw`` (n, *shape) the decoder's output before the link.
    """

    target: Tensor
    seen: Tensor
    code: Code
    raw: Tensor


@dataclass
class Penalty(Part):
    """Base of the penalties. Abstract."""

    @abstractmethod
    def __call__(
        self, encoder: nn.Module, latent: LatentModule, passed: ForwardPass, generator: torch.Generator | None
    ) -> Tensor:
        """Return the unweighted penalty of each sample, (n,)."""

    @abstractmethod
    def weight_at(self, step: int | None) -> float:
        """Return the weight at a training step; None means after training (schedules finished)."""

    def check_fits(self, latent: Latent, latent_activation: str | None) -> None:
        """Raise IncompatiblePartsError where the latent cannot have this penalty."""


class _Weighted(Penalty):
    """A penalty of constant weight. Abstract; no dataclass, so that each penalty orders its own settings."""

    weight: float

    def validate(self) -> None:
        """Check the settings."""
        check_range(
            f"weight of {type(self).__name__}",
            self.weight,
            low=0,
            open_low=True,
            hint="Leave the penalty out instead of 0.",
        )

    def weight_at(self, step: int | None) -> float:
        """Return the weight."""
        return self.weight


@dataclass
class L1(_Weighted):
    r"""Sum of the code's absolute values, :math:`\sum_j |z_j|`.

    With an untied decoder the network can shrink the code and enlarge the decoder; tie the weights,
    bound the code or add weight decay.

    Parameters
    ----------
    weight : float > 0, default=0.01
        Factor in the objective.
    """

    name: ClassVar[str] = "l1"
    weight: float = 0.01

    def __call__(
        self, encoder: nn.Module, latent: LatentModule, passed: ForwardPass, generator: torch.Generator | None
    ) -> Tensor:
        """Return the sums, (n,)."""
        return per_sample(passed.code.mean.abs())


@dataclass
class L0(_Weighted):
    r"""Number of active units, for JumpReLU codes, whose thresholds it moves.

    Parameters
    ----------
    weight : float > 0, default=0.01
        What one active unit costs.
    """

    name: ClassVar[str] = "l0"
    weight: float = 0.01

    def check_fits(self, latent: Latent, latent_activation: str | None) -> None:
        """Refuse latents without a differentiable count."""
        if not isinstance(latent, JumpReLU):
            raise IncompatiblePartsError(
                f"penalty 'l0' must go with latent='jumprelu'; got latent={latent.name!r}. "
                "Use penalty='l1', or latent='topk', which fixes the number itself."
            )

    def __call__(
        self, encoder: nn.Module, latent: LatentModule, passed: ForwardPass, generator: torch.Generator | None
    ) -> Tensor:
        """Return the counts, (n,)."""
        assert passed.code.count is not None
        return passed.code.count


@dataclass
class KLSparsity(_Weighted):
    r"""Divergence between a wanted and the batch's mean activation of each unit (Ng 2011).

    .. math:: \sum_j \rho\log\frac{\rho}{\hat\rho_j} + (1-\rho)\log\frac{1-\rho}{1-\hat\rho_j},
              \qquad \hat\rho_j = \tfrac1n\sum_i z_{ij}

    Needs codes in (0, 1): ``latent_activation="sigmoid"``.

    Parameters
    ----------
    target : float in (0, 1), default=0.05
        Wanted mean activation rho.
    weight : float > 0, default=1.0
        Factor in the objective.
    """

    name: ClassVar[str] = "kl_sparsity"
    target: float = 0.05
    weight: float = 1.0

    def validate(self) -> None:
        """Check the settings."""
        super().validate()
        check_range("target of KLSparsity", self.target, low=0, high=1, open_low=True, open_high=True)

    def check_fits(self, latent: Latent, latent_activation: str | None) -> None:
        """Refuse codes that are not shares."""
        if latent_activation != "sigmoid" or latent.name not in ("deterministic", "topk", "batch_topk"):
            raise IncompatiblePartsError(
                "penalty 'kl_sparsity' must have codes in (0, 1); got "
                f"latent={latent.name!r} with latent_activation={latent_activation!r}. "
                "Set latent='deterministic' and latent_activation='sigmoid'."
            )

    def __call__(
        self, encoder: nn.Module, latent: LatentModule, passed: ForwardPass, generator: torch.Generator | None
    ) -> Tensor:
        """Return the batch's divergence, summed over units, for each sample: (n,)."""
        z = passed.code.mean
        mean = z.transpose(0, 1).flatten(1).mean(1).clamp(1e-6, 1 - 1e-6)
        rho = self.target
        divergence = rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()
        total: Tensor = divergence.sum()
        return total.expand(len(z))


@dataclass
class Contractive(_Weighted):
    r"""Squared Frobenius norm of the encoder's Jacobian, :math:`\lVert\partial z/\partial x\rVert_F^2`.

    Exact for any encoder by the cheapest exact route (see ``diabolo.parts.jacobian``), or an
    unbiased estimate from random projections (Rifai et al. 2011; taken at the input the encoder
    gets, corrupted if there is a corruption). Without a generator there is nothing to draw from, and
    the value is exact. With untied weights the decoder can undo it by
    growing: tie them.

    Parameters
    ----------
    weight : float > 0, default=0.1
        Factor in the objective.
    method : {"exact", "estimate"}, default="exact"
        Estimate only where the code is wide and the encoder deep: it is noisy.
    n_probes : int >= 1, default=1
        Random projections per step; only with method="estimate".
    """

    name: ClassVar[str] = "contractive"
    weight: float = 0.1
    method: str = "exact"
    n_probes: int = 1

    def validate(self) -> None:
        """Check the settings."""
        super().validate()
        check_name("method of Contractive", self.method, ("exact", "estimate"))
        check_range("n_probes of Contractive", self.n_probes, low=1, integer=True)
        if self.method == "exact" and self.n_probes != 1:
            raise IncompatiblePartsError(
                f"n_probes of Contractive must be 1 with method='exact'; got {self.n_probes}. "
                "Set method='estimate'."
            )

    def __call__(
        self, encoder: nn.Module, latent: LatentModule, passed: ForwardPass, generator: torch.Generator | None
    ) -> Tensor:
        """Return the squared norms, (n,)."""
        if self.method == "estimate" and generator is not None:
            return estimated_jacobian_norm(encoder, latent, passed.seen, self.n_probes, generator)
        return squared_jacobian_norm(encoder, latent, passed.seen)


@dataclass
class PosteriorKL(Penalty):
    r"""Divergence of a Gaussian posterior from the standard normal prior, in nats.

    .. math:: \tfrac12 \sum_j \left(\mu_j^2 + \sigma_j^2 - 1 - \log\sigma_j^2\right)

    With ``free_bits`` > 0 each unit's divergence, averaged over the batch, costs nothing below that
    many nats (Kingma et al. 2016), so that units are not switched off early.

    Parameters
    ----------
    beta : float > 0, default=1.0
        Factor in the objective; 1 is the bound on the likelihood, more disentangles, less reconstructs.
    free_bits : float >= 0, default=0.0
        In nats per unit.
    warmup : int >= 0, default=0
        Steps over which the factor rises linearly from 0 to beta.
    """

    name: ClassVar[str] = "posterior_kl"
    beta: float = 1.0
    free_bits: float = 0.0
    warmup: int = 0

    def validate(self) -> None:
        """Check the settings."""
        check_range("beta of PosteriorKL", self.beta, low=0, open_low=True)
        check_range("free_bits of PosteriorKL", self.free_bits, low=0)
        check_range("warmup of PosteriorKL", self.warmup, low=0, integer=True)

    def weight_at(self, step: int | None) -> float:
        """Return beta, or its share during the warm-up."""
        if step is None or step >= self.warmup:
            return self.beta
        return self.beta * step / self.warmup

    def check_fits(self, latent: Latent, latent_activation: str | None) -> None:
        """Refuse latents without a posterior."""
        if not isinstance(latent, GaussianPosterior):
            raise IncompatiblePartsError(
                f"penalty 'posterior_kl' must go with latent='gaussian'; got latent={latent.name!r}. "
                "Set latent='gaussian' or leave the penalty out."
            )

    def __call__(
        self, encoder: nn.Module, latent: LatentModule, passed: ForwardPass, generator: torch.Generator | None
    ) -> Tensor:
        """Return the divergences, (n,)."""
        divergence = posterior_divergence(passed.code.mean, passed.code.log_variance)
        if self.free_bits:
            by_unit = divergence.mean(0).flatten()
            return by_unit.clamp(min=self.free_bits).sum().expand(len(divergence))
        return per_sample(divergence)


def posterior_divergence(mean: Tensor, log_variance: Tensor | None) -> Tensor:
    """Return the divergence from the standard normal of every unit of every sample, in nats."""
    assert log_variance is not None
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)
