"""Between a fitted ``AnomalyMap`` and the contents of its file."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diabolo.applications.calibration import Calibration
from diabolo.applications.localization import AnomalyMap
from diabolo.applications.scale import Scale, Typical
from diabolo.estimators.files import consistent, describe, pack, seed_to_store, unfitted, unpack
from diabolo.persistence import MAP, read_model, write_model

_PARAMETERS = tuple(f.name for f in fields(AnomalyMap))
_CALIBRATIONS = {"calibration_": "calibration.images", "pixel_calibration_": "calibration.pixels"}


def write_map(fitted: AnomalyMap, path: str | os.PathLike[str]) -> Path:
    """Write a fitted map: its autoencoders, what is typical of them, held-out scores, thresholds."""
    params = {name: getattr(fitted, name) for name in _PARAMETERS}
    params["random_state"] = seed_to_store(params["random_state"])
    params["scales"] = None if fitted.scales is None else [int(factor) for factor in fitted.scales]
    if fitted.estimator is not None:
        params["estimator"] = describe(fitted.estimator)
    scales: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for k, (scale, typical) in enumerate(zip(fitted.scales_, fitted.typical_, strict=True)):
        header, weights = pack(scale.estimator)
        scales.append({"factor": scale.factor, "autoencoder": header, "typical": asdict(typical)})
        tensors |= {f"{k}.{key}": value for key, value in weights.items()}
        tensors[f"{k}.weight"] = torch.from_numpy(scale.weight)
    tensors |= {key: torch.from_numpy(getattr(fitted, name).scores) for name, key in _CALIBRATIONS.items()}
    contents = {
        "params": params,
        "tile": fitted.tile_,
        "n_channels": fitted.n_channels_,
        "scales": scales,
        "thresholds": [fitted.threshold_, fitted.pixel_threshold_],
    }
    return write_model(path, contents, tensors, MAP)


def read_map(path: str | os.PathLike[str]) -> AnomalyMap:
    """Read a map that ``write_map`` wrote; every autoencoder is checked like a model file.

    Raises
    ------
    ModelFileError
    """
    header, tensors = read_model(path, MAP)
    with consistent(path):
        return _unpack(header, tensors)


def _unpack(header: dict[str, Any], tensors: dict[str, Tensor]) -> AnomalyMap:
    params = dict(header["params"])
    if params["estimator"] is not None:
        params["estimator"] = unfitted(params["estimator"])
    out = AnomalyMap(**params)
    out._check_settings()
    out.tile_, out.n_channels_ = _integer(header["tile"], 1), _integer(header["n_channels"], 0)
    shape = (out.n_channels_ or 1, *[out.tile_] * out.n_dims)
    left = dict(tensors)
    out.scales_, out.typical_ = [], []
    for k, part in enumerate(header["scales"]):
        own = {key.partition(".")[2]: left.pop(key) for key in tensors if key.startswith(f"{k}.")}
        out.scales_.append(_scale(part, own, shape, flat=not out.n_channels_))
        out.typical_.append(_typical(part["typical"]))
    if not out.scales_:
        raise ValueError("no scale")
    for name, key in _CALIBRATIONS.items():
        setattr(out, name, Calibration(left.pop(key).numpy()))
    for key in left:
        raise ValueError(f"{key} is not known")
    out.threshold_, out.pixel_threshold_ = (_threshold(value) for value in header["thresholds"])
    return out


def _scale(part: dict[str, Any], tensors: dict[str, Tensor], shape: tuple[int, ...], *, flat: bool) -> Scale:
    weight = tensors.pop("weight")
    if tuple(weight.shape) != shape or weight.dtype != torch.float32:
        raise ValueError(f"weights of {tuple(weight.shape)} and {weight.dtype} for tiles of {shape}")
    if not bool((torch.isfinite(weight) & (weight > 0)).all()):
        raise ValueError("weights that are not positive")
    estimator = unpack(part["autoencoder"], tensors)
    if estimator.sample_shape_ != (shape[1:] if flat else shape):
        raise ValueError(f"an autoencoder of {estimator.sample_shape_} for tiles of {shape}")
    estimator.module_.to(estimator._device)
    return Scale(_integer(part["factor"], 1), estimator, weight.numpy(), flat)


def _typical(values: dict[str, Any]) -> Typical:
    a, b, d = (float(value) for value in values["curve"])
    rest = {name: float(value) for name, value in values.items() if name != "curve"}
    typical = Typical(curve=(a, b, d), **rest)
    good = all(map(isfinite, (a, b, d, *rest.values())))
    if not good or min(typical.spread, typical.level_spread) < 0 or not typical.floor > 0:
        raise ValueError(f"{typical} is nothing that errors are like")
    return typical


def _integer(value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r} is no integer >= {least}")
    return value


def _threshold(value: Any) -> float:
    if type(value) is not float or isnan(value):
        raise ValueError(f"{value!r} is no threshold")
    return value
