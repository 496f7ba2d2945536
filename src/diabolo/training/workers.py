"""Several workers, each a process on this or another machine, train one model: what they share.

Where torch.distributed has a group of more than one, every worker holds the whole model, the same seed and
the same data. Of every batch it takes its share of the rows; the gradients are averaged, weighted by rows,
and every worker makes the same step. The result is that of one worker with the whole batch, to rounding.

Not torch's DistributedDataParallel: that acts on a module's ``forward``, whereas an objective also uses
encoder and decoder apart (contractive, revival), and the dense step has no graph to hang on.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import DiaboloError, IncompatiblePartsError, InvalidParameterError
from diabolo.interruption import Once
from diabolo.parts import KLSparsity, PosteriorKL
from diabolo.parts.corruptions import Chain, SaltAndPepper
from diabolo.parts.latents import BatchTopK, Noisy
from diabolo.parts.shares import Shared
from diabolo.recipe import Recipe
from diabolo.training.feed import Feed
from diabolo.training.machine import choose_device

_LISTEN = 8  # steps from one time that the workers ask each other whether to stop to the next
_TOLD = ("number of rows", "settings", "number of epochs behind it", "values in the rows")


def n_workers() -> int:
    """Return how many workers train together; 1 without a group."""
    grouped = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if grouped else 1


def is_first() -> bool:
    """Whether this is the worker that writes and speaks."""
    return n_workers() == 1 or distributed.get_rank() == 0


def agreed(number: int) -> int:
    """Return the first worker's number."""
    if n_workers() == 1:
        return number
    told = torch.tensor(int(number), device=_device())
    distributed.broadcast(told, 0)
    return int(told)


