"""Fitting in pieces, stopping it, and data of every shape."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make

import diabolo
from diabolo.parts import Conv, LayerWise


def stop_in(epoch):
    def progress(row, total):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return progress


# ------------------------------------------------------------------ Ctrl-C, partial_fit, histories
def test_ctrl_c_leaves_a_fitted_estimator_that_goes_on(name, rows, tmp_path):
    model = make(name, epochs=50)
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows, progress=stop_in(3))
    assert model.history_.stopped_by == "interrupt"
    assert model.history_.rows[-1]["epoch"] == 3
    assert any("interrupted" in event for event in model.history_.events)
    np.testing.assert_array_equal(model.reconstruct(rows), model.reconstruct(rows))
    assert diabolo.load(model.save(tmp_path / "m.safetensors")).history_ == model.history_
    before = model.score(rows)
    for _ in range(60):
        model.partial_fit(rows)
    assert model.score(rows) > before
    assert len(model.history_.rows) == 3 + 60


def test_partial_fit_alone_learns(name, rows):
    model = make(name, batch_size=16)
    assert model.partial_fit(rows) is model
    before = model.score(rows)
    for _ in range(40):
        model.partial_fit(rows)
    assert model.score(rows) > before
    assert [row["stage"] for row in model.history_.rows] == ["partial_fit"] * 41
    assert model.transform(rows).shape == (90, 4)


def test_history_has_one_row_per_epoch_with_every_term(fitted):
    for row in fitted.history_.rows:
        assert {"stage", "epoch", "seconds", "learning_rate", "training_loss", "validation_loss"} <= set(row)
        for part in ("training", "validation"):
            terms = [v for k, v in row.items() if k.startswith(f"{part}_") and k != f"{part}_total"]
            assert sum(terms) == pytest.approx(row[f"{part}_total"], rel=1e-4, abs=1e-4)
    last = [row for row in fitted.history_.rows if row["stage"] == fitted.history_.rows[-1]["stage"]]
    assert [row["epoch"] for row in last] == [1, 2, 3]
    totals = [row["validation_total"] for row in last]
    assert fitted.history_.best_epoch == int(np.argmin(totals)) + 1


def test_stacked_histories_have_the_stages(rows):
    model = make("StackedAutoencoder", hidden_dims=(8, 6), depth=3, training=LayerWise(epochs=2))
    with pytest.raises(ValueError, match="depth"):
        model.set_params(depth=4).fit(rows)
    model.set_params(depth=2).fit(rows)
    stages = [row["stage"] for row in model.history_.rows]
    assert stages == ["pair 1"] * 2 + ["pair 2"] * 2 + ["pair 3"] * 2 + ["fine-tuning"] * 3


def test_ctrl_c_while_pretraining(rows):
    model = make("StackedAutoencoder", training="layerwise:epochs=5")
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows, progress=stop_in(3))
    assert [row["stage"] for row in model.history_.rows] == ["pair 1"] * 3
    assert np.isfinite(model.sample(2)).all()


def test_progress_counts_all_epochs_and_verbose_writes_lines(name, rows, capfd):
    seen = []
    model = make(name, verbose=1).fit(rows, progress=lambda row, total: seen.append((len(seen) + 1, total)))
    assert [n for n, _ in seen] == list(range(1, len(model.history_.rows) + 1))
    assert {total for _, total in seen} == {len(seen)}
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == len(seen)
    assert all("training_total" in line for line in lines)
    make(name).fit(rows)
    assert capfd.readouterr().out == ""


def test_fit_forgets_what_was_before(rows):
    model = make("Autoencoder").fit(rows)
    model.sample(2)
    first = model.transform(rows)
    model.partial_fit(rows)
    model.fit(rows)
    np.testing.assert_array_equal(model.transform(rows), first)
    model.fit(rows[:, :3])
    assert model.sample(2).shape == (2, 3)
    assert model.n_features_in_ == 3


def test_patience_stops_and_keeps_the_best(rows):
    # a constant rate this high does not settle: some epoch is the best, and patience ends the rest
    model = make("Autoencoder", epochs=500, patience=3, learning_rate=0.05, schedule="constant").fit(rows)
    assert model.history_.stopped_by == "patience"
    totals = model.history_.column("validation_total")
    assert len(totals) < 500
    assert model.history_.best_epoch == int(np.argmin(totals)) + 1 == len(totals) - 3


# ------------------------------------------------------------------ shapes
SHAPES = [
    (8, 8),
    (1, 8, 8),
    (3, 7, 5),
    (9, 6),
    (1, 13),
    (2, 13),
    (1, 5, 6, 7),
    (2, 3, 5, 3),
    (1, 1),
    (1, 1, 9),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["ConvolutionalAutoencoder", "Autoencoder"])
def test_samples_come_back_in_their_shape(shape, kind):
    X = np.random.default_rng(0).random((12, *shape), dtype=np.float64)
    model = make(kind, epochs=1, latent_dim=1).fit(X)
    check_shapes(model, X)
    rows = X.reshape(12, -1)
    np.testing.assert_array_equal(model.transform(rows), model.transform(X))
    assert model.reconstruct(rows).shape == rows.shape


@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) != 1])
def test_flattened_rows_with_their_shape_are_the_same_images(shape):
    X = np.random.default_rng(0).random((12, *shape))
    images = make("ConvolutionalAutoencoder", epochs=1, latent_dim=1, scaling="unit").fit(X)
    rows = X.reshape(12, -1)
    model = make("ConvolutionalAutoencoder", epochs=1, latent_dim=1, scaling="unit", input_shape=shape).fit(
        rows
    )
    check_shapes(model, rows)
    assert model.sample_shape_ == shape
    assert model.transform(rows).tobytes() == images.transform(X).tobytes()
    assert model.reconstruct(X).tobytes() == images.reconstruct(X).tobytes()
    assert model.reconstruct(X).shape == X.shape


def check_shapes(model, X):
    codes = model.transform(X)
    results = [codes, model.reconstruct(X), model.inverse_transform(codes), model.sample(3)]
    assert [r.dtype for r in results] == [np.float32] * 4
    assert codes.shape == (12, len(model.get_feature_names_out()))
    assert results[1].shape == results[2].shape == X.shape
    assert results[3].shape == (3, *X.shape[1:])
    assert model.interpolate(X[0], X[1], 5).shape == (5, *X.shape[1:])
    np.testing.assert_array_equal(results[1], results[2])
    walk = model.interpolate(X[0], X[1], 2)
    np.testing.assert_allclose(walk, results[1][:2], rtol=1e-4, atol=1e-5)
    errors = np.square(X - results[1]).reshape(12, -1).sum(1)
    np.testing.assert_allclose(model.reconstruction_error(X), errors, rtol=1e-4, atol=1e-12)
    assert model.score_samples(X).shape == (12,)


def test_rows_without_a_shape_are_signals_of_one_channel(rows):
    model = make("ConvolutionalAutoencoder").fit(rows)
    assert model.recipe_.input_shape == (6,)
    assert model.reconstruct(rows).shape == rows.shape


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64, bool])
def test_numbers_of_every_type(name, dtype):
    X = (np.random.default_rng(0).random((20, 5)) * 9).astype(dtype)
    if dtype is bool:
        X = np.random.default_rng(0).random((20, 5)) > 0.5
    model = make(name).fit(X)
    assert model.reconstruct(X).dtype == np.float32
    np.testing.assert_array_equal(model.transform(X), model.transform(X.astype(np.float64)))


def test_higher_scores_are_more_normal(name, rows):
    model = make(name, epochs=60).fit(rows)
    strange = rows[:20] + 30 * rows.std(0) * np.random.default_rng(0).normal(size=(20, 6))
    assert model.score_samples(strange).max() < np.median(model.score_samples(rows))
    assert model.reconstruction_error(strange).min() > np.median(model.reconstruction_error(rows))


# ------------------------------------------------------------------ mixtures
MIXTURES = {
    "convolutional denoising variational": {
        "architecture": "conv",
        "corruption": "masking:0.2+gaussian:0.1",
        "latent": "gaussian",
        "penalty": "posterior_kl",
        "loss": "gaussian",
    },
    "convolutional contractive": {"architecture": "conv", "penalty": "contractive"},
    "convolutional contractive estimate": {"architecture": "conv", "penalty": "contractive:method=estimate"},
    "spatial sparse": {"architecture": Conv(channels=(4,), code="spatial"), "latent": "topk:1"},
    "pooling and resizing": {"architecture": Conv(down="pool", up="resize")},
    "layerwise sparse denoising": {
        "training": "layerwise",
        "latent": "topk:2",
        "corruption": "salt_and_pepper",
    },
    "layerwise contractive": {"training": "layerwise", "penalty": "contractive", "depth": 2},
    "layerwise variational": {
        "training": "layerwise",
        "latent": "gaussian",
        "penalty": ["posterior_kl", "contractive"],
        "loss": "gaussian",
    },
    "regularised over-complete": {
        "latent_dim": 80,
        "latent_activation": "sigmoid",
        "penalty": "kl_sparsity+l1",
    },
    "batch topk, huber, batch norm, dropout": {
        "latent": "batch_topk:2",
        "loss": "huber",
        "norm": "batch",
        "dropout": 0.1,
    },
    "jumprelu, absolute, layer norm": {
        "latent": "jumprelu",
        "penalty": "l0",
        "loss": "absolute",
        "norm": "layer",
    },
    "tied cross-entropy": {"loss": "binary_cross_entropy", "tied_weights": True, "depth": 2},
    "noisy tanh, plateau, clipped": {
        "latent": "noisy",
        "latent_activation": "tanh",
        "schedule": "plateau",
        "clip_norm": 1.0,
        "weight_decay": 1e-4,
    },
    "bounded output": {"output_activation": "sigmoid", "scaling": "unit"},
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_mixtures_learn(mixture, digits):
    X = digits[0][:400].reshape(-1, 8, 8)
    settings = {"latent_dim": 10, "epochs": 30} | MIXTURES[mixture]
    model = make("Autoencoder", **settings)
    start = model.set_params(epochs=1).fit(X).score(X)
    assert model.set_params(epochs=settings["epochs"]).fit(X).score(X) > max(start, 0.05)
    assert model.reconstruct(X).shape == X.shape
    assert model.sample(2, random_state=0).shape == (2, 8, 8)
    assert np.isfinite(model.score_samples(X)).all()
    assert {"code_size", "active_units", "jacobian_norm"} <= set(model.diagnostics(X))
    assert "<svg" in model.diagram().to_svg()
