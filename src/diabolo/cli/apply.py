"""What one does with a trained model: ``encode``, ``decode``, ``reconstruct``, ``sample``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs
from diabolo.cli.console import Output
from diabolo.cli.options import DataName, ModelFile, SourceOptions
from diabolo.cli.output import (
    FOLDER,
    PICTURES,
    TABLES,
    check_pictures,
    check_place,
    write_rows,
    write_samples,
)
from diabolo.errors import InvalidParameterError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_SAMPLES = (*TABLES, *PICTURES, FOLDER)

CodesFile = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Where the codes go: .npy, .csv or .parquet.")
]
CodesName = Annotated[
    str, typer.Argument(metavar="CODES", help="A file of codes that `encode` wrote: .npy, .csv or .parquet.")
]
SamplesFile = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR",
        help="Where the samples go: .npy, .csv, .parquet, a .png with all of them, or a folder of PNG files.",
    ),
]
SplitName = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="Which rows of DATA, where it has a test split of its own: train, test or all.",
    ),
]


def encode(
    out: Output,
    source: SourceOptions,
    model: ModelFile,
    data: DataName,
    output: CodesFile,
    split: SplitName = None,
) -> None:
    """Write the code of each row of DATA (of its training rows, where it has a test split).

    Of a table, the columns that the model was trained on are found by their names.
    """
    output = check_place(output, TABLES)
    estimator = inputs.load_model(model)
    X, told = inputs.pick(inputs.load_for(out, estimator, data, source), split, default="train")
    codes = estimator.transform(X)
    names = [str(name) for name in estimator.get_feature_names_out()]
    write_rows(output, codes, names)
    _report(out, output, codes, f"codes of {told}")


def decode(out: Output, model: ModelFile, codes: CodesName, output: SamplesFile) -> None:
    """Write the samples that codes stand for, in the units of the data the model was trained on."""
    output = check_place(output, _SAMPLES)
    estimator = inputs.load_model(model)
    check_pictures(output, estimator.sample_shape_)
    from diabolo.data import load

    rows = load(codes).X
    samples = estimator.inverse_transform(rows.reshape(len(rows), -1))
    _write(out, output, samples.reshape(-1, *estimator.sample_shape_), "samples decoded")


def reconstruct(
    out: Output,
    source: SourceOptions,
    model: ModelFile,
    data: DataName,
    output: SamplesFile,
    split: SplitName = None,
) -> None:
    """Write each row of DATA as the model restores it (of its training rows, where it has a test split).

    Of a table, the columns that the model was trained on are found by their names.
    """
    output = check_place(output, _SAMPLES)
    estimator = inputs.load_model(model)
    check_pictures(output, estimator.sample_shape_)
    dataset = inputs.load_for(out, estimator, data, source)
    X, told = inputs.pick(dataset, split, default="train")
    _write(out, output, estimator.reconstruct(X), f"reconstructions of {told}", dataset.feature_names)


def sample(
    out: Output,
    model: ModelFile,
    output: SamplesFile,
    n: Annotated[int, typer.Option("-n", "--number", metavar="N", help="How many samples.")] = 16,
    random_state: Annotated[
        int | None,
        typer.Option(
            "--random-state", metavar="N", help="Seed of the draw; not given: other samples each time."
        ),
    ] = None,
) -> None:
    """Write new samples that the model draws."""
    if n < 1:
        raise InvalidParameterError(f"n must be a whole number from 1 up; got {n}. Give for example -n 16.")
    output = check_place(output, _SAMPLES)
    estimator = inputs.load_model(model)
    check_pictures(output, estimator.sample_shape_)
    drawn = estimator.sample(n, random_state=random_state).reshape(-1, *estimator.sample_shape_)
    _write(out, output, drawn, "new samples")


def _write(out: Output, path: Path, samples: Array, what: str, names: tuple[str, ...] | None = None) -> None:
    grey = write_samples(path, samples, names)
    if grey is not None:
        out.note(f"pictures: {grey}")
    _report(out, path, samples, what)


def _report(out: Output, path: Path, rows: Array, what: str) -> None:
    payload = {"output": path, "shape": rows.shape, "what": what}
    shape = " x ".join(str(extent) for extent in rows.shape)
    out.result(payload, lambda to: to.print(f"{path}: {what}, {shape}", soft_wrap=True))
