"""Settings of a training run from a TOML file; what the command line gives wins."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diabolo.cli.options import split_parameters
from diabolo.errors import DataFileError, InvalidParameterError


def text(name: str) -> Callable[[Any], str]:
    """Return a function that reads the setting ``name`` as text."""

    def read(value: Any) -> str:
        if isinstance(value, list) and all(isinstance(item, int) for item in value):
            return ",".join(str(item) for item in value)  # image_size = [28, 28]
        if not isinstance(value, str):
            raise InvalidParameterError(f"{name} must be text; got {value!r}. Put it in quotation marks.")
        return value

    return read


def fraction(name: str) -> Callable[[Any], float]:
    """Return a function that reads the setting ``name`` as a share of the rows."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise InvalidParameterError(
                f"{name} must be a number from 0 up to, but not, 1; got {value!r}. Give for example 0.2."
            )
        return float(value)

    return read


def boolean(name: str) -> Callable[[Any], bool]:
    """Return a function that reads the setting ``name`` as true or false."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidParameterError(f"{name} must be true or false; got {value!r}. Write true.")
        return value

    return read


def read_config(
    path: Path, others: Mapping[str, Callable[[Any], Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the command's own settings and the estimator's parameters that a TOML file holds.

    Parameters
    ----------
    path : Path
        The file. Its keys are the options' names, with dashes or underscores; paths in it are taken
        from the folder where the command runs.
    others : mapping
        The command's own settings by name, with a function that reads each.

    Raises
    ------
    DataFileError
        When the file cannot be read or is no TOML.
    InvalidParameterError
        When a key is unknown, or a value is not what its setting takes.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataFileError(
            f"--config must be a file that can be read; got {path} ({error.strerror}). Check the path."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataFileError(
            f"{path} must be a TOML file; got an error in it: {error}. Correct it."
        ) from error
    return split_parameters(settings, others)
