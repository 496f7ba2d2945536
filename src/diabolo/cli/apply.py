"""What one does with a trained model: ``encode``, ``decode``, ``reconstruct``, ``sample``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs, streams
from diabolo.cli.console import Output
from diabolo.cli.options import DataName, ModelFile, SourceOptions, StreamOptions
from diabolo.cli.output import (
    FOLDER,
    PICTURES,
    TABLES,
    check_pictures,
    check_place,
    write_rows,
    write_samples,
)
from diabolo.cli.workers import RayOptions, check_skipping, encode_on_ray, everywhere, part_rows
from diabolo.errors import InvalidParameterError

if TYPE_CHECKING:
    import numpy as np

    from diabolo import Autoencoder
    from diabolo.data import Source

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
    options: StreamOptions,
    ray: RayOptions,
    split: SplitName = None,
) -> None:
    """Write the code of each row of DATA (of its training rows, where it has a test split).

    Of a table, the columns that the model was trained on are found by their names. Data larger than the
    memory are read, and their codes written, piece by piece. With --ray every worker reads all of DATA and
    encodes a part of it.
    """
    output = check_place(output, TABLES, read=(data, model))
    ray.check()
    check_skipping(options.broken, ray)
    estimator = inputs.load_model(model)
    names = [str(name) for name in estimator.get_feature_names_out()]
    if ray.ray is not None:  # one decision for all: the workers' machines have other memories
        options = replace(options, stream=streams.by_pieces(data, source, options))

    def by_ray(n: int) -> Iterator[Array]:
        place, home = everywhere(data, source)
        settings = {"data": place, "source": home, "options": options, "split": split}
        return encode_on_ray(ray, model.resolve(), len(names), -(-n // part_rows(estimator)), settings)

    stream = streams.open_for(out, estimator, data, source, options)
    if stream is not None:
        parts = estimator.transform_batches(stream) if ray.ray is None else by_ray(len(stream))
        _stream(out, output, data, stream, split, names, parts, "codes")
        return
    X, told = inputs.pick(inputs.load_for(out, estimator, data, source), split, default="train")
    if ray.ray is not None:
        shape = streams.write_parts(out, output, by_ray(len(X)), len(X), names, "codes")
        _report(out, output, shape, f"codes of {told}")
        return
    codes = estimator.transform(X)
    write_rows(output, codes, names)
    _report(out, output, codes.shape, f"codes of {told}")


def decode(out: Output, model: ModelFile, codes: CodesName, output: SamplesFile) -> None:
    """Write the samples that codes stand for, in the units of the data the model was trained on."""
    output = check_place(output, _SAMPLES, read=(codes, model))
    estimator = inputs.load_model(model)
    check_pictures(output, estimator.sample_shape_)
    from diabolo.data import load

    rows = load(codes).X
    samples = estimator.inverse_transform(rows.reshape(len(rows), -1))
    samples = samples.reshape(-1, *estimator.sample_shape_)
    _write(out, output, samples, "samples decoded", _feature_names(estimator))


def reconstruct(
    out: Output,
    source: SourceOptions,
    model: ModelFile,
    data: DataName,
    output: SamplesFile,
    options: StreamOptions,
    split: SplitName = None,
) -> None:
    """Write each row of DATA as the model restores it (of its training rows, where it has a test split).

    Of a table, the columns that the model was trained on are found by their names. Data larger than the
    memory are read, and what is restored written, piece by piece.
    """
    output = check_place(output, _SAMPLES, read=(data, model))
    estimator = inputs.load_model(model)
    check_pictures(output, estimator.sample_shape_)
    stream = streams.open_for(out, estimator, data, source, options)
    if stream is not None:
        streams.check_table(output)
        restored = estimator.reconstruct_batches(stream)
        _stream(out, output, data, stream, split, stream.feature_names, restored, "reconstructions")
        return
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
    output = check_place(output, _SAMPLES, read=(model,))
    estimator = inputs.load_model(model)
    check_pictures(output, estimator.sample_shape_)
    drawn = estimator.sample(n, random_state=random_state).reshape(-1, *estimator.sample_shape_)
    _write(out, output, drawn, "new samples", _feature_names(estimator))


def _feature_names(estimator: Autoencoder) -> tuple[str, ...] | None:
    """Return the names of the columns that the model was trained on, where its file remembers them."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else tuple(map(str, names))


def _stream(
    out: Output,
    output: Path,
    data: str,
    stream: Source,
    split: str | None,
    columns: Sequence[str] | None,
    parts: Iterable[Array],
    what: str,
) -> None:
    """Write what comes of a source, part by part."""
    name = streams.name_of(data)
    inputs.refuse_test(inputs.check_split(split), name)
    shape = streams.write_parts(out, output, parts, len(stream), columns, what)
    streams.note_unread(out, name, stream, shape[0])
    _report(out, output, shape, f"{what} of {shape[0]} rows of {name}")


def _write(out: Output, path: Path, samples: Array, what: str, names: tuple[str, ...] | None = None) -> None:
    grey = write_samples(path, samples, names)
    if grey is not None:
        out.note(f"pictures: {grey}")
    _report(out, path, samples.shape, what)


def _report(out: Output, path: Path, shape: tuple[int, ...], what: str) -> None:
    payload = {"output": path, "shape": shape, "what": what}
    extents = " x ".join(str(extent) for extent in shape)
    out.result(payload, lambda to: to.print(f"{path}: {what}, {extents}", soft_wrap=True))
