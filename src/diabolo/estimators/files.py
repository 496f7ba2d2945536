"""Between a fitted estimator and the contents of a model file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diabolo.errors import DiaboloError, ModelFileError
from diabolo.estimators.autoencoder import PARAMETERS, Autoencoder
from diabolo.estimators.continuing import settings
from diabolo.estimators.generation import CodeDensity
from diabolo.estimators.scaling import Scaler
from diabolo.kinds import BY_ESTIMATOR
from diabolo.names import check_name
from diabolo.parts import (
    Architecture,
    Conv,
    Corruption,
    Dense,
    Latent,
    Loss,
    Penalty,
    Training,
    as_part,
)
from diabolo.parts.base import to_plain
from diabolo.persistence import read_model
from diabolo.recipe import DEVICES, SCALINGS, Recipe
from diabolo.training import History

_AXES: dict[str, Any] = {
    "architecture": Architecture,
    "corruption": Corruption,
    "latent": Latent,
    "loss": Loss,
    "penalty": Penalty,
    "training": Training,
}
_DENSITY = [f.name for f in fields(CodeDensity)]


def pack(estimator: Autoencoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a fitted estimator.

    Raises
    ------
    ModelFileError
        For a class that ``load`` could not find again.
    """
    header = describe(estimator) | {
        "recipe": estimator.recipe_.to_dict(),
        "history": estimator.history_.to_dict(),
        "scaling": estimator._scaler.kind,
        "sample_shape": list(estimator.sample_shape_),
        "row_shape": list(estimator._row_shape),
        "feature_names": [str(n) for n in estimator.feature_names_in_]
        if hasattr(estimator, "feature_names_in_")
        else None,
    }
    tensors = {f"module.{key}": value for key, value in estimator.module_.state_dict().items()}
    tensors |= {
        "scaler.offset": torch.from_numpy(estimator._scaler.offset),
        "scaler.scale": torch.from_numpy(estimator._scaler.scale),
        "mean": torch.from_numpy(estimator._mean),
    }
    if not estimator._has_prior:
        density = estimator._code_density()
        tensors |= {f"density.{name}": torch.from_numpy(getattr(density, name)) for name in _DENSITY}
    return header, tensors


def describe(estimator: Autoencoder) -> dict[str, Any]:
    """Return what a header says of an estimator, fitted or not; ``unfitted`` reads it.

    Raises
    ------
    ModelFileError
        For a class that ``load`` could not find again.
    """
    name = type(estimator).__name__
    if name not in BY_ESTIMATOR or _class(name) is not type(estimator):
        raise ModelFileError(
            "an estimator must be one of diabolo's own kinds to be stored, as a file names its class; "
            f"got {name}. Add it to the table in diabolo/kinds.py, or fit Autoencoder with its parameters."
        )
    params = {name: getattr(estimator, name) for name in PARAMETERS}
    params["random_state"] = seed_to_store(params["random_state"])
    return {
        "estimator": name,
        "params": {name: to_plain(value) for name, value in params.items()},
        "tuples": [name for name, value in params.items() if isinstance(value, tuple)],
    }


def seed_to_store(random_state: Any) -> int | None:
    """Return a seed as a file holds it: a generator object as None."""
    return random_state if isinstance(random_state, (int, np.integer)) else None  # type: ignore[return-value]


def load(path: str | os.PathLike[str], *, device: str | None = None) -> Autoencoder:
    """Read an estimator that ``save`` wrote.

    Nothing is unpickled and no code in the file is run: the header names known classes and settings,
    which are checked like a user's, and every tensor has to have the shape that follows from them.

    Parameters
    ----------
    path : str or path
    device : {"auto", "cpu", "cuda", "mps"}, optional
        Where the network goes. None: what the estimator's own parameter says.

    Raises
    ------
    ModelFileError
        For a file that is missing, damaged, foreign, hostile or of a later version.
    InvalidParameterError
        Where this machine has no such device.
    """
    header, tensors = read_model(path)
    with consistent(path):
        estimator = unpack(header, tensors)
        if device is not None:
            estimator.device = device
            check_name("device", device, DEVICES)
    estimator.module_.to(estimator._device)
    return estimator


