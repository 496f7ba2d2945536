"""Laws 2 to 4: every kind learns, chance is handed down, and the linear one is PCA."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make
from sklearn.decomposition import PCA

import diabolo
from diabolo.parts import Chain, GaussianNoise, MaskingNoise

READ_ONLY = ("transform", "reconstruct", "reconstruction_error", "score_samples")


# ------------------------------------------------------------------ law 2
def test_defaults_beat_the_mean_predictor(name, digits):
    train, test = digits
    model = getattr(diabolo, name)(random_state=0).fit(
        train[:500]
    )  # few rows: a fair test of the defaults, too
    assert model.score(test) > 0.5
    codes = model.transform(test)
    assert codes.dtype == np.float32
    assert np.isfinite(codes).all()
    found = model.diagnostics(test)
    assert found["active_units"] >= 5
    if name == "VariationalAutoencoder":
        assert found["active_units"] == (found["kl_per_unit"] > 0.01).sum()
        assert found["kl_per_unit"].sum() > 5  # nats


def test_a_collapsed_posterior_is_told(digits):
    model = diabolo.VariationalAutoencoder(penalty="posterior_kl:beta=1000", epochs=10, random_state=0)
    with pytest.warns(diabolo.errors.CollapseWarning, match="Lower beta"):
        model.fit(digits[0])
    assert model.diagnostics(digits[1])["active_units"] == 0


# ------------------------------------------------------------------ law 3
def test_results_are_deterministic_and_do_not_depend_on_the_other_rows(fitted, rows):
    for method in READ_ONLY:
        few = getattr(fitted, method)(rows[:20])
        assert few.tobytes() == getattr(fitted, method)(rows[:20]).tobytes()
        alone = np.concatenate([getattr(fitted, method)(rows[i : i + 1]) for i in range(20)])
        many = getattr(fitted, method)(rows)[:20]
        for other in (alone, many):  # other sizes and places may be summed in another order
            np.testing.assert_allclose(few, other, rtol=1e-4, atol=1e-6 * np.abs(many).max())


@pytest.mark.parametrize("seed", [None, 3])
def test_the_global_generators_are_neither_read_nor_moved(name, rows, seed):
    # whatever the global state, it stays; and with a seed the result does not depend on it
    weights = []
    for state in (0, 1):
        np.random.seed(state)  # noqa: NPY002 - the legacy generator is what must stay untouched
        torch.manual_seed(state)
        before = np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002
        model = make(name, random_state=seed, dropout=0.1).fit(rows)
        model.partial_fit(rows)
        for method in READ_ONLY:
            getattr(model, method)(rows)
        model.sample(2, random_state=seed)
        model.diagnostics(rows)
        after = np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002
        assert after == before
        weights.append(weight_bytes(model))
    assert (weights[0] == weights[1]) == (seed is not None)


def test_the_same_seed_gives_the_same_bytes(name, rows):
    first, second, third = (make(name, random_state=s).fit(rows) for s in (5, 5, 6))
    assert weight_bytes(first) == weight_bytes(second)
    assert weight_bytes(first) != weight_bytes(third)
    assert first.sample(4, random_state=1).tobytes() == second.sample(4, random_state=1).tobytes()
    assert first.sample(4, random_state=1).tobytes() != first.sample(4, random_state=2).tobytes()
    assert first.sample(4).tobytes() != first.sample(4).tobytes()


def test_a_random_state_object_is_drawn_from(rows):
    chance = np.random.RandomState(0)
    first = make("Autoencoder", random_state=chance).fit(rows)
    second = make("Autoencoder", random_state=chance).fit(rows)
    assert weight_bytes(first) != weight_bytes(second)


def test_corruption_acts_while_training_only(rows):
    model = make("DenoisingAutoencoder", corruption=Chain([GaussianNoise(5.0), MaskingNoise(0.9)])).fit(rows)
    assert model.reconstruct(rows).tobytes() == model.reconstruct(rows).tobytes()


def weight_bytes(model):
    return b"".join(value.numpy().tobytes() for value in model.module_.state_dict().values())


# ------------------------------------------------------------------ law 4
LINEAR = {
    "depth": 0,
    "scaling": "center",
    "validation_fraction": 0,
    "patience": None,
    "learning_rate": 3e-3,
    "optimizer": "adam",
    "random_state": 0,
}


MUON = {"optimizer": "muon", "learning_rate": 1e-2}


@pytest.mark.parametrize("tied", [False, True])
def test_a_linear_autoencoder_is_pca(digits, tied):
    X = digits[0]
    model = diabolo.Autoencoder(latent_dim=8, epochs=60, tied_weights=tied, **LINEAR).fit(X)
    assert 1 - 1e-6 <= model.reconstruction_error(X).sum(dtype=float) / pca_error(X, 8) <= 1.01


def test_a_linear_autoencoder_is_pca_on_a_plane_with_noise():
    chance = np.random.default_rng(0)
    X = chance.normal(size=(400, 5)) @ chance.normal(size=(5, 12)) + 0.1 * chance.normal(size=(400, 12))
    for k in (1, 5):
        model = diabolo.Autoencoder(latent_dim=k, epochs=300, batch_size=100, **(LINEAR | MUON))
        error = model.fit(X).reconstruction_error(X).sum(dtype=float)
        assert 1 - 1e-6 <= error / pca_error(X, k) <= 1.01


def test_no_linear_autoencoder_beats_pca_before_it_has_converged(digits):
    X = digits[0]
    error = (
        diabolo.Autoencoder(latent_dim=8, epochs=2, **LINEAR).fit(X).reconstruction_error(X).sum(dtype=float)
    )
    assert error / pca_error(X, 8) > 1.01


def pca_error(X, k):
    pca = PCA(k).fit(X)
    return np.square(X - pca.inverse_transform(pca.transform(X))).sum()
