r"""The squared norm of a chain of matrices and slopes, per sample, with its gradient by hand.

A stack of dense layers has the Jacobian :math:`J = D_L W_L \cdots D_1 W_1`, D the layers' slopes as
diagonal matrices, one per sample. Three forms of :math:`\lVert J \rVert_F^2`:

1. one layer: :math:`\sum_j s_j^2 \lVert w_j \rVert^2`;
2. two layers, the upper one without slopes: :math:`d^\top C d` with
   :math:`C = (W_2^\top W_2) \circ (W_1 W_1^\top)`, one matrix for the whole batch;
3. any: the product from the narrower end, a few samples at a time, so that what is multiplied stays in
   the processor's cache. The last matrix W enters by :math:`\lVert B W \rVert^2 = \langle B G, B \rangle`
   with :math:`G = W W^\top` where that is smaller. Then the gradient takes one product more,
   :math:`B^\top B`, of which one half is computed; autograd would take three.

Shapes: n samples, layer l maps h_(l-1) values to h_l; weights (h_l, h_(l-1)), slopes (n, h_l), lowest
layer first. Slopes None are ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_VALUES = 524_288  # values of a product held at a time: 2 MB in float32
_BLOCK = 128  # columns by which the symmetric product is computed

Slopes = Sequence[Tensor | None]
# the norms (n,), and their gradients at the slopes and at the weights
Result = tuple[Tensor, list[Tensor | None], list[Tensor]]


def chain_norm(weights: Sequence[Tensor], slopes: Slopes, n: int) -> Tensor:
    """Return the squared norm of every sample's chain, (n,), differentiable once in slopes and weights."""
    if not torch.is_grad_enabled():
        return norm_and_gradient(weights, slopes, n, None, [False] * len(slopes))[0]
    norms: Tensor = _ChainNorm.apply(n, len(weights), *weights, *slopes)  # type: ignore[no-untyped-call]
    return norms


class _ChainNorm(torch.autograd.Function):
    """The norms; their gradient is made along with them, for the case that all samples count alike."""

    @staticmethod
    def forward(ctx: Any, n: int, n_layers: int, *tensors: Any) -> Tensor:
        weights, slopes, learns = tensors[:n_layers], tensors[n_layers:], ctx.needs_input_grad[2:]
        ctx.n_layers, ctx.wanted = n_layers, learns[n_layers:]
        norms, at_slopes, at_weights = norm_and_gradient(
            weights, slopes, n, 1.0 if any(learns) else None, ctx.wanted
        )
        ctx.found = [g is not None for g in at_slopes]
        ctx.save_for_backward(*tensors, *at_weights, *(g for g in at_slopes if g is not None))
        return norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        size, saved = ctx.n_layers, ctx.saved_tensors
        weights, slopes, at_weights = saved[:size], saved[size : 2 * size], saved[2 * size : 3 * size]
        rest = iter(saved[3 * size :])
        at_slopes = [next(rest) if found else None for found in ctx.found]
        if bool((pull == pull[0]).all()):
            at_weights = [g * pull[0] for g in at_weights]
            at_slopes = [None if g is None else g * pull[0] for g in at_slopes]
        else:
            _, at_slopes, at_weights = norm_and_gradient(weights, slopes, len(pull), pull, ctx.wanted)
        return None, None, *at_weights, *at_slopes


@torch.no_grad()
def norm_and_gradient(
    weights: Sequence[Tensor], slopes: Slopes, n: int, pull: Tensor | float | None, wanted: Sequence[bool]
) -> Result:
    r"""Return the norms and the gradient of :math:`\sum_i p_i \lVert J_i \rVert^2`, p the ``pull``.

    Parameters
    ----------
    weights, slopes : sequences of Tensor
        As in the module's text.
    n : int
        Number of samples.
    pull : Tensor (n,), float or None
        A number counts for all samples; None: no gradient, and both lists come back empty.
    wanted : sequence of bool
        At which slopes the gradient is wanted.
    """
    each = pull if isinstance(pull, Tensor) else None
    if len(weights) == 1:
        result = _one_layer(weights[0], slopes[0], n, each)
    elif len(weights) == 2 and slopes[1] is None and slopes[0] is not None:
        result = _coupled(weights[0], weights[1], slopes[0], each)
    elif weights[-1].shape[0] <= weights[0].shape[1]:
        norms, at_slopes, at_weights = _product(weights, slopes, None, n, each, wanted, pull is not None)
        result = norms, at_slopes[:-1], at_weights
    else:
        # transposed, W_1^T D_1 ... W_L^T D_L: nothing stands left of W_1, and D_L on the right
        norms, at_slopes, at_weights = _product(
            [w.t() for w in reversed(weights)],
            [*reversed(slopes[:-1]), None],
            slopes[-1],
            n,
            each,
            [*reversed(wanted[:-1]), False, wanted[-1]],
            pull is not None,
        )
        *inner, _, outer = at_slopes or [None, None]
        result = norms, [*reversed(inner), outer], [g.t() for g in reversed(at_weights)]
    norms, at_slopes, at_weights = result
    if pull is None:
        return norms, [], []
    factor = 2.0 if isinstance(pull, Tensor) else 2.0 * pull
    return (
        norms,
        [g.mul_(factor) if g is not None and w else None for g, w in zip(at_slopes, wanted, strict=True)],
        [g.mul_(factor) for g in at_weights],
    )


