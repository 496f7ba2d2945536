"""The scikit-learn face."""

from diabolo.estimators.autoencoder import Autoencoder
from diabolo.estimators.files import load
from diabolo.estimators.kinds import (
    ContractiveAutoencoder,
    ConvolutionalAutoencoder,
    DeepAutoencoder,
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    StochasticAutoencoder,
    UndercompleteAutoencoder,
    VariationalAutoencoder,
)

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
    "load",
]
