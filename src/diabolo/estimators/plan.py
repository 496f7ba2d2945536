"""A trained net of dense layers as a short list of calls of NumPy or oneDNN, for inference on the CPU.

A layer of ten units costs torch ten times its arithmetic in calls; NumPy's product and its own loops cost
less, for a single row and for narrow nets at any number of rows. Many rows of a wide net go faster by oneDNN
than by the library that torch takes. What lies between and behind the layers (the latent, the loss's link)
stays torch's. A plan's arrays are views of the module's weights, so it follows them wherever they are changed
in place; it is made anew where the module has got other ones, and it is kept apart from the estimator: no
file and no pickle holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from threading import local
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diabolo.autoencoder import AutoencoderModule
from diabolo.parts import ForwardPass
from diabolo.parts.activations import Activate
from diabolo.parts.architectures.base import SeededDropout, TiedLinear
from diabolo.training.derivatives import DERIVATIVES
from diabolo.training.machine import linear

Floats = NDArray[np.float32]

BLOCK = 32  # rows: batches are filled up to whole blocks, and biases are added a block at a time
_NARROW = 128  # up to this width NumPy's products on one thread of BLAS beat torch's
_VALUES = 1_000_000  # of the widest level of a batch: 4 MB, less than a cache that cores share
_OWN_VALUES = 250_000  # of all levels of a batch of a narrow net: 1 MB, about a core's own cache
_MOST_ROWS = 8192  # of a batch

_plans: WeakKeyDictionary[AutoencoderModule, Plan] = WeakKeyDictionary()


def plan_of(module: AutoencoderModule) -> Plan:
    """Return the module's plan, the one made before where it still holds."""
    plan = _plans.get(module)
    if plan is None or not plan.holds():
        plan = _plans[module] = Plan(module)
    return plan


class _Layer:
    """One dense layer: views of its weight (in, out) and bias (out,), and the activation that follows."""

    def __init__(self, linear: nn.Linear | TiedLinear) -> None:
        self.weight: Floats = linear.weight.detach().t().numpy()
        self.bias: Floats = linear.bias.detach().numpy()
        self.activation: str | None = None


