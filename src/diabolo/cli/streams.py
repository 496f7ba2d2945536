"""DATA that is read piece by piece: when it is, how it is parted, how results are written as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diabolo.cli import inputs
from diabolo.cli.console import Output, counted
from diabolo.cli.options import SourceOptions, StreamOptions
from diabolo.cli.output import TABLES, aside, parquet_writer, write_csv, write_npy
from diabolo.cli.progress import counting
from diabolo.errors import InvalidDataError, InvalidParameterError

if TYPE_CHECKING:
    import numpy as np

    from diabolo import Autoencoder
    from diabolo.data import Source
    from diabolo.data.opening import View

    Array = np.ndarray[Any, np.dtype[Any]]

_SHARE = 4  # data that would take more than this part of the free memory are read piece by piece
_TEST_ROWS = 10_000  # more would hardly change the errors that are printed
_TEST_BYTES = 64 << 20
NO_ROW = "DATA must hold a row that can be read; got none. Check it."


def open_stream(
    data: str, source: SourceOptions, options: StreamOptions, columns: Sequence[str] | None = None
) -> View | None:
    """Return DATA as a source where it is to be read piece by piece, 8-bit values divided by 255; else None.

    A value that is no number, or infinite, is named by its row in DATA as soon as this is read.

    Raises
    ------
    InvalidParameterError
        When it cannot be read so, and that was asked for.
    """
    from diabolo.data.opening import View, open_source
    from diabolo.estimators.validation import check_values

    if not by_pieces(data, source, options):
        return None
    size = inputs.image_size(source)
    opened = open_source(data, label=source.label, columns=columns, image_size=size, broken=options.broken)
    names = columns if opened.feature_names is None else opened.feature_names

    def checked(rows: Array, numbers: Array) -> Array:
        check_values(rows.reshape(len(rows), -1), names, rows.shape[1:], numbers)
        return inputs.unit(rows)

    return View(opened, function=checked)


def by_pieces(data: str, source: SourceOptions, options: StreamOptions) -> bool:
    """Whether DATA is to be read piece by piece; where nothing is said, the memory that is free decides.

    Raises
    ------
    InvalidParameterError
        When options contradict each other.
    """
    from diabolo.data.opening import size_in_memory

    if options.stream is False and options.broken is not None:
        raise InvalidParameterError(
            f"--broken must go with --stream; got --no-stream and --broken {options.broken}. "
            "Leave one of them out."
        )
    if options.stream is not None or options.broken is not None:
        return options.stream is not False
    takes, free = size_in_memory(data, inputs.image_size(source)), free_memory()
    return takes is not None and free is not None and takes * _SHARE > free


def free_memory() -> int | None:
    """Return how many bytes of memory are free, here or in this container; None where that is not known."""
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
        limit, used = (
            Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current")
        )
        if limit != "max":
            free.append(int(limit) - int(used))
    except (OSError, ValueError, IndexError):
        pass
    return min(free) if free else None


def name_of(data: str) -> str:
    """Return what the data set in a file or a folder is called."""
    return Path(data).expanduser().resolve().name


def train_and_test(
    source: Source, data: str, test_fraction: float | None, random_state: int | None
) -> tuple[Source, inputs.Split]:
    """Return the rows to train on, and a sample of them with the rows to test on.

    Held out are at most 10,000 rows: these stay in memory.
    """
    import numpy as np

    from diabolo.data.opening import View, gather

    n, seed = len(source), inputs.seed_of(random_state)
    share = inputs.TEST_FRACTION if test_fraction is None else test_fraction
    most = _most_rows(source)
    n_test = 0 if share == 0 else min(max(1, round(share * n)), most)
    if n_test >= n:
        raise InvalidDataError(
            f"{name_of(data)} must have rows to train on beside {n_test} to test on; got {n} in all. "
            "Add rows, or give --test-fraction 0."
        )
    n_sample = min(most, n - n_test)
    drawn = np.random.default_rng(seed).choice(n, n_test + n_sample, replace=False)
    test = np.sort(drawn[:n_test])
    X_test, X = gather(source, test, np.sort(drawn[n_test:]))
    told = f"{len(X_test)} of {n} rows, held out at random (seed {seed})"
    if not n_test:
        X_test, told = X, f"{len(X)} of the training rows themselves (test fraction 0)"
    if not len(X_test) or not len(X):
        raise InvalidDataError(f"{name_of(data)} must have rows that can be read; got too few. Check them.")
    return View(source, test), inputs.Split(X, X_test, None, None, told, source.feature_names)


def training_data(
    out: Output,
    data: str,
    source: SourceOptions,
    options: StreamOptions,
    test_fraction: float | None,
    random_state: int | None,
) -> tuple[str, Array | Source, inputs.Split]:
    """Return DATA's name, what to train on (rows, or a source of them), and what to test on."""
    stream = open_stream(data, source, options)
    if stream is None:
        dataset = inputs.load_data(data, source)
        split = inputs.train_and_test(dataset, test_fraction, random_state)
        return dataset.name, split.X, split
    name = name_of(data)
    out.note(f"{name}: {counted(len(stream), 'row')}, read piece by piece")
    rows, split = train_and_test(stream, data, test_fraction, random_state)
    out.note(f"{name}: PCA and the mean are fitted on {counted(len(split.X), 'training row')}")
    return name, rows, split


