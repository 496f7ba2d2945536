"""Between a fitted detector and the contents of its file."""

from __future__ import annotations

import os
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.applications.anomaly import AnomalyDetector
from diabolo.applications.calibration import Calibration
from diabolo.applications.ensemble import Member, check_estimators
from diabolo.applications.judging import refuse_shape
from diabolo.applications.memory import Memory
from diabolo.applications.tables import TableEncoder
from diabolo.estimators.files import as_shape, consistent, describe, pack, seed_to_store, unfitted, unpack
from diabolo.estimators.validation import check_seed, check_shape
from diabolo.names import check_name
from diabolo.parts import MaskingNoise, Mixed
from diabolo.persistence import DETECTOR, read_model, write_model
from diabolo.recipe import DEVICES, SCALINGS

_PARAMETERS = tuple(f.name for f in fields(AnomalyDetector))
_MOST_MEMBERS = 10_000
_MEMORY = ("rows", "offset", "scale")  # a memory's arrays


def write_detector(detector: AnomalyDetector, path: str | os.PathLike[str]) -> Path:
    """Write a fitted detector: its members, what is typical of them, the held-out scores, the threshold.

    Raises
    ------
    InvalidParameterError
        For parameters that were set after fit and that no fit would take: no file holds them.
    ModelFileError
    """
    return write_model(path, *contents(detector), DETECTOR)


def contents(detector: AnomalyDetector) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the header and the tensors of a fitted detector's file."""
    detector._check_settings()
    _check_parameters(detector)
    params = {name: getattr(detector, name) for name in _PARAMETERS}
    params["random_state"] = seed_to_store(params["random_state"])
    if params["kinds"] is not None:
        params["kinds"] = [list(pair) for pair in params["kinds"].items()]
    several = isinstance(detector.estimator, (list, tuple))
    if detector.estimator is not None:
        params["estimator"] = [describe(one) for one in check_estimators(detector.estimator)]
    tensors = {
        "calibration": torch.from_numpy(detector.calibration_.scores),
        "set_apart": torch.from_numpy(detector.set_apart_),
    }
    members = []
    for number, member in enumerate(detector.members):
        header, weights = pack(member.estimator)
        members.append({"autoencoder": header, "hides": member.hides, "typical": member.typical})
        tensors |= {f"{number}.{key}": value for key, value in weights.items()}
        tensors[f"{number}.whitener"] = torch.from_numpy(member.whitener)
    for number, memory in enumerate(detector.memories_):
        for name in _MEMORY:
            tensors[f"memory.{number}.{name}"] = torch.from_numpy(getattr(memory, name))
    names = getattr(detector, "feature_names_in_", None)
    header = {
        "params": params,
        "several": several,
        "table": None if detector.encoder_ is None else detector.encoder_.to_dict(),
        "members": members,
        "folds": [len(fold) for fold in detector.members_],
        "memories": [[one.typical, one.resolution, one.n_apart] for one in detector.memories_],
        "threshold": detector.threshold_,
        "comparison": detector.comparison_,
        "sample_shape": list(detector.sample_shape_),
        "row_shape": list(detector._row_shape),
        "feature_names": None if names is None else [str(name) for name in names],
    }
    return header, tensors


def read_detector(path: str | os.PathLike[str]) -> AnomalyDetector:
    """Read a detector that ``write_detector`` wrote; every member is checked like a model file.

    Raises
    ------
    ModelFileError
    """
    header, tensors = read_model(path, DETECTOR)
    with consistent(path):
        return of_contents(header, tensors)


def of_contents(header: dict[str, Any], tensors: dict[str, Tensor]) -> AnomalyDetector:
    """Return the detector whose ``contents`` these are; anything is raised where they do not fit."""
    params = dict(header["params"])
    if params["estimator"] is not None:
        given = [unfitted(one) for one in params["estimator"]]
        for one in given:
            check_name("device", one.device, DEVICES)
        params["estimator"] = given if _flag(header["several"]) else given[0]
    if params["kinds"] is not None:
        params["kinds"] = dict(params["kinds"])
    if type(params["random_state"]) not in (int, type(None)):
        raise TypeError(f"{params['random_state']!r} is no seed")
    detector = AnomalyDetector(**params)
    detector._check_settings()
    if (
        not 0 < len(header["members"]) <= _MOST_MEMBERS
        or detector.n_copies > _MOST_MEMBERS
        or any(type(k) is not int or k < 1 for k in header["folds"])
        or sum(header["folds"]) != len(header["members"])
    ):
        raise ValueError(f"{len(header['members'])} members in folds of {header['folds']}")
    parts: dict[str, dict[str, Tensor]] = {str(k): {} for k in range(len(header["members"]))}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if key not in ("calibration", "set_apart") and number != "memory":
            parts[number][name] = value
    members = [_member(about, part) for about, part in zip(header["members"], parts.values(), strict=True)]
    _take_what_comes_in(detector, header)
    _check_parameters(detector)
    if {member.estimator.n_features_in_ for member in members} != {detector._width}:
        raise ValueError("members for samples of different sizes")
    detector.memories_ = [
        _memory(
            about,
            {name: tensors.pop(f"memory.{k}.{name}").numpy() for name in _MEMORY},
            detector._width,
        )
        for k, about in enumerate(header["memories"])
    ]
    if len(detector.memories_) not in (0, len(header["folds"])) or any(
        k.startswith("memory") for k in tensors
    ):
        raise ValueError(f"{len(detector.memories_)} memories of {len(header['folds'])} folds")
    rest = iter(members)
    detector.members_ = [[next(rest) for _ in range(int(k))] for k in header["folds"]]
    if tensors["calibration"].ndim != 1 or tensors["calibration"].dtype != torch.float64:
        raise ValueError("held-out scores that are no row of double precision")
    detector.calibration_ = Calibration(tensors["calibration"].numpy())  # which refuses NaN, and sorts
    if not detector.calibration_.scores[0] > 0:
        raise ValueError("held-out scores that are no surprises, which are positive")
    detector.set_apart_ = _numbers(tensors["set_apart"])
    detector.comparison_ = {
        str(name): {str(kind): _area(area) for kind, area in areas.items()}
        for name, areas in header["comparison"].items()
    }
    detector.set_threshold(value=header["threshold"])
    return detector


