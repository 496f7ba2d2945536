"""Between a fitted ``AnomalyMap`` and the contents of its file."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib import import_module
from math import isfinite
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from diabolo.applications.calibration import Calibration
from diabolo.applications.localization import AnomalyMap, Typical
from diabolo.applications.tiles import Floats
from diabolo.errors import ModelFileError
from diabolo.estimators import files
from diabolo.persistence import Kind, read_model

MAP = Kind("diabolo-map", "anomaly map's file", "AnomalyMap.save()", ModelFileError)

_PLAIN = ("tile", "overlap", "smoothing", "reference", "n_dims", "false_alarm_rate", "calibration_fraction")
_SCORES = {"calibration_": "calibration.images", "pixel_calibration_": "calibration.pixels"}


def pack(fitted: AnomalyMap) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a fitted map."""
    parts = [files.pack(estimator) for estimator in fitted.estimators_]
    header = {
        "params": {name: getattr(fitted, name) for name in _PLAIN},
        "chosen_scales": None if fitted.scales is None else list(fitted.scales),
        "own_estimator": fitted.estimator is not None,
        "scales": list(fitted.scales_),
        "tile": fitted.tile_,
        "n_channels": fitted.n_channels_,
        "thresholds": [fitted.threshold_, fitted.pixel_threshold_],
        "typical": [asdict(typical) for typical in fitted.typical_],
        "estimators": [header for header, _ in parts],
        "versions": {"diabolo": import_module("diabolo").__version__, "torch": str(torch.__version__)},
    }
    tensors = {f"{k}.{key}": value for k, (_, part) in enumerate(parts) for key, value in part.items()}
    tensors |= {f"weights.{k}": torch.from_numpy(weight) for k, weight in enumerate(fitted.weights_)}
    tensors |= {key: torch.from_numpy(getattr(fitted, name).scores) for name, key in _SCORES.items()}
    return header, tensors


def unpacked(path: str | os.PathLike[str]) -> AnomalyMap:
    """Read a fitted map.

    Raises
    ------
    ModelFileError
    """
    header, tensors = read_model(path, MAP)
    try:
        return _unpack(header, tensors)
    except files.UNFIT as error:
        raise ModelFileError(
            f"{str(path)!r} must hold a consistent map; got one whose parts do not fit together "
            f"({' '.join(str(error).split())[:300]}). Use a file written by {MAP.maker}."
        ) from error


def _unpack(header: dict[str, Any], tensors: dict[str, Tensor]) -> AnomalyMap:
    params = header["params"]
    if set(params) != set(_PLAIN):
        raise ValueError("parameters are missing or not known")
    out = AnomalyMap(**params, scales=header["chosen_scales"])
    out._check_settings()
    scales, tile, channels = header["scales"], header["tile"], header["n_channels"]
    for name, value, least in (
        ("tile", tile, 4),
        ("n_channels", channels, 0),
        *(("scale", s, 1) for s in scales),
    ):
        if type(value) is not int or value < least:
            raise ValueError(f"{name} is {value!r}")
    if not scales or not len(scales) == len(header["estimators"]) == len(header["typical"]):
        raise ValueError(f"{len(scales)} scales and {len(header['estimators'])} estimators")
    extents = (tile,) * out.n_dims
    shape = (channels, *extents) if channels else extents
    left = dict(tensors)
    out.estimators_ = []
    for k, part in enumerate(header["estimators"]):
        prefix = f"{k}."
        own = {key.removeprefix(prefix): left.pop(key) for key in tensors if key.startswith(prefix)}
        estimator = files.unpack(part, own)
        if estimator.sample_shape_ != shape:
            raise ValueError(f"tiles of {shape} and an estimator of {estimator.sample_shape_}")
        estimator.module_.to(estimator._device)
        out.estimators_.append(estimator)
    out.weights_ = [_weights(left.pop(f"weights.{k}"), (channels or 1, *extents)) for k in range(len(scales))]
    out.typical_ = [_typical(values) for values in header["typical"]]
    for name, key in _SCORES.items():
        scores = left.pop(key)
        if scores.dtype != torch.float64 or scores.ndim != 1:
            raise ValueError(f"{key} is {tuple(scores.shape)} of {scores.dtype}")
        setattr(out, name, Calibration(scores.numpy()))
    for key in left:
        raise ValueError(f"{key} is not known")
    out.threshold_, out.pixel_threshold_ = (_threshold(value) for value in header["thresholds"])
    out.scales_, out.tile_, out.n_channels_ = tuple(scales), tile, channels
    if header["own_estimator"]:
        out.estimator = clone(out.estimators_[0]).set_params(random_state=None)
    return out


def _typical(values: dict[str, Any]) -> Typical:
    typical = Typical(**{name: float(value) for name, value in values.items()})
    if (
        not all(isfinite(v) for v in asdict(typical).values())
        or min(typical.spread, typical.level_spread) < 0
    ):
        raise ValueError(f"{typical} is nothing that errors are like")
    return typical


def _weights(values: Tensor, shape: tuple[int, ...]) -> Floats:
    good = tuple(values.shape) == shape and values.dtype == torch.float32
    if not good or not bool(torch.isfinite(values).all()) or not bool((values > 0).all()):
        raise ValueError(
            f"weights of {tuple(values.shape)} and {values.dtype} are not positive ones of {shape}"
        )
    return values.numpy()


def _threshold(value: Any) -> float:
    if type(value) is not float or np.isnan(value):
        raise ValueError(f"{value!r} is no threshold")
    return value
