"""Ctrl-C and SIGTERM: both interrupt, and what is pressed again at once says the same."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ONE_WISH = 2.0  # seconds in which what follows an interruption says the same


class Once:
    """A handler of signals that interrupts at the first, and again where that is some time ago."""

    def __init__(self) -> None:
        self._first: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt, unless that was asked for a moment ago."""
        again = self._first is not None and time.monotonic() - self._first <= _ONE_WISH
        self.note()
        if not again:
            raise KeyboardInterrupt

    def note(self) -> None:
        """Let a signal that somebody else has handled count as the first."""
        self._first = time.monotonic() if self._first is None else self._first


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C, pressed again within two seconds, count once, unless somebody has said what it should do.

    In these seconds what the training has found is put together; a press after them interrupts that too.
    """
    with _handled(signal.SIGINT, signal.default_int_handler, Once()):
        yield


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, unless somebody has said what else it should do."""
    pressed = signal.getsignal(signal.SIGINT)
    with _handled(signal.SIGTERM, signal.SIG_DFL, pressed if isinstance(pressed, Once) else Once()):
        yield


@contextmanager
def _handled(number: signal.Signals, usual: Any, handler: Once) -> Iterator[None]:
    """Handle a signal in the main thread, where it is handled as usual."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(number) is not usual:
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, usual)
