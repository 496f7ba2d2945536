"""The first thing that runs: from here on Ctrl-C and SIGTERM end a command in one line."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence

from diabolo.interruption import interruptible, stoppable


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code; Ctrl-C and SIGTERM interrupt it.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after the program's name; None takes those of the process.

    Raises
    ------
    SystemExit
        Always: 0 when done, 1 when failed, 2 for wrong usage.
    """
    # at the end nothing is looked through for what could be freed: half a second, after torch was loaded
    atexit.register(gc.freeze)
    with interruptible(), stoppable():
        try:
            from diabolo.cli import app  # which takes some time, in which one may change one's mind

            app.main(arguments)
        except KeyboardInterrupt:
            sys.exit("error: interrupted.")  # on stderr; the code is 1
