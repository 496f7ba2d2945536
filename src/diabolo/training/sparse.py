"""The dense step for a code that keeps few of many units (TopK): what lies beside the code is sparse.

With k of m units kept, four of the five products with the (m, d) matrices beside the code need their
k columns only: the decoder's first layer, its weight's gradient, the encoder's last weight's gradient,
and the gradient at the code, which is wanted at the k places alone. Only the encoder's own product needs
all units; it is taken a few rows at a time, so that (n, m) pre-activations never lie in memory, and where
that pays in half precision at first (``largest.py``).

The sparse products are ``embedding_bag``: measured against CSR matrices of torch and SciPy, gathered
batched products and ``index_add``, it was the fastest on one and on two threads, and each of its sums
runs in one order whatever the number of threads.

Shapes: n samples, m units, k of them kept, d the width of the layer beside the code.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diabolo.autoencoder import AutoencoderModule
from diabolo.objective import REVIVAL, Objective, revival
from diabolo.parts import L1, ForwardPass
from diabolo.parts.architectures.base import TiedLinear
from diabolo.parts.latents import Code, TopKModule
from diabolo.training.bottleneck import Activated, Bottleneck
from diabolo.training.costs import Terms
from diabolo.training.dense import DenseStep
from diabolo.training.largest import largest_products, order_of, row_products
from diabolo.training.layers import Call, Layer
from diabolo.training.machine import linear
from diabolo.training.settings import Settings

_FALLING = ("gelu", "silu")  # the largest before these activations are not the largest after them
# the sparse products pay where few units are kept, the products are not small and the batch has rows
# enough for sums over sorted places. Measured with one thread and no half precision, time of the dense
# step against theirs: n=4096 m=8192 d=512 k=32 5.1; 256 2048 512 64 2.0; 256 2048 512 256 1.3;
# 128 1600 784 100 1.4; 128 1000 100 100 1.0; 256 160 30 10 0.9; 32 1024 512 32 0.9
_SHARE = 1 / 10
_LEAST_WORK = 16_777_216  # n * m * d
_LEAST_ROWS = 64


class Kept:
    """Which units a batch keeps, by sample and by unit."""

    def __init__(self, units: int, k: int) -> None:
        self.units, self.k = units, k
        self.seen: Tensor  # (n, d), what the encoder's last layer gets
        self.layer: nn.Linear  # which that layer is
        self.chosen: Tensor  # (m,), the units that at least one sample keeps
        self.dead: Tensor | None = None  # (u,), the dead units that take part in the step ...
        self.dead_gradient: Tensor  # (n, u), ... and the gradient at their pre-activations

    def hold(self, places: Tensor) -> None:
        """Keep the units at ``places`` (n, k)."""
        self.places = places
        units = places.flatten()
        counts = torch.bincount(units, minlength=self.units)
        self.chosen = counts > 0
        self._order = order_of(units, self.units)
        self._rows, self._units = self._order.div(self.k, rounding_mode="floor"), units[self._order]
        self._starts = counts.cumsum(0).sub_(counts)

    def by_sample(self, rows: Tensor, values: Tensor) -> Tensor:
        """Return the sum of the kept units' ``rows`` (m, d), times ``values`` (n, k): (n, d)."""
        return functional.embedding_bag(self.places, rows, per_sample_weights=values, mode="sum")

    def by_unit(self, rows: Tensor, values: Tensor) -> Tensor:
        """Return the sum of the samples' ``rows`` (n, d), times ``values`` (n, k): (m, d)."""
        return functional.embedding_bag(
            self._rows, rows, self._starts, per_sample_weights=values.flatten()[self._order], mode="sum"
        )

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum of each unit's ``values`` (n, k): (m,)."""
        ordered = values.flatten()[self._order].numpy()
        out = values.new_zeros(self.units)
        starts = self._starts[self.chosen].numpy()  # where there is no value reduceat would take the next
        out[self.chosen] = torch.from_numpy(np.add.reduceat(ordered, starts))
        return out

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the products of ``left`` (n, d) with the rows of ``right`` (m, d) at the places: (n, k)."""
        out = left.new_empty(self.places.numel())
        out[self._order] = row_products(left, right, self._rows, self._units)
        return out.view(self.places.shape)


class _Encoding(Layer):
    """The encoder's last layer; its output is the pre-activations of the kept units, (n, k)."""

    def __init__(self, layer: Layer, kept: Kept) -> None:
        super().__init__(layer.linear)
        assert isinstance(self.linear, nn.Linear)
        self.kept_units = kept
        kept.layer = self.linear

    def allocate(self, h: Tensor, *, by_rows: bool = False) -> None:
        self.before = self.output = h.new_empty(len(h), self.kept_units.k)
        self.gradient = torch.empty_like(h)

    def up(self, h: Tensor) -> list[Call]:
        return [partial(self._up, h)]

    def _up(self, h: Tensor) -> None:
        kept, weight, bias = self.kept_units, self.linear.weight.detach(), self.linear.bias.detach()
        kept.seen = h
        values, places = largest_products(h, weight, bias, kept.k)
        self.before.copy_(values)
        kept.hold(places)

    def down(self, h: Tensor, g: Tensor, *, add: bool, shared: bool, first: bool) -> list[Call]:
        return [partial(self._down, h, g, shared or add, first)]

    def _down(self, h: Tensor, g: Tensor, add: bool, first: bool) -> None:
        kept, weight = self.kept_units, self.linear.weight
        at_weight, at_bias = self.gradients()
        sums = kept.by_unit(h, g)
        at_weight.add_(sums) if add else at_weight.copy_(sums)
        at_bias.copy_(kept.sums(g))
        if not first:
            self.gradient.copy_(kept.by_sample(weight, g))
        if kept.dead is not None:
            at_weight.index_add_(0, kept.dead, kept.dead_gradient.t() @ h)
            at_bias.index_add_(0, kept.dead, kept.dead_gradient.sum(0))
            if not first:
                self.gradient.addmm_(kept.dead_gradient, weight[kept.dead])


