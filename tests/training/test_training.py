"""The engine: steps, schedules, best weights, divergence, plans."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from diabolo import Autoencoder, StackedAutoencoder
from diabolo.errors import DivergedError, DivergenceWarning
from diabolo.parts import LayerWise
from diabolo.recipe import default_batch_size, hidden_widths
from diabolo.training.engine import Settings, Stage
from diabolo.training.machine import threads_for
from diabolo.training.optimizers import Muon, _orthogonalised, make_optimizers, set_rate, split


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 12))).astype(np.float32)


def test_orthogonalised_drives_singular_values_towards_one() -> None:
    x = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(_orthogonalised(x))
    assert 0.5 < values.min() < values.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    polar = u @ v
    cosine = (
        (polar * _orthogonalised(x)).sum((1, 2))
        / polar.norm(dim=(1, 2))
        / _orthogonalised(x).norm(dim=(1, 2))
    )
    assert cosine.min() > 0.97


def test_muon_steps_have_the_promised_size_whatever_the_gradient() -> None:
    for factor in (1e-6, 1.0, 1e6):
        for shape in ((30, 50), (50, 30), (40, 40)):
            w = torch.nn.Parameter(torch.zeros(shape))
            w.grad = factor * torch.randn(shape, generator=torch.Generator().manual_seed(1))
            Muon([w], lr=0.1).step()
            assert 0.6 * 0.02 < float(w.detach().square().mean().sqrt()) < 1.3 * 0.02


def test_muon_goes_against_the_gradient() -> None:
    w = torch.nn.Parameter(torch.zeros(6, 4))
    w.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    Muon([w], lr=0.1).step()
    assert float((w.detach() * w.grad).sum()) < 0


def test_muon_takes_small_matrices_and_adam_the_rest() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Conv1d(1, 2, 3))
    muon, adam = make_optimizers(*split("muon", layers.parameters()), 0.01, 0.0)
    assert [tuple(w.shape) for g in muon.param_groups for w in g["params"]] == [(3, 4)]
    assert len([w for g in adam.param_groups for w in g["params"]]) == 3
    set_rate([muon, adam], 1.0)
    assert muon.param_groups[0]["lr"] == 1.0
    assert adam.param_groups[0]["lr"] == 1.0
    wide = torch.nn.Linear(257, 257, bias=False)  # orthogonalising it would cost more than it brings
    assert [type(o) for o in make_optimizers(*split("muon", wide.parameters()), 0.01, 0.0)] == [type(adam)]
    (only,) = make_optimizers(*split("adam", layers.parameters()), 0.01, 0.0)
    set_rate([only], 1.0)
    assert only.param_groups[0]["lr"] == 1.0


def test_history_rows_add_up_and_tell_the_course(rows: np.ndarray) -> None:
    est = Autoencoder(epochs=5, latent_dim=3, penalty="l1:0.1", random_state=0).fit(rows)
    assert len(est.history_) == 5
    for row in est.history_.rows:
        for part in ("training", "validation"):
            assert row[f"{part}_total"] == pytest.approx(row[f"{part}_loss"] + row[f"{part}_l1"], rel=1e-5)
    assert est.history_.column("epoch") == [1, 2, 3, 4, 5]
    assert est.history_.engine == "dense"
    assert est.history_.stopped_by == "epochs"


def test_the_best_weights_are_kept(rows: np.ndarray) -> None:
    seen: dict[int, bytes] = {}
    est = Autoencoder(
        epochs=30, latent_dim=3, random_state=0, learning_rate=0.05, schedule="constant", patience=None
    )

    def remember(row: dict[str, object], total: int) -> None:
        seen[int(row["epoch"])] = est.module_.decoder[-1][0].weight.detach().numpy().tobytes()  # type: ignore[call-overload]

    est.fit(rows, progress=remember)
    losses = est.history_.column("validation_total")
    assert est.history_.best_epoch == int(np.argmin(losses)) + 1
    assert est.module_.decoder[-1][0].weight.detach().numpy().tobytes() == seen[est.history_.best_epoch]


def test_patience_stops(rows: np.ndarray) -> None:
    est = Autoencoder(
        epochs=100, latent_dim=3, patience=1, learning_rate=0.3, schedule="constant", random_state=0
    )
    est.fit(rows)
    assert est.history_.stopped_by == "patience"
    assert len(est.history_) < 100


def _stage(schedule: str, epochs: int = 10) -> Stage:
    from diabolo.recipe import resolve

    recipe = resolve(
        Autoencoder(latent_dim=2, epochs=epochs, schedule=schedule, learning_rate=0.1),
        shape=(4,), n_rows=64, scaling=None, bounded=False, seed=0, default_depth=1,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    settings = Settings(0.1, "adam", 16, epochs, schedule, 0.0, None, None)
    return Stage(recipe.build(generator), recipe.objective(), torch.zeros(64, 4), None, settings, generator)


def test_schedules() -> None:
    cosine = [_stage("cosine")._rate_at(step) for step in range(40)]
    assert cosine[0] < 0.01
    assert max(cosine) == pytest.approx(0.1, rel=0.02)
    assert cosine[-1] < 0.001
    assert all(a >= b for a, b in itertools.pairwise(cosine[3:]))
    assert {_stage("constant")._rate_at(step) for step in range(40)} == {0.1}


def test_plateau_halves_the_rate(rows: np.ndarray) -> None:
    # a rate so high that the loss stops falling at once
    est = Autoencoder(
        epochs=60, latent_dim=3, schedule="plateau", optimizer="adam", learning_rate=0.05, random_state=0
    )
    est.fit(rows)
    rates = est.history_.column("learning_rate")
    assert rates[0] == 0.05
    assert rates[-1] in {0.05 * 2.0**-k for k in range(1, 12)}


def test_divergence_goes_back_and_says_so(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from diabolo.training import dense

    original = dense.DenseStep.__call__
    calls = {"n": 0}

    def poisoned(
        self: dense.DenseStep, data: torch.Tensor, rows: torch.Tensor, step: int
    ) -> dict[str, torch.Tensor]:
        calls["n"] += 1
        terms = original(self, data, rows, step)
        if calls["n"] == 25:
            with torch.no_grad():
                self.parameters[0].fill_(math.nan)
        return terms

    monkeypatch.setattr(dense.DenseStep, "__call__", poisoned)
    with pytest.warns(DivergenceWarning, match="back to the last good weights"):
        est = Autoencoder(epochs=5, latent_dim=3, random_state=0, batch_size=16).fit(rows)
    assert len(est.history_) == 5
    assert len(est.history_.events) == 1
    assert np.isfinite(est.transform(rows)).all()
    rates = est.history_.column("learning_rate")
    assert rates[-1] < 0.01


def test_hopeless_divergence_is_an_error(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from diabolo.training import dense

    original = dense.DenseStep.__call__

    def poisoned(self: dense.DenseStep, *args: object) -> dict[str, torch.Tensor]:
        return {name: term * math.nan for name, term in original(self, *args).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(dense.DenseStep, "__call__", poisoned)
    with (
        pytest.warns(DivergenceWarning),
        pytest.raises(
            DivergedError, match="learning_rate must let the loss stay finite; got a divergence in epoch 1"
        ),
    ):
        Autoencoder(epochs=5, latent_dim=3, random_state=0).fit(rows)


def test_layerwise_trains_pairs_then_the_whole(rows: np.ndarray) -> None:
    est = StackedAutoencoder(
        hidden_dims=(10, 8), latent_dim=3, epochs=4, training=LayerWise(epochs=2), random_state=0
    )
    est.fit(rows)
    assert (
        est.history_.column("stage") == ["pair 1"] * 2 + ["pair 2"] * 2 + ["pair 3"] * 2 + ["fine-tuning"] * 4
    )


@pytest.mark.parametrize("penalty", ["l1:0.01", "contractive:0.01"])
def test_penalties_act_on_every_pair_in_both_engines(rows: np.ndarray, penalty: str) -> None:
    errors = []
    for engine in ("dense", "autograd"):
        settings = {"penalty": penalty, "engine": engine, "random_state": 0, "epochs": 3, "latent_dim": 3}
        m = StackedAutoencoder(hidden_dims=(12, 8), **settings).fit(rows)  # type: ignore[arg-type]
        name = f"training_{penalty.split(':')[0]}"
        assert all(row[name] > 0 for row in m.history_.rows)
        errors.append(m.history_.column("training_total"))
    np.testing.assert_allclose(*errors, rtol=1e-3)


def test_pretraining_changes_the_start_of_the_fine_tuning(rows: np.ndarray) -> None:
    common = {"hidden_dims": (10, 8), "latent_dim": 3, "epochs": 1, "random_state": 0}
    stacked = StackedAutoencoder(training=LayerWise(epochs=30), **common).fit(rows)
    plain = Autoencoder(**common).fit(rows)
    assert stacked.history_.rows[-1]["training_loss"] < 0.75 * plain.history_.rows[-1]["training_loss"]


def test_layerwise_keeps_the_pairs_it_trained(rows: np.ndarray) -> None:
    """The pair's module shares its layers with the whole: what one learns the other has."""
    weights: dict[str, bytes] = {}
    est = StackedAutoencoder(
        hidden_dims=(10,), latent_dim=3, epochs=1, training=LayerWise(epochs=1), random_state=0
    )

    def remember(row: dict[str, object], total: int) -> None:
        weights[str(row["stage"])] = est.module_.encoder[0][0].weight.detach().numpy().tobytes()

    est.fit(rows, progress=remember)
    assert weights["pair 1"] == weights["pair 2"]  # the second pair leaves the first alone
    assert weights["pair 2"] != weights["fine-tuning"]


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with threads_for(1.0) as used:
        assert used == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_default_sizes() -> None:
    assert hidden_widths(784, 30, 3) == (512, 256, 128)
    assert hidden_widths(5, 2, 2) == (64, 32)
    assert hidden_widths(10_000, 400, 3) == (1024, 1024, 1024)
    assert [default_batch_size(n) for n in (2, 1500, 60_000, 10**7)] == [16, 32, 256, 1024]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_setting_trains(
    rows: np.ndarray, optimizer: str, clip_norm: float | None, weight_decay: float
) -> None:
    est = Autoencoder(
        epochs=20,
        latent_dim=3,
        optimizer=optimizer,
        clip_norm=clip_norm,
        weight_decay=weight_decay,
        random_state=0,
    ).fit(rows)
    assert est.score(rows) > 0.3


def test_weight_decay_shrinks(rows: np.ndarray) -> None:
    norms = []
    for weight_decay in (0.0, 1.0):
        est = Autoencoder(epochs=20, latent_dim=3, weight_decay=weight_decay, random_state=0).fit(rows)
        norms.append(sum(float(w.detach().square().sum()) for w in est.module_.parameters() if w.ndim == 2))
    assert norms[1] < 0.9 * norms[0]


def test_an_interruption_between_pairs_keeps_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from diabolo.training.feed import MemoryFeed

    def pressed(self: MemoryFeed, function: object) -> MemoryFeed:
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryFeed, "mapped", pressed)
    X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    model = StackedAutoencoder(hidden_dims=(5, 4), latent_dim=2, epochs=2, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert model.history_.stopped_by == "interrupt"
    assert model.history_.events == ["pair 1: interrupted after it; the weights so far are kept"]
    assert np.isfinite(model.reconstruct(X)).all()
