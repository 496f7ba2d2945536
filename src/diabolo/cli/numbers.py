"""The numbers that commands print beside each other: the model, PCA and the mean predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diabolo.cli.console import number

if TYPE_CHECKING:
    import numpy as np

    from diabolo import Autoencoder

    Array = np.ndarray[Any, np.dtype[Any]]


def model_numbers(estimator: Autoencoder, X_test: Array) -> dict[str, Any]:
    """Return the model's squared error in the units of ``X_test``, its R^2, and what its code does."""
    from diabolo.report.compare import used_units

    codes = estimator.transform(X_test)
    found = estimator.diagnostics(X_test)
    return {
        "code_size": codes.shape[1],
        "used_units": used_units(codes, found, estimator.n_features_in_),
        "n_test": len(X_test),
        "squared_error": float(estimator.reconstruction_error(X_test).mean()),
        "r2": float(estimator.score(X_test)),
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