class _Decoding(Layer):
    """The decoder's first layer; its input is the values of the kept units, (n, k)."""

    def __init__(self, layer: Layer, kept: Kept) -> None:
        super().__init__(layer.linear)
        self.activation, self.dropout, self.kept_units = layer.activation, layer.dropout, kept

    def allocate(self, h: Tensor, *, by_rows: bool = False) -> None:
        super().allocate(h, by_rows=True)
        self._rows = self.linear.weight.detach().t()  # a unit's weights side by side

    def up(self, h: Tensor) -> list[Call]:
        return [partial(self._up, h)]

    def _up(self, h: Tensor) -> None:
        torch.add(self.kept_units.by_sample(self._rows, h), self.linear.bias, out=self.before)

    def down(self, h: Tensor, g: Tensor, *, add: bool, shared: bool, first: bool) -> list[Call]:
        return [partial(self._down, h, g)]

    def _down(self, h: Tensor, g: Tensor) -> None:
        linear, sums = self.linear, self.kept_units.by_unit(g, h)
        weight, bias = self.gradients()
        weight.copy_(sums if isinstance(linear, TiedLinear) else sums.t())
        torch.sum(g, 0, out=bias)
        self.gradient.copy_(self.kept_units.products(g, self._rows))


class _SparseTopK(Bottleneck):
    """TopK where the encoder's last layer hands over the kept units only."""

    def __init__(self, latent: TopKModule, kept: Kept, decoder: nn.Sequential) -> None:
        self.latent, self.kept = latent, kept
        self.activated = Activated(latent.activation.name)
        self._decoder = _parts(decoder)

    def forward(self, h: Tensor, generator: torch.Generator) -> None:
        kept = self.kept
        self.value = self.mean = self.activated.forward(h)
        active, there = kept.chosen, self.value != 0
        if not there.all():
            active = torch.zeros(kept.units, dtype=torch.bool)
            active[kept.places[there]] = True
        self._dead = self.latent.dead_units(active, len(h)).nonzero()[:, 0]
        kept.dead = None

    def backward(self, g: Tensor, out: Tensor) -> None:
        self.activated.backward(g)
        out.copy_(g)

    @property
    def has_dead(self) -> bool:
        return len(self._dead) > 0

    def revive(
        self, module: AutoencoderModule, objective: Objective, passed: ForwardPass
    ) -> dict[str, Tensor]:
        kept, dead = self.kept, self._dead
        layer, most = kept.layer, self.latent.most_revived
        leaf = linear(kept.seen, layer.weight.detach()[dead], layer.bias.detach()[dead])
        if len(dead) > most:
            top = leaf.topk(most, dim=1)
            leaf = torch.zeros_like(leaf).scatter_(1, top.indices, top.values)
        first, *others = self._decoder
        assert isinstance(first, nn.Linear | TiedLinear)

        def decode(auxiliary: Tensor) -> Tensor:
            out = functional.linear(auxiliary, first.weight.index_select(1, dead), first.bias)
            for part in others:
                out = part(out)
            return out

        with torch.enable_grad():
            leaf.requires_grad_()
            term = objective.revival_weight * revival(module, passed, leaf, decode).mean()
            term.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        kept.dead, kept.dead_gradient = dead, leaf.grad * (leaf != 0)
        return {REVIVAL: term.detach()}


