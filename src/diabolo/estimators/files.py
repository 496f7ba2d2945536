"""Between a fitted estimator and the contents of a model file."""

from __future__ import annotations

import os
from dataclasses import fields
from importlib import import_module
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diabolo.errors import DiaboloError, ModelFileError
from diabolo.estimators.autoencoder import PARAMETERS, Autoencoder
from diabolo.estimators.generation import CodeDensity
from diabolo.estimators.scaling import Scaler
from diabolo.kinds import BY_ESTIMATOR
from diabolo.parts import Architecture, Corruption, Latent, Loss, Penalty, Training, as_part
from diabolo.parts.base import to_plain
from diabolo.persistence import read_model
from diabolo.recipe import Recipe
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
    """Return header and tensors of a fitted estimator."""
    params = {name: to_plain(getattr(estimator, name)) for name in PARAMETERS}
    if not isinstance(params["random_state"], (int, np.integer, type(None))):
        params["random_state"] = None  # a generator object; the seed drawn from it is in the recipe
    header = {
        "estimator": type(estimator).__name__,
        "params": {
            key: value.item() if isinstance(value, np.generic) else value for key, value in params.items()
        },
        "recipe": estimator.recipe_.to_dict(),
        "history": estimator.history_.to_dict(),
        "scaling": estimator._scaler.kind,
        "sample_shape": list(estimator.sample_shape_),
        "feature_names": [str(n) for n in estimator.feature_names_in_]
        if hasattr(estimator, "feature_names_in_")
        else None,
        "versions": {"diabolo": import_module("diabolo").__version__, "torch": str(torch.__version__)},
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


def load(path: str | os.PathLike[str]) -> Autoencoder:
    """Read an estimator that ``save`` wrote.

    Nothing is unpickled and no code in the file is run: the header names known classes and settings,
    which are checked like a user's, and every tensor has to have the shape that follows from them.

    Raises
    ------
    ModelFileError
        For a file that is missing, damaged, foreign, hostile or of a later version.
    """
    header, tensors = read_model(path)
    try:
        return _unpack(header, tensors)
    except (
        DiaboloError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise ModelFileError(
            f"{str(path)!r} must hold a consistent model; got one whose parts do not fit together "
            f"({' '.join(str(error).split())[:300]}). Use a file written by save()."
        ) from error


def _unpack(header: dict[str, Any], tensors: dict[str, Tensor]) -> Autoencoder:
    name = header["estimator"]
    if name not in BY_ESTIMATOR:
        raise ValueError(f"unknown estimator {name!r}")
    params = dict(header["params"])
    for key, axis in _AXES.items():
        params[key] = _revived(axis, key, params.get(key))
    estimator: Autoencoder = getattr(import_module("diabolo.estimators"), name)(**params)
    recipe = Recipe.from_dict(header["recipe"])
    shape = tuple(int(extent) for extent in header["sample_shape"])
    n_features = prod(shape)
    for key in ("scaler.offset", "scaler.scale", "mean"):
        if tensors[key].shape != (n_features,):
            raise ValueError(f"{key} has the shape {tuple(tensors[key].shape)}, not ({n_features},)")
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{key} holds NaN or inf")
    if recipe.input_shape != shape:
        raise ValueError(f"the recipe is for samples of {recipe.input_shape}, the file for {shape}")
    weights = {
        key.removeprefix("module."): value for key, value in tensors.items() if key.startswith("module.")
    }
    _check_size(recipe, sum(value.numel() for value in weights.values()))
    module = recipe.build(None)
    module.load_state_dict(weights)
    estimator.module_ = module.eval().to(estimator._device)
    estimator.recipe_ = recipe
    estimator.history_ = History.from_dict(header["history"])
    estimator.sample_shape_ = shape
    estimator.n_features_in_ = n_features
    estimator.n_parameters_ = sum(w.numel() for w in module.parameters())
    estimator._scaler = Scaler(
        header["scaling"], tensors["scaler.offset"].numpy(), tensors["scaler.scale"].numpy()
    )
    estimator._mean = tensors["mean"].numpy()
    estimator._codes = None
    if header["feature_names"] is not None:
        names = np.array([str(n) for n in header["feature_names"]], dtype=object)
        if len(names) != n_features:
            raise ValueError(f"{len(names)} feature names for {n_features} features")
        estimator.feature_names_in_ = names
    if not estimator._has_prior:
        estimator._density = CodeDensity(**{key: tensors[f"density.{key}"].numpy() for key in _DENSITY})
        if estimator._density.means.shape[1:] != (estimator._n_features_out,):
            raise ValueError("the density of the codes has another width than the codes")
    return estimator


def _revived(axis: Any, key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return as_part(axis, key, value)
    if isinstance(value, list):
        return [_revived(axis, key, v) for v in value]
    return value


def _check_size(recipe: Recipe, stored: int) -> None:
    """Refuse a recipe that asks for far more weights than the file has, before any memory is taken."""
    widths = [prod(recipe.input_shape), recipe.latent_dim]
    for name in ("hidden_dims", "channels"):
        widths += [int(w) for w in getattr(recipe.architecture, name, ())]
    if max(widths) > 4 * stored + 1024:
        raise ValueError(f"layers of {max(widths)} units for {stored} stored weights")