class Plan:
    """What the module's two halves compute, and the state of the module of which that is true.

    ``encoder`` and ``decoder`` are None where there is anything but dense layers with their activations;
    ``covers`` says whether they are there. In a ``narrow`` net NumPy is the quicker one for any number of
    rows, else for a single one only.
    """

    def __init__(self, module: AutoencoderModule) -> None:
        sizes = [level.size for level in module.levels()]
        self.widest = max(sizes)
        self.narrow = self.widest <= _NARROW
        most = _OWN_VALUES // sum(sizes) if self.narrow else _VALUES // self.widest
        self.rows_per_batch = max(BLOCK, min(_MOST_ROWS, most // BLOCK * BLOCK))
        self.n_parameters = sum(w.numel() for w in module.parameters())
        _, *self._parts = parts = list(module.modules())  # without the module: it would never be let go
        self._hooks = [h for m in parts for h in (m._forward_hooks, m._forward_pre_hooks)]
        tables = [t for m in parts for t in (m._modules, m._parameters, m._buffers) if t]
        self._tables = [table.values() for table in tables]
        self._held = [*chain.from_iterable(self._tables)]  # alive, so that no other takes their number
        self._numbers = [*map(id, self._held)]
        self._tensors = [t for t in self._held if isinstance(t, Tensor)]
        self._places = [t.data_ptr() for t in self._tensors]
        self._hooked = any(self._hooks)
        plain = not self._hooked and all(
            t.dtype == torch.float32 and t.device.type == "cpu" for t in module.parameters()
        )
        self.encoder = _layers(module.encoder) if plain else None
        self.decoder = _layers(module.decoder) if plain else None
        self._kept = local()
        self.covers = self.encoder is not None and self.decoder is not None

    def runner(self, module: AutoencoderModule, n: int) -> Runner:
        """Return what runs batches of up to n rows; that for the fewest is kept, one for each thread."""
        if n > BLOCK:
            return Runner(module, self, n)
        kept: Runner | None = getattr(self._kept, str(n), None)
        if kept is None:
            kept = Runner(module, self, n)
            setattr(self._kept, str(n), kept)
        return kept

    def put_to_work(self, module: AutoencoderModule) -> None:
        """Let no part of the module behave as in training."""
        if module.training or any(part.training for part in self._parts):
            module.eval()

    def holds(self) -> bool:
        """Whether the module still has the same parts, and their weights in the same places."""
        return (
            [*map(id, chain.from_iterable(self._tables))] == self._numbers
            and [t.data_ptr() for t in self._tensors] == self._places
            and any(self._hooks) == self._hooked
        )


def _layers(network: nn.Sequential) -> list[_Layer] | None:
    """Read a stack of dense layers; None where there is anything else in it.

    Types are compared, not tested: a subclass may compute something else.
    """
    found: list[_Layer] = []
    for block in network:
        for part in block if type(block) is nn.Sequential else [block]:
            if type(part) in (nn.Linear, TiedLinear) and part.bias is not None:
                found.append(_Layer(part))  # type: ignore[arg-type]
            elif type(part) is Activate and found and found[-1].activation is None:
                if part.activation.name not in DERIVATIVES:
                    return None
                found[-1].activation = part.activation.name
            elif type(part) not in (nn.Flatten, nn.Unflatten, SeededDropout):
                return None
    return found or None


class Runner:
    """The module as a plan computes it, in buffers for batches of ``n`` rows: a multiple of BLOCK, or 1.

    Stands where the module stands: ``encode``, ``decode`` and the call take and return the same. What they
    return lasts until the next call. One runner serves one thread.
    """

    def __init__(self, module: AutoencoderModule, plan: Plan, n: int) -> None:
        self._latent, self._loss, self._n = module.latent, module.loss, n
        self._shape = module.levels()[-1].shape
        self._plan = plan

    @cached_property
    def _up(self) -> list[_Step]:
        return [_step(layer, self._n) for layer in self._plan.encoder or ()]

    @cached_property
    def _down(self) -> list[_Step]:
        return [_step(layer, self._n) for layer in self._plan.decoder or ()]

    def hidden(self, x: Tensor) -> Tensor:
        """Map x (n, *shape) to what the latent gets (n, units)."""
        return _through(self._up, x)

    def output(self, z: Tensor) -> Tensor:
        """Map codes (n, *code_shape) to the decoder's output (n, units)."""
        return _through(self._down, z)

    def encode(self, x: Tensor) -> Tensor:
        """Map x (n, *shape) to its deterministic code (n, *code_shape)."""
        h = self.hidden(x)
        if self._latent.is_identity:
            return h
        mean: Tensor = self._latent(h).mean
        return mean

    def decode(self, z: Tensor) -> Tensor:
        """Map codes (n, *code_shape) to reconstructions (n, *shape) in scaled units."""
        return self._loss.mean(self._raw(z))

    def __call__(self, x: Tensor) -> ForwardPass:
        """Pass a batch through, without chance."""
        code = self._latent(self.hidden(x))
        return ForwardPass(target=x, seen=x, code=code, raw=self._raw(code.value))

    def _raw(self, z: Tensor) -> Tensor:
        raw = self.output(z)
        return raw if len(self._shape) == 1 else raw.view(-1, *self._shape)


class WideRunner(Runner):
    """The same for wide nets and any number of rows, by oneDNN; it has no buffers and serves any thread."""

    def __init__(self, module: AutoencoderModule, plan: Plan) -> None:
        super().__init__(module, plan, 0)
        self._encoder, self._decoder = plan.encoder or (), plan.decoder or ()

    def hidden(self, x: Tensor) -> Tensor:
        """Map x (n, *shape) to what the latent gets (n, units)."""
        return _by_dnn(self._encoder, x)

    def output(self, z: Tensor) -> Tensor:
        """Map codes (n, *code_shape) to the decoder's output (n, units)."""
        return _by_dnn(self._decoder, z)


def _by_dnn(layers: Sequence[_Layer], x: Tensor) -> Tensor:
    h = x.flatten(1)
    for layer in layers:
        h = linear(h, torch.from_numpy(layer.weight).t(), torch.from_numpy(layer.bias))
        if layer.activation is not None:
            DERIVATIVES[layer.activation].forward(h, h)
    return h


_Step = tuple[Floats, Floats, Floats, Callable[[Tensor, Tensor], object] | None, bool]


def _step(layer: _Layer, n: int) -> _Step:
    """Return weight, bias, place of the result and activation of a layer for up to n rows."""
    width = len(layer.bias)
    bias = layer.bias
    if n > BLOCK and width <= _NARROW:  # a copy, which a runner that is kept must not have
        bias = np.tile(layer.bias, BLOCK)
    relu = layer.activation == "relu"
    other = None if relu or layer.activation is None else DERIVATIVES[layer.activation].forward
    return layer.weight, bias, np.empty((n, width), dtype=np.float32), other, relu


def _through(steps: list[_Step], x: Tensor) -> Tensor:
    """Pass x (n, ...) through the layers: (n, units of the last)."""
    h: Floats = x.numpy() if x.ndim == 2 else x.flatten(1).numpy()
    for weight, bias, out, activation, relu in steps:
        if len(h) < len(out):
            out = out[: len(h)]
        np.matmul(h, weight, out=out)
        wide = out.reshape(-1, len(bias))
        np.add(wide, bias, out=wide)
        if relu:
            np.maximum(wide, 0.0, out=wide)
        elif activation is not None:
            a = torch.from_numpy(out)
            activation(a, a)
        h = out
    return torch.from_numpy(h)
