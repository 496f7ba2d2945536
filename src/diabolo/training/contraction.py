"""The contractive penalty of a dense encoder by hand, for the dense step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from diabolo.autoencoder import AutoencoderModule
from diabolo.objective import Objective
from diabolo.parts import Contractive
from diabolo.parts.activations import ACTIVATIONS
from diabolo.parts.chains import norm_and_gradient, symmetric
from diabolo.parts.latents import DeterministicModule
from diabolo.training.bottleneck import by_hand

if TYPE_CHECKING:
    from diabolo.training.dense import Layer

NARROW = 128  # up to this width NumPy's products have less overhead than torch's
# second derivatives f''(a) from what DERIVATIVES keeps, a or f(a), and the slope f'(a); the others' are 0
Curvature = Callable[[Tensor, Tensor], Tensor]
CURVATURES: dict[str, Curvature] = {
    "elu": lambda y, s: s.masked_fill(y > 0, 0.0),
    "selu": lambda y, s: s.masked_fill(y > 0, 0.0),
    "tanh": lambda y, s: (y * s).mul_(-2.0),
    "sigmoid": lambda y, s: torch.addcmul(s, y, s, value=-2.0),
    "softplus": lambda a, s: torch.addcmul(s, s, s, value=-1.0),
    "gelu": lambda a, s: torch.exp(-0.5 * a * a) * (2.0 - a * a) / math.sqrt(2 * math.pi),
    "silu": lambda a, s: _silu_curvature(a, torch.sigmoid(a)),
}


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
    made.start()
    return made


class Contraction:
    """The penalty's value; its gradient at the pre-activations and, afterwards, at the weights."""

    def __init__(self, penalty: Contractive, encoder: Sequence[Layer], latent_activation: str) -> None:
        self.penalty, self._layers = penalty, encoder
        names = [*(layer.activation for layer in encoder[:-1]), latent_activation]
        self._names = [None if name == "linear" else name for name in names]
        self._curvatures = [CURVATURES.get(name or "") for name in self._names]
        self._wanted = [curvature is not None for curvature in self._curvatures]

    def without(self, objective: Objective) -> Objective:
        """Return the objective without the penalty."""
        others = [penalty for penalty in objective.penalties if penalty is not self.penalty]
        return Objective(others, objective.revival_weight)

    def start(self) -> None:
        """Let the hidden layers make room for what ``__call__`` adds to their gradients."""
        for layer, curvature in zip(self._layers[:-1], self._curvatures, strict=False):
            layer.bends = curvature is not None

    def __call__(self, h: Tensor, z: Tensor, step: int, g: Tensor | None = None) -> dict[str, Tensor | float]:
        """Return the mean of the weighted norms, and hand the hidden layers their part of the gradient.

        h (n, d) is the encoder's output, or the code itself if that is made in place, z the code; the
        gradient at h is added to g, which a code of a linear activation does not need.
        """
        kept = [(layer.before, layer.output) for layer in self._layers[:-1]] + [(h, z)]
        slopes: list[Tensor | None] = []
        for name, (saved, y) in zip(self._names, kept, strict=True):
            slopes.append(None if name is None else ACTIVATIONS[name].derivative(saved, y))
        weights = [layer.linear.weight.detach() for layer in self._layers]
        pull = self.penalty.weight_at(step) / len(z)
        first = slopes[0]
        if first is not None and len(slopes) == 1:
            total, at_slope, self._at_weights = _one_layer(weights[0], first, pull, self._wanted[0])
            at_slopes: list[Tensor | None] = [at_slope]
        elif first is not None and len(slopes) == 2 and slopes[1] is None:
            total, at_slope, self._at_weights = _coupled(weights[0], weights[1], first, pull, self._wanted[0])
            at_slopes = [at_slope, None]
        else:
            norms, at_slopes, self._at_weights = norm_and_gradient(
                weights, slopes, len(z), pull, self._wanted
            )
            total = norms.sum() * pull
        for i, (curvature, at_slope, slope) in enumerate(
            zip(self._curvatures, at_slopes, slopes, strict=True)
        ):
            if curvature is None or at_slope is None or slope is None:
                continue
            bend = curvature(kept[i][0], slope)
            if i < len(kept) - 1:
                torch.mul(at_slope, bend, out=self._layers[i].bend)
            else:
                assert g is not None
                g.addcmul_(at_slope, bend)
        return {self.penalty.name: total}

    def finish(self) -> None:
        """Add the gradient at the weights, once that of the loss has been written."""
        for layer, g in zip(self._layers, self._at_weights, strict=True):
            assert layer.linear.weight.grad is not None
            layer.linear.weight.grad.add_(g)


# The closed forms again (see ``chains``), for the sum of the norms, which needs fewer products than
# each of them: the gradient at the slopes only where these bend.
Closed = tuple["Tensor | float", "Tensor | None", list[Tensor]]


def _one_layer(weight: Tensor, slope: Tensor, pull: float, bends: bool) -> Closed:
    counts, lengths = slope.square().sum(0).mul_(2.0 * pull), torch.linalg.vecdot(weight, weight)
    at_slope = slope * lengths.mul(2.0 * pull) if bends else None
    return 0.5 * torch.dot(counts, lengths), at_slope, [weight * counts[:, None]]


def _coupled(lower: Tensor, upper: Tensor, d: Tensor, pull: float, bends: bool) -> Closed:
    if d.device.type == "cpu" and max(*lower.shape, *upper.shape) <= NARROW:
        return _coupled_narrow(lower, upper, d, pull, bends)
    outer, gram, both = upper.t() @ upper, symmetric(lower.t()), symmetric(d).mul_(2.0 * pull)
    coupling = outer * gram
    total = 0.5 * torch.dot(coupling.view(-1), both.view(-1))
    at_slope = (d @ coupling).mul_(2.0 * pull) if bends else None
    return total, at_slope, [outer.mul_(both) @ lower, upper @ gram.mul_(both)]


def _coupled_narrow(lower: Tensor, upper: Tensor, d: Tensor, pull: float, bends: bool) -> Closed:
    w, v, slopes = lower.numpy(), upper.numpy(), d.numpy()
    outer, gram, both = np.dot(v.T, v), np.dot(w, w.T), np.dot(slopes.T, slopes)
    both *= 2.0 * pull
    coupling = outer * gram
    total = 0.5 * float(np.vdot(coupling, both))
    outer *= both
    gram *= both
    at_slope = None
    if bends:
        coupling *= 2.0 * pull
        at_slope = torch.from_numpy(np.dot(coupling, slopes.T)).t()  # as upright as the layers' buffers
    return total, at_slope, [torch.from_numpy(np.dot(outer, w)), torch.from_numpy(np.dot(v, gram))]
