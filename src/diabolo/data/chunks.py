"""Pieces of data on their way: cut to another size, read ahead, and worded when the file fails."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

import numpy as np

from diabolo.data.dataset import Array
from diabolo.errors import DataFileError, InvalidDataError

T = TypeVar("T")


def regrouped(pieces: Iterable[Array], size: int, rest: int = 0) -> Iterator[Array]:
    """Join and cut arrays, in their order, to new arrays of ``size`` rows.

    The last has what is left: where ``rest`` is given, from ``rest`` rows (if there are as many) up to
    ``size + rest``, so that it is never too small to be of use.

    >>> [len(a) for a in regrouped([np.zeros((3, 1))] * 3, 4)]
    [4, 4, 1]
    >>> [len(a) for a in regrouped([np.zeros((3, 1))] * 3, 4, rest=2)]
    [4, 5]
    """
    held: Array | None = None
    n = 0
    for piece in pieces:
        at = 0
        while at < len(piece):
            if held is None:
                held = np.empty((size + rest, *piece.shape[1:]), dtype=piece.dtype)
            elif held.dtype != piece.dtype:  # a table's integers become floats where a null comes
                held = held.astype(np.result_type(held, piece))
            took = min(len(held) - n, len(piece) - at)
            held[n : n + took] = piece[at : at + took]
            n, at = n + took, at + took
            if n == len(held):
                yield held[:size]
                full, held = held, np.empty_like(held)
                held[:rest], n = full[size:], rest
    if held is not None and n:
        yield held[:n]


def in_turns(streams: Sequence[Iterator[T]], at_once: int) -> Iterator[T]:
    """Hand on the items of all streams, one of each of ``at_once`` streams after the other.

    >>> "".join(in_turns([iter("aaa"), iter("b"), iter("cc")], 2))
    'abaacc'
    """
    waiting = list(streams)[::-1]
    taken: list[Iterator[T]] = []
    while waiting or taken:
        while waiting and len(taken) < at_once:
            taken.append(waiting.pop())
        for stream in list(taken):
            for item in stream:
                yield item
                break
            else:
                taken.remove(stream)


def among(numbers: Array, some: Array) -> Array:
    """Return which of ``numbers`` are in ``some``, which are in ascending order.

    >>> among(np.array([4, 1, 7]), np.array([1, 2, 7])).tolist()
    [False, True, True]
    """
    if not len(some):
        return np.zeros(len(numbers), dtype=bool)
    found: Array = some.take(np.searchsorted(some, numbers), mode="clip") == numbers
    return found


def ahead(items: Iterable[T]) -> Generator[T]:
    """Hand on ``items``, of which a thread makes the next while the caller works on the last.

    No more than that one is made ahead. What making them raises is raised here; closing this ends the
    thread.
    """
    made: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    wanted, unwanted = Semaphore(1), Event()

    def work() -> None:
        source = iter(items)
        try:
            while wanted.acquire() and not unwanted.is_set():
                made.put((next(source), None))
        except BaseException as error:  # the end among them; raised again where it is waited for
            made.put((None, error))
        finally:
            if isinstance(source, Generator):
                source.close()

    thread = Thread(target=work, name="diabolo-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            wanted.release()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
            del item  # not held while the next is waited for
    finally:
        unwanted.set()
        wanted.release()
        thread.join()


@contextmanager
def still_there(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with a file that was fine before into an ``InvalidDataError``."""
    try:
        yield
    except InvalidDataError:
        raise
    except FileNotFoundError as error:
        raise gone(path, "vanished") from error
    except (OSError, DataFileError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise gone(path, f"cannot be read any more ({said})") from error


def gone(path: Path, what: str) -> InvalidDataError:
    """Return the error for a file that changed under the hands of its reader."""
    return InvalidDataError(
        f"{path} must stay as it is while its data are used; got a file that {what}. "
        "Put it back as it was and start again."
    )
