r"""The third axis: what a reconstruction costs.

A loss is three things at once, so that they cannot be mismatched: a per-sample cost, a link
that maps the decoder's raw output to the reconstruction, and the interval of targets for which
the cost is defined. Costs have shape (n,) and are *summed* over a sample's values.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diabolo.errors import IncompatiblePartsError, InvalidParameterError
from diabolo.parts.activations import ACTIVATIONS
from diabolo.parts.base import Part, check_range


def per_sample(values: Tensor) -> Tensor:
    """Sum (n, *shape) over everything but the samples: (n,)."""
    return values.flatten(1).sum(1)


class LossModule(nn.Module):
    """A loss ready to run: ``forward(raw, target)`` gives (n,), ``mean(raw)`` the reconstruction.

    Abstract. ``raw`` is the decoder's output before the link.
    """

    def mean(self, raw: Tensor) -> Tensor:
        """Map raw output to the reconstruction, any shape."""
        return raw

    def raw_of(self, mean: Tensor) -> Tensor:
        """Return raw output (n_values,) whose reconstruction is near ``mean``."""
        return mean

    @abstractmethod
    def forward(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cost of each sample, (n,)."""


@dataclass
class Loss(Part):
    """Base of the losses. Abstract.

    ``link`` names the activation that maps raw output to the reconstruction; ``low`` and ``high``
    bound the targets. ``scalable`` says whether the estimators may scale the rows.
    """

    link: ClassVar[str] = "linear"
    low: ClassVar[float] = -math.inf
    high: ClassVar[float] = math.inf
    scalable: ClassVar[bool] = True

    def bounds(self) -> tuple[float | list[float], float | list[float]]:
        """Return the least and the greatest target: one for all values of a row, or one for each."""
        return self.low, self.high

    def check_fits(self, shape: tuple[int, ...], scaling: str | None) -> None:
        """Raise IncompatiblePartsError where samples of this shape, or scaled so, have no such loss."""
        if scaling is not None and not self.scalable:
            raise IncompatiblePartsError(
                f"scaling must be None or 'auto' for loss={self.name!r}, whose rows have units of their own; "
                f"got {scaling!r}. Leave scaling out."
            )

    def check_output(self, name: str) -> None:
        """Raise IncompatiblePartsError where the output cannot have this activation, beside the link."""
        if self.link not in ("linear", name):
            allowed = f"None or {self.link!r}" if self.link in ACTIVATIONS else "None"
            raise IncompatiblePartsError(
                f"output_activation must be {allowed} for loss={self.name!r}, which has a link of its own; "
                f"got {name!r}. Leave it out."
            )

    @abstractmethod
    def build(self) -> LossModule:
        """Return the loss ready to run."""

    def describe(self) -> str:
        """Return a short text for drawings and pages."""
        return str(self)


