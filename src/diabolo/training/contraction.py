"""The contractive penalty of a dense encoder by hand, for the dense step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from diabolo.autoencoder import AutoencoderModule
from diabolo.objective import Objective
from diabolo.parts import Contractive
from diabolo.parts.chains import norm_and_gradient, symmetric
from diabolo.parts.latents import DeterministicModule
from diabolo.training.bottleneck import by_hand
from diabolo.training.derivatives import DERIVATIVES

if TYPE_CHECKING:
    from diabolo.training.layers import Layer

Array = np.ndarray[Any, np.dtype[Any]]
# the sum of the norms times their weight, and its gradients at the slopes and at the weights
Closed = tuple["Tensor | float", "list[Tensor | None]", list[Tensor]]
_NARROW = 128  # up to this width NumPy's products have less overhead than torch's
# second derivatives f''(a) from what DERIVATIVES keeps, a or f(a), and the slope f'(a); the others' are 0
Curvature = Callable[[Tensor, Tensor], Tensor]
CURVATURES: dict[str, Curvature] = {
    "elu": lambda y, s: _below_zero(y, s),
    "selu": lambda y, s: _below_zero(y, s),
    "tanh": lambda y, s: (y * s).mul_(-2.0),
    "sigmoid": lambda y, s: torch.addcmul(s, y, s, value=-2.0),
    "softplus": lambda a, s: torch.addcmul(s, s, s, value=-1.0),
    "gelu": lambda a, s: torch.exp(-0.5 * a * a) * (2.0 - a * a) / math.sqrt(2 * math.pi),
    "silu": lambda a, s: _silu_curvature(a, torch.sigmoid(a)),
}


def _below_zero(y: Tensor, s: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(s, y.neg(), 0)  # type: ignore[no-any-return]


def _silu_curvature(a: Tensor, s: Tensor) -> Tensor:
    return s * (1.0 - s) * (2.0 + a * (1.0 - 2.0 * s))


def contraction(
    module: AutoencoderModule, objective: Objective, encoder: Sequence[Layer]
) -> Contraction | None:
    """Return the contractive penalty by hand where there is one and it and all the rest can be done so.

    That is: it is exact, the code plain, the encoder without dropout, the other penalties by hand too.
    """
    found = [p for p in objective.penalties if type(p) is Contractive and p.method == "exact"]
    latent = module.latent
    if len(found) != 1 or type(latent) is not DeterministicModule or encoder[-1].activation is not None:
        return None
    if any(type(layer.linear) is not nn.Linear or layer.dropout is not None for layer in encoder):
        return None
    made = Contraction(found[0], encoder, latent.activation.name)
    if by_hand(module, made.without(objective)) is None:
        return None
    for layer, curves in zip(encoder[:-1], made.curves, strict=False):
        layer.bends = curves
    return made


class Contraction:
    """The penalty's value; its gradient at the pre-activations and, afterwards, at the weights."""

    def __init__(self, penalty: Contractive, encoder: Sequence[Layer], latent_activation: str) -> None:
        self.penalty, self._layers = penalty, encoder
        names = [*(layer.activation for layer in encoder[:-1]), latent_activation]
        self._names = [None if name == "linear" else name for name in names]
        self._curvatures = [CURVATURES.get(name or "") for name in self._names]
        self.curves = [curvature is not None for curvature in self._curvatures]

    def without(self, objective: Objective) -> Objective:
        """Return the objective without the penalty."""
        others = [penalty for penalty in objective.penalties if penalty is not self.penalty]
        return Objective(others, objective.revival_weight)

    def prepare(self, h: Tensor, z: Tensor, g: Tensor) -> None:
        """Remember the buffers, once the layers have theirs.

        h (n, d) is the encoder's output, or the code itself where that is made in place, z the code and
        g room for the gradient at h.
        """
        kept = [(layer.before, layer.output) for layer in self._layers[:-1]] + [(h, z)]
        bends = [*(layer.bend for layer in self._layers[:-1]), g]
        self._n = len(z)
        self._weights = [layer.linear.weight.detach() for layer in self._layers]
        self._gradients = [layer.linear.weight.grad for layer in self._layers]
        self._slopes = [
            None if name is None else torch.empty_like(y)
            for name, (_, y) in zip(self._names, kept, strict=True)
        ]
        self._rules = [
            (DERIVATIVES[name].backward, slope, saved)
            for name, slope, (saved, _) in zip(self._names, self._slopes, kept, strict=True)
            if name is not None and slope is not None
        ]
        self._bends = [
            (i, curvature, saved, slope, bend, i == len(kept) - 1)
            for i, (curvature, (saved, _), slope, bend) in enumerate(
                zip(self._curvatures, kept, self._slopes, bends, strict=True)
            )
            if curvature is not None and slope is not None
        ]
        self._norms = self._closed_form() or partial(self._by_products, len(z))

    def _closed_form(self) -> Callable[[float], Closed] | None:
        """Return the closed form for this encoder, or None."""
        first = self._slopes[0]
        if first is None or len(self._slopes) > 2 or self._slopes[1:] not in ([], [None]):
            return None
        if len(self._slopes) == 1:
            return partial(_one_layer, self._weights[0], first, self.curves[0])
        lower, upper = self._weights
        narrow = first.device.type == "cpu" and max(*lower.shape, *upper.shape) <= _NARROW
        if narrow:
            return partial(_coupled_narrow, lower.numpy(), upper.numpy(), first.numpy(), self.curves[0])
        return partial(_coupled, lower, upper, first, self.curves[0])

    def _by_products(self, n: int, pull: float) -> Closed:
        # by rows, as the products are: the layers' buffers, and so the slopes, may lie upright
        slopes = [None if slope is None else slope.contiguous() for slope in self._slopes]
        norms, at_slopes, at_weights = norm_and_gradient(self._weights, slopes, n, pull, self.curves)
        return norms.sum() * pull, at_slopes, at_weights

    def __call__(self, step: int) -> dict[str, Tensor | float]:
        """Return the mean of the weighted norms, and hand the layers their part of the gradient."""
        for backward, slope, saved in self._rules:
            slope.fill_(1.0)
            backward(slope, saved)
        total, at_slopes, self._at_weights = self._norms(self.penalty.weight_at(step) / self._n)
        for i, curvature, saved, slope, bend, add in self._bends:
            at_slope = at_slopes[i]
            assert at_slope is not None
            if add:
                bend.addcmul_(at_slope, curvature(saved, slope))
            else:
                torch.mul(at_slope, curvature(saved, slope), out=bend)
        return {self.penalty.name: total}

    def finish(self) -> None:
        """Add the gradient at the weights, once that of the loss has been written."""
        for gradient, more in zip(self._gradients, self._at_weights, strict=True):
            assert gradient is not None
            gradient.add_(more)


