"""The model file: one safetensors file whose metadata hold a JSON header. Nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diabolo.errors import ModelFileError

FORMAT = "diabolo-model"
VERSION = 1
_KEY = "diabolo"


def write_model(
    path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write header and tensors to ``path``, whole or not at all.

    The file is written beside its place and then renamed, so that a full disk or an interruption
    leaves what was there before.

    Raises
    ------
    ModelFileError
        Where the place cannot be written.
    """
    target = Path(path)
    text = json.dumps({"format": FORMAT, "version": VERSION, **header}, default=_plain)
    aside = ""
    try:
        handle, aside = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent or ".")
        os.close(handle)
        contents = {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in tensors.items()
        }
        save_file(contents, aside, metadata={_KEY: text})
        with Path(aside).open("rb+") as file:
            os.fsync(file.fileno())
        Path(aside).chmod(0o666 & ~_umask())
        Path(aside).replace(target)
    except (OSError, SafetensorError, ValueError) as error:  # ValueError: a null byte in the path
        raise ModelFileError(
            f"the model file must be in a place that can be written; got {str(target)!r} ({_reason(error)}). "
            "Choose another folder or make room."
        ) from error
    finally:
        if aside:
            with contextlib.suppress(OSError):
                Path(aside).unlink()
    return target


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read header and tensors of a model file.

    Raises
    ------
    ModelFileError
        For a file that is missing, damaged, foreign or of a later version.
    """
    source = Path(path)
    try:
        if not source.is_file():
            raise ModelFileError(f"the model file must exist; got {str(source)!r}. Check the path.")
        with safe_open(str(source), framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise ModelFileError(
                    f"{str(source)!r} must be a diabolo model; got a safetensors file of another program. "
                    "Use a file written by save()."
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        header = json.loads(metadata[_KEY])
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{str(source)!r} must be a whole diabolo model file; got one that cannot be read "
            f"({_reason(error)}). Use a file written by save(); if it was copied, copy it again."
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFileError(
            f"{str(source)!r} must hold a diabolo header; got another. Use a file written by save()."
        )
    if header.get("version") != VERSION:
        raise ModelFileError(
            f"the version of {str(source)!r} must be {VERSION}; got {header.get('version')!r}. "
            "Update diabolo."
        )
    return header, tensors


def _plain(value: Any) -> Any:
    """Return numpy numbers and arrays as Python's own: grids hand them over as settings."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a setting must be plain to be written down; got {value!r}")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
