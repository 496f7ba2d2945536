"""The kinds: presets of ``Autoencoder`` that name other defaults and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from diabolo.estimators.autoencoder import Autoencoder


@dataclass(kw_only=True, eq=False, repr=False)
class UndercompleteAutoencoder(Autoencoder):
    """A code narrower than the input: what passes must be compressed. Refuses any other size.

    Rumelhart, Hinton, Williams 1986.
    """

    _undercomplete: ClassVar[bool] = True


@dataclass(kw_only=True, eq=False, repr=False)
class DeepAutoencoder(Autoencoder):
    """Several hidden layers on each side, trained end to end (Hinton & Salakhutdinov 2006)."""

    depth: int | None = 3


@dataclass(kw_only=True, eq=False, repr=False)
class StackedAutoencoder(Autoencoder):
    """Pairs of layers pretrained from the bottom up, then fine-tuned together (Bengio et al. 2007)."""

    _needs: ClassVar[tuple[str, ...]] = ("training",)
    depth: int | None = 3
    training: Any = "layerwise"


@dataclass(kw_only=True, eq=False, repr=False)
class ConvolutionalAutoencoder(Autoencoder):
    """Filters shared over all positions of a signal, image or volume (Masci et al. 2011).

    Rows without ``input_shape`` are read as signals of one channel.
    """

    architecture: Any = "conv"
    depth: int | None = 2


@dataclass(kw_only=True, eq=False, repr=False)
class SparseAutoencoder(Autoencoder):
    """An over-complete code of which few units are active (Ng 2011; Makhzani & Frey 2013).

    The default keeps the k largest units (``latent="topk"``). The textbook variants are
    ``latent="deterministic", latent_activation="sigmoid", penalty="kl_sparsity"`` and
    ``latent="deterministic", latent_activation="relu", penalty="l1", tied_weights=True``.
    """

    depth: int | None = 0
    latent: Any = "topk"


@dataclass(kw_only=True, eq=False, repr=False)
class DenoisingAutoencoder(Autoencoder):
    """Restores the clean input from a corrupted one (Vincent et al. 2008)."""

    _needs: ClassVar[tuple[str, ...]] = ("corruption",)
    corruption: Any = "gaussian"


@dataclass(kw_only=True, eq=False, repr=False)
class ContractiveAutoencoder(Autoencoder):
    """Penalises the squared Frobenius norm of the encoder's Jacobian (Rifai et al. 2011).

    The weights are tied, as in the paper: untied, the decoder could undo what the penalty asks of the
    encoder. The code is linear and there is one hidden layer, because the paper's single sigmoid layer
    (``depth=0, latent_activation="sigmoid"``) needs an over-complete code: with a narrow one it cannot
    reach PCA's error at any weight of the penalty.
    """

    _needs: ClassVar[tuple[str, ...]] = ("penalty",)
    tied_weights: bool = True
    penalty: Any = "contractive:0.3"


@dataclass(kw_only=True, eq=False, repr=False)
class VariationalAutoencoder(Autoencoder):
    """A Gaussian posterior over the code; maximises a bound on the likelihood (Kingma & Welling 2013).

    The default loss is a Gaussian likelihood whose variance is learned, which keeps the posterior
    from collapsing without a weight to tune (Rybkin et al. 2021).
    """

    _needs: ClassVar[tuple[str, ...]] = ("latent", "penalty")
    loss: Any = "gaussian"
    latent: Any = "gaussian"
    penalty: Any = "posterior_kl"


@dataclass(kw_only=True, eq=False, repr=False)
class StochasticAutoencoder(Autoencoder):
    """A code of unit power sent through Gaussian noise, so that near codes must mean near inputs.

    Poole, Sohl-Dickstein, Ganguli 2014.
    """

    _needs: ClassVar[tuple[str, ...]] = ("latent",)
    latent: Any = "noisy"
