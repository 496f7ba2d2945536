"""What is seen of a training whose epochs are long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from diabolo import Autoencoder
from diabolo.cli import progress
from diabolo.cli.console import Output
from diabolo.training import engine


def test_a_long_epoch_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_TOLD_EVERY", 0.0)
    shares: list[float] = []

    class Listener:
        def __call__(self, row: Mapping[str, Any], total: int) -> None:
            shares.append(0.0)

        def within(self, share: float) -> None:
            shares.append(share)

    X = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 20, "validation_fraction": 0.0, "latent_dim": 2}
    Autoencoder(**settings, random_state=0).fit(X, progress=Listener())
    assert shares == [0.25, 0.5, 0.75, 1.0, 0.0] * 2


def test_a_busy_machine_is_told_of(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for load, told in ((1.4, False), (1.6, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load * (os.cpu_count() or 1), 0.0, 0.0))
        said = run("train", images, "--epochs", 1, "--output", tmp_path / "m.safetensors")
        assert said.code == 0
        assert (f"the machine is busy, with {load} processes for each core" in said.err) == told


def test_without_a_terminal_a_silent_epoch_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.Bars(Output()) as bars:
        told = bars.of("deep")
        for now in (10.0, 29.0, 31.0, 40.0, 62.0):
            told.within(now / 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["deep: epoch 1, 31% of its rows", "deep: epoch 1, 62% of its rows"]
