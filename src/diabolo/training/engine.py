"""The training loop of one stage: the step, the schedule, the best weights, divergence, interruption."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import (
    CheckpointError,
    DivergedError,
    DivergenceWarning,
    IncompatiblePartsError,
    InvalidParameterError,
)
from diabolo.objective import LOSS, REVIVAL, TOTAL, Objective
from diabolo.training.autograd import AutogradStep, CompiledStep
from diabolo.training.checkpoint import Checkpoint, Mark
from diabolo.training.costs import Terms
from diabolo.training.dense import DenseStep
from diabolo.training.feed import Feed, as_feed
from diabolo.training.half import HalfStep
from diabolo.training.history import History, Row
from diabolo.training.machine import flop_per_step
from diabolo.training.optimizers import set_rate
from diabolo.training.settings import Settings
from diabolo.training.sparse import SparseStep
from diabolo.training.workers import Workers

Progress = Callable[[Row, int], None]

_WARM_UP = 0.05  # share of a cosine schedule in which the rate rises
_RETRIES = 5  # how often a diverging stage may go back and halve its rate
_PLATEAU = 5  # epochs without a better loss before the plateau schedule halves the rate
_EXPLODED = 1e4  # a total this many times the first one counts as diverged
# a compilation takes 10 to 20 s and saves at most a third: what a minute or so on two cores is worth
_WORK_TO_COMPILE = 6e12
_TOLD_EVERY = 0.5  # seconds from one time that a long epoch says how far it is to the next
_VALIDATION_ROWS = 2048  # rows per batch where nothing is learned
# what a stage keeps from one epoch to the next, besides weights, optimizers, generator and history
_COURSE = (
    "epoch", "retries", "waited", "ended", "steps_done", "rate",
    "best_loss", "first_total", "validation_seed",
)  # fmt: skip


def choose_step(
    module: AutoencoderModule,
    objective: Objective,
    settings: Settings,
    generator: torch.Generator,
    work: float = 0.0,
) -> AutogradStep | DenseStep:
    """Return the fastest step for this net, or the one that ``settings.engine`` names.

    A compiled one is the plain one where the whole training, of ``work`` floating-point operations, would
    not take as long as compiling.

    Raises
    ------
    IncompatiblePartsError
        Where the named one cannot train this net.
    """
    dense = DenseStep.covers(module)
    if settings.engine == DenseStep.name and not dense:
        raise IncompatiblePartsError(
            "engine='dense' must go with dense layers without normalisation; got a net with other layers. "
            "Use engine='auto'."
        )
    if settings.engine == CompiledStep.name and work >= _WORK_TO_COMPILE:
        return CompiledStep(module, objective, settings, generator)
    if not dense or settings.engine in (AutogradStep.name, CompiledStep.name):
        return AutogradStep(module, objective, settings, generator)
    if settings.precision == "bf16":
        return HalfStep(module, objective, settings, generator)
    sparse = SparseStep.suits(module, objective) and SparseStep.pays(module, settings.batch_size)
    return (SparseStep if sparse else DenseStep)(module, objective, settings, generator)


class Stage:
    """Trains one module on one data set.

    Parameters
    ----------
    module, objective : the composition to train
    data : Tensor (n, *shape) or Feed
        Training rows in scaled units.
    held_out : Tensor (v, *shape) or None
        Rows that choose the best weights; None: the training loss chooses.
    settings : Settings
    generator : torch.Generator
        Draws the order of the rows, corruptions and codes.
    """

    def __init__(
        self,
        module: AutoencoderModule,
        objective: Objective,
        data: Tensor | Feed,
        held_out: Tensor | None,
        settings: Settings,
        generator: torch.Generator,
    ) -> None:
        self.module = module
        self.objective = objective
        self.held_out = held_out
        self.settings = settings
        self.generator = generator
        feed = as_feed(data)
        steps = settings.epochs * max(1, len(feed) // settings.batch_size)
        work = steps * flop_per_step(module, feed.sample_shape, min(settings.batch_size, len(feed)))
        self.step = choose_step(module, objective, settings, generator, work)
        self.use(data)
        self.steps_done = 0
        self.rate = settings.learning_rate
        self.validation_seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        self.first_total = math.inf
        self._rows_at_once = _VALIDATION_ROWS

    def use(self, data: Tensor | Feed) -> None:
        """Train on these rows from now on."""
        self.data = as_feed(data)
        self.batch_size = min(self.settings.batch_size, len(data))
        self.steps_per_epoch = len(data) // self.batch_size
        self._best: dict[str, Tensor] | None = None
        self.best_loss = math.inf
        self.epoch = self.retries = self.waited = 0
        self.ended = False
        self.module.draw_from(self.generator)
        self.step.attach()

    def run(
        self,
        history: History,
        name: str,
        started: float,
        progress: Progress | None,
        total_epochs: int,
        checkpoint: Checkpoint | None = None,
    ) -> bool:
        """Train to the end, leave the best weights in the module; return whether it was interrupted."""
        interrupted = False
        history.stopped_by = "epochs"
        if self.settings.engine == CompiledStep.name and not isinstance(self.step, CompiledStep):
            event = f"{name}: not compiled, as the training is too short to pay for it"
            history.events += [event] if event not in history.events else []
        history.best_epoch = 0
        if checkpoint is not None:
            checkpoint.hand_over(lambda mark: self._go_on(mark, history))
        history.engine = self.step.name
        good = self._snapshot()
        mark: Mark | None = None
        try:
            while not self.ended:
                before = self.steps_done
                terms = self._epoch(getattr(progress, "within", None))
                validation = self._validate() if self.held_out is not None else {}
                if not self._finite(terms, validation):
                    self.retries += 1
                    self._go_back(good, before, history)
                    continue
                self.epoch += 1
                good = self._snapshot()
                row: Row = {"stage": name, "epoch": self.epoch, "seconds": time.perf_counter() - started}
                row["learning_rate"] = self._rate_at(self.steps_done - 1)
                row |= {f"training_{k}": v for k, v in terms.items()}
                row |= {f"validation_{k}": v for k, v in validation.items()}
                history.rows.append(row)
                judged = validation or terms
                loss = judged[TOTAL] - judged.get(REVIVAL, 0.0)
                if not self.objective.settled(self.steps_done - 1) and not validation:
                    loss = math.inf
                self.waited += math.isfinite(loss)  # while a weight still rises there is nothing to compare
                if loss < self.best_loss:
                    self.best_loss, self._best, self.waited = loss, good["module"], 0
                    history.best_epoch = self.epoch
                if self.settings.schedule == "plateau" and self.waited and self.waited % _PLATEAU == 0:
                    self.rate *= 0.5
                self.ended = self.epoch >= self.settings.epochs
                if self.settings.patience is not None and self.waited >= self.settings.patience:
                    history.stopped_by = "patience"
                    self.ended = True
                if checkpoint is not None:
                    mark = self._mark(good, history)
                    checkpoint.reached(mark)
                if progress is not None:
                    progress(row, total_epochs)
        except KeyboardInterrupt:
            if checkpoint is not None:
                checkpoint.stopped(mark)
            interrupted = True
            history.stopped_by = "interrupt"
            history.events.append(
                f"{name}: interrupted in epoch {self.epoch + 1}; the best weights so far are kept"
            )
            if self._best is None:
                self._restore(good)
        except BaseException:
            self._leave()
            raise
        if self._best is not None:
            self.module.load_state_dict(self._best)
        self._leave()
        return interrupted

    def _leave(self) -> None:
        """Leave the module as one that is not trained: deterministic, its weights its own."""
        self.module.eval()
        self.module.draw_from(None)
        self.step.detach()

    def _mark(self, good: dict[str, Any], history: History) -> Mark:
        """Return where the stage stands, at the end of an epoch."""
        return Mark(
            course={name: getattr(self, name) for name in _COURSE},
            module=good["module"],
            optimizers=[state["state"] for state in good["optimizers"]],
            best=self._best,
            generator=self.generator.get_state(),
            history=replace(history, rows=[*history.rows], events=[*history.events]),
        )

    def _go_on(self, mark: Mark, history: History) -> None:
        """Stand where the stage stood at ``mark``."""
        if mark.history.engine != self.step.name:
            raise CheckpointError(
                f"the checkpoint must be of the engine {self.step.name!r}; got {mark.history.engine!r}. "
                "Go on with the version of diabolo that wrote it, or choose another folder."
            )
        groups = [optimizer.state_dict()["param_groups"] for optimizer in self.step.optimizers]
        states = zip(mark.optimizers, groups, strict=True)
        self._restore(
            {
                "module": mark.module,
                "optimizers": [{"state": state, "param_groups": group} for state, group in states],
            }
        )
        for name in _COURSE:
            setattr(self, name, mark.course[name])
        self._best = mark.best
        self.generator.set_state(mark.generator)
        for f in fields(History):
            setattr(history, f.name, getattr(mark.history, f.name))

    def _rate_at(self, step: int) -> float:
        if self.settings.schedule != "cosine":
            return self.rate
        course = min(step / (self.settings.epochs * self.steps_per_epoch), 1.0)
        if course < _WARM_UP:
            return self.rate * (course / _WARM_UP * 0.95 + 0.05)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (course - _WARM_UP) / (1 - _WARM_UP)))

    def _epoch(self, tell: Callable[[float], None] | None = None) -> dict[str, float]:
        """Go through all rows once in a new order; the rest that fills no batch waits for another epoch."""
        self.module.train()
        sums: Terms = {}
        varies = self.settings.schedule == "cosine"
        set_rate(self.step.optimizers, self._rate_at(self.steps_done))
        told = time.perf_counter()
        before, workers = self.steps_done, self.generator if isinstance(self.generator, Workers) else None
        with (
            np.errstate(over="ignore", invalid="ignore"),  # what diverges is seen at the end of the epoch
            closing(self.data.batches(self.batch_size, self.generator)) as batches,
        ):
            for data, rows in batches:
                if varies:
                    set_rate(self.step.optimizers, self._rate_at(self.steps_done))
                if workers is not None:
                    rows = workers.share(rows)
                terms = self._step(data, rows)
                for name, term in terms.items():
                    sums[name] = sums[name] + term if name in sums else term
                self.steps_done += 1
                if tell is not None and time.perf_counter() - told > _TOLD_EVERY:
                    told = time.perf_counter()
                    tell((self.steps_done - before) / self.steps_per_epoch)
        if workers is not None:
            sums = workers.averaged(sums)
            workers.align(self.module)
        return {name: float(value) / (self.steps_done - before) for name, value in sums.items()}

    def _step(self, data: Tensor, rows: Tensor) -> Terms:
        try:
            return self.step(data, rows, self.steps_done)
        except torch.OutOfMemoryError as error:
            raise InvalidParameterError(
                f"a batch must fit into memory; got {len(rows)} rows. Lower batch_size, or set "
                "engine='autograd', which takes it in portions."
            ) from error

    def _validate(self) -> dict[str, float]:
        """Return the objective on the held-out rows, always with the same noise."""
        assert self.held_out is not None
        self.module.eval()
        generator = torch.Generator(self.data.device).manual_seed(self.validation_seed)
        sums: dict[str, float] = {}
        with torch.no_grad():
            for batch in torch.split(self.held_out, self._rows_at_once):
                try:
                    passed = self.step.net(batch, generator)
                    terms = self.objective(self.module, passed, None, generator)
                except torch.OutOfMemoryError:
                    if self._rows_at_once == 1:
                        raise
                    self._rows_at_once = max(1, self._rows_at_once // 2)
                    return self._validate()
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(term.sum())
        means = {name: value / len(self.held_out) for name, value in sums.items()}
        return self.generator.agreed(means) if isinstance(self.generator, Workers) else means

    def _finite(self, *all_terms: dict[str, float]) -> bool:
        totals = [terms[TOTAL] for terms in all_terms if terms]
        if not all(math.isfinite(total) for total in totals):
            return False
        state = self.module.state_dict().values()
        if not all(bool(torch.isfinite(t).all()) for t in state if t.is_floating_point()):
            return False
        if math.isinf(self.first_total):
            self.first_total = abs(all_terms[0][LOSS])
        return abs(totals[0]) <= _EXPLODED * max(self.first_total, 1e-12) or totals[0] < 0

    def _snapshot(self) -> dict[str, Any]:
        return {
            "module": {k: v.detach().clone() for k, v in self.module.state_dict().items()},
            "optimizers": [_copied(o.state_dict()) for o in self.step.optimizers],
        }

    def _restore(self, snapshot: dict[str, Any]) -> None:
        self.module.load_state_dict(snapshot["module"])
        for optimizer, state in zip(self.step.optimizers, snapshot["optimizers"], strict=True):
            optimizer.load_state_dict(_copied(state))

    def _go_back(self, good: dict[str, Any], steps_done: int, history: History) -> None:
        """Restore the last good state with half the rate, and say so; give up after some tries."""
        self._restore(good)
        self.steps_done = steps_done
        epoch = self.epoch + 1
        if self.retries > _RETRIES:
            raise DivergedError(
                f"learning_rate must let the loss stay finite; got a divergence in epoch {epoch} after "
                f"{_RETRIES} reductions to {self.rate:.2g}. Set learning_rate below that, set clip_norm=1.0, "
                "or look for extreme values in the data."
            )
        self.rate *= 0.5
        message = f"epoch {epoch} diverged: back to the last good weights, learning_rate now {self.rate:.2g}"
        history.events.append(message)
        warnings.warn(message, DivergenceWarning, stacklevel=2)


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Copy an optimizer's state: its own ``state_dict`` refers to the live tensors."""
    entries = {
        key: {k: v.clone() if isinstance(v, Tensor) else v for k, v in entry.items()}
        for key, entry in state["state"].items()
    }
    return {"state": entries, "param_groups": state["param_groups"]}
