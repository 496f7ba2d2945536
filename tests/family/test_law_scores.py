"""Scores tell the truth: beyond the range of a loss, far from 0, and of rows that stream by."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make
from sklearn.datasets import load_digits

from diabolo.data import ArraySource
from diabolo.parts.losses import Loss


def bounded_losses() -> list[str]:
    """The losses that are defined on an interval only."""
    return [
        loss.name for loss in Loss.__subclasses__() if np.isfinite([loss.low, loss.high]).any() and loss.name
    ]


@pytest.mark.parametrize("loss", bounded_losses())
@pytest.mark.parametrize("kind", ["Autoencoder", "SparseAutoencoder"])
def test_a_row_beyond_the_range_is_never_more_normal_than_the_same_row_clipped(kind, loss, rows):
    model = make(kind, loss=loss, scaling="minmax", epochs=40).fit(rows)
    chance = np.random.default_rng(0)
    low, high = rows.min(0), rows.max(0)
    away = chance.choice([0, 0.01, 0.3, 5], (60, 6)) * chance.normal(size=(60, 6))
    beyond = rows[:60] + away * (high - low)
    excess = (beyond - beyond.clip(low, high)) / (high - low)
    assert (excess != 0).any(1).sum() > 40
    cost = model.score_samples(beyond.clip(low, high)) - model.score_samples(beyond)
    np.testing.assert_allclose(cost, 2 * (excess**2).sum(1), rtol=1e-3, atol=2e-5)
    assert (cost >= -1e-5).all()


def test_within_the_range_the_score_is_the_cross_entropy(rows):
    model = make("Autoencoder", loss="binary_cross_entropy", epochs=10).fit(rows)
    x = (rows - rows.min(0)) / np.ptp(rows, 0)
    p = (model.reconstruct(rows) - rows.min(0)) / np.ptp(rows, 0)
    wanted = (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(1)
    np.testing.assert_allclose(model.score_samples(rows), wanted, rtol=1e-3)


@pytest.mark.parametrize("scaling", ["auto", "minmax"])
def test_an_offset_costs_no_accuracy(scaling):
    X = load_digits().data[:400, 10:30]
    shifted = X * 1e-3 + 1e6
    here = make("Autoencoder", epochs=40, scaling=scaling).fit(X)
    there = make("Autoencoder", epochs=40, scaling=scaling).fit(shifted)
    assert there.score(shifted) == pytest.approx(here.score(X), abs=0.02)
    assert here.score(X) > 0.3
    errors = here.reconstruction_error(X).mean() * 1e-6
    assert there.reconstruction_error(shifted).mean() == pytest.approx(errors, rel=0.1)


@pytest.mark.parametrize("scaling", ["standard", "center", "minmax", "unit"])
@pytest.mark.parametrize("offset", [1.7e9 + 50, 2460000.3, 1e6 + 0.03])
def test_large_offsets_that_single_precision_cannot_hold(scaling, offset):
    spread = np.random.default_rng(0).normal(size=(200, 4)) * 1e-2
    X = np.column_stack([spread + offset, np.full(200, offset + 27)])
    scaled = make("Autoencoder", epochs=1, scaling=scaling).fit(X)._tensor(X).numpy()
    if scaling in ("standard", "center"):
        assert np.abs(scaled[:, :4].mean(0)).max() < 0.01
    if scaling in ("minmax", "unit"):
        assert scaled.min() >= 0
        assert scaled[:, :4].min() < 0.01
        assert scaled.max() <= 1
    if scaling in ("standard", "minmax"):
        assert np.abs(scaled[:, 4]).max() < 0.01


def test_the_score_is_one_minus_the_share_of_the_error(name, rows, fitted):
    left = np.square((rows - fitted.reconstruct(rows)) / fitted._scaler.scale).sum()
    wanted = 1 - left / np.square((rows - rows.mean(0)) / fitted._scaler.scale).sum()
    assert fitted.score(rows) == pytest.approx(wanted, abs=1e-5)


def test_the_score_of_a_source_is_that_of_its_rows(rows):
    model = make("Autoencoder").fit(rows)
    X = np.tile(rows, (300, 1)) + np.random.default_rng(0).normal(size=(27_000, 6))
    assert model.score(ArraySource(X)) == pytest.approx(model.score(X), rel=1e-12)
