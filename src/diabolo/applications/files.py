"""Between a fitted detector and the contents of its file."""

from __future__ import annotations

import os
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diabolo.applications.anomaly import AnomalyDetector
from diabolo.applications.calibration import Calibration
from diabolo.applications.ensemble import Member, check_estimators
from diabolo.applications.tables import TableEncoder
from diabolo.estimators.files import as_shape, consistent, describe, pack, seed_to_store, unfitted, unpack
from diabolo.parts import MaskingNoise
from diabolo.persistence import DETECTOR, read_model, write_model

_PARAMETERS = tuple(f.name for f in fields(AnomalyDetector))
_MOST_MEMBERS = 10_000


def write_detector(detector: AnomalyDetector, path: str | os.PathLike[str]) -> Path:
    """Write a fitted detector: its members, what is typical of them, the held-out scores, the threshold."""
    params = {name: getattr(detector, name) for name in _PARAMETERS}
    params["random_state"] = seed_to_store(params["random_state"])
    if params["kinds"] is not None:
        params["kinds"] = [list(pair) for pair in params["kinds"].items()]
    several = isinstance(detector.estimator, (list, tuple))
    if detector.estimator is not None:
        params["estimator"] = [describe(one) for one in check_estimators(detector.estimator)]
    tensors = {"calibration": torch.from_numpy(detector.calibration_.scores)}
    members = []
    for number, member in enumerate(detector.members):
        header, weights = pack(member.estimator)
        members.append({"autoencoder": header, "hides": member.hides, "typical": member.typical})
        tensors |= {f"{number}.{key}": value for key, value in weights.items()}
        tensors[f"{number}.whitener"] = torch.from_numpy(member.whitener)
    names = getattr(detector, "feature_names_in_", None)
    header = {
        "params": params,
        "several": several,
        "table": None if detector.encoder_ is None else detector.encoder_.to_dict(),
        "members": members,
        "folds": [len(fold) for fold in detector.members_],
        "threshold": detector.threshold_,
        "comparison": detector.comparison_,
        "sample_shape": list(detector.sample_shape_),
        "row_shape": list(detector._row_shape),
        "feature_names": None if names is None else [str(name) for name in names],
    }
    return write_model(path, header, tensors, DETECTOR)


def read_detector(path: str | os.PathLike[str]) -> AnomalyDetector:
    """Read a detector that ``write_detector`` wrote; every member is checked like a model file.

    Raises
    ------
    ModelFileError
    """
    header, tensors = read_model(path, DETECTOR)
    with consistent(path):
        return _unpack(header, tensors)


def _unpack(header: dict[str, Any], tensors: dict[str, Tensor]) -> AnomalyDetector:
    params = dict(header["params"])
    if params["estimator"] is not None:
        given = [unfitted(one) for one in params["estimator"]]
        params["estimator"] = given if header["several"] else given[0]
    if params["kinds"] is not None:
        params["kinds"] = dict(params["kinds"])
    detector = AnomalyDetector(**params)
    detector._check_settings()
    if (
        not 0 < len(header["members"]) <= _MOST_MEMBERS
        or any(type(k) is not int or k < 1 for k in header["folds"])
        or sum(header["folds"]) != len(header["members"])
    ):
        raise ValueError(f"{len(header['members'])} members in folds of {header['folds']}")
    parts: dict[str, dict[str, Tensor]] = {str(k): {} for k in range(len(header["members"]))}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if key != "calibration":
            parts[number][name] = value
    members = [_member(about, part) for about, part in zip(header["members"], parts.values(), strict=True)]
    _take_what_comes_in(detector, header)
    if {member.estimator.n_features_in_ for member in members} != {detector._width}:
        raise ValueError("members for samples of different sizes")
    rest = iter(members)
    detector.members_ = [[next(rest) for _ in range(int(k))] for k in header["folds"]]
    if tensors["calibration"].ndim != 1 or tensors["calibration"].dtype != torch.float64:
        raise ValueError("held-out scores that are no row of double precision")
    detector.calibration_ = Calibration(tensors["calibration"].numpy())
    detector.comparison_ = {
        str(name): {str(kind): float(area) for kind, area in areas.items()}
        for name, areas in header["comparison"].items()
    }
    detector.set_threshold(value=header["threshold"])
    return detector


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
    if prod(detector._row_shape) != detector._width:
        raise ValueError(f"samples of {detector.sample_shape_} and {detector._row_shape} at once")
    if header["feature_names"] is not None:
        names = [str(name) for name in header["feature_names"]]
        detector.feature_names_in_ = np.array(names, dtype=object)
        if len(names) != detector.n_features_in_:
            raise ValueError(f"{len(names)} names for {detector.n_features_in_} features")


def _member(about: dict[str, Any], tensors: dict[str, Tensor]) -> Member:
    whitener = tensors.pop("whitener").numpy()
    estimator = unpack(about["autoencoder"], tensors)
    d, typical = estimator.n_features_in_, float(about["typical"])
    if (
        whitener.shape not in ((d,), (d, d))
        or whitener.dtype != np.float64
        or not np.isfinite(whitener).all()
    ):
        raise ValueError(f"a whitener of {whitener.shape} for {d} features")
    if not 0 < typical < float("inf"):
        raise ValueError("a member's typical error is no positive number")
    if about["hides"] is not isinstance(estimator.recipe_.corruption, MaskingNoise):
        raise ValueError("a member hides what it was not trained to restore, or the other way round")
    estimator.module_.to(estimator._device)
    return Member(estimator, about["hides"], whitener, typical)
