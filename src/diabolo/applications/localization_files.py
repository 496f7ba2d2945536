"""Between a fitted ``AnomalyMap`` and the contents of its file."""

from __future__ import annotations

import os
from dataclasses import asdict
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diabolo.applications.calibration import Calibration
from diabolo.applications.grouped import GroupedCalibration
from diabolo.applications.localization import AnomalyMap
from diabolo.applications.scale import Scale, Typical
from diabolo.applications.whole import Usual, Whole, factor_for
from diabolo.estimators import Autoencoder
from diabolo.estimators.files import consistent, describe, pack, seed_to_store, unfitted, unpack
from diabolo.persistence import MAP, read_model, write_model

_USUAL = ("grey", "excess")  # of a Whole
_GROUPS = "calibration.groups"
_CALIBRATIONS = {"calibration_": "calibration.images", "pixel_calibration_": "calibration.pixels"}


def write_map(fitted: AnomalyMap, path: str | os.PathLike[str]) -> Path:
    """Write a fitted map: its autoencoders, what is typical of them, held-out scores, thresholds."""
    params = dict(fitted.settings_)
    params["random_state"] = seed_to_store(params["random_state"])
    if params["scales"] is not None:
        params["scales"] = fitted.factors
    if params["estimator"] is not None:
        params["estimator"] = describe(params["estimator"])
    scales: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for k, (scale, typical) in enumerate(zip(fitted.scales_, fitted.typical_, strict=True)):
        header, weights = pack(scale.estimator)
        scales.append({"factor": scale.factor, "autoencoder": header, "typical": asdict(typical)})
        tensors |= {f"{k}.{key}": value for key, value in weights.items()}
        tensors[f"{k}.weight"] = torch.from_numpy(scale.weight)
    if fitted.whole_ is not None:
        whole = fitted.whole_
        header, weights = pack(whole.estimator)
        scales.append({"factor": whole.factor, "autoencoder": header})
        tensors |= {f"0.{key}": value for key, value in weights.items()}
        for name in _USUAL:
            usual = getattr(whole, name)
            tensors |= {f"0.{name}.mean": torch.from_numpy(usual.mean)}
            tensors |= {f"0.{name}.spread": torch.from_numpy(usual.spread)}
    tensors |= {key: torch.from_numpy(getattr(fitted, name).scores) for name, key in _CALIBRATIONS.items()}
    if isinstance(fitted.calibration_, GroupedCalibration):
        tensors[_GROUPS] = torch.from_numpy(fitted.calibration_.groups)
    contents = {
        "params": params,
        "tile": fitted.tile_,
        "smoothing": fitted.smoothing_,
        "n_channels": fitted.n_channels_,
        "size": None if fitted.size_ is None else list(fitted.size_),
        "origin": fitted.origin_,
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
    factors = [_integer(part["factor"], 1) for part in header["scales"]]
    out._settle(header["tile"], factors)
    if header["smoothing"] != out.smoothing_:
        raise ValueError(f"a smoothing of {header['smoothing']!r} and not {out.smoothing_}")
    out.settings_ = out._settings()
    if out.tile not in (None, out.tile_):
        raise ValueError(f"tiles of {out.tile_} and not {out.tile}")
    out.n_channels_ = _integer(header["n_channels"], 0)
    out.origin_ = header["origin"]
    if not isinstance(out.origin_, dict) or any(type(value) is not str for value in out.origin_.values()):
        raise ValueError(f"the origin {out.origin_!r}")
    size = header["size"]
    if (size is None) != (out.layout == "tiles"):
        raise ValueError(f"the extents {size} with layout={out.layout!r}")
    left = dict(tensors)
    out.scales_, out.typical_, out.whole_, out.size_ = [], [], None, None
    parts = header["scales"]
    if not isinstance(parts, list) or not parts or (size is not None and len(parts) > 1):
        raise ValueError(f"{len(parts)} scales")
    for k, part in enumerate(parts):
        own = {key.partition(".")[2]: left.pop(key) for key in tensors if key.startswith(f"{k}.")}
        if size is None:
            out.scales_.append(_scale(part, own, out))
            out.typical_.append(_typical(part["typical"]))
        else:
            out.size_ = _size(size, out.n_dims)
            out.whole_ = _whole(part, own, out)
    if out.scales is not None and [scale.factor for scale in out.scales_] != list(out.scales):
        raise ValueError("other scales than were asked for")
    for name, key in _CALIBRATIONS.items():
        scores = left.pop(key)
        if scores.ndim != 1 or scores.dtype != torch.float64:
            raise ValueError(f"{key} of {tuple(scores.shape)} and {scores.dtype}")
        setattr(out, name, Calibration(scores.numpy()))
    groups = left.pop(_GROUPS, None)
    if groups is not None:
        if groups.dtype != torch.int64:
            raise ValueError(f"{_GROUPS} of {groups.dtype}")
        out.calibration_ = GroupedCalibration(out.calibration_.scores, groups.numpy())
    for key in left:
        raise ValueError(f"{key} is not known")
    out.threshold_, out.pixel_threshold_ = (_threshold(value) for value in header["thresholds"])
    return out


def _scale(part: dict[str, Any], tensors: dict[str, Tensor], of: AnomalyMap) -> Scale:
    shape = (of.n_channels_ or 1, *[of.tile_] * of.n_dims)
    weight = tensors.pop("weight")
    if tuple(weight.shape) != shape or weight.dtype != torch.float64:
        raise ValueError(f"weights of {tuple(weight.shape)} and {weight.dtype} for tiles of {shape}")
    if not bool((torch.isfinite(weight) & (weight > 0)).all()):
        raise ValueError("weights that are not positive")
    factor = _integer(part["factor"], 1)
    return Scale(factor, _autoencoder(part, tensors, shape, of), weight.numpy(), not of.n_channels_)


def _whole(part: dict[str, Any], tensors: dict[str, Tensor], of: AnomalyMap) -> Whole:
    assert of.size_ is not None
    factor, channels = _integer(part["factor"], 1), of.n_channels_ or 1
    if factor != factor_for(of.size_, of.tile_):
        raise ValueError(f"a factor of {factor} for images of {of.size_}")
    shape = (channels, *(-(-n // min(factor, n)) for n in of.size_))
    usual = []
    for name in _USUAL:
        mean, spread = tensors.pop(f"{name}.mean"), tensors.pop(f"{name}.spread")
        if (tuple(mean.shape), mean.dtype) != (shape, torch.float32):
            raise ValueError(f"a mean of {tuple(mean.shape)} and {mean.dtype} for images of {shape}")
        if (tuple(spread.shape), spread.dtype) != ((channels, 2), torch.float64):
            raise ValueError(f"a spread of {tuple(spread.shape)} and {spread.dtype}")
        if not all(bool(torch.isfinite(x).all()) for x in (mean, spread)):
            raise ValueError("numbers that are not finite")
        if not bool((spread[:, 0] > 0).all() and (spread[:, 1] >= 0).all()):
            raise ValueError("spreads that are not positive")
        usual.append(Usual(mean.numpy(), spread.numpy()))
    grey, excess = usual
    return Whole(factor, _autoencoder(part, tensors, shape, of), grey, excess, not of.n_channels_)


def _autoencoder(
    part: dict[str, Any], tensors: dict[str, Tensor], shape: tuple[int, ...], of: AnomalyMap
) -> Autoencoder:
    estimator = unpack(part["autoencoder"], tensors)
    if estimator.sample_shape_ != (shape if of.n_channels_ else shape[1:]):
        raise ValueError(f"an autoencoder of {estimator.sample_shape_} for images of {shape}")
    estimator.module_.to(estimator._device)
    return estimator


def _size(value: Any, n_dims: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != n_dims:
        raise ValueError(f"{value!r} are no extents")
    return tuple(_integer(n, 1) for n in value)


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
