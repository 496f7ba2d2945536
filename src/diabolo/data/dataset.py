"""What every reader hands back, and the rules that each of them keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.errors import DataFileError, InvalidDataError
from diabolo.names import quoted

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
    left_out : tuple of str
        The columns that are neither in X nor the labels, where ``load`` was told which are the features.

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
    left_out: tuple[str, ...] = ()

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


def chosen(
    features: Sequence[int], names: Sequence[str], columns: Sequence[str] | None, what: str
) -> tuple[list[int], tuple[str, ...]]:
    """Return the positions of ``columns`` among the features, and the names of the other features.

    Parameters
    ----------
    features : sequence of int
        Where in ``names`` the features are.
    names : sequence of str
        Of all columns, the labels among them.
    columns : sequence of str, optional
        The features that are wanted, in this order; None: all.
    what : str
        The file, as an error should call it.

    Raises
    ------
    InvalidDataError
        When one of ``columns`` is not there.
    """
    if columns is None:
        return list(features), ()
    places = {names[i]: i for i in features}
    missing = [name for name in columns if name not in places]
    if missing:
        raise InvalidDataError(
            f"{what} must have the column{'s' if len(missing) > 1 else ''} {quoted(missing)} among its "
            f"features; got {quoted(places)}. Add or rename it, and give no such column as the label."
        )
    left_out = tuple(name for name in places if name and name not in set(columns))
    return [places[name] for name in columns], left_out


def with_columns(dataset: Dataset, columns: Sequence[str] | None, what: str) -> Dataset:
    """Return the data set with these features only, as it is where its columns have no names."""
    names = dataset.feature_names
    if names is None or columns is None:
        return dataset
    places, left_out = chosen(range(len(names)), names, columns, what)
    X_test = None if dataset.X_test is None else dataset.X_test[:, places]
    return replace(
        dataset, X=dataset.X[:, places], X_test=X_test, feature_names=tuple(columns), left_out=left_out
    )


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
