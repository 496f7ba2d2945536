"""From an exception to one sentence on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TextIO

import typer

from diabolo.cli.console import Output
from diabolo.cli.options import READERS, MapOptions, ScanOptions, SourceOptions
from diabolo.errors import DiaboloError, DiaboloWarning, InvalidParameterError

_OPTIONS = {
    *READERS,
    *(one.name for kind in (SourceOptions, ScanOptions, MapOptions) for one in fields(kind)),
}
_SETTING = re.compile(
    r"""(?<![^\s(])([a-z_]+)=('[^']*'|"[^"]*"|\([^()]*\)|[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?|[A-Za-z_]\w*)"""
    r"(?![\w/\\-]|\.\w)"  # not in a path: label=cat.csv, depth=3/model.safetensors
)
_QUOTES = "'\""
_WRITERS = {
    "fit(checkpoint=...)": "'diabolo train --checkpoint'",
    "AnomalyDetector.save()": "'diabolo detect fit'",
    "AnomalyMap.save()": "'diabolo detect fit'",
    " save()": " 'diabolo train'",
}

FAILED = 1
USAGE = 2


@contextmanager
def told(out: Output) -> Iterator[None]:
    """Run a command's body; whatever it raises is said in one sentence and becomes an exit code.

    Raises
    ------
    typer.Exit
        With the code 2 for a setting out of its range, else 1.
    """
    try:
        with _warnings_as_notes(out):
            yield
    except typer.Exit:
        raise
    except BrokenPipeError:
        _abandon_stdout()
        raise typer.Exit(FAILED) from None
    except (Exception, KeyboardInterrupt) as error:
        if out.debug:
            typer.echo(traceback.format_exc(), err=True, nl=False)
        out.error(sentence(error))
        raise typer.Exit(USAGE if isinstance(error, InvalidParameterError) else FAILED) from None


def sentence(error: BaseException) -> str:
    """Return what a person should read about ``error``, on one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted."
    if isinstance(error, DiaboloError):
        return _in_options(_one_line(error))
    if isinstance(error, MemoryError):
        return (
            "The memory must hold the data and the model; got less than they need. "
            "Take fewer rows, a smaller --batch-size or narrower --hidden-dims."
        )
    if isinstance(error, OSError):
        return _system_sentence(error)
    said = f"{type(error).__name__}: {_one_line(error)}".rstrip(" .:")
    return f"{said}. Run again with --debug to see where."


def _in_options(text: str) -> str:
    """Return a message of the library in the words of the command line: settings are options there.

    >>> _in_options("Set clip_norm=1.0, or device='cpu'; image_size=(height, width) resizes them all.")
    'Set --clip-norm 1.0, or --device cpu; --image-size height,width resizes them all.'
    """

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in _OPTIONS:
            return found[0]
        words = name.replace("_", "-")
        if value in ("True", "False"):
            return f"--{'' if value == 'True' else 'no-'}{words}"
        if value[0] in _QUOTES:
            return f"--{words} {shlex.quote(value[1:-1])}"
        return f"--{words} {value.strip('()').replace(', ', ',').rstrip(',')}"

    for python, command in _WRITERS.items():
        text = text.replace(python, command)
    return _SETTING.sub(option, text)


def _system_sentence(error: OSError) -> str:
    said = error.strerror or _one_line(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        rule = "must have room"
        way_out = "Free some space or choose another disk; nothing half-written was left."
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        rule = "must be open to you"
        way_out = "Change its permissions, or choose another place."
    else:
        rule = "must be in a place that works"
        way_out = "Check the path and the disk it is on."
    what = "What is read or written" if error.filename is None else str(error.filename)
    return f"{what} {rule}; got '{said}'. {way_out}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextmanager
def _warnings_as_notes(out: Output) -> Iterator[None]:
    """Print each warning as one line, without the source line that Python adds."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        out.note("warning: " + _in_options(" ".join(str(message).split())))

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.simplefilter("always", DiaboloWarning)
        # scikit-learn cannot know that the columns were chosen by their names when the table was read
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        yield


def _abandon_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush into a closed pipe is silent."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file here
        pass
    finally:
        os.close(nothing)
