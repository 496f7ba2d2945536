"""What is seen while a model trains: a bar with the time left, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diabolo.cli.console import Output, console, duration, number

Callback = Callable[[Mapping[str, Any], int], None]

_LINES = 10
"""How many lines a whole training makes where there is no terminal for a bar."""


@contextmanager
def training_progress(out: Output, what: str) -> Iterator[Callback]:
    """Hand out the callback that `fit` calls after each epoch; all of it goes to stderr.

    Parameters
    ----------
    out : Output
        Quiet means that nothing is shown.
    what : str
        The heading, for example the kind that is trained.
    """
    screen = console(stderr=True)
    clock = _Clock()
    if out.quiet:
        yield _silent
    elif screen.is_terminal:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
        with Progress(*columns, console=screen, transient=True, refresh_per_second=4) as bar:
            task = bar.add_task(what, total=None, told="starting")

            def move(row: Mapping[str, Any], total: int) -> None:
                done, left = clock.tick(total)
                bar.update(task, completed=done, total=max(total, done), told=_told(row, done, total, left))

            yield move
    else:

        def line(row: Mapping[str, Any], total: int) -> None:
            done, left = clock.tick(total)
            if done == 1 or done * _LINES // max(total, 1) > (done - 1) * _LINES // max(total, 1):
                out.note(f"{what}: {_told(row, done, total, left)}")

        yield line


def _silent(row: Mapping[str, Any], total: int) -> None:
    """Show nothing."""


class _Clock:
    """Counts epochs and foresees the time left from their mean duration."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._done = 0

    def tick(self, total: int) -> tuple[int, float]:
        """Return how many epochs are done and the seconds that are left."""
        self._done += 1
        passed = time.monotonic() - self._start
        return self._done, passed / self._done * max(total - self._done, 0)


def _told(row: Mapping[str, Any], done: int, total: int, left: float) -> str:
    """Return one epoch in words."""
    words = [f"epoch {done}/{max(total, done)}"]
    stage = str(row.get("stage", "end_to_end"))
    if stage != "end_to_end":
        words.append(stage)
    words.append(f"loss {number(row['training_total'])}")
    if "validation_total" in row:
        words.append(f"validation {number(row['validation_total'])}")
    words.append(f"{duration(left)} left")
    return ", ".join(words)