def _device() -> torch.device:
    """Return where the group's messages lie."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")


class Workers(Shared):
    """A worker's generator, and through it the group.

    Attributes
    ----------
    count, number : int
        How many workers there are, and which this one is, from 0.
    stopped : bool
        Whether this worker was told to stop (Ctrl-C, SIGTERM).
    """

    count: int = 1
    number: int = 0
    stopped: bool = False
    _steps: int = 0

    @classmethod
    def join(cls, generator: torch.Generator) -> Self:
        """Return a generator in the same state that knows the group."""
        made = cls(generator.device)
        made.set_state(generator.get_state())
        made.count, made.number = distributed.get_world_size(), distributed.get_rank()
        return made

    def share(self, rows: Tensor) -> Tensor:
        """Return this worker's rows of a batch (n,); all stop here together when one was told to."""
        n = self.whole = len(rows)
        self.own = slice(n * self.number // self.count, n * (self.number + 1) // self.count)
        if self._steps % _LISTEN == 0 and bool(self.any(torch.tensor(self.stopped, device=rows.device))):
            raise KeyboardInterrupt
        self._steps += 1
        return rows[self.own]

    def any(self, flags: Tensor) -> Tensor:
        """Return where any worker has True."""
        told = flags.to(torch.uint8)
        distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return told.bool()

    def average(self, flat: Tensor) -> None:
        """Average means over rows, in place, by the workers' numbers of rows."""
        flat.mul_((self.own.stop - self.own.start) / self.whole)
        distributed.all_reduce(flat)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of ``parameters``, in one message."""
        gradients = [w.grad for w in parameters if w.grad is not None]
        flat = parameters_to_vector(gradients)
        self.average(flat)
        vector_to_parameters(flat, gradients)

    def averaged(self, sums: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
        """Return sums of the batches' means, averaged over the workers."""
        flat = torch.stack(
            [torch.as_tensor(v, dtype=torch.float64, device=self.device) for v in sums.values()]
        )
        self.average(flat)
        return dict(zip(sums, flat, strict=True))

    def agreed(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Return the first worker's terms, by which all of them decide: another machine rounds otherwise."""
        told = torch.tensor(list(terms.values()), dtype=torch.float64, device=self.device)
        distributed.broadcast(told, 0)
        return dict(zip(terms, told.tolist(), strict=True))

    def align(self, module: nn.Module) -> None:
        """Give every worker the first one's weights: another kind of processor rounds otherwise."""
        for value in module.state_dict().values():
            distributed.broadcast(value, 0)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note Ctrl-C and SIGTERM, so that the workers can stop at the same step."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, _: object) -> None:
            self.stopped = True
            if isinstance(handler := before[signal.Signals(number)], Once):
                handler.note()  # what follows, also when this has ended, says the same

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self, module: AutoencoderModule, recipe: Recipe, data: Feed, epochs_done: int) -> None:
        """Check that the workers can give one worker's result; let all begin with the first one's weights.

        Raises
        ------
        IncompatiblePartsError
            Where a part needs all rows of a batch in one place, or is not known to need only its own.
        InvalidParameterError
            Where the workers were given different data or settings, or a source that skips what is broken.
        """
        if getattr(data, "skips", False):
            raise InvalidParameterError(
                f"broken must be 'refuse' where {self.count} workers share a batch; got 'skip', by which a "
                "worker would leave out what it alone cannot read. Remove what is broken, or train with one "
                "worker."
            )
        _check_parts(module, recipe, self.count)
        if min(recipe.batch_size, len(data)) < self.count:
            raise IncompatiblePartsError(
                f"a batch must have a row for each of {self.count} workers; got "
                f"{min(recipe.batch_size, len(data))} row(s). Raise batch_size, or start fewer workers."
            )
        settings = zlib.crc32(json.dumps(recipe.to_dict(), sort_keys=True).encode())
        size = float(data.head(1024).double().abs().mean())
        mine = torch.tensor([len(data), settings, epochs_done, size], dtype=torch.float64, device=self.device)
        every = [torch.empty_like(mine) for _ in range(self.count)]
        distributed.all_gather(every, mine)
        for number, theirs in enumerate(every):
            # other machines round the scaling otherwise
            same = torch.isclose(theirs, every[0], rtol=1e-4, atol=0.0)
            same[:3] = theirs[:3] == every[0][:3]
            if not bool(same.all()):
                what = ", ".join(told for told, equal in zip(_TOLD, same.tolist(), strict=True) if not equal)
                raise InvalidParameterError(
                    "all workers must train on the same data with the same settings and checkpoint; got "
                    f"another {what} on worker {number} than on worker 0. Start all with the same command, "
                    "with data and checkpoint where each of them can read them."
                )
        self.align(module)


def _check_parts(module: AutoencoderModule, recipe: Recipe, count: int) -> None:
    """Raise where a part couples the rows of a batch, or draws where nobody knows of the other workers."""

    def refuse(what: str, got: str, way_out: str) -> IncompatiblePartsError:
        return IncompatiblePartsError(
            f"{what} must act on each row alone where {count} workers share a batch; got {got}. "
            f"{way_out}, or train with one worker."
        )

    corruption = recipe.corruption
    steps = corruption.steps if isinstance(corruption, Chain) else [corruption] if corruption else []
    for part in (recipe.architecture, recipe.latent, recipe.loss, *recipe.penalty, *steps):
        if not type(part).__module__.startswith("diabolo.parts."):
            raise refuse("every part", f"{type(part).__name__}, of which that is not known", "Leave it out")
        if isinstance(part, SaltAndPepper) and (part.low is None or part.high is None):
            raise refuse(
                "corruption", "salt_and_pepper between the extremes of a batch", "Set its low and high"
            )
        if isinstance(part, Noisy | BatchTopK):
            raise refuse("latent", repr(part.name), "Choose latent='topk' or another")
        if isinstance(part, KLSparsity):
            raise refuse("penalty", repr(part.name), "Choose penalty='l1' or another")
        if isinstance(part, PosteriorKL) and part.free_bits:
            raise refuse("penalty", f"'posterior_kl' with free_bits={part.free_bits:g}", "Set free_bits=0")
    if any(isinstance(layer, _BatchNorm) for layer in module.modules()):
        raise refuse("norm", "'batch'", "Set norm='layer'")


@contextmanager
def torchrun_group(device: str, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Join the group that torchrun's environment variables tell of, if they do, and leave it at the end.

    Parameters
    ----------
    device : str
        What the workers compute on: with "cuda" they talk by nccl, each with the GPU of its number on its
        machine; else by gloo.

    Raises
    ------
    InvalidParameterError
        Where a machine has more workers than GPUs.
    DiaboloError
        Where another worker was lost.
    """
    wanted = int(environment.get("WORLD_SIZE", "1")) if "RANK" in environment else 1
    if wanted == 1 or "MASTER_ADDR" not in environment or distributed.is_initialized():
        yield
        return
    backend = "gloo"
    if choose_device(device).type == "cuda":
        backend, local = "nccl", int(environment.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InvalidParameterError(
                f"every worker must have a GPU of its own; got {torch.cuda.device_count()} on a machine with "
                f"{local + 1} workers or more. Start fewer there, or set device='cpu'."
            )
        torch.cuda.set_device(local)
    store, rank, size = next(distributed.rendezvous("env://"))  # type: ignore[attr-defined]
    # torchrun's store lives on where workers are started anew: the lost ones' addresses are still in it
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = distributed.PrefixStore(attempt, store)  # type: ignore[attr-defined]
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in ("gloo", "nccl")):
            raise
        raise DiaboloError(
            f"every worker must answer the others; got no answer ({str(error).splitlines()[0][:200]}). "
            "With --checkpoint and torchrun's --max-restarts a run goes on where one was lost."
        ) from error
    finally:
        distributed.destroy_process_group()
