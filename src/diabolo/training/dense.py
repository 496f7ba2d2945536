"""The hand-written step for nets of dense layers: no graph, no allocation, one flat parameter vector.

Encoder, decoder and the common losses, latents and penalties (``bottleneck.py``) are differentiated by
hand into buffers that stay. What else may lie at the bottleneck goes through autograd on the code alone,
which is small; the two meet in the code's gradient. The results equal those of the autograd
step, which a test over the whole family checks in double precision to 1e-10.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diabolo.autoencoder import AutoencoderModule
from diabolo.objective import LOSS, TOTAL, Objective
from diabolo.parts import ForwardPass, Penalty
from diabolo.parts.architectures.base import TiedLinear
from diabolo.training.bottleneck import by_hand, penalties
from diabolo.training.contraction import contraction
from diabolo.training.costs import Terms, cost
from diabolo.training.layers import Call, Layer, read_layers, room
from diabolo.training.optimizers import make_optimizers, split
from diabolo.training.settings import Settings
from diabolo.training.workers import Workers

_NARROW = 128  # features up to which NumPy gathers rows with less overhead than torch
_ALONE = 65_536  # values from which a weight is worth sharing among the threads by itself


def _aligned(w: Tensor) -> int:
    """Return the values to set aside for w, so that each parameter begins on a cache line of its own."""
    return -(-w.numel() // 16) * 16


def _portions(parameters: list[nn.Parameter]) -> list[int]:
    """Return the lengths of the flat vector's parts: each wide weight, and what lies between two of them.

    The threads share each part out. With the whole shared at once, a wide weight's rows would be updated by
    another thread than the one that uses them.
    """
    lengths: list[int] = []
    together = False
    for w in parameters:
        alone = w.numel() >= _ALONE
        if alone or not together:
            lengths.append(0)
        lengths[-1] += _aligned(w)
        together = not alone
    return lengths


def _chain(calls: list[Call]) -> Call:
    """Return one call for all of ``calls``."""

    def run() -> None:
        for call in calls:
            call()

    return run


class DenseStep:
    """One step of training for dense nets; see the module's text. Use ``covers`` first."""

    name = "dense"
    _turned: Tensor | None = None  # the weight (out, in) whose columns lie side by side in memory

    @staticmethod
    def covers(module: AutoencoderModule) -> bool:
        """Whether the net consists of dense layers only, without normalisation."""
        return DenseStep.read(module) is not None

    @staticmethod
    def read(module: AutoencoderModule) -> tuple[list[Layer], list[Layer]] | None:
        """Read encoder and decoder; None where a layer is used twice, or tied to none of the encoder's."""
        encoder, decoder = read_layers(module.encoder), read_layers(module.decoder)
        if encoder is None or decoder is None:
            return None
        below = {id(layer.linear) for layer in encoder}
        every = [id(layer.linear) for layer in (*encoder, *decoder)]
        tied = [id(layer.linear.source) for layer in decoder if isinstance(layer.linear, TiedLinear)]
        alone = len(set(every)) == len(every) and len(set(tied)) == len(tied)
        return (encoder, decoder) if alone and below.issuperset(tied) else None

    def __init__(
        self, module: AutoencoderModule, objective: Objective, settings: Settings, generator: torch.Generator
    ) -> None:
        both = self.read(module)
        assert both is not None
        encoder, decoder = both
        self.module, self.objective, self.generator = module, objective, generator
        self.net: Callable[[Tensor, torch.Generator], ForwardPass] = module  # for rows it does not train on
        self.clip_norm = settings.clip_norm
        self.encoder, self.decoder = encoder, decoder
        self._code_size = decoder[0].linear.weight.shape[1]
        tied = [layer.linear for layer in decoder if isinstance(layer.linear, TiedLinear)]
        self._shared = [linear.source for linear in tied]  # layers whose weight the decoder uses too
        # a contractive penalty by hand lies at no place of the way: what is left is at the code
        self.contraction = contraction(module, objective, encoder)
        if self.contraction is not None:
            objective = self.objective = self.contraction.without(objective)
        # nothing happens at the bottleneck: code and encoder's output are the same
        self.plain = module.latent.is_identity and not objective.penalties
        self.bottleneck = None if self.plain else by_hand(module, objective)
        # autograd at the bottleneck may add to the layers' gradients, which are written otherwise
        self.by_autograd = not self.plain and self.bottleneck is None
        # the package's penalties look at the code alone; a user's own may look at the output
        self._of_output = any(type(p).__module__ != Penalty.__module__ for p in objective.penalties)
        self.parameters = [w for w in module.parameters() if w.requires_grad]
        matrices, others = split(settings.optimizer, self.parameters)
        self._order = [*others, *matrices]
        self._flat = self._order[0].new_zeros(sum(_aligned(w) for w in self._order))
        self._flat_gradient = torch.zeros_like(self._flat)
        # what Adam takes is one vector to it
        self._vector = nn.Parameter(self._flat[: sum(_aligned(w) for w in others)])
        self.attach()
        self.optimizers = make_optimizers(
            matrices,
            [self._vector] if others else [],
            settings.learning_rate,
            settings.weight_decay,
            _portions(others) if self._flat.device.type == "cpu" else (),
        )

    def attach(self) -> None:
        """Let the module's parameters and their gradients be views of the flat vectors."""
        with torch.no_grad():
            at = 0
            for w in self._order:
                place = self._laid(self._flat[at : at + w.numel()], w)
                if w.data_ptr() != place.data_ptr():
                    w.data = place.copy_(w)
                w.grad = self._laid(self._flat_gradient[at : at + w.numel()], w)
                at += _aligned(w)
            self._vector.data = self._flat[: self._vector.numel()]  # a copy of the step has its own
            self._vector.grad = self._flat_gradient[: self._vector.numel()]
        self._n = 0  # the calls refer to the memory of before

    def _laid(self, values: Tensor, w: nn.Parameter) -> Tensor:
        """Return a part of a flat vector as a view in the shape of w."""
        return values.view(w.shape[::-1]).t() if w is self._turned else values.view(w.shape)

    def detach(self) -> None:
        """Give the module's parameters memory of their own again."""
        for w in self._order:
            w.data = w.detach().clone(memory_format=torch.contiguous_format)
            w.grad = None

    def _prepare(self, n: int, data: Tensor) -> None:
        """Make the buffers for batches of n rows and the calls that work on them."""
        self._n = n
        self._x = data.new_empty(n, *data.shape[1:])
        x = self._x.flatten(1)
        self._corruption = self.module.corruption
        self._seen = x if self._corruption is None else torch.empty_like(x)
        # whether the decoder gets the encoder's output itself, and hands its gradient straight back
        joined = self.plain or (self.bottleneck is not None and self.bottleneck.in_place)
        add = self.by_autograd
        narrow = self.bottleneck is not None and self.bottleneck.narrow
        inputs, h, up = [], self._seen, []
        for layer in self.encoder:
            layer.allocate(h, by_rows=layer is self.encoder[-1] and not (joined or narrow))
            inputs.append(h)
            calls, h = layer.forward(h)
            up += calls
        self._h = h
        decoded, down = [], []
        upright = narrow and not h.is_contiguous()
        self._z = z = h if joined else room(x, self._code_size, upright)
        for layer in self.decoder:
            layer.allocate(z, by_rows=layer is self.decoder[-1])
            decoded.append(z)
            calls, z = layer.forward(z)
            down += calls
        self._raw, self._difference = z, torch.empty_like(x)
        g, back = self._difference, []
        for layer, seen in zip(reversed(self.decoder), reversed(decoded), strict=True):
            calls, g = layer.backward(seen, g, add=add)
            back += calls
        self._code_gradient = g
        if not joined:
            g = torch.empty_like(h)
        self._h_gradient = g
        if self.bottleneck is not None:
            self.bottleneck.place(h, self._z, self._code_gradient, g)
        last = []
        for layer, seen in zip(reversed(self.encoder), reversed(inputs), strict=True):
            shared, first = layer.linear in self._shared, layer is self.encoder[0]
            calls, g = layer.backward(seen, g, add=add, shared=shared, first=first)
            last += calls
        if self.contraction is not None:
            self.contraction.prepare(self._h, self._z, self._h_gradient)
        self._cost = cost(self.module.loss, z, x, self._difference, tuple(self._x.shape))
        self._by_numpy = data.device.type == "cpu" and x.shape[1] <= _NARROW
        self._encode, self._decode = _chain(up), _chain(down)
        self._decode_back, self._encode_back = _chain(back), _chain(last)

    def __call__(self, data: Tensor, rows: Tensor, step: int) -> Terms:
        """Train on ``data[rows]``; return the batch's mean of every term, on a GPU as tensors there."""
        if len(rows) != self._n:
            self._prepare(len(rows), data)
        if self._by_numpy:
            data.numpy().take(rows.numpy(), 0, self._x.numpy(), "clip")  # "raise" would go through a copy
        else:
            torch.index_select(data, 0, rows, out=self._x)
        if self._corruption is not None:
            self._seen.copy_(self._corruption(self._x, self.generator).flatten(1))
        if self.by_autograd:
            with torch.no_grad():
                terms = self._around_autograd(step)
        else:
            terms = self._by_hand(step)
        if isinstance(self.generator, Workers):
            self.generator.average(self._flat_gradient)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        for optimizer in self.optimizers:
            optimizer.update()
        terms[TOTAL] = sum(terms.values()) if len(terms) > 1 else terms[LOSS]
        return terms

    def _by_hand(self, step: int) -> Terms:
        """Go forward and back; return the means of the terms."""
        bottleneck, contraction = self.bottleneck, self.contraction
        self._encode()
        if bottleneck is not None:
            bottleneck.forward(self._h, self.generator)
            if bottleneck.value is not self._z:
                self._z.copy_(bottleneck.value)
        self._decode()
        terms: Terms = {LOSS: self._cost()}
        self._decode_back()
        if bottleneck is not None:
            terms |= penalties(bottleneck, self.objective, step, self._code_gradient)
            if self.objective.revival_weight and bottleneck.has_dead:
                x = self._x
                passed = ForwardPass(x, self._seen.view(x.shape), bottleneck.code(), self._raw.view(x.shape))
                terms |= bottleneck.revive(self.module, self.objective, passed)
            bottleneck.backward(self._code_gradient, self._h_gradient)
        if contraction is not None:
            terms |= contraction(step)
        self._encode_back()
        if contraction is not None:
            contraction.finish()
        return terms

    def _around_autograd(self, step: int) -> Terms:
        """Do the same where the code is left to autograd."""
        module, generator, x = self.module, self.generator, self._x
        self._encode()
        h = self._h.detach().requires_grad_()
        with torch.enable_grad():
            code = module.latent(h, generator)
        self._z.copy_(code.value)
        self._flat_gradient.zero_()
        self._decode()
        terms: Terms = {LOSS: self._cost()}
        raw = self._raw.view(x.shape).detach().requires_grad_(self._of_output)
        passed = ForwardPass(x, self._seen.view(x.shape), code, raw)
        with torch.enable_grad():
            others = self.objective.at_the_code(module, passed, step, generator)
            means = {name: term.mean() for name, term in others.items()}
            pulls = [mean for mean in means.values() if mean.requires_grad]
            if self._of_output and pulls:
                (pull,) = torch.autograd.grad(pulls, raw, allow_unused=True, retain_graph=True)
                if pull is not None:
                    self._difference.add_(pull.flatten(1))
        self._decode_back()
        torch.autograd.backward([code.value, *pulls], [self._code_gradient, *[None] * len(pulls)])
        assert h.grad is not None
        self._h_gradient.copy_(h.grad)
        self._encode_back()
        return terms | {name: mean.detach() for name, mean in means.items()}