def _one_layer(weight: Tensor, slope: Tensor | None, n: int, each: Tensor | None) -> Result:
    """Return norms and halves of the gradients, as the two below do."""
    s = weight.new_ones(n, len(weight)) if slope is None else slope
    squares, lengths = s.square(), torch.linalg.vecdot(weight, weight)
    counts = squares.sum(0) if each is None else each @ squares
    return squares @ lengths, [_by(s * lengths, each)], [weight * counts[:, None]]


def _coupled(lower: Tensor, upper: Tensor, d: Tensor, each: Tensor | None) -> Result:
    outer, gram = upper.t() @ upper, symmetric(lower.t())
    reached = d @ (outer * gram)
    both = symmetric(d, each)  # the gradient at the coupling
    norms = torch.linalg.vecdot(reached, d)
    at_upper = upper @ gram.mul_(both)
    return norms, [_by(reached, each), None], [outer.mul_(both) @ lower, at_upper]


def _product(
    weights: Sequence[Tensor],
    slopes: Slopes,
    right: Tensor | None,
    n: int,
    each: Tensor | None,
    wanted: Sequence[bool],
    learns: bool,
) -> Result:
    """Return the same for ``D_L W_L ... D_1 W_1 D_0``, with D_0 = ``right``, from the left."""
    first, *middle, top = weights
    gram = symmetric(first.t()) if right is None and first.shape[1] > first.shape[0] else None
    height = max(w.shape[1] for w in (weights if gram is None else weights[1:]))
    chunk = max(1, _CHUNK_VALUES // (len(top) * height))
    at_weights = [torch.zeros_like(w) for w in weights] if learns else []
    at_gram = None if gram is None else torch.zeros_like(gram)
    at_slopes: list[list[Tensor]] = [[] for _ in (*slopes, right)]
    norms = []
    for start in range(0, n, chunk):
        here = slice(start, min(n, start + chunk))
        part = [None if s is None else s[here] for s in slopes]
        outermost = part[-1]
        product = top.expand(here.stop - start, -1, -1)
        if outermost is not None:
            product = product * outermost[:, :, None]
        plain, scaled = [product], [_by_column(product, part[-2])]  # without and with the slopes below
        for weight, slope in zip(reversed(middle), reversed(part[:-2]), strict=True):
            plain.append(scaled[-1] @ weight)
            scaled.append(_by_column(plain[-1], slope))
        last = scaled[-1]
        reached = last @ (first if gram is None else gram)
        unscaled = reached
        if right is not None:
            reached = reached * right[here, None, :]
        norms.append(torch.linalg.vecdot(reached.flatten(1), (reached if gram is None else last).flatten(1)))
        if not learns:
            continue
        # g is half the gradient at what ``reached`` was made of, then at one factor after the other
        own = None if each is None else each[here]
        g = _by(reached, own)
        if at_gram is not None:
            _add_symmetric(at_gram, last.flatten(0, 1), _by(last, own).flatten(0, 1))
        else:
            if right is not None:
                at_slopes[-1].append((g * unscaled).sum(1))
                g = g * right[here, None, :]
            at_weights[0].addmm_(last.flatten(0, 1).t(), g.flatten(0, 1))
            g = g @ first.t()
        for i in range(len(plain)):
            if wanted[i]:
                at_slopes[i].append((g * plain[-1 - i]).sum(1))
            g = _by_column(g, part[i])
            if i < len(middle):
                at_weights[i + 1].addmm_(scaled[-2 - i].flatten(0, 1).t(), g.flatten(0, 1))
                g = g @ middle[i].t()
        if outermost is None:
            at_weights[-1].add_(g.sum(0))
        else:
            at_weights[-1].add_(torch.einsum("nk,nkh->kh", outermost, g))
            at_slopes[-2].append(torch.einsum("nkh,kh->nk", g, top))
    if at_gram is not None and learns:
        # half the gradient at ``gram`` is ``at_gram`` / 2, and that matrix enters twice
        at_weights[0] = _mirrored(at_gram) @ first
    return torch.cat(norms), [torch.cat(parts) if parts else None for parts in at_slopes], at_weights


def _by(x: Tensor, each: Tensor | None) -> Tensor:
    """Return x (n, ...) with each sample times its own number, where there are any."""
    return x if each is None else x * each.view(-1, *[1] * (x.ndim - 1))


def _by_column(x: Tensor, slope: Tensor | None) -> Tensor:
    """Return x (n, k, h) with its columns times the slopes (n, h), where there are any."""
    return x if slope is None else x * slope[:, None, :]


def symmetric(x: Tensor, each: Tensor | None = None) -> Tensor:
    """Return ``x.T @ diag(each) @ x``, of which one half is computed."""
    out = x.new_zeros(x.shape[1], x.shape[1])
    _add_symmetric(out, x, _by(x, each))
    return _mirrored(out)


def _add_symmetric(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left.T @ right``, a symmetric matrix, to the blocks of ``out`` on and above its diagonal."""
    for start in range(0, len(out), _BLOCK):
        end = start + _BLOCK
        out[:end, start:end].addmm_(left[:, :end].t(), right[:, start:end])


def _mirrored(upper: Tensor) -> Tensor:
    """Return the whole of a symmetric matrix of which the blocks on and above the diagonal are there."""
    return upper if len(upper) <= _BLOCK else upper.triu() + upper.triu(1).t()