# The closed forms again (see ``chains``), for the sum of the norms, which needs fewer products than
# each of them: the gradient at the slopes only where these bend.
def _one_layer(weight: Tensor, slope: Tensor, bends: bool, pull: float) -> Closed:
    counts, lengths = slope.square().sum(0).mul_(2.0 * pull), torch.linalg.vecdot(weight, weight)
    at_slope = slope * lengths.mul(2.0 * pull) if bends else None
    return 0.5 * torch.dot(counts, lengths), [at_slope], [weight * counts[:, None]]


def _coupled(lower: Tensor, upper: Tensor, d: Tensor, bends: bool, pull: float) -> Closed:
    outer, gram, both = upper.t() @ upper, symmetric(lower.t()), symmetric(d).mul_(2.0 * pull)
    coupling = outer * gram
    total = 0.5 * torch.dot(coupling.view(-1), both.view(-1))
    at_slope = (d @ coupling).mul_(2.0 * pull) if bends else None
    return total, [at_slope, None], [outer.mul_(both) @ lower, upper @ gram.mul_(both)]


def _coupled_narrow(lower: Array, upper: Array, d: Array, bends: bool, pull: float) -> Closed:
    outer, gram, both = np.dot(upper.T, upper), np.dot(lower, lower.T), np.dot(d.T, d)
    both *= 2.0 * pull
    coupling = outer * gram
    total = 0.5 * float(np.vdot(coupling, both))
    outer *= both
    gram *= both
    at_slope = None
    if bends:
        coupling *= 2.0 * pull
        at_slope = torch.from_numpy(np.dot(coupling, d.T)).t()  # as upright as the layers' buffers
    at_weights = [torch.from_numpy(np.dot(outer, lower)), torch.from_numpy(np.dot(upper, gram))]
    return total, [at_slope, None], at_weights
