"""The command line: ``diabolo``, or ``python -m diabolo``.

Nothing heavy is imported before a command needs it, so ``diabolo --help`` answers at once. Exit codes:

====  ==========================================================
0     done
1     failed: the data, a file, the memory, Ctrl-C or SIGTERM
2     usage: an unknown name or option, or a value out of range
====  ==========================================================
"""

from diabolo.cli.start import main

__all__ = ["main"]
