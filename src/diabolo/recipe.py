"""A recipe: one frozen value that names a whole run, with nothing left to be guessed.

``resolve`` makes it from an estimator's parameters and the data's shape, and is the one place
where parts are checked against each other. ``Recipe.from_toml`` reads back what ``Recipe.to_toml`` wrote.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import tomli_w
import torch

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import IncompatiblePartsError, InvalidParameterError
from diabolo.names import check_name, did_you_mean
from diabolo.objective import Objective
from diabolo.parameters import Parameters
from diabolo.parts import (
    Architecture,
    Chain,
    Conv,
    Corruption,
    Dense,
    KLSparsity,
    Latent,
    LayerWise,
    Loss,
    Penalty,
    Training,
    activation,
    as_part,
    check_range,
)
from diabolo.parts.activations import ACTIVATIONS, Activate
from diabolo.parts.base import check_widths, to_plain
from diabolo.parts.losses import Clip, Linked

SCALINGS = ("auto", "standard", "center", "minmax", "unit")
_NAMES = {
    "optimizer": ("adam", "muon"),
    "schedule": ("constant", "cosine", "plateau"),
    "engine": ("auto", "autograd", "dense", "compiled"),
    "precision": ("float32", "bf16"),
}
_RATES = {"adam": 2e-3, "muon": 1e-2}
DEVICES = ("auto", "cpu", "cuda", "mps")
_STEPS = 6_000  # how many steps the default number of epochs aims at


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, resolved: the names are those of the estimators' parameters."""

    architecture: Architecture
    latent_dim: int
    latent: Latent
    latent_activation: str | None
    output_activation: str | None
    loss: Loss
    corruption: Corruption | None
    penalty: tuple[Penalty, ...]
    scaling: str | None
    training: Training
    input_shape: tuple[int, ...]
    learning_rate: float
    optimizer: str
    batch_size: int
    epochs: int
    schedule: str
    weight_decay: float
    clip_norm: float | None
    validation_fraction: float
    patience: int | None
    engine: str
    precision: str
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values only (parts as dicts with their name), without the Nones."""
        plain = {f.name: to_plain(getattr(self, f.name)) for f in fields(self)}
        return {key: value for key, value in plain.items() if value is not None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Build the recipe that ``to_dict`` wrote down.

        Raises
        ------
        InvalidParameterError
            For unknown or missing keys, settings out of range, or settings that do not fit each other.
        """
        names = [f.name for f in fields(cls)]
        for key in data:
            if key not in names:
                raise InvalidParameterError(
                    f"a recipe's key must be a known name; got {key!r}. {did_you_mean(key, names)}"
                )
        values: dict[str, Any] = dict.fromkeys(names) | data
        for f in fields(cls):
            if values[f.name] is None and "None" not in str(f.type):
                raise InvalidParameterError(f"a recipe must have the key {f.name!r}; got none.")
        for key, axis in _AXES.items():
            if values[key] is not None:
                values[key] = as_part(axis, key, values[key])
        values["penalty"] = as_penalties(values["penalty"])
        check_widths("input_shape", values["input_shape"])
        values["input_shape"] = tuple(values["input_shape"])
        recipe = cls(**values)
        _check_read(recipe)
        return recipe

    def to_toml(self) -> str:
        """Return the recipe as TOML."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """Build the recipe that ``to_toml`` wrote down."""
        return cls.from_dict(tomllib.loads(text))

    def build(self, generator: torch.Generator | None) -> AutoencoderModule:
        """Build the module, its weights drawn from ``generator`` (None: left undefined, to be loaded)."""
        network = self.architecture.build(
            self.input_shape, self.latent_dim, self.latent.parameters_per_unit, generator
        )
        latent = self.latent.build(self.latent_dim, self.latent_activation)
        loss = self.loss.build()
        if self.output_activation not in (None, self.loss.link):
            clipped = self.output_activation == Clip.NAME
            loss = Linked(loss, Clip(self.input_shape) if clipped else Activate(self.output_activation))
        return AutoencoderModule(network, latent, loss, self.corruption)

    def objective(self) -> Objective:
        """Return the objective of the whole."""
        return Objective(self.penalty, getattr(self.latent, "auxiliary_weight", 0.0))


_AXES: dict[str, Any] = {
    "architecture": Architecture,
    "latent": Latent,
    "loss": Loss,
    "corruption": Corruption,
    "training": Training,
}


def as_corruption(value: object) -> Corruption | None:
    """Read the parameter ``corruption``: None, a part, or a text, several joined by ``+``."""
    if value is None or value == "none":
        return None
    if isinstance(value, str) and "+" in value:
        return Chain([as_part(Corruption, "corruption", t) for t in value.split("+")])  # type: ignore[type-abstract]
    return as_part(Corruption, "corruption", value)  # type: ignore[type-abstract]


def as_penalties(value: object) -> tuple[Penalty, ...]:
    """Read the parameter ``penalty``: None, one, or several in a sequence or joined by ``+``."""
    if value is None or value == "none":
        return ()
    if isinstance(value, str):
        value = value.split("+")
    if not isinstance(value, Sequence):
        value = [value]
    penalties = tuple(as_part(Penalty, "penalty", p) for p in value)  # type: ignore[type-abstract]
    names = [p.name for p in penalties]
    for name in names:
        if names.count(name) > 1:
            raise InvalidParameterError(f"every penalty must be given once; got {name!r} twice.")
    return penalties


def resolve(
    p: Parameters,
    *,
    shape: tuple[int, ...],
    n_rows: int,
    scaling: str | None,
    bounded: bool,
    seed: int,
    default_depth: int | None,
) -> Recipe:
    """Turn an estimator's parameters into a recipe for samples of ``shape``.

    Parameters
    ----------
    p : Parameters
        As the user set them.
    shape : tuple of int
        One sample's shape.
    n_rows : int
        Rows that training will see.
    scaling : str or None
        What "auto" was resolved to by looking at the data.
    bounded : bool
        Whether the features share their bounds, which an output left open then keeps to.
    seed : int
        Where all chance of the run comes from.
    default_depth : int or None
        The kind's own ``depth``: a depth that differs from it was asked for.

    Raises
    ------
    InvalidParameterError
        A setting out of range.
    IncompatiblePartsError
        Two settings that do not fit each other, or one that would have no effect.
    """
    latent = as_part(Latent, "latent", p.latent)  # type: ignore[type-abstract]
    loss = as_part(Loss, "loss", p.loss)  # type: ignore[type-abstract]
    penalties = as_penalties(p.penalty)
    training = as_part(Training, "training", p.training)
    loss.check_fits(shape, scaling)
    latent_dim = _latent_dim(p, prod(shape), latent, penalties)
    architecture = _architecture(p, prod(shape), latent_dim, default_depth)
    if p.latent_activation is not None:
        activation(p.latent_activation, "latent_activation")
    for penalty in penalties:
        penalty.check_fits(latent, p.latent_activation)
    output = p.output_activation
    if output is None and bounded and loss.link == "linear" and architecture.nonlinear:
        output = Clip.NAME
    _check_output(output, loss)
    if isinstance(training, LayerWise):
        _check_layerwise(architecture)
    _check_training(p)
    batch_size = min(p.batch_size or default_batch_size(n_rows), n_rows)
    steps_per_epoch = max(1, n_rows // batch_size)
    return Recipe(
        architecture=architecture,
        latent_dim=latent_dim,
        latent=latent,
        latent_activation=p.latent_activation,
        output_activation=output,
        loss=loss,
        corruption=as_corruption(p.corruption),
        penalty=penalties,
        scaling=scaling,
        training=training,
        input_shape=tuple(shape),
        learning_rate=float(_RATES[p.optimizer] if p.learning_rate is None else p.learning_rate),
        optimizer=p.optimizer,
        batch_size=batch_size,
        epochs=p.epochs or min(100, max(20, round(_STEPS / steps_per_epoch))),
        schedule=p.schedule,
        weight_decay=float(p.weight_decay),
        clip_norm=p.clip_norm,
        validation_fraction=float(p.validation_fraction),
        patience=p.patience,
        engine=p.engine,
        precision=p.precision,
        seed=seed,
    )


def _latent_dim(p: Parameters, n_features: int, latent: Latent, penalties: tuple[Penalty, ...]) -> int:
    if p.latent_dim is not None:
        check_range("latent_dim", p.latent_dim, low=1, integer=True)
        return int(p.latent_dim)
    if latent.overcomplete or any(isinstance(q, KLSparsity) for q in penalties):
        return min(1024, 2 * n_features)
    return max(1, min(32, n_features // 2))


def hidden_widths(n_features: int, latent_dim: int, depth: int) -> tuple[int, ...]:
    """Return the default widths: a power of two from 64 to 1024, halved by each layer.

    The first is the greatest within the number of features. No layer is narrower than twice the
    code, so that the code stays the bottleneck.

    >>> hidden_widths(784, 30, 3)
    (512, 256, 128)
    >>> hidden_widths(30, 10, 2)
    (64, 32)
    """
    first = min(1024, max(64, 1 << (n_features.bit_length() - 1)))
    least = min(first, 1 << (2 * latent_dim - 1).bit_length())
    return tuple(max(first >> i, least) for i in range(depth))


def default_batch_size(n_rows: int) -> int:
    """Return the power of two nearest to the square root of the rows, from 16 to 1024.

    >>> [default_batch_size(n) for n in (100, 1500, 60_000, 10_000_000)]
    [16, 32, 256, 1024]
    """
    return int(min(1024, max(16, 2 ** round(math.log2(max(n_rows, 1)) / 2))))


def _architecture(p: Parameters, n_features: int, latent_dim: int, default_depth: int | None) -> Architecture:
    own = {
        "hidden_dims": None,
        "channels": None,
        "activation": None,
        "norm": None,
        "dropout": 0.0,
        "tied_weights": False,
    }
    given = [name for name, default in own.items() if not _is(getattr(p, name), default)]
    if not isinstance(p.architecture, str) or ":" in p.architecture:
        if given:
            raise IncompatiblePartsError(
                f"{given[0]} must be left out where architecture is a part with settings of its own; "
                f"got {getattr(p, given[0])!r}. Set it in the part."
            )
        return as_part(Architecture, "architecture", p.architecture)  # type: ignore[type-abstract]
    kind = check_name("architecture", p.architecture, (Dense.name, Conv.name))
    foreign = ("channels",) if kind == Dense.name else ("hidden_dims", "tied_weights")
    for name in foreign:
        if name in given:
            raise IncompatiblePartsError(
                f"{name} must be left out for architecture={kind!r}; got {getattr(p, name)!r}. "
                + ("Set hidden_dims." if kind == Dense.name else "Set channels, or architecture='dense'.")
            )
    if p.depth is not None:
        check_range("depth", p.depth, low=0, integer=True)
    depth = p.depth if p.depth is not None else 1
    widths = p.hidden_dims if kind == Dense.name else p.channels
    which = "hidden_dims" if kind == Dense.name else "channels"
    if widths is not None:
        if isinstance(widths, str) or not hasattr(widths, "__len__"):
            raise InvalidParameterError(f"{which} must be a sequence of integers >= 1; got {widths!r}.")
        if p.depth != default_depth and p.depth != len(widths):
            raise IncompatiblePartsError(
                f"depth must equal the number of {which} where both are given; got depth={p.depth} and "
                f"{which}={widths!r}. Leave depth out."
            )
    common: dict[str, Any] = {
        "activation": "elu" if p.activation is None else p.activation,
        "norm": p.norm,
        "dropout": p.dropout,
    }
    if kind == Dense.name:
        chosen = hidden_widths(n_features, latent_dim, depth) if widths is None else tuple(widths)
        return Dense(hidden_dims=chosen, tied_weights=p.tied_weights, **common)
    chosen = tuple(16 << min(i, 4) for i in range(depth)) if widths is None else tuple(widths)
    return Conv(channels=chosen, **common)


def _is(value: object, default: object) -> bool:
    """Whether a parameter stands at its default; arrays of widths compare element by element otherwise."""
    return value is default or (isinstance(default, float) and value == default)


def _check_output(name: str | None, loss: Loss) -> None:
    if name is None:
        return
    check_name("output_activation", name, (*ACTIVATIONS, Clip.NAME))
    loss.check_output(name)


def _check_layerwise(architecture: Architecture) -> None:
    if not isinstance(architecture, Dense):
        raise IncompatiblePartsError(
            f"training='layerwise' must go with architecture='dense'; got {architecture.name!r}. "
            "Use training='end_to_end'."
        )
    if architecture.tied_weights:
        raise IncompatiblePartsError(
            "tied_weights must be False for training='layerwise'; got True. Use training='end_to_end'."
        )


def _check_read(recipe: Recipe) -> None:
    """Check what was read back as ``resolve`` checks what a user set."""
    check_range("the number of extents in input_shape", len(recipe.input_shape), low=1, integer=True)
    check_range("latent_dim", recipe.latent_dim, low=1, integer=True)
    check_range("seed", recipe.seed, low=0, high=2**64, open_high=True, integer=True)
    if recipe.scaling is not None:
        check_name("scaling", recipe.scaling, SCALINGS)
    recipe.loss.check_fits(recipe.input_shape, recipe.scaling)
    if recipe.latent_activation is not None:
        activation(recipe.latent_activation, "latent_activation")
    for penalty in recipe.penalty:
        penalty.check_fits(recipe.latent, recipe.latent_activation)
    _check_output(recipe.output_activation, recipe.loss)
    if isinstance(recipe.training, LayerWise):
        _check_layerwise(recipe.architecture)
    _check_training(recipe)


def _check_training(p: Parameters | Recipe) -> None:
    if p.learning_rate is not None:
        check_range("learning_rate", p.learning_rate, low=0, open_low=True)
    for name, known in _NAMES.items():
        check_name(name, getattr(p, name), known)
    check_range("weight_decay", p.weight_decay, low=0)
    check_range("validation_fraction", p.validation_fraction, low=0, high=1, open_high=True)
    for name in ("batch_size", "epochs", "patience"):
        if getattr(p, name) is not None:
            check_range(name, getattr(p, name), low=1, integer=True)
    if p.clip_norm is not None:
        check_range("clip_norm", p.clip_norm, low=0, open_low=True)
