"""The hand-written step for nets of dense layers: no graph, no allocation, one flat parameter vector.

Encoder, decoder and the common losses are differentiated by hand into buffers that stay. What lies at
the bottleneck (the latent and the penalties, in all their variety) goes through autograd on the code
alone, which is small; the two meet in the code's gradient. The results equal those of the autograd
step, which a test over the whole family checks in double precision to 1e-10.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from diabolo.autoencoder import AutoencoderModule
from diabolo.objective import LOSS, TOTAL, Objective
from diabolo.parts import ForwardPass
from diabolo.parts.activations import Activate
from diabolo.parts.architectures.base import SeededDropout, TiedLinear
from diabolo.parts.losses import BinaryCrossEntropyModule, Clip, Linked, SquaredErrorModule
from diabolo.training.derivatives import DERIVATIVES
from diabolo.training.optimizers import make_optimizers, split
from diabolo.training.settings import Settings


class _Layer:
    """One dense layer with what follows it, and its buffers for a batch of n.

    ``output`` (n, out) is what the next layer sees, ``before`` the pre-activation where its derivative
    needs that and the output otherwise, ``gradient`` (n, in) that of the layer's input.
    """

    input: Tensor
    before: Tensor
    output: Tensor
    gradient: Tensor

    def __init__(self, linear: nn.Linear | TiedLinear) -> None:
        self.linear = linear
        self.activation: str | None = None
        self.dropout: SeededDropout | None = None
        self.kept: Tensor | None = None

    def allocate(self, n: int, like: Tensor) -> None:
        """Make the buffers for batches of n rows."""
        out_features, in_features = self.linear.weight.shape
        self.before = like.new_empty(n, out_features)
        apart = self.activation is not None and DERIVATIVES[self.activation].of_input
        self.output = torch.empty_like(self.before) if apart else self.before
        self.gradient = like.new_empty(n, in_features)

    def forward(self, h: Tensor) -> Tensor:
        """Map h (n, in) to (n, out)."""
        self.input = h
        torch.addmm(self.linear.bias, h, self.linear.weight.t(), out=self.before)
        if self.activation is not None:
            DERIVATIVES[self.activation].forward(self.before, self.output)
        drop = self.dropout
        if drop is None or drop.generator is None:
            return self.output
        self.kept = torch.empty_like(self.output).bernoulli_(1.0 - drop.share, generator=drop.generator)
        self.kept.div_(1.0 - drop.share)
        return self.output * self.kept

    def backward(self, g: Tensor, *, add: bool, shared: bool = False, first: bool = False) -> Tensor:
        """Take the gradient of the output (n, out), write those of the weights; return the input's.

        ``add`` adds to the gradients there are, ``shared`` to that of the weight. ``g`` is
        overwritten. For the ``first`` layer nothing is returned that could be used.
        """
        if self.kept is not None:
            g.mul_(self.kept)
        if self.activation is not None:
            DERIVATIVES[self.activation].backward(g, self.before)
        if isinstance(self.linear, TiedLinear):
            weight, left, right = self.linear.source.weight, self.input, g
        else:
            weight, left, right = self.linear.weight, g, self.input
        bias = self.linear.bias
        assert weight.grad is not None
        assert bias.grad is not None
        if add or shared:
            weight.grad.addmm_(left.t(), right)
        else:
            torch.mm(left.t(), right, out=weight.grad)
        if add:
            bias.grad.add_(g.sum(0))
        else:
            torch.sum(g, 0, out=bias.grad)
        if not first:
            torch.mm(g, self.linear.weight, out=self.gradient)
        return self.gradient


def _layers(network: nn.Sequential) -> list[_Layer] | None:
    """Read a stack of dense blocks; None where there is anything else in it."""
    found: list[_Layer] = []
    for block in network:
        for part in block if isinstance(block, nn.Sequential) else [block]:
            if isinstance(part, nn.Linear | TiedLinear):
                found.append(_Layer(part))
            elif isinstance(part, nn.Flatten | nn.Unflatten):
                continue
            elif isinstance(part, Activate) and found and found[-1].activation is None:
                if part.activation.name not in DERIVATIVES:
                    return None
                found[-1].activation = part.activation.name
            elif isinstance(part, SeededDropout) and found and found[-1].dropout is None:
                found[-1].dropout = part
            else:
                return None
    return found or None


class DenseStep:
    """One step of training for dense nets; see the module's text. Use ``covers`` first."""

    name = "dense"

    @staticmethod
    def covers(module: AutoencoderModule) -> bool:
        """Whether the net consists of dense layers only, without normalisation."""
        return _layers(module.encoder) is not None and _layers(module.decoder) is not None

    def __init__(
        self, module: AutoencoderModule, objective: Objective, settings: Settings, generator: torch.Generator
    ) -> None:
        encoder, decoder = _layers(module.encoder), _layers(module.decoder)
        assert encoder is not None
        assert decoder is not None
        self.module, self.objective, self.generator = module, objective, generator
        self.clip_norm = settings.clip_norm
        self.encoder, self.decoder = encoder, decoder
        self.tied = any(isinstance(layer.linear, TiedLinear) for layer in decoder)
        # nothing happens at the bottleneck: code and encoder's output are the same
        # (so the layers' gradients are written; otherwise autograd adds to them too)
        self.plain = module.latent.is_identity and not objective.penalties
        self.loss_learns = any(w.requires_grad for w in module.loss.parameters())
        self.parameters = [w for w in module.parameters() if w.requires_grad]
        matrices, others = split(settings.optimizer, self.parameters)
        self._order = [*others, *matrices]
        self._flat = torch.cat([w.detach().flatten() for w in self._order])
        self._flat_gradient = torch.zeros_like(self._flat)
        # what Adam takes is one vector to it
        self._vector = nn.Parameter(self._flat[: sum(w.numel() for w in others)])
        self.attach()
        self.optimizers = make_optimizers(
            matrices, [self._vector] if others else [], settings.learning_rate, settings.weight_decay
        )
        self._n = 0
        self._x = self._difference = torch.empty(0)

    def attach(self) -> None:
        """Let the module's parameters and their gradients be views of the flat vectors."""
        with torch.no_grad():
            at = 0
            for w in self._order:
                place = self._flat[at : at + w.numel()].view(w.shape)
                if w.data_ptr() != place.data_ptr():
                    w.data = place.copy_(w)
                w.grad = self._flat_gradient[at : at + w.numel()].view(w.shape)
                at += w.numel()
            self._vector.data = self._flat[: self._vector.numel()]  # a copy of the step has its own
            self._vector.grad = self._flat_gradient[: self._vector.numel()]

    def detach(self) -> None:
        """Give the module's parameters memory of their own again."""
        for w in self._order:
            w.data = w.detach().clone()
            w.grad = None

    def _allocate(self, n: int, data: Tensor) -> None:
        self._n = n
        self._x = data.new_empty(n, *data.shape[1:])
        self._difference = data.new_empty(n, data[0].numel())
        for layer in (*self.encoder, *self.decoder):
            layer.allocate(n, data)

    @torch.no_grad()
    def __call__(self, data: Tensor, rows: Tensor, step: int) -> dict[str, Tensor]:
        """Train on ``data[rows]``; return the batch's mean of every term, still on the device."""
        if len(rows) != self._n:
            self._allocate(len(rows), data)
        module, generator = self.module, self.generator
        x = torch.index_select(data, 0, rows, out=self._x)
        seen = x if module.corruption is None else module.corruption(x, generator)
        h = seen.flatten(1)
        for layer in self.encoder:
            h = layer.forward(h)
        if not self.plain:
            h = h.detach().requires_grad_()
            with torch.enable_grad():
                code = module.latent(h, generator)
            z = code.value.detach()
        else:
            z = h
        raw = z
        for layer in self.decoder:
            raw = layer.forward(raw)
        add = not self.plain
        if add or self.loss_learns:
            self._flat_gradient.zero_()
        terms, g = self._loss(raw, x)
        for i in reversed(range(len(self.decoder))):
            g = self.decoder[i].backward(g, add=add)
        if not self.plain:
            passed = ForwardPass(target=x, seen=seen, code=code, raw=raw.view(x.shape))
            with torch.enable_grad():
                others = self.objective.at_the_code(module, passed, step, generator)
                terms |= {name: term.mean() for name, term in others.items()}
                sources = [code.value, *(t for t in terms.values() if t.requires_grad)]
                torch.autograd.backward(sources, [g, *[None] * (len(sources) - 1)])
            assert h.grad is not None
            g = h.grad
            terms = {name: term.detach() for name, term in terms.items()}
        for i in reversed(range(len(self.encoder))):
            g = self.encoder[i].backward(g, add=add, shared=self.tied, first=i == 0)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        terms[TOTAL] = sum(terms.values()) if len(terms) > 1 else terms[LOSS]  # type: ignore[assignment]
        return terms

    def _loss(self, raw: Tensor, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the loss's mean and its gradient with respect to raw (n, n_features)."""
        loss, n = self.module.loss, len(x)
        target = x.flatten(1)
        if isinstance(loss, SquaredErrorModule):
            g = torch.sub(raw, target, out=self._difference)
            value = torch.dot(g.view(-1), g.view(-1)) / n
            return {LOSS: value}, g.mul_(2.0 / n)
        clip = loss.output if isinstance(loss, Linked) and isinstance(loss.output, Clip) else None
        if clip is not None and isinstance(loss.inner, SquaredErrorModule):
            g = torch.clamp(raw, clip.low.view(-1), clip.high.view(-1), out=self._difference)
            g.sub_(target)
            value = torch.dot(g.view(-1), g.view(-1)) / n
            return {LOSS: value}, g.mul_(2.0 / n)
        if isinstance(loss, BinaryCrossEntropyModule):
            value = functional.binary_cross_entropy_with_logits(raw, target, reduction="sum") / n
            g = torch.sigmoid(raw, out=self._difference)
            return {LOSS: value}, g.sub_(target).div_(n)
        with torch.enable_grad():
            leaf = raw.detach().requires_grad_()
            cost = loss(leaf.view(x.shape), x).mean()
            cost.backward()
        assert leaf.grad is not None
        return {LOSS: cost.detach()}, leaf.grad
