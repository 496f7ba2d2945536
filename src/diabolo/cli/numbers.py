"""The numbers that commands print beside each other: the model, PCA and the mean predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diabolo.cli.console import number

if TYPE_CHECKING:
    import numpy as np

    from diabolo import Autoencoder

    Array = np.ndarray[Any, np.dtype[Any]]


def model_numbers(estimator: Autoencoder, X_test: Array) -> dict[str, Any]:
    """Return the model's squared error per sample, in the units of ``X_test``, and its R^2 there."""
    return {
        "code_size": int(estimator.transform(X_test[:1]).shape[1]),
        "n_test": len(X_test),
        "squared_error": float(estimator.reconstruction_error(X_test).mean()),
        "r2": float(estimator.score(X_test)),
    }


def baseline_numbers(X_train: Array, X_test: Array, code_size: int) -> dict[str, Any]:
    """Return the errors of PCA at the same code size and of the training mean, fitted on ``X_train``."""
    from diabolo.metrics import flat, pca_reconstruction, squared_error

    restored = pca_reconstruction(X_train, X_test, code_size)
    mean = flat(X_train).mean(axis=0, dtype="float64")
    return {
        "pca_code_size": min(code_size, *flat(X_train).shape),
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
    return [*pairs, ("R^2", number(numbers["r2"]))]
