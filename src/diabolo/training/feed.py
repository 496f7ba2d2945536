"""Where a stage takes its rows from: one tensor in memory, or a source whose rows stream by."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from math import prod
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.data.chunks import ahead, among, regrouped
from diabolo.data.sources import Source
from diabolo.errors import InvalidDataError

Batches = Generator[tuple[Tensor, Tensor], None, None]
Function = Callable[[Tensor], Tensor]

_POOL_BYTES = 64 << 20  # of the rows among which a stream's batches are drawn
_ROWS_AT_ONCE = 4096  # rows that go through a function at a time


class Feed(Protocol):
    """The training rows of a stage, in scaled units."""

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""

    def __len__(self) -> int:
        """How many rows there are."""

    def batches(self, batch_size: int, generator: torch.Generator) -> Batches:
        """Go through all rows once in an order drawn from ``generator``, on whose device it is drawn.

        Yields (rows (k, *shape), indices (batch_size,)): a batch is ``rows[indices]``. What fills no batch
        is left to another epoch. To be closed where it is not used up.
        """

    def head(self, most: int) -> Tensor:
        """Return up to ``most`` of the rows, which stand for all."""

    def mapped(self, function: Function) -> Self:
        """Return the feed of what ``function`` makes of these rows."""


class MemoryFeed:
    """The rows of a tensor (n, *shape), in one new permutation per epoch."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""
        return self.rows.device

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.rows.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, batch_size: int, generator: torch.Generator) -> Batches:
        """Go through all rows once in one permutation."""
        order = torch.randperm(len(self.rows), generator=generator, device=generator.device)
        for numbers in torch.split(order[: len(order) // batch_size * batch_size], batch_size):
            yield self.rows, numbers

    def head(self, most: int) -> Tensor:
        """Return the first rows."""
        return self.rows[:most]

    def mapped(self, function: Function) -> MemoryFeed:
        """Return the feed of what ``function`` makes of these rows, computed once."""
        return MemoryFeed(_applied(function, self.rows))


class HostFeed(MemoryFeed):
    """The same rows, in the same order, which stay in the host's memory while a pool of them is on the GPU.

    A thread gathers the next pool, in memory that the GPU can copy from by itself, while the batches of one
    are trained on.

    Parameters
    ----------
    rows : Tensor (n, *shape)
    device : torch.device
        Where the batches go.
    """

    def __init__(self, rows: Tensor, device: torch.device) -> None:
        super().__init__(rows)
        self._device = device

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""
        return self._device

    def batches(self, batch_size: int, generator: torch.Generator) -> Batches:
        """Go through all rows once in one permutation."""
        order = torch.randperm(len(self.rows), generator=generator, device=generator.device).cpu()
        order = order[: len(order) // batch_size * batch_size]
        row_bytes = self.rows.element_size() * prod(self.sample_shape)
        size = max(1, _POOL_BYTES // row_bytes // batch_size) * batch_size
        with closing(ahead(self._gathered(numbers) for numbers in torch.split(order, size))) as pools:
            for rows in pools:
                pool = rows.to(self._device, non_blocking=True)
                for numbers in torch.split(torch.arange(len(pool), device=self._device), batch_size):
                    yield pool, numbers

    def _gathered(self, numbers: Tensor) -> Tensor:
        rows = self.rows[numbers]
        return rows.pin_memory() if self._device.type == "cuda" else rows

    def head(self, most: int) -> Tensor:
        """Return the first rows."""
        return self.rows[:most].to(self._device)

    def mapped(self, function: Function) -> HostFeed:
        """Return the feed of what ``function`` makes of these rows, computed once."""
        with torch.no_grad():
            parts = [function(part.to(self._device)).cpu() for part in torch.split(self.rows, _ROWS_AT_ONCE)]
        return HostFeed(torch.cat(parts), self._device)


class StreamFeed:
    """The rows of a source, of which a pool of about 64 MB at a time is in memory.

    A thread reads and scales the next pool while the batches of one are drawn and trained on. All chance
    comes from the generator given to ``batches``; the reading thread has one of its own, seeded from it.

    Parameters
    ----------
    source : Source
    n : int
        How many of its rows are trained on.
    prepare : callable(rows (k, ...), their numbers (k,)) -> Tensor (k, *shape)
        Brings rows into scaled units; called in the reading thread.
    held_out : ndarray of int
        Numbers of the rows that are not trained on, in ascending order.
    sample : Tensor (s, *shape)
        Some of the rows, drawn at random, in scaled units.
    device : torch.device
        Where the batches go.

    Attributes
    ----------
    skips : bool
        Whether the source leaves out what it cannot read.
    """

    def __init__(
        self,
        source: Source,
        n: int,
        prepare: Callable[[NDArray[np.generic], NDArray[np.int64]], Tensor],
        held_out: NDArray[np.int64],
        sample: Tensor,
        device: torch.device,
    ) -> None:
        self._source, self._n, self._prepare = source, n, prepare
        self._held_out, self._sample, self._device = held_out, sample, device
        self.skips: bool = getattr(source, "skips", False)
        self._row_bytes = 4 * prod(sample.shape[1:])
        self._functions: tuple[Function, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""
        return self._device

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.head(1).shape[1:])

    def __len__(self) -> int:
        return self._n

    def batches(self, batch_size: int, generator: torch.Generator) -> Batches:
        """Go through all rows once, in an order that is coarse over the source and free within a pool."""
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        size = max(1, _POOL_BYTES // self._row_bytes // batch_size) * batch_size
        pieces = self._pieces(np.random.default_rng(seed))
        some = False
        with closing(ahead(regrouped(pieces, size, rest=batch_size))) as pools:
            for rows in pools:
                pool = self._mapped(torch.from_numpy(rows).to(self._device))
                order = torch.randperm(len(pool), generator=generator, device=generator.device)
                for numbers in torch.split(order[: len(order) // batch_size * batch_size], batch_size):
                    yield pool, numbers
                    some = True
        if not some:
            raise InvalidDataError(
                f"X must still hold its {self._n} rows in every epoch; got fewer than one batch "
                f"of {batch_size}. Check the place that it is read from."
            )

    def _pieces(self, chance: np.random.Generator) -> Iterator[NDArray[np.float32]]:
        for numbers, rows in self._source.chunks(chance):
            out = among(numbers, self._held_out)
            if out.any():
                numbers, rows = numbers[~out], rows[~out]
            if len(rows):
                yield self._prepare(rows, numbers).numpy()

    def _mapped(self, rows: Tensor) -> Tensor:
        for function in self._functions:
            rows = _applied(function, rows)
        return rows

    def head(self, most: int) -> Tensor:
        """Return some of the rows, drawn at random when the source was first read."""
        return self._mapped(self._sample[:most].to(self._device))

    def mapped(self, function: Function) -> StreamFeed:
        """Return the feed of what ``function`` makes of these rows, computed anew in every epoch."""
        feed = StreamFeed(self._source, self._n, self._prepare, self._held_out, self._sample, self._device)
        feed._functions = (*self._functions, function)
        return feed


def as_feed(rows: Tensor | Feed) -> Feed:
    """Return rows in memory as a feed, and a feed as it is."""
    return MemoryFeed(rows) if isinstance(rows, Tensor) else rows


def _applied(function: Function, rows: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([function(part) for part in torch.split(rows, _ROWS_AT_ONCE)])
