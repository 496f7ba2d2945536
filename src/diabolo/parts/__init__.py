"""The six choices that make an autoencoder: torch only; no scikit-learn, no files, no printing."""

from diabolo.parts.activations import ACTIVATIONS, Activation, activation
from diabolo.parts.architectures import Architecture, Conv, Dense, Level, Network
from diabolo.parts.base import Part, as_part, check_range, known_parts
from diabolo.parts.corruptions import (
    Chain,
    CoarseNoise,
    Corruption,
    GaussianNoise,
    MaskingNoise,
    SaltAndPepper,
)
from diabolo.parts.latents import (
    BatchTopK,
    Code,
    Deterministic,
    GaussianPosterior,
    JumpReLU,
    Latent,
    LatentModule,
    Noisy,
    TopK,
)
from diabolo.parts.losses import Absolute, BinaryCrossEntropy, Gaussian, Huber, Loss, LossModule, SquaredError
from diabolo.parts.mixed import Mixed, MixedModule
from diabolo.parts.penalties import L0, L1, Contractive, ForwardPass, KLSparsity, Penalty, PosteriorKL
from diabolo.parts.trainings import EndToEnd, LayerWise, Training

__all__ = [
    "ACTIVATIONS",
    "L0",
    "L1",
    "Absolute",
    "Activation",
    "Architecture",
    "BatchTopK",
    "BinaryCrossEntropy",
    "Chain",
    "CoarseNoise",
    "Code",
    "Contractive",
    "Conv",
    "Corruption",
    "Dense",
    "Deterministic",
    "EndToEnd",
    "ForwardPass",
    "Gaussian",
    "GaussianNoise",
    "GaussianPosterior",
    "Huber",
    "JumpReLU",
    "KLSparsity",
    "Latent",
    "LatentModule",
    "LayerWise",
    "Level",
    "Loss",
    "LossModule",
    "MaskingNoise",
    "Mixed",
    "MixedModule",
    "Network",
    "Noisy",
    "Part",
    "Penalty",
    "PosteriorKL",
    "SaltAndPepper",
    "SquaredError",
    "TopK",
    "Training",
    "activation",
    "as_part",
    "check_range",
    "known_parts",
]
