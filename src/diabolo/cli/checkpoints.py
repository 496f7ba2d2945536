"""The options of commands that can be stopped and resumed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from diabolo.cli.console import Output
from diabolo.cli.output import check_folder
from diabolo.cli.page import COMMAND
from diabolo.errors import InvalidParameterError


@dataclass(frozen=True)
class CheckpointOptions:
    """Where a training keeps how far it is, and whether it goes on from there."""

    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="DIR",
            help="Keep in this folder how far the training is; one that was stopped goes on with --resume.",
        ),
    ] = None
    every: Annotated[
        int | None,
        typer.Option(
            "--every", metavar="N", help="Epochs from one checkpoint to the next, >= 1. (default: 1)"
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the checkpoint in --checkpoint, with the same data and settings; begin where "
            "there is none yet.",
        ),
    ] = False

    @property
    def folder(self) -> Path | None:
        """The folder, the user's home written out."""
        return None if self.checkpoint is None else self.checkpoint.expanduser()

    def check(self) -> None:
        """Raise where an option has no effect or nothing can be kept: said before any work is done."""
        if self.folder is None:
            for option, value in (("--every", self.every), ("--resume", self.resume or None)):
                if value is not None:
                    raise InvalidParameterError(
                        f"{option} must go with --checkpoint; got none. Add --checkpoint DIR."
                    )
            return
        if self.every is not None and self.every < 1:
            raise InvalidParameterError(f"--every must be an integer >= 1; got {self.every}.")
        check_folder(self.folder, "--checkpoint")


def note_replaced(out: Output, kept: CheckpointOptions) -> None:
    """Say that a finished training's checkpoint will be replaced; raise where it is an unfinished one's."""
    from diabolo.training.checkpoint import NAME, Checkpoint

    if kept.folder is None or kept.resume or not (kept.folder / NAME).exists():
        return
    Checkpoint(kept.folder)
    out.note(
        f"the checkpoint of a finished training in {kept.folder} will be replaced; another folder for "
        "--checkpoint keeps it"
    )


def resuming_command() -> str:
    """Return the command as it was typed, with ``--resume``."""
    command = COMMAND.get()
    return command if "--resume" in shlex.split(command) else f"{command} --resume"