def _check_parameters(detector: AnomalyDetector) -> None:
    """Raise where a parameter is such as fit would not take for what this detector was fitted to."""
    check_name("device", detector.device, DEVICES)
    if detector.scaling is not None:
        check_name("scaling", detector.scaling, SCALINGS)
    check_seed(detector.random_state)
    TableEncoder(kinds=detector.kinds)._check_parameters()
    if detector.encoder_ is not None:
        refuse_shape(detector.input_shape)
    elif detector.input_shape is not None:
        shape = detector._row_shape if len(detector._row_shape) > 1 else None
        check_shape(detector.input_shape, detector._width, shape)


def _numbers(tensor: Tensor) -> NDArray[np.int64]:
    if tensor.ndim != 1 or tensor.dtype != torch.int64:
        raise ValueError(f"numbers of rows of {tuple(tensor.shape)} and {tensor.dtype}")
    numbers = tensor.numpy()
    if (numbers < 0).any() or (numbers[1:] <= numbers[:-1]).any():  # differences of these may overflow
        raise ValueError("numbers of rows that are not in ascending order from 0")
    return numbers


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _area(value: Any) -> float:
    if type(value) is not float or not 0 <= value <= 1:
        raise ValueError(f"{value!r} is no area under a curve")
    return value


def _take_what_comes_in(detector: AnomalyDetector, header: dict[str, Any]) -> None:
    """Set what the detector knows of its input."""
    if header["table"] is not None:
        detector.encoder_ = TableEncoder.from_dict(header["table"])
        detector._take_columns(detector.encoder_)
        return
    detector.encoder_ = None
    detector.sample_shape_, detector._row_shape = (
        as_shape(header[key]) for key in ("sample_shape", "row_shape")
    )
    detector.n_features_in_ = detector._width = prod(detector.sample_shape_)
    if detector._row_shape not in (detector.sample_shape_, (detector._width,)):
        raise ValueError(f"samples of {detector.sample_shape_} and {detector._row_shape} at once")
    if header["feature_names"] is not None:
        names = [str(name) for name in header["feature_names"]]
        detector.feature_names_in_ = np.array(names, dtype=object)
        if len(names) != detector.n_features_in_:
            raise ValueError(f"{len(names)} names for {detector.n_features_in_} features")


def _memory(about: list[Any], arrays: dict[str, NDArray[Any]], d: int) -> Memory:
    typical, resolution, n_apart = about
    rows, offset, scale = (arrays[name] for name in _MEMORY)
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != d or rows.dtype != np.float32:
        raise ValueError(f"a memory of {rows.shape} for {d} features")
    if any(one.shape != (d,) or one.dtype != np.float64 for one in (offset, scale)):
        raise ValueError("a memory whose scaling does not fit its rows")
    if not all(np.isfinite(one).all() for one in (rows, offset, scale)) or scale.min() <= 0:
        raise ValueError("a memory with values that are none")
    if type(n_apart) is not int or not 0 <= n_apart < len(rows):
        raise ValueError(f"a memory of {len(rows)} rows with {n_apart} set apart")
    return Memory(rows, offset, scale, _positive(typical), _positive(resolution), n_apart)


def _positive(typical: Any) -> float:
    if type(typical) is not float or not 0 < typical < float("inf"):
        raise ValueError("a typical error, or a resolution, that is no positive number")
    return typical


def _member(about: dict[str, Any], tensors: dict[str, Tensor]) -> Member:
    whitener = tensors.pop("whitener").numpy()
    estimator = unpack(about["autoencoder"], tensors)
    d, typical, hides = estimator.n_features_in_, about["typical"], about["hides"]
    if (
        whitener.shape not in ((d,), (d, d))
        or whitener.dtype != np.float64
        or not np.isfinite(whitener).all()
    ):
        raise ValueError(f"a whitener of {whitener.shape} for {d} features")
    joint = whitener.ndim == 2
    if (np.diagonal(whitener) if joint else whitener).min() <= 0:
        raise ValueError("a whitener that is not positive")
    if joint and (
        not np.allclose(whitener, whitener.T) or hides or isinstance(estimator.recipe_.loss, Mixed)
    ):
        raise ValueError("a whitener of all features together that is none")
    _positive(typical)
    if hides is not isinstance(estimator.recipe_.corruption, MaskingNoise):
        raise ValueError("a member hides what it was not trained to restore, or the other way round")
    estimator.module_.to(estimator._device)
    return Member(estimator, hides, whitener, typical)