def sample_of(stream: Source) -> Array:
    """Return up to 10,000 rows, drawn at random: those stored first may all be of one class."""
    import numpy as np

    from diabolo.data.opening import gather

    n = min(len(stream), _most_rows(stream))
    (rows,) = gather(stream, np.sort(np.random.default_rng(0).choice(len(stream), n, replace=False)))
    return rows


def some_rows(out: Output, stream: Source, data: str) -> Array:
    """Return such a sample, for PCA and the mean to be fitted on."""
    rows = sample_of(stream)
    out.note(f"{name_of(data)}: PCA and the mean are fitted on {counted(len(rows), 'row')} of it")
    return rows


def _most_rows(stream: Source) -> int:
    return max(1, min(_TEST_ROWS, _TEST_BYTES // (4 * prod(stream.sample_shape))))


def open_for(
    out: Output, estimator: Autoencoder, data: str, source: SourceOptions, options: StreamOptions
) -> View | None:
    """Return DATA as the model takes it where it is to be read piece by piece; else None."""
    stream = open_stream(data, source, options, getattr(estimator, "feature_names_in_", None))
    if stream is not None:
        inputs.check_fits(out, estimator, name_of(data), stream.sample_shape, stream.left_out)
    return stream


def note_unread(out: Output, name: str, source: Source, n: int) -> None:
    """Say how many rows, and which files, could not be read of a source of which n came."""
    if n < len(source):
        from diabolo.data.sources import not_read

        said = f"{len(source) - n} of {len(source)} could not be read and were left out"
        out.note(f"{name}: {said}{not_read(source)}")


def check_table(output: Path) -> None:
    """Raise unless results can be written to this file as they come."""
    if output.suffix.lower() not in TABLES:
        raise InvalidParameterError(
            f"--output must end in one of {', '.join(TABLES)} where DATA is read piece by piece; got "
            f"{str(output)!r}. Choose another suffix, or give --no-stream."
        )


def write_parts(
    out: Output, path: Path, parts: Iterable[Array], n: int, names: Sequence[str] | None, what: str
) -> tuple[int, ...]:
    """Write rows that come part by part, as ``write_rows`` writes them all; return the shape of the whole.

    Parameters
    ----------
    out : Output
        Where the progress is shown.
    path : Path
        Its suffix says the format: .npy, .csv or .parquet.
    parts : iterable of ndarray (k, ...)
    n : int
        How many rows are expected; fewer may come.
    names : sequence of str, optional
        Of the columns; None calls them x0, x1, ...
    what : str
        Is being written, for the progress.
    """
    shown = iter(counting(out, what, parts, n))
    first = next(shown, None)
    if first is None:
        raise InvalidDataError(NO_ROW)
    shown = chain([first], shown)
    with aside(path) as place:
        if path.suffix.lower() == ".npy":
            with place.open("w+b") as stream:
                return write_npy(stream, shown, n)
        if path.suffix.lower() == ".parquet":
            with parquet_writer(place, names) as write:
                return _written(shown, write)
        with place.open("w", encoding="utf-8", newline="") as text:
            return _written(shown, lambda flat: write_csv(text, flat, names))


def _written(parts: Iterable[Array], write: Callable[[Array], None]) -> tuple[int, ...]:
    """Write each part as rows (k, width); return the shape of the whole."""
    done: int = 0
    shape: tuple[int, ...] = ()
    for part in parts:
        write(part.reshape(len(part), -1))
        done, shape = done + len(part), part.shape[1:]
    return done, *shape
