"""DATA as rows that an estimator takes, and which of them it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diabolo.cli.console import Output
from diabolo.cli.options import SourceOptions, sizes
from diabolo.errors import InvalidDataError, InvalidParameterError, ModelFileError
from diabolo.names import check_name, quoted

if TYPE_CHECKING:
    import numpy as np

    from diabolo import Autoencoder
    from diabolo.data import Dataset
    from diabolo.persistence import Kind

    Array = np.ndarray[Any, np.dtype[Any]]

SPLITS = ("train", "test", "all")
TEST_FRACTION = 0.2


def load_data(data: str, source: SourceOptions, columns: Sequence[str] | None = None) -> Dataset:
    """Return the data set, with 8-bit values divided by 255.

    Pixels of 8 bits become numbers from 0 to 1, in every command alike: errors are then those of
    pixels in [0, 1], and a model's output is written in the same unit. All other types of numbers stay
    as they are. ``columns`` are the features to take of a table whose columns have names.
    """
    from diabolo.data import load

    wanted = image_size(source)
    dataset = load(data, label=source.label, columns=columns, data_home=source.data_home, image_size=wanted)
    X_test = None if dataset.X_test is None else unit(dataset.X_test)
    return replace(dataset, X=unit(dataset.X), X_test=X_test)


def image_size(source: SourceOptions) -> tuple[int, int] | None:
    """Return the height and width that pictures are to be resized to."""
    wanted = sizes("image_size", source.image_size)
    if wanted is None:
        return None
    if len(wanted) != 2:
        raise InvalidParameterError(
            f"image_size must be a height and a width; got {source.image_size!r}. Give for example 28,28."
        )
    return wanted[0], wanted[1]


def unit(X: Array) -> Array:
    """Return 8-bit values as numbers from 0 to 1, and all others as they are."""
    import numpy as np

    return X.astype(np.float32) / np.float32(255) if X.dtype == np.uint8 else X


def load_model(path: Path) -> Autoencoder:
    """Return the estimator in a model file.

    Raises
    ------
    ModelFileError
        When there is no such file, or it is anything but a model of diabolo.
    """
    from diabolo import load
    from diabolo.persistence import MODEL

    if not path.is_file():
        got = "is a folder" if path.is_dir() else "does not exist"
        raise ModelFileError(
            f"MODEL must be a file that 'diabolo train' wrote; got {path}, which {got}. Check the path."
        )
    check_format(path, MODEL)
    return load(path)


def check_format(path: Path, wanted: Kind) -> None:
    """Raise where a file is one of diabolo's that other commands take."""
    from diabolo.persistence import CHECKPOINT, DETECTOR, MAP, MODEL, SIGNALS, format_of

    told = {
        MODEL.format: "an autoencoder that 'diabolo train' wrote. Fit with 'diabolo detect fit'",
        DETECTOR.format: "a detector of rows. Use it with 'diabolo detect score'",
        SIGNALS.format: "a detector of series. Use it in Python, with SignalDetector.load",
        MAP.format: "a map of images. Use it with 'diabolo detect map'",
        CHECKPOINT.format: "a checkpoint. Use it with 'diabolo train --checkpoint DIR --resume'",
    }
    found = format_of(path)
    if found in told and found != wanted.format:
        what = {MODEL.format: "an autoencoder", MAP.format: "a map of images"}
        raise ModelFileError(
            f"MODEL must be {what.get(wanted.format, 'a detector of rows')}; got {path}, {told[found]}."
        )


def load_for(out: Output, estimator: Autoencoder, data: str, source: SourceOptions) -> Dataset:
    """Return the data set as the model takes it: of a table the columns that it was trained on.

    Raises
    ------
    InvalidDataError
        When a column that the model needs is not there, or samples have another number of values.
    """
    dataset = load_data(data, source, getattr(estimator, "feature_names_in_", None))
    check_fits(out, estimator, dataset.name, dataset.sample_shape, dataset.left_out)
    return dataset


def check_fits(
    out: Output, estimator: Autoencoder, name: str, sample_shape: tuple[int, ...], left_out: Sequence[str]
) -> None:
    """Say which columns are left out, and raise where samples have another number of values."""
    note_left_out(out, name, left_out)
    if prod(sample_shape) != estimator.n_features_in_:
        shapes = [" x ".join(map(str, shape)) for shape in (estimator.sample_shape_, sample_shape)]
        hint = "; a table's column of labels is named with --label" if len(sample_shape) == 1 else ""
        raise InvalidDataError(
            f"DATA must hold samples of {shapes[0]} values, as the model was trained on; got {shapes[1]}. "
            f"Give such data, or another model{hint}."
        )


