"""The table of the kinds: which exist, where each comes from. Light, since the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One line of the table of kinds."""

    name: str
    estimator: str
    summary: str
    paper: str
    year: int


KINDS: tuple[Kind, ...] = (
    Kind(
        "autoencoder",
        "Autoencoder",
        "all six choices open; with penalties the regularized autoencoder",
        "Goodfellow, Bengio, Courville: Deep Learning, ch. 14",
        2016,
    ),
    Kind(
        "undercomplete",
        "UndercompleteAutoencoder",
        "a code narrower than the input; refuses any other",
        "Rumelhart, Hinton, Williams: Learning internal representations by error propagation",
        1986,
    ),
    Kind(
        "deep",
        "DeepAutoencoder",
        "several hidden layers on each side, trained end to end",
        "Hinton, Salakhutdinov: Reducing the dimensionality of data with neural networks",
        2006,
    ),
    Kind(
        "stacked",
        "StackedAutoencoder",
        "pairs of layers pretrained from the bottom up, then the whole fine-tuned",
        "Bengio, Lamblin, Popovici, Larochelle: Greedy layer-wise training of deep networks",
        2007,
    ),
    Kind(
        "convolutional",
        "ConvolutionalAutoencoder",
        "shared filters for signals, images and volumes",
        "Masci, Meier, Ciresan, Schmidhuber: Stacked convolutional auto-encoders",
        2011,
    ),
    Kind(
        "sparse",
        "SparseAutoencoder",
        "an over-complete code of which few units are active",
        "Makhzani, Frey: k-sparse autoencoders",
        2013,
    ),
    Kind(
        "denoising",
        "DenoisingAutoencoder",
        "restores the clean input from a corrupted one",
        "Vincent, Larochelle, Bengio, Manzagol: Extracting and composing robust features",
        2008,
    ),
    Kind(
        "contractive",
        "ContractiveAutoencoder",
        "penalises the squared Frobenius norm of the encoder's Jacobian",
        "Rifai, Vincent, Muller, Glorot, Bengio: Contractive auto-encoders",
        2011,
    ),
    Kind(
        "variational",
        "VariationalAutoencoder",
        "a Gaussian posterior over the code; maximises a bound on the likelihood",
        "Kingma, Welling: Auto-encoding variational Bayes",
        2013,
    ),
    Kind(
        "stochastic",
        "StochasticAutoencoder",
        "a code of unit power sent through Gaussian noise",
        "Poole, Sohl-Dickstein, Ganguli: Analyzing noise in autoencoders and deep networks",
        2014,
    ),
)

BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}
BY_ESTIMATOR: dict[str, Kind] = {kind.estimator: kind for kind in KINDS}
