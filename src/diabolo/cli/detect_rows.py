"""DATA of ``diabolo detect fit``: parted into what is learned from and what is judged afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diabolo.cli import inputs, streams
from diabolo.cli.console import Output, counted
from diabolo.cli.detect_tables import (
    MOST_ROWS,
    ColumnOptions,
    Table,
    cells_of,
    learned_table,
    load_rows,
    open_mixed,
    open_numbers,
    taken,
)
from diabolo.cli.detecting import labelled
from diabolo.cli.options import SourceOptions, StreamOptions
from diabolo.errors import InvalidParameterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

_MEASURED_FRACTION = 0.2


@dataclass(frozen=True)
class Rows:
    """What is learned from and what is judged afterwards, with its numbers in DATA and its labels."""

    name: str
    train: Any  # an array, a frame or a source
    judged: Any
    numbers: NDArray[np.int64] | None
    truth: NDArray[np.bool_] | None
    told: str
    feature_names: tuple[str, ...] | None
    kinds: dict[str | int, str] | None = None
    cells: Callable[[Array], Array] | None = None


def rows_for_fit(
    out: Output,
    data: str,
    source: SourceOptions,
    options: StreamOptions,
    columns: ColumnOptions,
    normal: str | None,
    test_fraction: float | None,
    seed: int | None,
) -> Rows:
    """Read DATA and part it into what is learned from and what is judged."""
    if test_fraction is not None and not 0 <= test_fraction < 1:
        raise InvalidParameterError(
            f"--test-fraction must be in [0, 1); got {test_fraction:g}. Give for example 0.2."
        )
    most = columns.most_rows
    if most is not None and most < 1:
        raise InvalidParameterError(
            f"--most-rows must be a whole number from 1 up; got {most}. Give for example 100000."
        )
    import numpy as np

    mixed = open_mixed(data, source, options, columns)
    if mixed is not None:
        name = mixed.table.name
        out.note(f"{name}: {counted(len(mixed), 'row')} of mixed columns, read piece by piece")
        truth = labelled(out, mixed.table.y, None, name, source, normal, learned=True)
        whole = Rows(name, mixed, None, None, None, "", None, None, mixed.cells)
        rows = _parted(out, whole, truth, normal, test_fraction, seed, most or MOST_ROWS)
        train, kinds = learned_table(out, rows.train, columns)
        alike = np.array_equal(rows.judged.numbers, rows.train.numbers)
        return replace(rows, train=train, kinds=kinds, judged=train if alike else rows.judged)
    stream = open_numbers(data, source, options, columns)
    if stream is not None:
        name = streams.name_of(data)
        out.note(f"{name}: {counted(len(stream), 'row')}, read piece by piece")
        truth = labelled(out, stream.labels(), None, name, source, normal, learned=True)
        if truth is None and test_fraction is None and most is None:
            return Rows(name, stream, None, None, None, f"all rows of {name}", stream.feature_names)
        whole = Rows(name, stream, None, None, None, "", stream.feature_names)
        return _parted(out, whole, truth, normal, test_fraction, seed, most)
    dataset = load_rows(out, data, source, columns)
    truth = labelled(out, dataset.y, dataset.y_test, dataset.name, source, normal, learned=True)
    if isinstance(dataset, Table):
        cells = cells_of(dataset.X)
        whole = Rows(dataset.name, dataset.X, None, None, None, "", None, dataset.kinds, cells)
        return _parted(out, whole, truth, normal, test_fraction, seed, most)
    from diabolo.estimators.validation import check_values

    for part in (dataset.X, dataset.X_test):
        if part is not None:
            check_values(part.reshape(len(part), -1), dataset.feature_names, part.shape[1:])
    whole = Rows(dataset.name, dataset.X, dataset.X_test, None, None, "", dataset.feature_names)
    return _parted(out, whole, truth, normal, test_fraction, seed, most)


def _parted(
    out: Output,
    whole: Rows,
    truth: list[NDArray[np.bool_]] | None,
    normal: str | None,
    test_fraction: float | None,
    seed: int | None,
    most: int | None,
) -> Rows:
    """Part all rows, and test rows where there are such, into those learned from and those judged.

    ``most`` is how many are learned from at most.
    """
    import numpy as np

    X, X_test, name = whole.train, whole.judged, whole.name
    anomalous = np.zeros(len(X), dtype=bool) if truth is None else truth[0]
    learned = np.flatnonzero(~anomalous) if normal is not None else np.arange(len(X))
    left_out = np.setdiff1d(np.arange(len(X)), learned)
    if len(left_out):
        out.note(f"{name}: {counted(len(left_out), 'row')} not labelled {normal!r} not learned from")

    own_test = X_test is not None and test_fraction is None
    share = test_fraction if test_fraction is not None else 0.0 if truth is None else _MEASURED_FRACTION
    n_test = 0 if own_test else round(share * len(learned))
    drawn = np.random.default_rng(inputs.seed_of(seed)).permutation(len(learned))
    train = np.delete(learned, drawn[:n_test])
    if most is not None and len(train) > most:
        out.note(f"{name}: {most:,} of {counted(len(train), 'row')}, drawn at random, are learned from")
        train = np.sort(learned[drawn[n_test : n_test + most]])
    if own_test:
        marks = truth[1] if truth is not None and len(truth) > 1 else None
        told_ = f"the {len(X_test):,} test rows of {name}"
        return replace(whole, train=X[train], truth=marks, told=told_)
    shown = np.sort(np.concatenate([learned[drawn[:n_test]] if n_test else train, left_out]))
    told_ = f"{n_test:,} of {len(learned):,} rows of {name}, kept from training"
    if not n_test:
        told_ = f"all {len(train):,} training rows of {name} themselves"
    if len(left_out):
        told_ += f", and {len(left_out):,} labelled otherwise"
    marks = None if truth is None else anomalous[shown]
    return replace(
        whole, train=taken(X, train), judged=taken(X, shown), numbers=shown, truth=marks, told=told_
    )
