"""Disks that fill up while a model or a checkpoint is written, at each of the steps that touch them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diabolo import Autoencoder, load, persistence
from diabolo.errors import CheckpointWarning, ModelFileError
from diabolo.training.checkpoint import NAME

STEPS = {
    "making a folder": (persistence.tempfile, "mkdtemp"),
    "writing": (persistence, "save_file"),
    "flushing": (persistence.os, "fsync"),
    "renaming": (Path, "replace"),
}


@pytest.fixture
def rows() -> np.ndarray:
    chance = np.random.default_rng(0)
    return (chance.normal(size=(100, 3)) @ chance.normal(size=(3, 6))).astype(np.float32)


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [False, True])
def test_a_model(
    rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, before: bool
) -> None:
    place = tmp_path / "model.safetensors"
    model = Autoencoder(epochs=1, random_state=0).fit(rows)
    if before:
        old = model.save(place).read_bytes()
    model.partial_fit(rows)
    with monkeypatch.context() as patched:
        patched.setattr(*STEPS[step], full)
        with pytest.raises(
            ModelFileError, match=r"model\.safetensors' \(No space left on device\).*make room"
        ):
            model.save(place)
    assert [path.name for path in tmp_path.iterdir()] == ([place.name] if before else [])
    assert not before or place.read_bytes() == old
    np.testing.assert_array_equal(load(model.save(place)).transform(rows), model.transform(rows))


@pytest.mark.parametrize("step", STEPS)
def test_a_checkpoint(rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The training goes on, and from what was kept it can be gone on with."""

    def fit(folder: Path, until: int | None = None, resume: bool = False) -> Autoencoder:
        def progress(row: dict[str, Any], total: int) -> None:
            if row["epoch"] == 2 and until is not None:
                patched.setattr(*STEPS[step], full)
            if row["epoch"] == until:
                raise KeyError  # as if killed

        model = Autoencoder(epochs=6, latent_dim=2, random_state=0)
        return model.fit(rows, checkpoint=folder, resume=resume, progress=progress)

    with (
        monkeypatch.context() as patched,
        pytest.warns(CheckpointWarning, match=rf"{NAME}.*No space left.*the last one is still there"),
        pytest.raises(KeyError),
    ):
        fit(tmp_path / "kept", until=5)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [NAME]
    resumed, never = fit(tmp_path / "kept", resume=True), fit(tmp_path / "never")
    np.testing.assert_array_equal(resumed.transform(rows), never.transform(rows))