class SparseStep(DenseStep):
    """The dense step with sparse products beside a TopK code; see the module's text. Use ``suits`` first."""

    @staticmethod
    def suits(module: AutoencoderModule, objective: Objective) -> bool:
        """Whether it can train this net: dense layers about a TopK code on the CPU, at most an L1 penalty."""
        latent = module.latent
        if (
            type(latent) is not TopKModule
            or not DenseStep.covers(module)
            or latent.silent.device.type != "cpu"
        ):
            return False
        last, first = _parts(module.encoder)[-1], _parts(module.decoder)[0]
        return (
            type(last) is nn.Linear
            and isinstance(first, nn.Linear | TiedLinear)
            and latent.activation.name not in _FALLING
            and all(type(penalty) is L1 for penalty in objective.penalties)
        )

    @staticmethod
    def pays(module: AutoencoderModule, batch_size: int) -> bool:
        """Whether it is faster than the dense one, where it suits."""
        latent = module.latent
        assert isinstance(latent, TopKModule)
        units = len(latent.silent)
        beside = [layer.weight.numel() for layer in module.encoder.modules() if type(layer) is nn.Linear][-1]
        return latent.k <= _SHARE * units and batch_size >= _LEAST_ROWS and batch_size * beside >= _LEAST_WORK

    def __init__(
        self, module: AutoencoderModule, objective: Objective, settings: Settings, generator: torch.Generator
    ) -> None:
        first = _parts(module.decoder)[0]
        if type(first) is nn.Linear:  # a tied layer has its units' weights side by side anyway
            self._turned = first.weight
        super().__init__(module, objective, settings, generator)
        latent = module.latent
        assert isinstance(latent, TopKModule)
        kept = Kept(len(latent.silent), latent.k)
        if len(self.encoder) > 1:
            self.encoder[-2].by_rows = True  # whose output's rows are summed
        self.encoder[-1] = _Encoding(self.encoder[-1], kept)
        self.decoder[0] = _Decoding(self.decoder[0], kept)
        self.bottleneck = _SparseTopK(latent, kept, module.decoder)
        self._code_size = latent.k
        self.net = self._passed

    def _passed(self, x: Tensor, generator: torch.Generator) -> ForwardPass:
        """Do as the module does with x (n, *shape); the code holds the kept units only, (n, k)."""
        module, latent = self.module, self.module.latent
        assert isinstance(latent, TopKModule)
        *below, last = _parts(module.encoder)
        first, *above = _parts(module.decoder)
        assert isinstance(last, nn.Linear)
        assert isinstance(first, nn.Linear | TiedLinear)
        seen = h = x if module.corruption is None else module.corruption(x, generator)
        for part in below:
            h = part(h)
        values, places = largest_products(h, last.weight.detach(), last.bias.detach(), latent.k)
        values = latent.activation.function(values)
        raw = first.bias + functional.embedding_bag(
            places, first.weight.t(), per_sample_weights=values, mode="sum"
        )
        for part in above:
            raw = part(raw)
        return ForwardPass(target=x, seen=seen, code=Code(values, values, values), raw=raw)

    @torch.no_grad()
    def _by_hand(self, step: int) -> Terms:
        return super()._by_hand(step)


def _parts(network: nn.Module) -> list[nn.Module]:
    """Return the parts of a stack in the order in which they are applied."""
    return [m for m in network.modules() if not isinstance(m, nn.Sequential)]
