"""Where features share their bounds, reconstructions and samples keep to them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diabolo import Autoencoder, VariationalAutoencoder, load
from diabolo.parts import Dense

SMALL = {"hidden_dims": (16,), "latent_dim": 4, "epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return load_digits().data.astype(np.float32)[:300]


def test_pixels_stay_within_their_bounds(digits: np.ndarray, tmp_path) -> None:
    est = VariationalAutoencoder(**SMALL).fit(digits)
    assert est.recipe_.output_activation == "clip"
    for values in (est.reconstruct(digits), est.sample(50)):
        assert values.min() == pytest.approx(0.0, abs=1e-5)
        assert values.max() <= 16.0 + 1e-5
    again = load(est.save(tmp_path / "m.safetensors"))
    assert np.array_equal(again.reconstruct(digits), est.reconstruct(digits))


@pytest.mark.parametrize(
    "choices",
    [
        {"output_activation": "linear"},
        {"activation": "linear"},
        {"hidden_dims": ()},
        {"architecture": Dense((8,), activation="linear"), "hidden_dims": None},
    ],
    ids=str,
)
def test_linear_outputs_stay_linear(digits: np.ndarray, choices: dict) -> None:
    est = Autoencoder(**SMALL | choices).fit(digits)
    assert est.recipe_.output_activation in (None, "linear")
    assert est.reconstruct(digits).min() < -0.1


def test_a_table_in_units_of_its_own_is_not_clipped() -> None:
    X = np.random.default_rng(0).normal(size=(200, 5)) * [1, 5, 10, 100, 1000]
    assert Autoencoder(**SMALL).fit(X).recipe_.output_activation is None


@pytest.mark.parametrize("scales", [(5,), (100, 0.5), (1, 1), (100, 0.5, 3)])
def test_a_narrow_table_is_not_taken_for_pixels(scales: tuple[float, ...]) -> None:
    """One of two columns always has the least value of all, and one the greatest."""
    X = np.random.default_rng(0).normal(size=(200, len(scales))) * scales
    recipe = Autoencoder(**SMALL).fit(X).recipe_
    assert (recipe.scaling, recipe.output_activation) == ("standard", None)


def test_columns_that_reach_the_same_ends_share_their_units() -> None:
    X = np.random.default_rng(0).integers(-2, 3, size=(200, 4)) * 4.0
    recipe = Autoencoder(**SMALL).fit(X).recipe_
    assert (recipe.scaling, recipe.output_activation) == ("center", "clip")


def test_asked_for_a_table_is_clipped_at_its_extremes() -> None:
    X = np.random.default_rng(0).normal(size=(200, 5)).clip(-1, 1)
    est = Autoencoder(**SMALL, output_activation="clip").fit(X)
    assert np.abs(est.reconstruct(3 * X)).max() <= 1 + 1e-6


def test_rows_that_come_later_widen_the_bounds(digits: np.ndarray) -> None:
    dark = np.minimum(digits, 8)
    est = Autoencoder(**{k: v for k, v in SMALL.items() if k != "epochs"}).partial_fit(dark)
    assert est.reconstruct(digits).max() <= 8 + 1e-5
    for _ in range(30):
        est.partial_fit(digits)
    assert est.reconstruct(digits).max() > 9
    assert est.reconstruct(digits).max() <= 16 + 1e-5


@pytest.mark.parametrize(("output", "scaling"), [("sigmoid", "unit"), ("relu", "unit"), ("linear", "center")])
def test_the_scaling_follows_what_the_output_reaches(digits: np.ndarray, output: str, scaling: str) -> None:
    est = Autoencoder(**SMALL, output_activation=output).fit(digits)
    assert est.recipe_.scaling == scaling


def test_patience_waits_for_a_weight_that_still_rises(digits: np.ndarray) -> None:
    choices = {"penalty": "posterior_kl:warmup=1000000", "patience": 1, "validation_fraction": 0.0}
    est = VariationalAutoencoder(**SMALL | {"epochs": 4} | choices).fit(digits)
    assert len(est.history_) == 4


@pytest.mark.parametrize("scaling", ["auto", None])
def test_asked_for_columns_of_different_units_each_has_its_own_bounds(scaling, tmp_path) -> None:
    chance = np.random.default_rng(0)
    X = chance.normal(size=(300, 2)) @ chance.normal(size=(2, 5)) * [1, 5, 10, 100, 1000] + [0, 0, 9, 0, 0]
    est = Autoencoder(**SMALL, output_activation="clip", scaling=scaling).fit(X)
    slack = 1e-6 * np.abs(X).max(0)
    for again in (est, load(est.save(tmp_path / "m.safetensors"))):
        restored = again.reconstruct(100 * X)
        assert (restored >= X.min(0) - slack).all()
        assert (restored <= X.max(0) + slack).all()
        again.set_params(learning_rate=1.0).partial_fit(2 * X)  # bounds move for each column by itself
        restored = again.reconstruct(100 * X)
        assert (restored >= 2 * X.min(0) - 2 * slack).all()
        assert (restored <= 2 * X.max(0) + 2 * slack).all()
        assert (restored.max(0) > X.max(0) + slack).any()
