"""partial_fit: on sources, with settings that change between calls, and what samples are drawn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make

from diabolo import load
from diabolo.data import ArraySource
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.estimators.generation import Reservoir
from diabolo.estimators.survey import SAMPLE


@pytest.fixture(scope="module")
def many():
    """9,000 rows near a plane, in different units."""
    chance = np.random.default_rng(3)
    return chance.normal(size=(9000, 3)) @ chance.normal(size=(3, 6)) * [1, 10, 100, 1, 0.1, 1]


def weights_of(model):
    return {key: value.numpy().tobytes() for key, value in model.module_.state_dict().items()}


# ------------------------------------------------------------------ sources
def test_a_source_is_learned_from_as_its_rows_are(name, many):
    streamed, in_memory = make(name), make(name)
    many = many[:2000]
    for _ in range(2):
        streamed.partial_fit(ArraySource(many))
        in_memory.partial_fit(many)
    assert streamed.score(many) == pytest.approx(in_memory.score(many), abs=0.15)
    np.testing.assert_allclose(streamed._scaler.offset, in_memory._scaler.offset, rtol=1e-9, atol=1e-9)
    assert [row["stage"] for row in streamed.history_.rows] == ["partial_fit"] * 2
    assert len(streamed.sample(5)) == 5


def test_each_row_of_a_source_is_learned_from_once(many):
    class Counting(ArraySource):
        seen = 0

        def chunks(self, generator=None):
            for numbers, rows in super().chunks(generator):
                self.seen += len(rows)
                yield numbers, rows

    source = Counting(many)
    model = make("Autoencoder").partial_fit(source)
    assert source.seen == 2 * len(many)  # for the range, and to learn
    assert model._steps.steps_done == len(many) // 32


def test_a_later_call_may_bring_a_single_row(many):
    with pytest.raises(InvalidDataError, match="at least 2 rows; got 1"):
        make("Autoencoder").partial_fit(ArraySource(many[:1]))
    streamed, in_memory = (make("Autoencoder").partial_fit(many[:200]) for _ in range(2))
    streamed.partial_fit(ArraySource(many[200:201]))
    in_memory.partial_fit(many[200:201])
    assert weights_of(streamed) == weights_of(in_memory)


def test_a_source_that_does_not_fit_changes_nothing(many):
    model = make("Autoencoder", loss="binary_cross_entropy").partial_fit(ArraySource(many))
    before = weights_of(model)
    bad = many[:100].copy()
    bad[70, 2] = np.nan
    for rows, text in (
        (10 * many[:100], r"must lie in \[0, 1\]"),
        (many[:100, :5], r"shape \(6,\) they had in fit; got \(5,\)"),
        (bad, "got NaN at row 70, column 2"),
    ):
        with pytest.raises((InvalidDataError, InvalidParameterError), match=text):
            model.partial_fit(ArraySource(rows))
    assert weights_of(model) == before


# ------------------------------------------------------------------ settings
@pytest.mark.parametrize("engine", ["dense", "autograd"])
@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e-5}, {"weight_decay": 5.0}, {"clip_norm": 1e-3}, {"batch_size": 7}]
)
def test_settings_that_may_change_take_effect(change, engine, rows):
    def learned(**settings):
        model = make("Autoencoder", engine=engine, optimizer="adam").partial_fit(rows)
        return model.set_params(**settings).partial_fit(rows).partial_fit(rows)

    model = learned(**change)
    assert weights_of(model) != weights_of(learned())
    assert weights_of(model) == weights_of(learned(**change))
    for name, value in change.items():
        assert getattr(model.recipe_, name) == value
    assert weights_of(learned(epochs=99, schedule="plateau")) == weights_of(learned())


@pytest.mark.parametrize("engine", ["dense", "autograd"])
def test_a_setting_that_does_nothing_changes_no_byte(engine, rows):
    """A stage with other settings goes on with the momentum, the order and the steps of the one before."""
    model, other = (make("Autoencoder", engine=engine).partial_fit(rows).partial_fit(rows) for _ in range(2))
    model.partial_fit(rows)
    other.set_params(clip_norm=1e30).partial_fit(rows)
    assert weights_of(model) == weights_of(other)
    assert other._steps.steps_done == 3 * (90 // 32)


@pytest.mark.parametrize(
    "change",
    [
        {"latent_dim": 3},
        {"loss": "huber"},
        {"corruption": "masking:0.2"},
        {"optimizer": "adam"},
        {"device": "cuda"},
    ],
)
def test_settings_that_may_not_change_are_refused(change, rows, tmp_path):
    model = make("Autoencoder").fit(rows)
    stored = load(model.save(tmp_path / "m"))
    (name,) = change
    for one in (model, stored):
        with pytest.raises(InvalidParameterError, match=f"{name} must stay as it was"):
            one.set_params(**change).partial_fit(rows)
        one.set_params(**{name: getattr(make("Autoencoder"), name)}).partial_fit(rows)


def test_a_stored_model_learns_on_at_another_rate(rows, tmp_path):
    model = make("Autoencoder").fit(rows)
    loaded = load(model.save(tmp_path / "m"))
    loaded.set_params(learning_rate=1e-9, weight_decay=0.0).partial_fit(rows)
    assert loaded.recipe_.learning_rate == 1e-9
    np.testing.assert_allclose(loaded.transform(rows), model.transform(rows), atol=1e-3)
    with pytest.raises(InvalidParameterError, match="learning_rate must be"):
        loaded.set_params(learning_rate=-1.0).partial_fit(rows)


# ------------------------------------------------------------------ what is sampled from
def test_samples_come_from_all_calls_and_not_the_last(many):
    model = make("Autoencoder", epochs=5, latent_dim=3).fit(many)
    low = many[:, 2] < 0
    for _ in range(2):
        model.partial_fit(many[low][:500])
    model.partial_fit(many[~low][:1000])
    drawn = model.sample(2000, random_state=0)[:, 2]
    assert (drawn < -20).mean() > 0.25
    assert (drawn > 20).mean() > 0.25


@pytest.mark.parametrize("sizes", [[30, 1, 5000, 200, 64], [64] * 100, [9000]])
def test_a_reservoir_is_a_fair_sample(sizes):
    total = sum(sizes)
    counts = np.zeros(len(sizes))
    for seed in range(30):
        reservoir, at = Reservoir(100, seed), 0
        for size in sizes:
            rows = np.arange(at, at + size)[:, None]
            if size > 1000:  # a sample may stand for all
                rows = np.random.default_rng(seed).choice(rows, 100, replace=False)
            reservoir.add(rows, size)
            at += size
        kept = reservoir.rows[:, 0]
        assert len(np.unique(kept)) == len(kept) == min(100, total)
        counts += np.histogram(kept, np.cumsum([0, *sizes]))[0]
    share, wanted = counts / counts.sum(), np.array(sizes) / total
    np.testing.assert_allclose(share, wanted, atol=5 * np.sqrt(0.25 / 3000))


def test_a_reservoir_holds_no_more_than_it_may(many):
    model = make("Autoencoder").partial_fit(many)
    model.partial_fit(ArraySource(many)).partial_fit(many[:10])
    assert model._kept.rows.shape == (SAMPLE, 6)
    assert torch.from_numpy(model._kept.rows).dtype == torch.float32
