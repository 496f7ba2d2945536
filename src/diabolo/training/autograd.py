"""The general step: any net, by autograd; compiled on demand, in portions where memory is short."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import InvalidParameterError
from diabolo.objective import TOTAL, Objective
from diabolo.parts import ForwardPass, KLSparsity, PosteriorKL
from diabolo.parts.corruptions import Chain, SaltAndPepper
from diabolo.parts.latents import NoisyModule, Selecting
from diabolo.parts.shares import Shared
from diabolo.training.costs import Terms
from diabolo.training.optimizers import make_optimizers, split
from diabolo.training.settings import Settings
from diabolo.training.workers import Workers


class AutogradStep:
    """Gather a batch into a buffer, differentiate, update; nothing is read back.

    A batch that a GPU has no memory for goes through in portions, whose gradients add up to the same.
    """

    name = "autograd"

    def __init__(
        self, module: AutoencoderModule, objective: Objective, settings: Settings, generator: torch.Generator
    ) -> None:
        self.module = self.net = module
        self.objective = objective
        self.clip_norm = settings.clip_norm
        self.half = settings.precision == "bf16"
        self.generator = generator
        self.portions = 1
        self.parameters = [w for w in module.parameters() if w.requires_grad]
        matrices, others = split(settings.optimizer, self.parameters)
        self.optimizers = make_optimizers(matrices, others, settings.learning_rate, settings.weight_decay)
        self._buffer: Tensor | None = None

    def __call__(self, data: Tensor, rows: Tensor, step: int) -> Terms:
        """Train on ``data[rows]``; return the batch's mean of every term, still on the device.

        Raises
        ------
        InvalidParameterError
            Where there is not even memory for the smallest portion that gives the batch's result.
        """
        state = self.generator.get_state()
        while True:
            try:
                terms = self._differentiated(data, rows, step, state)
                break
            except torch.OutOfMemoryError as error:
                self._buffer = None
                self.generator.set_state(state)
                self._halve(len(rows), error)
        if isinstance(self.generator, Workers):
            self.generator.average_gradients(self.parameters)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        with torch.no_grad():
            for optimizer in self.optimizers:
                optimizer.update()
        return terms

    def _differentiated(self, data: Tensor, rows: Tensor, step: int, state: Tensor) -> Terms:
        """Set the gradients of the batch's mean and return the means of its terms."""
        for weight in self.parameters:
            weight.grad = None
        if self.portions == 1:
            terms = self.terms(self._gathered(data, rows), step, self.generator)
            terms[TOTAL].backward()  # type: ignore[no-untyped-call]
            return {name: term.detach() for name, term in terms.items()}
        sums: Terms = {}
        portion = _Portion.of(self.generator, len(rows))
        self.module.draw_from(portion)
        for i in range(self.portions):
            share = portion.take(i, self.portions, state)
            terms = self.terms(self._gathered(data, rows[share]), step, portion)
            weight_of_share = (share.stop - share.start) / len(rows)
            (terms[TOTAL] * weight_of_share).backward()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach() * weight_of_share
        self.module.draw_from(self.generator)
        self.generator.set_state(portion.get_state())
        return sums

    def _gathered(self, data: Tensor, rows: Tensor) -> Tensor:
        if self._buffer is None or len(self._buffer) != len(rows):
            self._buffer = torch.empty((len(rows), *data.shape[1:]), dtype=data.dtype, device=data.device)
        return torch.index_select(data, 0, rows, out=self._buffer)

    def terms(self, batch: Tensor, step: int | None, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the batch's mean of every term, with its graph."""
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.half):
            passed = self.module(batch, generator)
        if self.half:
            passed = _in_single(passed)
        every = self.objective(self.module, passed, step, generator)
        return {name: term.mean() for name, term in every.items()}

    def _halve(self, n_rows: int, error: torch.OutOfMemoryError) -> None:
        """Have the next try take twice as many portions."""
        coupled = _coupling(self.module, self.objective)
        if coupled is not None:
            raise InvalidParameterError(
                f"a batch must fit into memory; got {n_rows} rows, and {coupled} needs it whole. "
                "Lower batch_size."
            ) from error
        if self.portions >= n_rows:
            raise InvalidParameterError(
                "a row must fit into memory; got one that does not, with this net. Make the net smaller, "
                "or set device='cpu'."
            ) from error
        self.portions = min(2 * self.portions, n_rows)

    def attach(self) -> None:
        """Nothing to prepare: the parameters are the module's own."""

    def detach(self) -> None:
        """Free the gradients."""
        for weight in self.parameters:
            weight.grad = None


def _in_single(passed: ForwardPass) -> ForwardPass:
    """Return the pass with single precision numbers, so that sums over it lose nothing."""
    code = {
        f.name: value.float()
        for f in fields(passed.code)
        if (value := getattr(passed.code, f.name)) is not None
    }
    return replace(passed, raw=passed.raw.float(), code=replace(passed.code, **code))


def _coupling(module: AutoencoderModule, objective: Objective) -> str | None:
    """Return what in the composition looks at all rows of a batch together, or may do so."""
    for part in (*module.modules(), module.corruption, *objective.penalties):
        home = type(part).__module__.partition(".")[0]
        if part is not None and home not in ("diabolo", "torch"):
            return f"{type(part).__name__}, of which nothing else is known,"
    if isinstance(module.latent, Selecting | NoisyModule):
        return "the latent"
    corruption = module.corruption
    steps = corruption.steps if isinstance(corruption, Chain) else [corruption]
    if any(isinstance(s, SaltAndPepper) and (s.low is None or s.high is None) for s in steps):
        return "salt_and_pepper between the batch's extremes"
    for penalty in objective.penalties:
        if isinstance(penalty, KLSparsity) or (isinstance(penalty, PosteriorKL) and penalty.free_bits):
            return penalty.name
    return "norm='batch'" if any(isinstance(m, _BatchNorm) for m in module.modules()) else None


class CompiledStep(AutogradStep):
    """The same with forward and backward pass compiled by torch, once the penalties' weights stand still."""

    name = "compiled"

    def __init__(
        self, module: AutoencoderModule, objective: Objective, settings: Settings, generator: torch.Generator
    ) -> None:
        super().__init__(module, objective, settings, generator)
        self._compiled = torch.compile(super().terms, dynamic=False)

    def terms(self, batch: Tensor, step: int | None, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the batch's mean of every term, with its graph."""
        if step is None or not self.objective.settled(step):
            return super().terms(batch, step, generator)
        return self._compiled(batch, None, generator)  # a number that counts up would compile anew each time


class _Portion(Shared):
    """The generator of one portion of a batch, which draws what the whole would have drawn."""

    n_rows: int = 0
    first: int = 0

    @classmethod
    def of(cls, generator: torch.Generator, n_rows: int) -> Self:
        """Return one for a batch of ``n_rows``, which may itself be one worker's share."""
        made = cls(generator.device)
        made.n_rows, made.whole, made.first = n_rows, n_rows, 0
        if isinstance(generator, Shared):
            made.whole, made.first = generator.whole, generator.own.start
        return made

    def take(self, i: int, count: int, state: Tensor) -> slice:
        """Stand at the i-th of ``count`` portions, as if nothing had been drawn; return its rows."""
        share = slice(self.n_rows * i // count, self.n_rows * (i + 1) // count)
        self.own = slice(self.first + share.start, self.first + share.stop)
        self.set_state(state)
        return share

    def any(self, flags: Tensor) -> Tensor:
        """Never asked: what couples the rows of a batch is not trained in portions."""
        raise NotImplementedError
