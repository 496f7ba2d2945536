"""``diabolo evaluate``: how well a model restores data, and what its code does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs, numbers, streams
from diabolo.cli.apply import SplitName
from diabolo.cli.console import Output, counted, number, print_pairs
from diabolo.cli.options import DataName, ModelFile, SourceOptions, StreamOptions

if TYPE_CHECKING:
    import numpy as np

    from diabolo import Autoencoder

    Array = np.ndarray[Any, np.dtype[Any]]


def evaluate(
    out: Output,
    source: SourceOptions,
    model: ModelFile,
    data: DataName,
    options: StreamOptions,
    split: SplitName = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="DATA",
            help="Other data, whose training rows PCA (of the same code size) and the mean predictor are "
            "fitted on, to print their errors beside the model's. Not given: the training rows of DATA where "
            "its test rows are evaluated; else neither is printed.",
        ),
    ] = None,
) -> None:
    """Say how well a model restores DATA (its test rows, where it has some), and what its code does.

    Of a table, the columns that the model was trained on are found by their names. PCA and the mean
    predictor stand beside it only where there are other rows to fit them on: fitted on
    the very rows that are evaluated they would look better than they are. Data larger than the memory are
    read piece by piece, three times; PCA is fitted on 10,000 rows of such data, and what the code does is
    seen on as many, drawn at random.
    """
    estimator = inputs.load_model(model)
    stream = streams.open_for(out, estimator, data, source, options)
    name = streams.name_of(data)
    fitted_on: tuple[Array, str] | None = None
    if baseline is not None:
        fitted_on = _fitted_on(out, estimator, baseline, source)
    if stream is not None:
        inputs.refuse_test(inputs.check_split(split), name)
        out.note(f"{name}: {counted(len(stream), 'row')}, read piece by piece")
        found = numbers.stream_numbers(out, estimator, stream, None if fitted_on is None else fitted_on[0])
        streams.note_unread(out, name, stream, found["n_test"])
        told = f"{found['n_test']} rows of {name}"
    else:
        dataset = inputs.load_for(out, estimator, data, source)
        X, told = inputs.pick(dataset, split, default="test")
        found = numbers.model_numbers(estimator, X)
        if fitted_on is None and dataset.X_test is not None and split in (None, "test"):
            fitted_on = (dataset.X, f"the {len(dataset.X)} training rows of {dataset.name}")
        if fitted_on is not None:
            found |= numbers.baseline_numbers(fitted_on[0], X, found)
    payload: dict[str, Any] = {"model": model, "tested_on": told, **found}
    if fitted_on is not None:
        payload["pca_fitted_on"] = fitted_on[1]

    pairs = numbers.told(payload)
    if fitted_on is not None:
        pairs.append(("PCA fitted on", fitted_on[1]))
    pairs += _diagnostics(payload["diagnostics"])
    out.result(payload, lambda to: print_pairs(to, pairs, title=f"{model} on {told}"))
    if fitted_on is None:
        out.note("For PCA and the mean predictor beside it, give the training data with --baseline.")


def _fitted_on(out: Output, estimator: Autoencoder, data: str, source: SourceOptions) -> tuple[Array, str]:
    """Return the rows that PCA and the mean are fitted on, and in words which these are.

    How DATA is to be read says nothing about them: they may be data of another kind.
    """
    stream = streams.open_for(out, estimator, data, source, StreamOptions())
    if stream is not None:
        rows = streams.some_rows(out, stream, data)
        return rows, f"{len(rows)} of {len(stream)} rows of {streams.name_of(data)}"
    other = inputs.load_for(out, estimator, data, source)
    return other.X, f"{len(other.X)} rows of {other.name}"


def _diagnostics(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what `diagnostics` found as names and values for a person."""
    size = found["code_size"]
    pairs = [
        ("active units", f"{found['active_units']} of {size}"),
        ("dead units", f"{found['dead_units']} of {size}"),
        ("active share of the code, per sample", _percent(found["active_share"])),
        ("saturated share", _percent(found["saturated_share"])),
        ("squared norm of the encoder's Jacobian", number(found["jacobian_norm"])),
        ("the same, relative to its gain along the data", number(found["relative_jacobian"])),
    ]
    kl = found.get("kl_per_unit")
    if kl is not None:
        pairs.append(("KL divergence, summed over the code", f"{number(float(sum(kl)))} nats"))
    return pairs


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.1f} %"  # NaN: units that cannot saturate
