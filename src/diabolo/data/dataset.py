"""What every reader hands back, and the rules that each of them keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.errors import DataFileError, InvalidDataError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)  # == on arrays has no single truth value; a data set equals itself
class Dataset:
    """Samples with what their source says about them.

    Parameters
    ----------
    X : ndarray of shape (n, features), (n, height, width) or (n, channels, height, width)
        The samples, in the type in which they are stored: pictures of 8 bits stay uint8, in 0..255.
    y : ndarray of shape (n,), optional
        One label for each sample, numbers or strings.
    X_test, y_test : ndarray, optional
        The source's own test split, of the same sample shape.
    feature_names : tuple of str, optional
        The names of the columns of a table.
    name : str
        Where the samples come from: the name of the file, the folder or the catalogue's entry.

    Raises
    ------
    InvalidDataError
        When samples and labels do not fit each other.
    """

    X: Array
    y: Array | None = None
    X_test: Array | None = None
    y_test: Array | None = None
    feature_names: tuple[str, ...] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for part, X, y in (("X", self.X, self.y), ("X_test", self.X_test, self.y_test)):
            if X is not None and X.ndim < 2:
                raise InvalidDataError(
                    f"{part} must have one row for each sample; got the shape {X.shape}. "
                    "Reshape it to (n, features)."
                )
            n = 0 if X is None else len(X)
            if y is not None and y.shape != (n,):
                raise InvalidDataError(
                    f"The labels of {part} must have the shape ({n},); got {y.shape}. "
                    "Give one label for each sample."
                )
        if self.X_test is not None and self.X_test.shape[1:] != self.X.shape[1:]:
            raise InvalidDataError(
                f"Samples of X_test must have the shape {self.sample_shape} that X has; "
                f"got {self.X_test.shape[1:]}. Bring both to one shape."
            )
        if self.feature_names is not None and self.X.shape[1:] != (len(self.feature_names),):
            raise InvalidDataError(
                f"feature_names must name each column of X, of shape {self.X.shape}; "
                f"got {len(self.feature_names)} names. Give one name for each column."
            )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, for example (30,) or (28, 28)."""
        shape: tuple[int, ...] = self.X.shape[1:]
        return shape

    @property
    def n_samples(self) -> int:
        """The number of rows of X, without the test split."""
        return len(self.X)


def samples(array: Array, what: str) -> Array:
    """Return ``array`` in native byte order when it can be the X of a data set.

    Parameters
    ----------
    array : ndarray
        What a file holds.
    what : str
        The file, and the array's name in it, as an error should call it.

    Raises
    ------
    DataFileError
        When the array is not numeric, has no axis for the samples, or is empty.
    """
    if array.dtype.kind not in "biuf":
        raise DataFileError(
            f"{what} must hold real numbers; got the type {array.dtype}. Store it as integers or floats."
        )
    if array.ndim < 2:
        raise DataFileError(
            f"{what} must hold one row for each sample; got the shape {array.shape}. "
            "Store it with the shape (n, features)."
        )
    if array.size == 0:
        raise DataFileError(
            f"{what} must hold at least one sample and one feature; got the shape {array.shape}. "
            "Choose a file that has data."
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def labels(array: Array, n: int, what: str) -> Array:
    """Return ``array`` with the shape (n,) when it can be the y of ``n`` samples.

    Parameters
    ----------
    array : ndarray of shape (n,) or (n, 1)
        Numbers or strings.
    n : int
        The number of samples.
    what : str
        The file, and the array's name in it, as an error should call it.

    Raises
    ------
    DataFileError
        When there is not one label for each sample, or labels are neither numbers nor strings.
    """
    if array.shape not in ((n,), (n, 1)):
        raise DataFileError(
            f"{what} must hold one label for each of the {n} samples; got the shape {array.shape}. "
            "Choose labels and samples that belong together."
        )
    if array.dtype.kind not in "biufUS":
        raise DataFileError(
            f"{what} must hold numbers or strings; got the type {array.dtype}. Store the labels as integers."
        )
    return array.reshape(n).astype(array.dtype.newbyteorder("="), copy=False)


def checked(dataset_parts: dict[str, Any], path: Path) -> Dataset:
    """Return the ``Dataset`` of these fields; an error of its own rules names the file."""
    try:
        return Dataset(**dataset_parts)
    except InvalidDataError as error:
        raise DataFileError(f"{path}: {error}") from error
