"""Every parameter of every estimator: name, default, and what it means, said once.

The estimators inherit these fields, the command line makes its options of them and the
docstrings their "Parameters" section. Nothing heavy is imported here: ``diabolo --help``
has to answer at once.

A part can be given as a name (``"masking"``), as a name with values (``"masking:0.3"``,
``"gaussian:std=0.2"``), several joined by ``+`` (``"gaussian:0.1+masking:0.2"``), or as the
part object itself (``MaskingNoise(0.3)``), whose settings a grid search reaches as
``corruption__fraction``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from diabolo.parts import Architecture, Corruption, Latent, Loss, Penalty, Training


def _option(default: Any, description: str) -> Any:
    return field(default=default, metadata={"help": description})


@dataclass(kw_only=True, eq=False, repr=False)
class Parameters:
    """The parameters that all estimators share; a kind only changes their defaults."""

    # the five that everybody sets
    latent_dim: int | None = _option(
        None,
        "Size of the bottleneck, >= 1. None: half of the features, at most 32 "
        "(for sparse kinds: twice the features, at most 1024).",
    )
    hidden_dims: Sequence[int] | None = _option(
        None,
        "Widths of the hidden layers, encoder side; the decoder mirrors them. None: `depth` layers "
        "whose widths follow from the number of features.",
    )
    activation: str | None = _option(
        None,
        "Non-linearity of the hidden layers: relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, selu, "
        "softplus or linear. None: elu.",
    )
    latent_activation: str | None = _option(
        None, "Non-linearity of the code. None: linear, or what the latent part asks for."
    )
    output_activation: str | None = _option(
        None,
        "Non-linearity of the output. clip: cut off at the bounds of the training data. Others must reach "
        "the range of the data. None: the loss's own link, or clip where that is linear, the features share "
        "their bounds (pixels) and the network is not linear.",
    )
    loss: str | Loss = _option(
        "squared_error",
        "What a reconstruction costs: squared_error, gaussian (likelihood in nats, variance learned or "
        "fixed), binary_cross_entropy, absolute, huber, mixed (columns of several kinds).",
    )
    learning_rate: float | None = _option(
        None, "Peak step size of the optimizer, > 0. None: 0.01 for muon, 0.002 for adam."
    )
    # shape
    architecture: str | Architecture = _option("dense", "dense or conv, or a part.")
    depth: int | None = _option(
        1, "Number of hidden layers (dense) or stages (conv) where no widths are given, >= 0."
    )
    channels: Sequence[int] | None = _option(None, "conv: channels of each stage. None: 16, 32, 64, ...")
    norm: str | None = _option(None, "Normalisation in the hidden layers: batch, layer or None.")
    dropout: float = _option(0.0, "Share of hidden units dropped while training, in [0, 1).")
    tied_weights: bool = _option(False, "dense: the decoder uses the encoder's weights, transposed.")
    input_shape: Sequence[int] | None = _option(
        None,
        "Shape of one sample where rows come flattened: (height, width), (channels, height, width), "
        "(channels, length) or (channels, depth, height, width).",
    )
    # objective
    corruption: str | Corruption | None = _option(
        None,
        "Noise on the input while training: gaussian, coarse, masking, salt_and_pepper, chains, or None.",
    )
    latent: str | Latent = _option(
        "deterministic",
        "What happens at the bottleneck: deterministic, noisy, gaussian, topk, batch_topk, jumprelu.",
    )
    penalty: str | Penalty | Sequence[str | Penalty] | None = _option(
        None, "Added to the loss: l1, l0, kl_sparsity, contractive, posterior_kl, several, or None."
    )
    scaling: str | None = _option(
        "auto",
        "How the input is scaled inside (and unscaled on the way out): standard (each feature to mean 0, "
        "variance 1), center (each feature to mean 0, one scale for all), minmax (each feature to [0, 1]), "
        "unit (all features by one range to [0, 1]), None, or auto: by the loss, and one scale for all "
        "features where they share their bounds (pixels).",
    )
    # training
    training: str | Training = _option(
        "end_to_end", "end_to_end, or layerwise (greedy pretraining, then fine-tuning)."
    )
    batch_size: int | None = _option(
        None, "Rows per step, >= 1. None: about the square root of the rows, a power of two from 16 to 1024."
    )
    epochs: int | None = _option(
        None, "Passes over the training rows, >= 1. None: enough for about 6,000 steps, between 20 and 100."
    )
    optimizer: str = _option(
        "muon",
        "muon: orthogonalised steps for the matrices, Adam's for the rest (slower steps, far fewer); "
        "or adam.",
    )
    schedule: str = _option(
        "cosine", "Course of the learning rate: constant, cosine (with a short warm-up), plateau."
    )
    weight_decay: float = _option(
        0.1, "Decoupled weight decay: each step shrinks the weights by its rate times this, >= 0."
    )
    clip_norm: float | None = _option(None, "Largest norm of the gradient, > 0. None: unbounded.")
    validation_fraction: float = _option(
        0.1, "Share of rows held out to choose the best weights, in [0, 1). 0: the training loss chooses."
    )
    patience: int | None = _option(
        None,
        "Epochs without a better validation loss before training stops, >= 1. None: never stop early; the "
        "best weights are kept all the same, and a cosine schedule needs its end.",
    )
    engine: str = _option(
        "auto",
        "The step behind the training: dense (written by hand, for dense layers without normalisation), "
        "autograd (any net), compiled (any net, by a C++ compiler, if the training is long enough to pay for "
        "that), or auto: dense where it can, else autograd.",
    )
    precision: str = _option(
        "float32",
        "Numbers in the products of wide layers: float32, or bf16 (half as long, faster where the processor "
        "multiplies it natively; weights stay in float32).",
    )
    device: str = _option("auto", "auto (a CUDA GPU where there is one), cpu, cuda, mps.")
    random_state: int | np.random.RandomState | None = _option(
        None, "Seed. The same seed on the same machine gives the same bytes. None: another run each time."
    )
    verbose: int = _option(0, "0: silent; 1: one line per epoch.")


def help_of(name: str) -> str:
    """Return the description of the parameter ``name``."""
    return str(Parameters.__dataclass_fields__[name].metadata["help"])


def parameters_section() -> str:
    """Return the numpydoc "Parameters" section that every estimator's docstring ends with."""
    lines = ["Parameters", "----------"]
    for name, spec in Parameters.__dataclass_fields__.items():
        lines.append(f"{name} : {spec.type}, default={spec.default!r}")
        lines.append("    " + str(spec.metadata["help"]))
    return "\n".join(lines)
