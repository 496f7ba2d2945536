"""One dense layer of the hand-written steps: its products and derivatives as calls on buffers that stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from diabolo.parts.activations import Activate
from diabolo.parts.architectures.base import SeededDropout, TiedLinear
from diabolo.parts.shares import kept
from diabolo.training.derivatives import DERIVATIVES

Call = Callable[[], object]
_NARROW = 128  # up to this width NumPy's matrix product has less overhead than torch's


class Layer:
    """One dense layer with what follows it, as calls on buffers that stay where they are.

    ``output`` (n, out) is what the next layer sees, ``before`` the pre-activation where its derivative
    needs that and the output otherwise, ``gradient`` (n, in) that of the layer's input.
    """

    def __init__(self, linear: nn.Linear | TiedLinear) -> None:
        self.linear = linear
        self.activation: str | None = None
        self.dropout: SeededDropout | None = None
        self.by_rows = False  # whether what follows the layer wants its output row by row
        self.bends = False  # whether a penalty on the slopes adds ``bend`` to the pre-activation's gradient

    def allocate(self, h: Tensor, *, by_rows: bool = False) -> None:
        """Make the buffers for batches like h (n, in); what is compared or drawn for lies ``by_rows``."""
        on_cpu = h.device.type == "cpu"
        self.narrow = on_cpu and max(self.linear.weight.shape) <= _NARROW
        upright = on_cpu and not (by_rows or self.by_rows) and self.dropout is None
        self.before = room(h, self.linear.weight.shape[0], upright)
        apart = self.activation is not None and DERIVATIVES[self.activation].of_input
        self.output = torch.empty_like(self.before) if apart else self.before
        self.gradient = torch.empty_like(h)
        self.bend = torch.empty_like(self.before) if self.bends else self.before
        if self.dropout is not None:
            self.kept = torch.empty_like(self.output)
            self.dropped = torch.empty_like(self.output)

    def forward(self, h: Tensor) -> tuple[list[Call], Tensor]:
        """Return the calls that map h (n, in), and where they put the result (n, out)."""
        calls = self.up(h)
        if self.activation is not None:
            calls.append(partial(DERIVATIVES[self.activation].forward, self.before, self.output))
        drop = self.dropout
        if drop is None or drop.generator is None:
            return calls, self.output
        calls.append(partial(kept, self.kept, 1.0 - drop.share, drop.generator, out=self.kept))
        calls.append(partial(self.kept.div_, 1.0 - drop.share))
        calls.append(partial(torch.mul, self.output, self.kept, out=self.dropped))
        return calls, self.dropped

    def up(self, h: Tensor) -> list[Call]:
        """Return the calls that write the linear map of h to ``before``."""
        weight, bias = self.linear.weight.detach().t(), self.linear.bias.detach()
        if self.narrow:
            return [_small_product(h, weight, self.before), partial(self.before.add_, bias)]
        return [partial(torch.addmm, bias, h, weight, out=self.before)]

    def backward(
        self, h: Tensor, g: Tensor, *, add: bool, shared: bool = False, first: bool = False
    ) -> tuple[list[Call], Tensor]:
        """Return the calls that take g (n, out) down, and where they put the input's gradient (n, in).

        They overwrite g and write the gradients of the weights; ``add`` adds to those there are,
        ``shared`` to that of the weight. For the ``first`` layer the input's is left out.
        """
        calls: list[Call] = []
        if self.dropout is not None and self.dropout.generator is not None:
            calls.append(partial(g.mul_, self.kept))
        if self.activation is not None:
            calls.append(partial(DERIVATIVES[self.activation].backward, g, self.before))
        if self.bends:
            calls.append(partial(g.add_, self.bend))
        return calls + self.down(h, g, add=add, shared=shared, first=first), self.gradient

    def down(self, h: Tensor, g: Tensor, *, add: bool, shared: bool, first: bool) -> list[Call]:
        """Return the calls of ``backward`` below the activation: g is the gradient of the linear map."""
        calls: list[Call] = []
        weight, bias = self.gradients()
        left, right = (h, g) if isinstance(self.linear, TiedLinear) else (g, h)
        product = _small_product if self.narrow else _product
        if add or shared:
            calls.append(partial(weight.addmm_, left.t(), right))
        else:
            calls.append(product(left.t(), right, weight))
        ones, sums = g.new_ones(1, len(g)), bias.view(1, -1)
        calls.append(partial(sums.addmm_, ones, g) if add else product(ones, g, sums))
        if not first:
            calls.append(product(g, self.linear.weight.detach(), self.gradient))
        return calls

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Return where the gradients of weight and bias go; a tied weight's lies as its source does."""
        linear = self.linear
        weight = linear.source.weight.grad if isinstance(linear, TiedLinear) else linear.weight.grad
        bias = linear.bias.grad
        assert weight is not None
        assert bias is not None
        return weight, bias


def _product(a: Tensor, b: Tensor, out: Tensor) -> Call:
    """Return the call for ``out = a @ b``."""
    return partial(torch.mm, a, b, out=out)


def _small_product(a: Tensor, b: Tensor, out: Tensor) -> Call:
    """Return the same for narrow matrices on the CPU."""
    if not out.is_contiguous():  # NumPy writes rows only: out' = b' a'
        a, b, out = b.t(), a.t(), out.t()
    return partial(np.dot, a.numpy(), b.numpy(), out.numpy())


def room(like: Tensor, width: int, upright: bool) -> Tensor:
    """Return room for (n, width), for n as in ``like``; ``upright`` with a row's values n apart.

    Narrow products are faster so. Wide ones are then shared among threads by units and not by samples, so
    that each thread meets the same rows of a weight in all that is done with it, the optimizer's step too:
    what one core has changed need not go to the other, which costs most where they have no cache in common.
    """
    n = len(like)
    return like.new_empty(width, n).t() if upright else like.new_empty(n, width)


def read_layers(network: nn.Sequential) -> list[Layer] | None:
    """Read a stack of dense blocks; None where there is anything else in it.

    Types are compared, not tested: a subclass may compute something else.
    """
    found: list[Layer] = []
    for block in network:
        for part in block if type(block) is nn.Sequential else [block]:
            last = found[-1] if found else None
            if type(part) is nn.Linear or type(part) is TiedLinear:
                if part.bias is None or not (part.weight.requires_grad and part.bias.requires_grad):
                    return None
                found.append(Layer(part))
            elif type(part) is nn.Flatten or type(part) is nn.Unflatten:
                continue
            elif type(part) is Activate and last and last.activation is None and last.dropout is None:
                if part.activation.name not in DERIVATIVES:
                    return None
                last.activation = part.activation.name
            elif type(part) is SeededDropout and last and last.dropout is None:
                last.dropout = part
            else:
                return None
    return found or None
