"""Checkpoints: a fit that was stopped, or killed, goes on as if it never had been.

At the end of an epoch all that the next one depends on is at hand: the weights, the optimizers, the
generator (it draws the order of the rows, corruptions, codes and dropout) and a few numbers. A
checkpoint is these, the best weights, the history and what the run was asked to do, as one
safetensors file with a JSON header. It is written aside and renamed: there is the old or the new one.
"""

from __future__ import annotations

import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diabolo.errors import CheckpointError, CheckpointWarning, DiaboloError
from diabolo.parts import check_range
from diabolo.persistence import CHECKPOINT, read_model, write_model
from diabolo.recipe import Recipe
from diabolo.training.feed import Feed, MemoryFeed
from diabolo.training.history import History

NAME = "checkpoint.safetensors"

_OTHER_WORDS = {"seed": "random_state", "crc": "values in the rows", "rows": "number of rows"}


@dataclass(frozen=True)
class Mark:
    """Where a stage stands at the end of an epoch: all that its next epoch depends on.

    ``course`` holds the stage's plain numbers by the names of its attributes, ``optimizers`` the
    states of each one's parameters, ``generator`` its state (n_bytes,), ``best`` the best weights
    where any have been chosen.
    """

    course: dict[str, Any]
    module: dict[str, Tensor]
    optimizers: list[dict[int, dict[str, Tensor]]]
    best: dict[str, Tensor] | None
    generator: Tensor
    history: History

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor under a name of its own."""
        out = {f"module.{key}": value for key, value in self.module.items()}
        out |= {f"best.{key}": value for key, value in (self.best or {}).items()}
        for i, states in enumerate(self.optimizers):
            for j, state in states.items():
                out |= {f"optimizer.{i}.{j}.{key}": value for key, value in state.items()}
        return out | {"generator": self.generator}

    @classmethod
    def from_file(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Mark:
        """Read what ``tensors`` and a header hold."""
        optimizers: list[dict[int, dict[str, Tensor]]] = [{} for _ in range(header["n_optimizers"])]
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, i, j, key = name.split(".", 3)
                optimizers[int(i)].setdefault(int(j), {})[key] = value
        return cls(
            course=dict(header["course"]),
            module=_under("module.", tensors),
            optimizers=optimizers,
            best=_under("best.", tensors) or None,
            generator=tensors["generator"],
            history=History.from_dict(header["history"]),
        )


class Checkpoint:
    """Keeps the checkpoint of one fit, in a folder of its own.

    Parameters
    ----------
    folder : str or path
        Made where there is none.
    every : int >= 1, default=1
        Epochs from one checkpoint to the next; the end of a stage and an interruption write one too.
    resume : bool, default=False
        Go on from the checkpoint in the folder; where there is none, begin.

    Attributes
    ----------
    seconds : float
        That the run which is resumed has behind it.
    writes : bool
        Whether checkpoints are written: of several workers one does it for all.

    Raises
    ------
    InvalidParameterError
        Where ``every`` is no such number.
    CheckpointError
        Where the folder cannot be used, its checkpoint is damaged, or it is that of a run that has
        not ended and ``resume`` is False.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 1, *, resume: bool = False) -> None:
        check_range("every", every, low=1, integer=True)
        self._path = Path(folder).expanduser() / NAME
        self._every = int(every)
        self._found: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        self._written: Mark | None = None
        self._failed = False
        self.stage = 0
        self.seconds = 0.0
        self.writes = True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            exists = self._path.exists()
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise CheckpointError(
                f"the folder of checkpoints must be one that can be made; got {str(folder)!r} "
                f"({getattr(error, 'strerror', None) or error}). Choose another folder."
            ) from error
        for leftover in self._path.parent.glob(f".{NAME}.*"):  # of a run killed while it wrote
            shutil.rmtree(leftover, ignore_errors=True)
        if exists:
            self._look(resume)

    def _look(self, resume: bool) -> None:
        header, tensors = read_model(self._path, CHECKPOINT)
        with self._consistent():
            finished, n_epochs = bool(header["finished"]), len(header["history"]["rows"])
            seconds = float(header["history"]["rows"][-1]["seconds"])
            self._first = int(header["stage"])
        if resume:
            self._found, self.seconds = (header, tensors), seconds
        elif not finished:
            raise CheckpointError(
                f"checkpoints must go to a folder without an unfinished run; got {str(self._path.parent)!r}, "
                f"where one was stopped after {n_epochs} epoch(s). Resume it (resume=True, --resume), or "
                "choose another folder."
            )

    @property
    def seed(self) -> int | None:
        """The seed of the run that is resumed; None where nothing is."""
        if self._found is None:
            return None
        with self._consistent():
            return int(self._found[0]["recipe"]["seed"])

    @property
    def epochs_done(self) -> int:
        """How many epochs, of all stages, the run has behind it that is resumed."""
        return 0 if self._found is None else len(self._found[0]["history"]["rows"])

    def begin(
        self, module: nn.Module, recipe: Recipe, data: Feed, held_out: Tensor | None, stages: int
    ) -> None:
        """Check that the run is the one that was stopped, and load its weights.

        Parameters
        ----------
        module : AutoencoderModule
            The whole; a stage may train part of it.
        recipe, data, held_out :
            The run as it is asked for now.
        stages : int
            How many the plan has.

        Raises
        ------
        CheckpointError
            Where something differs; the message says what.
        """
        self._module, self._stages = module, stages
        self._about = {"recipe": recipe.to_dict(), "data": _summary(data, held_out)}
        if self._found is None:
            return
        header, tensors = self._found
        with self._consistent():
            differences = [
                *_differences(header["data"], self._about["data"]),
                *_differences(header["recipe"], self._about["recipe"]),
            ]
            if len(differences) > 1:  # with other settings the rows are parted and scaled otherwise
                differences = [text for text in differences if text != _OTHER_WORDS["crc"]]
            if differences:
                raise CheckpointError(
                    f"the checkpoint in {str(self._path.parent)!r} must be of this very run to be gone on "
                    f"with; got another {', '.join(differences[:3])}. Give that run's data and settings, or "
                    "choose another folder."
                )
            if self._first < stages - 1:
                module.load_state_dict(_under("whole.", tensors))

    def passed(self, stage: int) -> bool:
        """Enter the stage with this number; return whether it is behind the run that is resumed."""
        self.stage = stage
        return self._found is not None and stage < self._first

    def hand_over(self, to: Callable[[Mark], None]) -> None:
        """Call ``to`` with the mark that the stage goes on from, if it does."""
        if self._found is not None and self.stage == self._first:
            with self._consistent():
                self._written = Mark.from_file(*self._found)
                to(self._written)
            self._found = None

    def reached(self, mark: Mark) -> None:
        """Write a checkpoint if one is due."""
        if mark.course["ended"] or mark.course["epoch"] % self._every == 0:
            self._write(mark)

    def stopped(self, mark: Mark | None) -> None:
        """Write the last mark before an interruption, unless that was done."""
        if mark is not None and mark is not self._written:
            self._write(mark)

    def _write(self, mark: Mark) -> None:
        """Write; a disk that is full must not cost the training, so that is a warning, said once."""
        if not self.writes:
            return
        last = self.stage == self._stages - 1
        header = {
            **self._about,
            "stage": self.stage,
            "finished": last and mark.course["ended"],
            "course": mark.course,
            "history": mark.history.to_dict(),
            "n_optimizers": len(mark.optimizers),
        }
        tensors = mark.tensors()
        if not last:  # a pair is part of the whole, whose other layers lie still meanwhile
            tensors |= {f"whole.{key}": value for key, value in self._module.state_dict().items()}
        try:
            write_model(self._path, header, tensors, CHECKPOINT)
            self._written, self._failed = mark, False
        except CheckpointError as error:
            if not self._failed:
                kept = "the last one is still there" if self._path.exists() else "there is none yet"
                warnings.warn(
                    f"{error} Training goes on, and {kept}.",
                    CheckpointWarning,
                    stacklevel=2,
                )
            self._failed = True

    @contextmanager
    def _consistent(self) -> Iterator[None]:
        """Say so where the file's contents do not fit together."""
        try:
            yield
        except DiaboloError:
            raise
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"{str(self._path)!r} must hold a consistent checkpoint; got one whose parts do not fit "
                f"together ({' '.join(str(error).split())[:300]}). Delete it, or choose another folder."
            ) from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _summary(data: Feed, held_out: Tensor | None) -> dict[str, Any]:
    """Return what tells data from other data: number, type, device and a sum over the bytes.

    Of a stream that is the sample of its rows which it keeps in memory.
    """
    crc, known = 0, data.rows if isinstance(data, MemoryFeed) else data.head(len(data))
    for rows in (known, held_out):
        if rows is not None:
            crc = zlib.crc32(rows.detach().cpu().contiguous().numpy().data, crc)
    return {
        "rows": len(data) + (0 if held_out is None else len(held_out)),
        "crc": crc,
        "dtype": str(known.dtype),
        "device": data.device.type,
    }


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return the settings that differ, in words."""
    told = []
    for key in [*here, *(k for k in there if k not in here)]:
        if there.get(key) != here.get(key):
            words = _OTHER_WORDS.get(key, key)
            values = "" if key in ("seed", "crc") else f" ({there.get(key)!r} there, {here.get(key)!r} here)"
            told.append(words + values)
    return told
