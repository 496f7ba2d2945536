"""diabolo: every kind of autoencoder, as scikit-learn estimators and a command line.

Names load when they are first touched, so ``import diabolo`` costs nothing; torch and
scikit-learn come with the first estimator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diabolo.kinds import KINDS
from diabolo.loading import touched

if TYPE_CHECKING:
    from diabolo.estimators import (
        Autoencoder,
        ContractiveAutoencoder,
        ConvolutionalAutoencoder,
        DeepAutoencoder,
        DenoisingAutoencoder,
        SparseAutoencoder,
        StackedAutoencoder,
        StochasticAutoencoder,
        UndercompleteAutoencoder,
        VariationalAutoencoder,
        load,
    )

    __version__: str

__all__ = [
    "Autoencoder",
    "ContractiveAutoencoder",
    "ConvolutionalAutoencoder",
    "DeepAutoencoder",
    "DenoisingAutoencoder",
    "SparseAutoencoder",
    "StackedAutoencoder",
    "StochasticAutoencoder",
    "UndercompleteAutoencoder",
    "VariationalAutoencoder",
    "__version__",
    "all_estimators",
    "load",
]


def all_estimators() -> list[tuple[str, type[Autoencoder]]]:
    """Return name and class of every estimator, in the order of the table of kinds."""
    return [(kind.estimator, touched("diabolo.estimators", kind.estimator)) for kind in KINDS]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("diabolo")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in __all__:
        return touched("diabolo.estimators", name)
    raise AttributeError(f"module 'diabolo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
