"""What is seen while a model trains: a bar with the time left, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from diabolo.cli.console import Output, console, duration, number

T = TypeVar("T", bound=Sized)

_SILENCE = 30.0  # seconds after which an epoch that goes on is told without a terminal too
_LINES = 10
"""How many lines a whole training makes where there is no terminal for a bar."""


class Bars:
    """Shows one training after another, each under its name; all of it goes to stderr.

    Parameters
    ----------
    out : Output
        Quiet means that nothing is shown.
    before : int, default=0
        Epochs that the first training has behind it already.

    Examples
    --------
    >>> with Bars(Output(quiet=True)) as bars:
    ...     bars("deep", {"training_total": 1.0}, 20)  # after each epoch
    """

    def __init__(self, out: Output, before: int = 0) -> None:
        self._out = out
        self._before = before
        self._clocks: dict[str, _Clock] = {}
        self._tasks: dict[str, Any] = {}
        self._progress: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        screen = console(stderr=True)
        if screen.is_terminal and not self._out.quiet:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[told]}"),
            )
            progress = Progress(*columns, console=screen, transient=True, refresh_per_second=4)
            self._progress = self._stack.enter_context(progress)
        self._next = _Clock(self._before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __call__(self, what: str, row: Mapping[str, Any], total: int) -> None:
        """Show that one more epoch of the training called ``what`` is done."""
        first = what not in self._clocks
        clock = self._clocks.setdefault(what, self._next)
        self._next = _Clock()  # the next training begins where this one's last epoch ends
        done, left = clock.tick(total)
        told = _told(row, done, total, left)
        if self._progress is not None:
            if what not in self._tasks:
                self._tasks[what] = self._progress.add_task(what, told="")
            self._progress.update(self._tasks[what], completed=done, total=max(total, done), told=told)
        elif first or done * _LINES // max(total, 1) > (done - 1) * _LINES // max(total, 1):
            self._out.note(f"{what}: {told}")

    def of(self, what: str) -> Training:
        """Return what ``fit`` tells the progress of the training called ``what``."""
        return Training(self, what)

    def within(self, what: str, share: float) -> None:
        """Show how far the present epoch is."""
        clock = self._clocks.get(what, self._next)
        told = f"epoch {clock.done + 1}, {share:.0%} of its rows"
        if self._progress is None:
            if clock.silent_for(_SILENCE):
                self._out.note(f"{what}: {told}")
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, told=told, total=None)
        self._progress.update(self._tasks[what], completed=clock.done + share, told=told)

    def counter(self, what: str, total: int, unit: str = "rows") -> Callable[[int], None]:
        """Return a function that shows how many of ``total`` are done."""
        start = time.monotonic()
        task = None if self._progress is None else self._progress.add_task(what, told="", total=total)
        tenth = 0

        def show(done: int) -> None:
            nonlocal tenth
            left = (time.monotonic() - start) / max(done, 1) * max(total - done, 0)
            told = f"{done:,}/{total:,} {unit}, {duration(left)} left"
            if task is not None:
                self._progress.update(task, completed=done, told=told)
            elif done * _LINES // total > tenth:
                tenth = done * _LINES // total
                self._out.note(f"{what}: {told}")

        return show

    def sharer(self, what: str) -> Callable[[float, str], None]:
        """Return a function that shows which share of a work is done, and what is being done."""
        start = time.monotonic()
        task = None if self._progress is None else self._progress.add_task(what, told="", total=1.0)
        tenth = -1

        def show(share: float, doing: str) -> None:
            nonlocal tenth
            left = (time.monotonic() - start) / max(share, 1e-9) * (1.0 - share)
            told = f"{share:.0%}, {doing}" + (f", {duration(left)} left" if 0.02 < share < 1 else "")
            if task is not None:
                self._progress.update(task, completed=share, told=told)
            elif int(share * _LINES) > tenth:
                tenth = int(share * _LINES)
                self._out.note(f"{what}: {told}")

        return show


class Training:
    """One training among several that are shown."""

    def __init__(self, bars: Bars, what: str) -> None:
        self._bars, self._what = bars, what

    def __call__(self, row: Mapping[str, Any], total: int) -> None:
        """Show that an epoch is done."""
        self._bars(self._what, row, total)

    def within(self, share: float) -> None:
        """Show that this share of the present epoch is done."""
        self._bars.within(self._what, share)


class _Clock:
    """Counts epochs and foresees the time left from their mean duration."""

    def __init__(self, before: int = 0) -> None:
        self._start = time.monotonic()
        self._before = self.done = before
        self._heard = self._start

    def silent_for(self, seconds: float) -> bool:
        """Whether nothing was said for so long; if so, something is now."""
        now = time.monotonic()
        silent = now - self._heard >= seconds
        if silent:
            self._heard = now
        return silent

    def tick(self, total: int) -> tuple[int, float]:
        """Return how many epochs are done and the seconds that are left."""
        self.done += 1
        self._heard = time.monotonic()
        passed = self._heard - self._start
        return self.done, passed / (self.done - self._before) * max(total - self.done, 0)


def counting(out: Output, what: str, parts: Iterable[T], total: int, unit: str = "rows") -> Iterator[T]:
    """Hand on ``parts``, things with a length that come to ``total``, and show how far they are."""
    with Bars(out) as bars:
        show = bars.counter(what, total, unit)
        done = 0
        for part in parts:
            yield part
            done += len(part)
            show(done)


def _told(row: Mapping[str, Any], done: int, total: int, left: float) -> str:
    """Return one epoch in words."""
    words = [f"epoch {done}/{max(total, done)}"]
    stage = str(row.get("stage", "end_to_end"))
    if stage != "end_to_end":
        words.append(stage)
    words.append(f"loss {number(row.get('training_total'))}")
    if "validation_total" in row:
        words.append(f"validation {number(row['validation_total'])}")
    words.append(f"{duration(left)} left")
    return ", ".join(words)
