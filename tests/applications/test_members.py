"""Members of a detector: what is hidden from them, and what their errors are divided by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from diabolo import Autoencoder
from diabolo.applications import AnomalyDetector
from diabolo.errors import IncompatiblePartsError
from diabolo.parts import MaskingNoise


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def masking(fraction: float, **settings: Any) -> Autoencoder:
    small = {"hidden_dims": (32,), "latent_dim": 4, "batch_size": 64, "validation_fraction": 0}
    return Autoencoder(**(small | settings), corruption=MaskingNoise(fraction), random_state=0)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows (n, 4) of one direction and some noise: each feature follows from any other."""
    chance = np.random.default_rng(0)
    return chance.normal(size=(600, 1)) + 0.1 * chance.normal(size=(600, 4))


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.7, 0.9])
def test_some_features_are_always_seen(rows: np.ndarray, fraction: float) -> None:
    one = AnomalyDetector(estimator=masking(fraction, epochs=1), trim=0, random_state=0).fit(rows)
    hidden = list(one.members[0]._hidings(4))
    assert all(0 < len(some) < 4 for some in hidden)
    assert np.bincount(np.concatenate(hidden)).tolist() == [3] * 4  # each in every round


def test_a_member_that_hides_most_features_tells_broken_relations(rows: np.ndarray) -> None:
    one = AnomalyDetector(estimator=masking(0.7, epochs=30), trim=0, random_state=0).fit(rows)
    chance = np.random.default_rng(1)
    good = chance.normal(size=(300, 1)) + 0.1 * chance.normal(size=(300, 4))
    bad = chance.permuted(good, axis=0)
    areas = roc_auc_score(np.repeat([0, 1], 300), -one.score_samples(np.concatenate([good, bad])))
    assert areas > 0.9


def test_joint_whitening_is_refused_where_it_has_no_effect(rows: np.ndarray) -> None:
    plain = Autoencoder(hidden_dims=(), latent_dim=1, epochs=1, validation_fraction=0)
    for own in (masking(0.2), [masking(0.2), Autoencoder(corruption="masking:0.4")]):
        with pytest.raises(IncompatiblePartsError, match=r"whitening must be .* every member masks"):
            AnomalyDetector(estimator=own, whitening="joint").fit(rows)
    both = AnomalyDetector(
        estimator=[masking(0.2, epochs=1), plain], whitening="joint", trim=0, random_state=0
    )
    assert [member.whitener.ndim for member in both.fit(rows).members] == [1, 2]