def note_left_out(out: Output, name: str, left_out: Sequence[str]) -> None:
    """Say which columns a model does not know."""
    if left_out:
        s, are = ("s", "are") if len(left_out) > 1 else ("", "is")
        out.note(
            f"{name}: column{s} {quoted(left_out)} {are} not among the model's features and {are} left out"
        )


@dataclass(frozen=True)
class Split:
    """Rows to train on, rows to test on, and in words where the latter come from."""

    X: Array
    X_test: Array
    y: Array | None
    y_test: Array | None
    told: str
    feature_names: tuple[str, ...] | None = None


def train_and_test(dataset: Dataset, test_fraction: float | None, random_state: int | None) -> Split:
    """Return the rows parted for training and testing.

    Parameters
    ----------
    dataset : Dataset
        Its own test split is taken where it has one, unless ``test_fraction`` is given.
    test_fraction : float, optional
        Share of the rows held out, in [0, 1); 0 tests on the training rows. None: 0.2 where needed.
    random_state : int, optional
        Seed of the draw; None is 0.

    Raises
    ------
    InvalidDataError
        When a value is NaN, infinite or beyond single precision, in a test row too: named by its place in
        the source, and before any work. When there are too few rows to hold any out.
    """
    import numpy as np

    from diabolo.estimators.validation import check_values

    for part in (dataset.X, dataset.X_test):
        if part is not None:
            check_values(part.reshape(len(part), -1), dataset.feature_names, part.shape[1:])
    X, y, names = dataset.X, dataset.y, dataset.feature_names
    if test_fraction is None and dataset.X_test is not None:
        told = f"the {len(dataset.X_test)} test rows of {dataset.name}"
        return Split(X, dataset.X_test, y, dataset.y_test, told, names)
    share = TEST_FRACTION if test_fraction is None else test_fraction
    if share == 0:
        return Split(X, X, y, y, "the training rows themselves (test fraction 0)", names)
    n_test = max(1, round(share * len(X)))
    if n_test >= len(X):
        raise InvalidDataError(
            f"{dataset.name} must have rows to train on beside {n_test} to test on; got {len(X)} in all. "
            "Add rows, or give --test-fraction 0."
        )
    seed = seed_of(random_state)
    order = np.random.default_rng(seed).permutation(len(X))
    train, test = np.sort(order[n_test:]), np.sort(order[:n_test])
    told = f"{n_test} of {len(X)} rows, held out at random (seed {seed})"
    y_train, y_test = (None, None) if y is None else (y[train], y[test])
    return Split(X[train], X[test], y_train, y_test, told, names)


def seed_of(random_state: int | None) -> int:
    """Return the seed of the draw of test rows: 0 where none is given."""
    seed = 0 if random_state is None else random_state
    if seed < 0:
        raise InvalidParameterError(
            f"random_state must be a whole number from 0 up; got {seed}. Give for example 0."
        )
    return seed


def check_split(split: str | None) -> str | None:
    """Return ``split`` if it is one of the names, or None."""
    return None if split is None else check_name("split", split, SPLITS)


def refuse_test(split: str | None, name: str) -> None:
    """Raise where test rows are asked of data that have no test split."""
    if split == "test":
        raise InvalidParameterError(
            f"split must be train or all for {name}, which has no test split; got 'test'. Leave --split out."
        )


def pick(dataset: Dataset, split: str | None, default: str) -> tuple[Array, str]:
    """Return the rows that a command works on, and which they are in words.

    Parameters
    ----------
    dataset : Dataset
        With or without a test split of its own.
    split : str, optional
        "train", "test" or "all".
    default : str
        What None means where there are two splits; a source without a test split has only "all".

    Raises
    ------
    InvalidParameterError
        When ``split`` is unknown, or the source has no test split.
    """
    import numpy as np

    chosen = check_split(split) or default
    if dataset.X_test is None:
        refuse_test(split, dataset.name)
        return dataset.X, f"{len(dataset.X)} rows of {dataset.name}"
    parts = {"train": [dataset.X], "test": [dataset.X_test], "all": [dataset.X, dataset.X_test]}[chosen]
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    name = "" if chosen == "all" else f" {'training' if chosen == 'train' else 'test'}"
    return rows, f"{len(rows)}{name} rows of {dataset.name}"