class SquaredErrorModule(LossModule):
    """The squared error of each sample."""

    def forward(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cost of each sample, (n,)."""
        return per_sample((raw - target).square())


@dataclass
class SquaredError(Loss):
    r"""Squared error :math:`\sum_j (x_j - \hat x_j)^2`, any target."""

    name: ClassVar[str] = "squared_error"

    def build(self) -> LossModule:
        """Return the loss ready to run."""
        return SquaredErrorModule()


class _Absolute(LossModule):
    def forward(self, raw: Tensor, target: Tensor) -> Tensor:
        return per_sample((raw - target).abs())


@dataclass
class Absolute(Loss):
    r"""Absolute error :math:`\sum_j |x_j - \hat x_j|`, any target; its best constant is the median."""

    name: ClassVar[str] = "absolute"

    def build(self) -> LossModule:
        """Return the loss ready to run."""
        return _Absolute()


class _Huber(LossModule):
    def __init__(self, delta: float) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, raw: Tensor, target: Tensor) -> Tensor:
        return per_sample(functional.huber_loss(raw, target, reduction="none", delta=self.delta))


@dataclass
class Huber(Loss):
    r"""Huber's loss: :math:`e^2/2` for :math:`|e| \le \delta`, else :math:`\delta(|e| - \delta/2)`; summed.

    Parameters
    ----------
    delta : float > 0, default=1.0
        Where the square becomes a line, in scaled units.
    """

    name: ClassVar[str] = "huber"
    delta: float = 1.0

    def validate(self) -> None:
        """Check the settings."""
        check_range("delta of Huber", self.delta, low=0, open_low=True)

    def build(self) -> LossModule:
        """Return the loss ready to run."""
        return _Huber(self.delta)


class BinaryCrossEntropyModule(LossModule):
    """Cross-entropy of logits; the reconstruction is their logistic function."""

    def mean(self, raw: Tensor) -> Tensor:
        """Map logits to shares, any shape."""
        return torch.sigmoid(raw)

    def raw_of(self, mean: Tensor) -> Tensor:
        """Return raw output (n_values,) whose reconstruction is near ``mean``."""
        return torch.logit(mean.clamp(0.01, 0.99))

    def forward(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cost of each sample, (n,)."""
        return per_sample(functional.binary_cross_entropy_with_logits(raw, target, reduction="none"))


@dataclass
class BinaryCrossEntropy(Loss):
    r"""Cross-entropy :math:`-\sum_j x_j\log\hat x_j + (1-x_j)\log(1-\hat x_j)`, targets in [0, 1].

    The link is the logistic function, computed together with the logarithm so that no
    reconstruction can overflow it. For targets strictly between 0 and 1 its least value is
    their entropy, not 0.
    """

    name: ClassVar[str] = "binary_cross_entropy"
    link: ClassVar[str] = "sigmoid"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def build(self) -> LossModule:
        """Return the loss ready to run."""
        return BinaryCrossEntropyModule()


class GaussianLossModule(LossModule):
    """The negative log-likelihood of each sample under one variance."""

    # exp(-12) of the scaled variance: where it is learned, float32 residuals below it are rounding
    LEAST = -12.0

    def __init__(self, variance: float | None) -> None:
        super().__init__()
        start = torch.tensor(0.0 if variance is None else math.log(variance))
        self.log_variance: Tensor
        if variance is None:
            self.log_variance = nn.Parameter(start)
        else:
            self.register_buffer("log_variance", start)

    def forward(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cost of each sample, (n,)."""
        log_variance = self.log_variance
        if isinstance(log_variance, nn.Parameter):
            log_variance = log_variance.clamp(min=self.LEAST)
        squares = per_sample((raw - target).square())
        size = target[0].numel()
        return 0.5 * (squares * torch.exp(-log_variance) + size * (log_variance + math.log(2 * math.pi)))


@dataclass
class Gaussian(Loss):
    r"""Negative log-likelihood of a Gaussian in nats.

    .. math:: \tfrac12 \sum_j \left[ (x_j - \hat x_j)^2 / s^2 + \log(2\pi s^2) \right]

    With ``variance="learned"`` one variance s^2, shared by all features, is fitted along with the
    weights (Rybkin et al. 2021, "sigma-VAE"): it balances reconstruction against the posterior's
    divergence with nothing to tune. A fixed variance of 1 on standardised data is the classic
    way to a collapsed posterior.

    Parameters
    ----------
    variance : "learned" or float > 0, default="learned"
        In squared scaled units.
    """

    name: ClassVar[str] = "gaussian"
    variance: float | str = "learned"

    def validate(self) -> None:
        """Check the settings."""
        if isinstance(self.variance, str):
            if self.variance != "learned":
                raise InvalidParameterError(
                    f"variance of Gaussian must be 'learned' or a number > 0; got {self.variance!r}. "
                    "Give for example 'learned' or 1.0."
                )
            return
        check_range("variance of Gaussian", self.variance, low=0, open_low=True)

    def build(self) -> LossModule:
        """Return the loss ready to run."""
        return GaussianLossModule(None if isinstance(self.variance, str) else float(self.variance))


class _StraightThrough(torch.autograd.Function):
    """Clip forward, pass the gradient on as if nothing had been clipped."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return torch.clamp(raw, low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class Clip(nn.Module):
    r"""An output that stays within the bounds of the training data, ``low`` and ``high`` (*shape).

    :math:`c(a) = \min(\max(a, low), high)`, with the gradient of the cost taken at c(a) and handed to
    a unchanged. For a convex cost :math:`\ell` that is the exact gradient of
    :math:`\ell(c(a)) + (a - c(a))\,\ell'(c(a))`, its "matching loss", which is convex and never below
    :math:`\ell(c(a))`: a value pushed beyond the right bound costs nothing, one beyond the wrong bound
    finds its way back, where a sigmoid would be stuck (Helmbold et al. 1999). Pixels that are all
    black or all white need no precision: on MNIST that takes a third off the error.
    """

    NAME = "clip"

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("low", torch.full(shape, -math.inf))
        self.register_buffer("high", torch.full(shape, math.inf))

    def widen(self, low: Tensor, high: Tensor) -> None:
        """Move the bounds so that [low, high] (*shape) lies within; the first call sets them."""
        first = bool(torch.isinf(self.low).any())
        self.low.copy_(low if first else torch.minimum(self.low, low.to(self.low)))
        self.high.copy_(high if first else torch.maximum(self.high, high.to(self.high)))

    def forward(self, raw: Tensor) -> Tensor:
        """Clip (n, *shape)."""
        clipped: Tensor = _StraightThrough.apply(raw, self.low, self.high)  # type: ignore[no-untyped-call]
        return clipped


class Linked(LossModule):
    """A loss on an output that has passed another activation than its own link (a linear one)."""

    def __init__(self, inner: LossModule, output: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.output = output

    def mean(self, raw: Tensor) -> Tensor:
        """Apply the output activation, any shape."""
        return self.inner.mean(self.output(raw))

    def forward(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cost of each sample, (n,)."""
        cost: Tensor = self.inner(self.output(raw), target)
        return cost