@contextmanager
def consistent(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever goes wrong while a file's contents are put together into a ModelFileError."""
    try:
        yield
    except (
        DiaboloError,
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise ModelFileError(
            f"{str(path)!r} must hold a consistent model; got one whose parts do not fit together "
            f"({' '.join(str(error).split())[:300]}). Use a file that this version of diabolo wrote."
        ) from error


def unpack(header: dict[str, Any], tensors: dict[str, Tensor]) -> Autoencoder:
    """Return the fitted estimator that ``pack`` made these of, on the CPU.

    Raises
    ------
    Exception
        Of several kinds, where something does not fit: see ``consistent``.
    """
    estimator = unfitted(header)
    check_name("device", estimator.device, DEVICES)
    recipe = Recipe.from_dict(header["recipe"])
    shape, row_shape = (as_shape(header[key]) for key in ("sample_shape", "row_shape"))
    n_features = prod(shape)
    if recipe.input_shape != shape or row_shape not in (shape, (n_features,)):
        raise ValueError(f"samples of {recipe.input_shape}, {shape} and {row_shape} at once")
    if tuple(tensors["mean"].shape) != (n_features,):  # before any memory is taken for samples of this size
        raise ValueError(f"samples of {n_features} values, and a mean of {tuple(tensors['mean'].shape)}")
    weights = {
        key.removeprefix("module."): value for key, value in tensors.items() if key.startswith("module.")
    }
    _check_size(recipe, sum(value.numel() for value in weights.values()))
    module = recipe.build(None)
    expected = {f"module.{key}": (tuple(v.shape), v.dtype) for key, v in module.state_dict().items()}
    expected |= dict.fromkeys(("scaler.offset", "scaler.scale", "mean"), ((n_features,), torch.float64))
    estimator.recipe_ = recipe
    estimator.module_ = module.eval()
    density = {} if estimator._has_prior else _density_shapes(tensors, estimator._n_features_out)
    _check_tensors(tensors, expected | density)
    module.load_state_dict(weights)
    estimator.history_ = _history(header["history"])
    estimator.sample_shape_, estimator._row_shape = shape, row_shape
    estimator.n_features_in_ = n_features
    estimator.n_parameters_ = sum(w.numel() for w in module.parameters())
    if header["scaling"] is not None:
        check_name("scaling", header["scaling"], SCALINGS)
    scale = tensors["scaler.scale"].numpy()
    if not (scale > 0).all():
        raise ValueError("scaler.scale is not positive")
    estimator._scaler = Scaler(header["scaling"], tensors["scaler.offset"].numpy(), scale)
    estimator._mean = tensors["mean"].numpy()
    estimator._codes = None
    estimator._given = settings(estimator)
    if header["feature_names"] is not None:
        names = np.array([_text(name) for name in header["feature_names"]], dtype=object)
        if len(names) != n_features:
            raise ValueError(f"{len(names)} feature names for {n_features} features")
        estimator.feature_names_in_ = names
    if density:
        estimator._density = CodeDensity(**{key: tensors[f"density.{key}"].numpy() for key in _DENSITY})
        if not ((estimator._density.weights >= 0).all() and estimator._density.weights.sum() > 0):
            raise ValueError("density.weights are no shares")
    return estimator


def unfitted(header: dict[str, Any]) -> Autoencoder:
    """Return the estimator that the header names, with its parameters."""
    name = header["estimator"]
    if name not in BY_ESTIMATOR:
        raise ValueError(f"unknown estimator {name!r}")
    params = dict(header["params"])
    for key, axis in _AXES.items():
        params[key] = _revived(axis, key, params.get(key))
    for key in header["tuples"]:
        params[key] = tuple(params[key])
    return _class(name)(**params)


def _class(name: str) -> type[Autoencoder]:
    found: type[Autoencoder] = getattr(import_module("diabolo.estimators"), name)
    return found


def _revived(axis: Any, key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return as_part(axis, key, value)
    if isinstance(value, list):
        return [_revived(axis, key, v) for v in value]
    return value


def as_shape(value: Any) -> tuple[int, ...]:
    """Return a sample's shape as a header holds it; ValueError for anything else."""
    if not isinstance(value, list) or not value or not all(type(n) is int and n >= 1 for n in value):
        raise ValueError(f"{value!r} is no shape")
    return tuple(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _history(data: dict[str, Any]) -> History:
    history = History.from_dict(data)
    rows, events = history.rows, history.events
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TypeError("the history's rows are no rows")
    if not isinstance(events, list) or type(history.best_epoch) is not int:
        raise TypeError("the history's events or best epoch are none")
    _text(history.stopped_by), _text(history.engine)
    return history


def _check_size(recipe: Recipe, stored: int) -> None:
    """Refuse a recipe that asks for more weights than the file has, before any memory is taken."""
    architecture = recipe.architecture
    units = recipe.latent_dim * recipe.latent.parameters_per_unit
    if isinstance(architecture, Dense):
        widths = [prod(recipe.input_shape), *(int(w) for w in architecture.hidden_dims), units]
        least = sum(a * b for a, b in pairwise(widths))
    elif isinstance(architecture, Conv):
        channels = [1, *(int(c) for c in architecture.channels), units]
        least = sum(a * b for a, b in pairwise(channels)) + int(architecture.kernel_size) * channels[1]
    else:  # a part of the user's own
        return
    if least > stored:
        raise ValueError(f"layers of at least {least} weights, and {stored} are stored")


def _density_shapes(tensors: dict[str, Tensor], width: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    k, _, rank = tensors["density.factors"].shape
    if not k:
        raise ValueError("the density of the codes has no component")
    shapes = {"weights": (k,), "means": (k, width), "factors": (k, width, rank)}
    return {f"density.{name}": (shape, torch.float64) for name, shape in shapes.items()}


def _check_tensors(
    tensors: dict[str, Tensor], expected: dict[str, tuple[tuple[int, ...], torch.dtype]]
) -> None:
    """Raise unless the tensors are exactly the expected ones, and finite."""
    for key in tensors.keys() ^ expected.keys():
        raise ValueError(f"{key} is {'missing' if key in expected else 'not known'}")
    for key, (shape, dtype) in expected.items():
        value = tensors[key]
        if tuple(value.shape) != shape or value.dtype != dtype:
            raise ValueError(f"{key} is {tuple(value.shape)} of {value.dtype}, not {shape} of {dtype}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{key} holds NaN or inf")
