"""How rows go through a trained net: batch by batch within the cache, by torch, oneDNN or NumPy.

Of the rows only a batch is there in scaled units at a time. A net of dense layers goes through NumPy
(``plan.py``) where that is quicker: for a single row, and where all layers are narrow for any number; there
the batches are shared out among threads, each with a BLAS of one thread, since for products this small
waiting for one another costs more than a second core brings.

Batches are filled up to whole blocks of rows: products of other sizes may be summed in another order. So a
row comes out the same whatever rows are beside it, but for a single row of a wide net, which goes through
matrix times vector and is the same to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # scikit-learn brings it
from torch import Tensor

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.estimators import validation
from diabolo.estimators.plan import BLOCK, Runner, WideRunner, plan_of
from diabolo.estimators.scaling import Scaler
from diabolo.recipe import Recipe
from diabolo.training.machine import choose_device, has_dnn, threads_for

Array = NDArray[Any]
Floats = NDArray[np.float32]
Net = AutoencoderModule | Runner
Function = Callable[[Any, Tensor], Tensor]
Read = Callable[[Array, Floats, int], object]
Write = Callable[[Floats, Floats], object]

_LARGE = 2**18  # rows times both widths, from where OpenBLAS would share a product out among threads
_WORTH_THREADS = 8  # batches from which threads are started: a start costs as much as a batch


def run(
    module: AutoencoderModule,
    function: Function,
    rows: Array,
    shape: tuple[int, ...],
    device: torch.device,
    read: Read,
    write: Write,
) -> Floats:
    """Return what ``function(net, x)`` makes of all rows, (n, ...), one batch x (k, *shape) after the other.

    ``net`` is the module, or what computes the same. ``read(rows, out, first)`` puts rows into scaled units,
    ``first`` being the number of the first; ``write(out, piece)`` says how a piece goes out.
    """
    n, plan = len(rows), plan_of(module)
    size = min(plan.rows_per_batch, -(-n // BLOCK) * BLOCK)
    by_plan = device.type == "cpu" and plan.covers and (plan.narrow or n == 1)
    by_dnn = device.type == "cpu" and plan.covers and has_dnn()
    if by_plan and not plan.narrow:
        size = 1
    plan.put_to_work(module)
    out: list[Floats] = []
    starts = iter(range(0, n, size))  # its next() is one step, so that threads can share it

    def work(first: int | None = None) -> None:
        net: Net = module
        if by_plan:
            net = plan.runner(module, size)
        elif by_dnn:
            net = WideRunner(module, plan)
        place = np.zeros((size, rows.shape[1]), dtype=np.float32)
        # what leaves single precision comes out as inf, as with torch
        with torch.inference_mode(), np.errstate(over="ignore", invalid="ignore"):
            for start in starts if first is None else (first,):
                k = min(size, n - start)
                read(rows[start : start + k], place[:k], start)
                x = torch.from_numpy(place if k == size else place[: -(-k // BLOCK) * BLOCK])
                if len(shape) > 1:
                    x = x.view(-1, *shape)
                piece = function(net, x.to(device))[:k].cpu().numpy()
                if not out:
                    out.append(np.empty((n, *piece.shape[1:]), dtype=np.float32))
                write(out[0][start : start + k], piece)

    if not by_plan:
        with threads_for(2.0 * plan.n_parameters * min(size, n)):
            work()
    elif size * plan.widest**2 <= _LARGE or not plan.narrow:
        work()
    else:
        workers = torch.get_num_threads() if n > _WORTH_THREADS * size else 1
        with threads_for(0.0), _one_blas_thread():
            work(next(starts))  # makes the place for the results
            with ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
                if pool is None:
                    work()
                else:
                    try:
                        for done in [pool.submit(work) for _ in range(workers)]:
                            done.result()
                    except BaseException:
                        for _ in starts:  # leave nothing to do to the others, which the pool waits for
                            pass
                        raise
    return out[0]


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


_lock, _users = Lock(), 0
_before: Any = None


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Let NumPy's BLAS use one thread per caller while anyone is in here, and what it had afterwards."""
    global _users, _before
    with _lock:
        if not _users:
            _before = _libraries().limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _before.restore_original_limits()


def encode(net: Net, x: Tensor) -> Tensor:
    """Return codes (n, code_size) of samples."""
    return net.encode(x).flatten(1)


def decode(net: Net, z: Tensor) -> Tensor:
    """Return samples (n, n_features) of codes."""
    return net.decode(z).flatten(1)


def restore(net: Net, x: Tensor) -> Tensor:
    """Return reconstructions (n, n_features) of samples."""
    return net.decode(net.encode(x)).flatten(1)


class Inference:
    """What of a fitted estimator puts rows through its net. Abstract: ``Autoencoder`` sets the attributes."""

    device: str
    module_: AutoencoderModule
    recipe_: Recipe
    sample_shape_: tuple[int, ...]
    n_features_in_: int
    _scaler: Scaler

    @property
    def _device(self) -> torch.device:
        try:
            device = choose_device(self.device)
            torch.empty(0, device=device)
        except (AssertionError, RuntimeError) as error:  # torch built without it, or no such device
            raise InvalidParameterError(
                f"device must be one that this machine has; got {self.device!r}. Set device='auto'."
            ) from error
        return device

    def _rows_per_batch(self) -> int:
        """Return into how many rows a large number of them is split."""
        return plan_of(self.module_).rows_per_batch

    def _tensor(self, rows: Array, numbers: Sequence[int] | Array | None = None) -> Tensor:
        """Return rows in scaled units, (n, *shape); ``numbers`` is how a message calls them."""
        scaled = np.empty(rows.shape, dtype=np.float32)
        self._scale(rows, scaled, range(len(rows)) if numbers is None else numbers)
        return torch.from_numpy(scaled).reshape(len(rows), *self.recipe_.input_shape)

    def _scale(
        self, rows: Array, out: Floats, numbers: Sequence[int] | Array, whole: Array | None = None
    ) -> None:
        """Write rows in scaled units to ``out``; raise where that is beyond single precision.

        Where they were not checked before, ``whole`` is what they are a part of: what is wrong there is
        named as for all rows.
        """
        self._scaler.rescale(out, rows)
        if self._scaler.surely_finite(out):
            return
        if whole is not None:
            names = getattr(self, "feature_names_in_", None)
            validation.check_values(whole, names, self.sample_shape_)
        self._scaler.rescale_exactly(out, rows)
        finite = np.isfinite(out).all(1)
        if not finite.all():
            raise InvalidDataError(
                "X must stay finite when it is scaled as in fit; got a value beyond single precision in "
                f"row {int(numbers[int(np.argmin(finite))])}. Rescale X."
            )

    def _batches(
        self,
        function: Function,
        rows: Array,
        write: Write = np.copyto,
        start: int = 0,
        stop: int | None = None,
    ) -> Floats:
        """Return what ``function(net, x)`` makes of rows[start:stop], x being a batch in scaled units."""

        def read(part: Array, out: Floats, first: int) -> None:
            self._scale(part, out, range(start + first, start + first + len(part)), rows)

        some = rows[start:stop]
        return run(self.module_, function, some, self.recipe_.input_shape, self._device, read, write)

    def _run(self, function: Function, rows: Array, shape: tuple[int, ...], write: Write) -> Floats:
        """Do the same with codes, or samples in scaled units, each of ``shape``."""

        def read(part: Array, out: Floats, first: int) -> None:
            np.copyto(out, part)

        return run(self.module_, function, rows, shape, self._device, read, write)
