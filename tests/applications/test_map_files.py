"""Files of fitted maps: the same bytes after loading, and nothing but what save wrote is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import diabolo
from diabolo import persistence
from diabolo.applications import AnomalyMap
from diabolo.errors import ModelFileError

QUICK = diabolo.Autoencoder(latent_dim=4, epochs=1, batch_size=64, optimizer="adam")
KINDS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": 8, "scales": (1, 2)},
    "automatic": {},
    "aligned": {"layout": "aligned", "polarity": "bright", "symmetry": -1, "tile": 8},
    "colour": {"layout": "aligned"},
}


def pictures(kind: str) -> np.ndarray:
    shape = (8, 3, 20, 22) if kind == "colour" else (8, 20, 22)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module", params=list(KINDS))
def stored(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("stored") / "m.safetensors"
    one = AnomalyMap(estimator=QUICK, false_alarm_rate=0.5, random_state=0, **KINDS[request.param])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diabolo.applications.localization._TILES", 400)
        one.fit(pictures(request.param)).save(path)
    return request.param, one, *persistence.read_model(path, persistence.MAP)


def refused(path: Path) -> None:
    with pytest.raises(ModelFileError, match="must hold a consistent model") as caught:
        AnomalyMap.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def write(path: Path, header: Any, tensors: Any) -> Path:
    save_file(tensors, path, metadata={"diabolo": persistence.sealed(json.dumps(header), tensors)})
    return path


def test_the_same_bytes_after_loading(stored: Any, tmp_path: Path) -> None:
    kind, one, header, tensors = stored
    back, images = AnomalyMap.load(write(tmp_path / "m", header, tensors)), pictures(kind)
    assert np.array_equal(back.heatmap(images), one.heatmap(images))
    assert np.array_equal(back.p_value(images), one.p_value(images))
    assert np.array_equal(back.predict(images), one.predict(images))
    assert (back.factors, back.size_, back.tile_) == (one.factors, one.size_, one.tile_)
    again = back.save(tmp_path / "again").read_bytes()
    assert again == one.save(tmp_path / "first").read_bytes()


HOSTILE: dict[str, list[Any]] = {
    "params": [None, 3, [1], {}, {"nonsense": 1}],
    "tile": [None, 0, -8, 9, 8.0, "8", True, 10**9, float("nan")],
    "n_channels": [None, -1, 2, 0.0, "0", True, 10**9],
    "smoothing": [3.0, -1, "x", None],
    "origin": [None, 3, [], "x", {"axes": 3}, {"pixels": None}],
    "size": [[], [20], [20, 22, 3], [0, 22], ["20", 22], [20.0, 22], 20, "x", [10**9, 10**9], [300, 22]],
    "scales": [None, 3, [], {}, [1], [{}], [None], "x"],
    "thresholds": [None, [], [1.0], [1, 2], ["x", 1.0], [float("nan"), 1.0], [1.0, 1.0, 1.0], 3],
}
PARAMS: dict[str, list[Any]] = {
    "layout": [None, 3, "x", []],
    "estimator": [3, "dense", [], {}, {"estimator": "os", "params": {}, "tuples": []}],
    "tile": [9, 3, 10**9, "x", 8.5],
    "overlap": [2, -1, "x", []],
    "scales": [3, [], [0], [1, 1], "x", [1, 2, 4], [10**9]],
    "smoothing": [-1, "x", float("inf")],
    "reference": [None, "x", 3],
    "polarity": [None, "x", 3],
    "symmetry": [0, 1, -3, "x", 1.5],
    "n_dims": [1, 4, "2", None, True],
    "false_alarm_rate": [0, 1, "x", None],
    "calibration_fraction": [0, 1, "x", None],
}
SCALE: dict[str, list[Any]] = {
    "factor": [0, -1, 1.0, "1", None, True],
    "autoencoder": [None, {}, 3, "x"],
    "typical": [None, {}, 3, {"x": 1}],
}


def test_every_field_of_the_header_is_altered(stored: Any, tmp_path: Path) -> None:
    _, one, header, tensors = stored
    path = tmp_path / "m"
    for key in {*header} - {"format", "version", "versions"}:
        refused(write(path, {k: v for k, v in header.items() if k != key}, tensors))
    for key, values in HOSTILE.items():
        for value in values:
            refused(write(path, header | {key: value}, tensors))
    for key, values in PARAMS.items():
        for value in values:
            refused(write(path, header | {"params": header["params"] | {key: value}}, tensors))
    first, *rest = header["scales"]
    for key, values in SCALE.items():
        if key in first:
            for value in values:
                refused(write(path, header | {"scales": [first | {key: value}, *rest]}, tensors))
    refused(write(path, header | {"scales": [*header["scales"], first]}, tensors))
    if one.whole_ is None:
        for key in first["typical"]:
            for value in (None, "x", float("nan"), float("inf"), [1.0]):
                part = first | {"typical": first["typical"] | {key: value}}
                refused(write(path, header | {"scales": [part, *rest]}, tensors))
    else:
        refused(write(path, header | {"size": None}, tensors))
        refused(write(path, header | {"scales": [first | {"factor": first["factor"] + 1}]}, tensors))


def test_hostile_tensors(stored: Any, tmp_path: Path) -> None:
    _, one, header, tensors = stored
    path = tmp_path / "m"
    for key, value in tensors.items():
        refused(write(path, header, {k: v for k, v in tensors.items() if k != key}))
        refused(write(path, header, tensors | {key: torch.zeros(2, 3, 5, dtype=value.dtype)}))
        refused(write(path, header, tensors | {key: value.to(torch.float16)}))
        spoiled = value.clone()
        spoiled.view(-1)[0] = float("nan")
        refused(write(path, header, tensors | {key: spoiled}))
    for key in ("0.weight",) if one.whole_ is None else ("0.grey.spread", "0.excess.spread"):
        refused(write(path, header, tensors | {key: -tensors[key]}))
    for key in ("extra", "0.extra", "7.weight", "x.weight", "-1.weight", "calibration"):
        refused(write(path, header, tensors | {key: torch.zeros(5)}))


@pytest.mark.parametrize("stored", ["automatic"], indirect=True)  # else scales are those that were asked for
def test_a_factor_beyond_the_images_costs_no_memory(stored: Any, tmp_path: Path) -> None:
    kind, one, header, tensors = stored
    scales = [header["scales"][0] | {"factor": 10**12}]
    back = AnomalyMap.load(write(tmp_path / "m", header | {"scales": scales, "smoothing": 2.0}, tensors))
    assert np.isfinite(back.heatmap(pictures(kind))).all()
    assert one.factors == [1]
