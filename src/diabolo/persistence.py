"""Model files and checkpoints: one safetensors file whose metadata hold a JSON header, never a pickle."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diabolo.errors import CheckpointError, DiaboloError, ModelFileError

VERSION = 2
_KEY = "diabolo"  # of metadata, the only one: safetensors writes several in any order
_MARK, _END = ', "crc32": "', '"}'


@dataclass(frozen=True)
class Kind:
    """What a file is for, and the words of its errors: what it is called and how one is made."""

    format: str
    file: str
    maker: str
    error: type[DiaboloError]


MODEL = Kind("diabolo-model", "model file", "save()", ModelFileError)
DETECTOR = Kind("diabolo-detector", "detector file", "AnomalyDetector.save()", ModelFileError)
SIGNALS = Kind("diabolo-signals", "signal detector file", "SignalDetector.save()", ModelFileError)
MAP = Kind("diabolo-map", "map file", "AnomalyMap.save()", ModelFileError)
CHECKPOINT = Kind("diabolo-checkpoint", "checkpoint", "fit(checkpoint=...)", CheckpointError)


def write_model(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    kind: Kind = MODEL,
) -> Path:
    """Write header and tensors to ``path``, whole or not at all.

    The file is written beside its place and then renamed, so that a full disk or an interruption
    leaves what was there before.

    Raises
    ------
    ModelFileError, CheckpointError
        Where the place cannot be written.
    """
    target = Path(path)
    about = {"format": kind.format, "version": VERSION, "versions": versions()}
    text = json.dumps({**about, **header}, default=_plain)
    folder = ""
    try:
        # a folder: safetensors writes aside too, and a process that is killed must leave no strange names
        folder = tempfile.mkdtemp(prefix=f".{target.name[:40]}.", dir=target.parent or ".")
        aside = Path(folder) / "new"
        contents = {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in tensors.items()
        }
        save_file(contents, aside, metadata={_KEY: sealed(text, contents)})
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(0o666 & ~_umask())
        aside.replace(target)
    except (OSError, SafetensorError, ValueError) as error:  # ValueError: a null byte in the path
        raise kind.error(
            f"the {kind.file} must be in a place that can be written; got {str(target)!r} "
            f"({_reason(error)}). Choose another folder or make room."
        ) from error
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def sealed(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a header's text, a JSON object, with a checksum of it and of every tensor as its last entry."""
    return f"{text[:-1]}{_MARK}{_checksum(text, tensors)}{_END}"


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = zlib.crc32(text.encode())
    for name, value in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), found)
        bits = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(bits.data, found)
    return f"{found:08x}"


def versions() -> dict[str, str]:
    """Return the versions of what writes a file."""
    return {"diabolo": import_module("diabolo").__version__, "torch": str(torch.__version__)}


def read_model(path: str | os.PathLike[str], kind: Kind = MODEL) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read header and tensors of a file that ``write_model`` wrote.

    Raises
    ------
    ModelFileError, CheckpointError
        For a file that is missing, damaged, foreign or of another version.
    """
    source = Path(path)
    try:
        if not source.is_file():
            raise kind.error(f"the {kind.file} must exist; got {str(source)!r}. Check the path.")
        with safe_open(str(source), framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise kind.error(
                    f"{str(source)!r} must be a diabolo {kind.file}; got a safetensors file of another "
                    f"program. Use a file written by {kind.maker}."
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        before, mark, seal = metadata[_KEY].rpartition(_MARK)
        text = before + "}" if mark else metadata[_KEY]
        header = json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, DiaboloError):
            raise
        raise kind.error(
            f"{str(source)!r} must be a whole diabolo {kind.file}; got one that cannot be read "
            f"({_reason(error)}). Use a file written by {kind.maker}; if it was copied, copy it again."
        ) from error
    if not isinstance(header, dict) or header.get("format") != kind.format:
        raise kind.error(
            f"{str(source)!r} must hold the header of a diabolo {kind.file}; got another. "
            f"Use a file written by {kind.maker}."
        )
    if header.get("version") != VERSION:
        writer = header.get("versions")
        by = (
            f", written by diabolo {' '.join(str(writer.get('diabolo')).split())[:20]}"
            if isinstance(writer, dict)
            else ""
        )
        older = type(header.get("version")) is int and header["version"] < VERSION
        raise kind.error(
            f"{str(source)!r} must be a {kind.file} of format {VERSION}, as diabolo {versions()['diabolo']} "
            f"has it; got format {header.get('version')!r}{by}. "
            f"{'Write' if older else 'Update diabolo, or write'} the file anew."
        )
    if not mark or seal != _checksum(text, tensors) + _END:
        raise kind.error(
            f"{str(source)!r} must be as it was written; got one whose checksum does not fit what it holds. "
            "Copy it again, or write it anew."
        )
    return header, tensors


def format_of(path: str | os.PathLike[str]) -> str | None:
    """Return the format that a file's header tells, that of a ``Kind``; None for any other file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError):
        return None
    return str(header.get("format")) if isinstance(header, dict) else None


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
