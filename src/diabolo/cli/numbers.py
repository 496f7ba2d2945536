"""The numbers that commands print beside each other: the model, PCA and the mean predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diabolo.cli import streams
from diabolo.cli.console import Output, number
from diabolo.cli.progress import counting
from diabolo.errors import InvalidDataError

if TYPE_CHECKING:
    import numpy as np

    from diabolo import Autoencoder
    from diabolo.data import Source

    Array = np.ndarray[Any, np.dtype[Any]]

_AT_ONCE = 8192  # rows in memory at a time, about


def model_numbers(estimator: Autoencoder, X_test: Array) -> dict[str, Any]:
    """Return the model's squared error in the units of ``X_test``, its R^2, and what its code does."""
    return _code_numbers(estimator, X_test) | {
        "n_test": len(X_test),
        "squared_error": float(estimator.reconstruction_error(X_test).mean()),
        "r2": float(estimator.score(X_test)),
    }


def _code_numbers(estimator: Autoencoder, X: Array) -> dict[str, Any]:
    """Return what the code does on X."""
    from diabolo.report.compare import used_units

    codes = estimator.transform(X)
    found = estimator.diagnostics(X)
    return {
        "code_size": codes.shape[1],
        "used_units": used_units(codes, found, estimator.n_features_in_),
        "scaling": estimator.recipe_.scaling,
        "diagnostics": found,
    }


def baseline_numbers(X_train: Array, X_test: Array, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the errors of PCA and of the training mean, both fitted on ``X_train``.

    PCA gets as many components as the code of ``model_numbers`` has units, or as a sample uses of them.
    """
    from diabolo.metrics import flat, pca_reconstruction, squared_error

    size = payload["used_units"] or payload["code_size"]
    restored = pca_reconstruction(X_train, X_test, size)
    mean = flat(X_train).mean(axis=0, dtype="float64")
    return {
        "pca_code_size": min(size, *flat(X_train).shape),
        "pca_squared_error": float(squared_error(X_test, restored).mean()),
        "mean_squared_error": float(squared_error(X_test, mean[None]).mean()),
    }


def stream_numbers(
    out: Output, estimator: Autoencoder, stream: Source, X_train: Array | None
) -> dict[str, Any]:
    """Return both of rows that are read piece by piece, in three passes; without ``X_train`` only the former.

    What the code does is measured on 10,000 rows, drawn at random, or as many as take 64 MB.
    """
    from diabolo.metrics import flat, pca, squared_error

    r2 = float(estimator.score(stream))  # first: it names the row of a value that is none
    sample = streams.sample_of(stream)
    if not len(sample):
        raise InvalidDataError(streams.NO_ROW)
    numbers = _code_numbers(estimator, sample) | {"r2": r2}
    n, sums = 0, {"squared_error": 0.0}
    if X_train is not None:
        fitted = pca(X_train, numbers["used_units"] or numbers["code_size"])
        mean = flat(X_train).mean(axis=0, dtype="float64")[None]
        numbers["pca_code_size"] = int(fitted.n_components_)
        sums |= {"pca_squared_error": 0.0, "mean_squared_error": 0.0}
    for rows in counting(out, "errors", stream.batches(_AT_ONCE, None), len(stream)):
        n += len(rows)
        sums["squared_error"] += float(estimator.reconstruction_error(rows).sum(dtype="float64"))
        if X_train is not None:
            restored = fitted.inverse_transform(fitted.transform(flat(rows)))
            sums["pca_squared_error"] += float(squared_error(rows, restored).sum())
            sums["mean_squared_error"] += float(squared_error(rows, mean).sum())
    return numbers | {"n_test": n} | {name: total / n for name, total in sums.items()}


def told(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the numbers as names and values for a person."""
    pairs = [("squared error per sample", number(numbers["squared_error"]))]
    if "pca_squared_error" in numbers:
        pairs += [
            (f"PCA, {numbers['pca_code_size']} components", number(numbers["pca_squared_error"])),
            ("mean predictor", number(numbers["mean_squared_error"])),
        ]
    code = f"{numbers['code_size']}"
    if numbers["used_units"] is not None:
        code += f", of which a sample uses {numbers['used_units']}"
    r2 = "R^2, features scaled" if numbers["scaling"] in ("standard", "minmax") else "R^2"
    return [*pairs, (r2, number(numbers["r2"])), ("code size", code)]
