"""``diabolo detect fit --layout aligned``: one net for whole images, and what may not go with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import Run

from diabolo.applications import AnomalyMap

MEMBER = ("--kind", "denoising", "--epochs", "1", "--hidden-dims", "16", "--latent-dim", "8")
SMALL = (*MEMBER, "--random-state", "0", "--false-alarm-rate", "0.3", "--map")


def test_aligned_images(run: Run, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(10, 20, 24)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    model = tmp_path / "map.safetensors"
    options = ("--layout", "aligned", "--polarity", "bright", "--symmetric")
    said = run("detect", "fit", tmp_path / "images.npy", *SMALL, *options, "-o", model, "--json")
    assert said.code == 0, said.err
    assert (said.json["layout"], said.json["scales"]) == ("aligned", [1])
    fitted = AnomalyMap.load(model)
    assert (fitted.layout, fitted.size_) == ("aligned", (20, 24))
    assert (fitted.polarity, fitted.symmetry) == ("bright", -1)
    said = run("info", model)
    assert said.code == 0, said.err
    assert "whole images, aligned" in said.out


def test_layouts_that_cannot_be_used(run: Run, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(10, 20, 24)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    said = run("detect", "fit", tmp_path / "images.npy", *SMALL, "--layout", "alined")
    assert said.code != 0
    assert "Did you mean 'aligned'" in said.err
    said = run("detect", "fit", tmp_path / "images.npy", *SMALL, "--volume", "1")
    assert said.code != 0
    assert "It is meant for scans" in " ".join(said.err.split())
    np.save(tmp_path / "rows.npy", images.reshape(10, -1))
    said = run("detect", "fit", tmp_path / "rows.npy", "--no-map", "--layout", "aligned", "--symmetric")
    assert said.code != 0
    assert "--layout and --symmetric must go with a map" in " ".join(said.err.split())
