"""The eighth law: stopped and resumed is never stopped, byte for byte, for every kind."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import make

from diabolo import persistence
from diabolo.errors import DivergenceWarning
from diabolo.parts import LayerWise
from diabolo.training import dense, engine
from diabolo.training.checkpoint import NAME

EPOCHS = {"epochs": 4}
# what the course of a training can hang on, beyond the kinds' own parts
COURSES = {
    "plateau": {"schedule": "plateau", "learning_rate": 0.3, "epochs": 24},
    "patience": {"schedule": "constant", "learning_rate": 0.3, "patience": 2, "epochs": 60},
    "constant": {"schedule": "constant", **EPOCHS},
    "training loss chooses": {"validation_fraction": 0.0, **EPOCHS},
    "clipped, dropped out": {"clip_norm": 0.5, "dropout": 0.3, "hidden_dims": (8,), **EPOCHS},
    "batch norm": {"norm": "batch", "hidden_dims": (8,), **EPOCHS},
    "tied": {"tied_weights": True, **EPOCHS},
    "autograd": {"engine": "autograd", **EPOCHS},
    "revived units": {"latent": "batch_topk:k=2,revive_after=40", "latent_dim": 12, **EPOCHS},
    "learned thresholds": {"latent": "jumprelu", "penalty": "l0:0.1", "latent_dim": 12, **EPOCHS},
    "noise": {"corruption": "gaussian:0.3+masking:0.2", **EPOCHS},
    "warm-up": {
        "latent": "gaussian", "penalty": "posterior_kl:warmup=9", "validation_fraction": 0.0, **EPOCHS,
    },
    "learned variance": {"loss": "gaussian", **EPOCHS},
    "pairs": {
        "training": LayerWise(epochs=2), "hidden_dims": (8, 6), "schedule": "plateau", "epochs": 3,
    },
    "pairs, training loss": {
        "training": LayerWise(epochs=2), "hidden_dims": (8,), "validation_fraction": 0.0, "epochs": 2,
    },
}  # fmt: skip


class Killed(BaseException):
    """Stands for whatever ends a process: nothing in the package catches it."""


def fit_in_pieces(build, X, folder, *, pieces, every=1):
    """Fit, die after so many epochs, begin a new estimator that resumes, and so on to the end."""
    deaths = 0
    for length in [*pieces, math.inf]:
        model, left = build(), length

        def progress(row, total):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        try:
            return model.fit(X, checkpoint=folder, every=every, resume=True, progress=progress), deaths
        except Killed:
            deaths += 1
    raise AssertionError("unreachable")


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def everything_in(folder):
    """The last checkpoint: weights, best weights, optimizers, generator; course, history, settings."""
    header, kept = persistence.read_model(folder / NAME, persistence.CHECKPOINT)
    header["history"]["rows"] = without_seconds(header["history"]["rows"])
    tensors = {key: value.numpy().tobytes() for key, value in kept.items()}
    return header, tensors


def state_of(model):
    history = model.history_.to_dict()
    history["rows"] = without_seconds(history["rows"])
    return history, {key: value.numpy().tobytes() for key, value in model.module_.state_dict().items()}


def check(build, X, tmp_path, pieces, every=1):
    never = build().fit(X, checkpoint=tmp_path / "never")
    resumed, died = fit_in_pieces(build, X, tmp_path / "resumed", pieces=pieces, every=every)
    assert died == len(pieces)
    assert state_of(resumed) == state_of(never) == state_of(build().fit(X))
    assert everything_in(tmp_path / "resumed") == everything_in(tmp_path / "never")
    assert resumed.transform(X).tobytes() == never.transform(X).tobytes()
    return never


def test_every_kind_killed_after_every_epoch(name, rows, tmp_path):
    n_epochs = len(make(name).fit(rows).history_)
    model = check(lambda: make(name), rows, tmp_path, pieces=[1] * n_epochs)
    assert model.history_.stopped_by == "epochs"


def test_every_kind_killed_between_checkpoints(name, rows, tmp_path):
    """What was done since the last checkpoint is done again."""
    check(lambda: make(name, epochs=5), rows, tmp_path, pieces=[1, 3, 2], every=2)


@pytest.mark.parametrize("course", COURSES)
def test_every_course_killed_after_every_other_epoch(course, rows, tmp_path):
    def build():
        return make("Autoencoder", **COURSES[course])

    n_epochs = len(build().fit(rows).history_)
    model = check(build, rows, tmp_path, pieces=[2] * (n_epochs // 2))
    if course == "patience":
        assert model.history_.stopped_by == "patience"
        assert n_epochs < 60
    if course == "plateau":
        assert len(set(model.history_.column("learning_rate"))) > 1


def test_images_with_convolutions(digits, tmp_path):
    images = digits[0][:120].reshape(-1, 8, 8)
    for norm in (None, "batch"):
        check(
            lambda norm=norm: make("ConvolutionalAutoencoder", channels=(4,), norm=norm),
            images,
            tmp_path / str(norm),
            pieces=[1, 1],
        )


@pytest.mark.parametrize("step", [dense.DenseStep, engine.AutogradStep])
def test_divergence_and_its_lower_rate(step, rows, tmp_path, monkeypatch):
    """Two epochs diverge, one before the death and one after it: a retry is not forgotten or repeated."""
    original = step.__call__

    def poisoned(self, data, batch, at):
        # by what is drawn, not by a count of calls: a process that resumes has counted none
        terms = original(self, data, batch, at)
        if at in (3, 8) and not torch.isnan(self.parameters[0]).any():
            rate = self.optimizers[0].param_groups[0]["lr"]
            if rate > {3: 0.004, 8: 0.002}[at]:
                with torch.no_grad():
                    self.parameters[0].fill_(math.nan)
        return terms

    monkeypatch.setattr(step, "__call__", poisoned)

    def build():
        return make(
            "Autoencoder", engine=step.name, learning_rate=0.0064, schedule="constant", epochs=6
        )  # fmt: skip

    with pytest.warns(DivergenceWarning):
        model = check(build, rows, tmp_path, pieces=[1, 2, 1])
    assert len(model.history_.events) == 2
    assert model.history_.rows[-1]["learning_rate"] == 0.0016


def test_ctrl_c_between_checkpoints_loses_no_epoch(name, rows, tmp_path):
    def press(row, total):
        done.append(row)
        if len(done) == 2:
            raise KeyboardInterrupt

    done, seen = [], []
    never = make(name, epochs=6).fit(rows, checkpoint=tmp_path / "never")
    model = make(name, epochs=6)
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows, checkpoint=tmp_path / "kept", every=100, progress=press)
    assert model.history_.stopped_by == "interrupt"
    resumed = make(name, epochs=6).fit(
        rows, checkpoint=tmp_path / "kept", resume=True, progress=lambda row, _: seen.append(row)
    )
    assert seen == resumed.history_.rows[2:]
    assert state_of(resumed) == state_of(never)
    assert everything_in(tmp_path / "kept") == everything_in(tmp_path / "never")


@pytest.mark.parametrize("state", [None, 3])
def test_without_a_seed_the_run_keeps_the_one_it_drew(rows, tmp_path, state):
    def build():
        return make("VariationalAutoencoder", random_state=state)

    with pytest.raises(Killed):
        build().fit(rows, checkpoint=tmp_path / "kept", progress=lambda row, _: (_ for _ in ()).throw(Killed))
    kept, _ = persistence.read_model(tmp_path / "kept" / NAME, persistence.CHECKPOINT)
    resumed = build().fit(rows, checkpoint=tmp_path / "kept", resume=True)
    assert resumed.recipe_.seed == kept["recipe"]["seed"]
    if state is not None:
        assert state_of(resumed) == state_of(build().fit(rows))


def test_a_finished_fit_is_not_trained_again(name, rows, tmp_path):
    first = make(name).fit(rows, checkpoint=tmp_path)
    before = (tmp_path / NAME).read_bytes()

    def never(row, total):
        raise AssertionError("an epoch was trained")

    again = make(name).fit(rows, checkpoint=tmp_path, resume=True, progress=never)
    assert state_of(again) == state_of(first)
    assert again.history_ == first.history_
    assert (tmp_path / NAME).read_bytes() == before
