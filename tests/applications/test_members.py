"""Members of a detector: what is hidden from them, and what their errors are divided by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from diabolo import Autoencoder
from diabolo.applications import AnomalyDetector, ensemble
from diabolo.applications.ensemble import Member
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


def typical_terms(one: AnomalyDetector, rows: np.ndarray) -> np.ndarray:
    """Return each member's mean parts of the error, without the twentieth of the rows restored worst."""
    out = []
    for member in one.members:
        terms = member.terms(rows)
        plain = terms / np.square(member.whitener)
        kept = plain.sum(1) <= np.quantile(plain.sum(1), 0.95)
        out.append(terms[kept].mean(0))
    return np.array(out)


def test_whitened_features_count_alike(rows: np.ndarray) -> None:
    """Also one that is restored far worse than the others, as long as it does not dwarf them."""
    X = np.c_[rows, np.random.default_rng(1).normal(size=len(rows))]
    own = [masking(0.2, epochs=20), Autoencoder(latent_dim=2, epochs=20, validation_fraction=0)]
    parts = {}
    for whitening in ("feature", None):
        one = AnomalyDetector(estimator=own, whitening=whitening, trim=0, calibration_fraction=0.25)
        one.set_params(random_state=0).fit(X)
        parts[whitening] = typical_terms(one, X)
    ratio = {key: found.max(1) / found.min(1) for key, found in parts.items()}
    assert ratio[None].max() > 10
    assert ratio["feature"].max() < 1.5


def test_strange_rows_do_not_have_their_features_count_for_less(rows: np.ndarray) -> None:
    own = Autoencoder(hidden_dims=(), latent_dim=1, epochs=20, validation_fraction=0, random_state=0).fit(
        rows
    )
    spoiled = rows.copy()
    spoiled[:24, 2] += 50  # one row in 25
    clean, dirty = (Member.of(own, some, "feature").whitener for some in (rows, spoiled))
    np.testing.assert_allclose(dirty, clean, rtol=0.2)
    joint = [Member.of(own, some, "joint").whitener for some in (rows, spoiled)]
    np.testing.assert_allclose(joint[1], joint[0], atol=0.2 * np.abs(joint[0]).max())


@pytest.mark.parametrize(("width", "whitens"), [(48, True), (49, False)])
def test_the_default_whitens_narrow_rows(width: int, whitens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(n_rows: int, n_features: int, seed: int, loss: Any) -> list[Autoencoder]:
        return [Autoencoder(hidden_dims=(), latent_dim=2, epochs=1, random_state=seed)]

    monkeypatch.setattr(ensemble, "default_members", quick)
    X = np.random.default_rng(0).normal(size=(600, width)) * np.arange(1, width + 1)
    whiteners = {
        name: AnomalyDetector(whitening=name, random_state=0).fit(X).members[0].whitener  # type: ignore[arg-type]
        for name in ("auto", "feature", None)
    }
    np.testing.assert_array_equal(whiteners["auto"], whiteners["feature" if whitens else None])
    assert (whiteners[None] == 1).all()
    assert (whiteners["feature"] != 1).all()
    own = AnomalyDetector(estimator=quick(0, 0, 0, None), random_state=0).fit(X[:, :5])
    assert (own.members[0].whitener == 1).all()


def test_a_column_of_a_table_is_whitened_as_a_whole() -> None:
    """Else a rare category, which costs little in the mean, would be blown up."""
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": chance.normal(size=600),
            "colour": chance.choice(["red", "green", "blue"], p=[0.6, 0.38, 0.02], size=600),
            "old": chance.random(600) < 0.3,
        }
    )
    own = Autoencoder(hidden_dims=(16,), latent_dim=2, epochs=5, validation_fraction=0)
    one = AnomalyDetector(estimator=own, whitening="feature", trim=0, random_state=0).fit(frame)
    (member,) = one.members
    assert member.table is not None
    column = np.array(member.table.column_of())
    assert len(np.unique(column)) == 3
    for k in range(3):
        assert len(np.unique(member.whitener[column == k])) == 1
    assert len(np.unique(member.whitener)) == 3
    terms = member.terms(one.encoder_.transform(frame))
    plain = (terms / np.square(member.whitener)).sum(1)
    mean = terms[plain <= np.quantile(plain, 0.95)].mean(0)
    np.testing.assert_allclose(np.bincount(column, mean), 1.0, atol=0.2)


@pytest.mark.parametrize("n", [4, 5])
def test_few_rows_are_whitened_jointly(rows: np.ndarray, n: int) -> None:
    own = Autoencoder(hidden_dims=(), latent_dim=1, epochs=1, validation_fraction=0)
    for trim in ("auto", 0):
        one = AnomalyDetector(
            estimator=own, whitening="joint", trim=trim, false_alarm_rate=0.4, random_state=0
        ).fit(rows[:n])
        assert np.isfinite(one.score_samples(rows)).all()


def test_of_up_to_twenty_rows_none_is_left_out(rows: np.ndarray) -> None:
    own = Autoencoder(hidden_dims=(), latent_dim=1, epochs=1, validation_fraction=0, random_state=0).fit(rows)
    for n, kept in ((19, 19), (20, 20), (21, 20)):
        terms = np.square(Member.of(own, rows, None).residuals(rows[:n]))
        least = np.argsort(terms.sum(1))[:kept]
        variance = terms[least].mean(0)
        expected = 1 / np.sqrt(variance + 1e-3 * variance.mean() + 1e-9)
        np.testing.assert_allclose(Member.of(own, rows[:n], "feature").whitener, expected, rtol=1e-9)
