"""The general step where memory is short, half precision in both steps, and when compiling pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diabolo import Autoencoder
from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import IncompatiblePartsError, InvalidParameterError
from diabolo.parts import L1, GaussianNoise
from diabolo.training import engine
from diabolo.training.dense import DenseStep

SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 50, "random_state": 0, "latent_dim": 4}
COMPOSITIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "denoising": {"corruption": "gaussian:0.3+masking:0.2", "dropout": 0.2},
    "variational": {"latent": "gaussian", "penalty": "posterior_kl", "loss": "gaussian"},
    "contractive": {"penalty": "contractive:0.3", "clip_norm": 0.5},
    "normalised": {"norm": "layer"},
}


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(230, 10)).astype(np.float32)


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the forward pass of training have memory for so many rows."""
    forward = AutoencoderModule.forward

    def at_most(n: int) -> None:
        def limited(self: AutoencoderModule, x: Tensor, generator: torch.Generator | None = None) -> Any:
            passed = forward(self, x, generator)  # memory runs out when chance has been used
            if self.training and len(x) > n:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return passed

        monkeypatch.setattr(AutoencoderModule, "forward", limited)

    return at_most


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_portions_give_the_result_of_the_whole(
    name: str, rows: np.ndarray, scarce: Callable[[int], None]
) -> None:
    choices = SETTINGS | COMPOSITIONS[name] | {"engine": "autograd"}
    whole = Autoencoder(**choices).fit(rows)
    scarce(13)
    portions = Autoencoder(**choices).fit(rows)
    for mine, theirs in zip(portions.module_.parameters(), whole.module_.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    last, expected = portions.history_.rows[-1], whole.history_.rows[-1]
    for term in (key for key in expected if key.startswith("training_")):
        assert last[term] == pytest.approx(expected[term], rel=1e-4)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"latent": "topk:k=2"}, "the latent needs it whole"),
        ({"norm": "batch"}, "norm='batch' needs it whole"),
        ({"penalty": "kl_sparsity", "latent_activation": "sigmoid"}, "kl_sparsity needs it whole"),
        ({"corruption": "salt_and_pepper:0.1"}, "extremes needs it whole"),
    ],
)
def test_what_couples_rows_is_not_trained_in_portions(
    choices: dict[str, Any], reason: str, rows: np.ndarray, scarce: Callable[[int], None]
) -> None:
    scarce(13)
    with pytest.raises(InvalidParameterError, match=f"got 50 rows, and .*{reason}"):
        Autoencoder(**SETTINGS | choices | {"engine": "autograd"}).fit(rows)


def test_not_even_one_row(rows: np.ndarray, scarce: Callable[[int], None]) -> None:
    scarce(0)
    with pytest.raises(InvalidParameterError, match="a row must fit into memory"):
        Autoencoder(**SETTINGS, engine="autograd").fit(rows)


def test_the_dense_step_says_what_takes_portions(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: DenseStep, n: int, data: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DenseStep, "_prepare", full)
    with pytest.raises(
        InvalidParameterError, match=r"got 50 rows\. Lower batch_size, or set engine='autograd'"
    ):
        Autoencoder(**SETTINGS).fit(rows)


def test_validation_goes_in_portions_too(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Autoencoder(**SETTINGS).fit(rows)
    forward, seen = AutoencoderModule.forward, []

    def limited(self: AutoencoderModule, x: Tensor, generator: torch.Generator | None = None) -> Any:
        seen.append(len(x))
        if len(x) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, generator)

    monkeypatch.setattr(AutoencoderModule, "forward", limited)
    portions = Autoencoder(**SETTINGS).fit(rows)
    assert max(seen) == 23
    assert portions.history_.rows[-1]["validation_total"] == pytest.approx(
        whole.history_.rows[-1]["validation_total"], rel=1e-5
    )


@pytest.mark.parametrize("choice", ["corruption", "penalty"])
def test_parts_of_a_user_s_own_are_not_trained_in_portions(
    choice: str, rows: np.ndarray, scarce: Callable[[int], None]
) -> None:
    class Dimming(GaussianNoise):
        def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
            return x * torch.empty_like(x).uniform_(generator=generator)

    class Own(L1):
        pass

    part = Dimming(0.1) if choice == "corruption" else Own()
    scarce(13)
    with pytest.raises(InvalidParameterError, match=f"{type(part).__name__}, of which nothing else is known"):
        Autoencoder(**SETTINGS, engine="autograd", **{choice: part}).fit(rows)


@pytest.mark.parametrize("engine_", ["auto", "autograd"])
@pytest.mark.parametrize("name", ["plain", "denoising", "variational", "contractive"])
def test_half_precision_is_close(name: str, engine_: str) -> None:
    x = np.random.default_rng(0).normal(size=(300, 96)).astype(np.float32)
    choices = (
        SETTINGS | COMPOSITIONS[name] | {"hidden_dims": (80, 30), "engine": engine_, "learning_rate": 1e-3}
    )
    found = {p: Autoencoder(**choices, precision=p).fit(x) for p in ("float32", "bf16")}
    values = [est.history_.rows[-1]["validation_total"] for est in found.values()]
    assert values[1] == pytest.approx(values[0], rel=0.01)
    assert values[1] != values[0]
    assert all(w.dtype == torch.float32 for w in found["bf16"].module_.parameters())


def test_half_precision_in_pairs_of_which_some_are_narrow() -> None:
    x = np.random.default_rng(0).normal(size=(200, 90)).astype(np.float32)
    choices = SETTINGS | {"hidden_dims": (80, 70), "training": "layerwise", "learning_rate": 1e-3}
    found = [Autoencoder(**choices, precision=p).fit(x).history_.rows[-1] for p in ("float32", "bf16")]
    assert found[1]["training_total"] == pytest.approx(found[0]["training_total"], rel=0.01)
    assert found[1]["training_total"] != found[0]["training_total"]


def test_half_precision_without_a_wide_layer_is_refused(rows: np.ndarray) -> None:
    with pytest.raises(IncompatiblePartsError, match="precision='bf16' must meet a layer at least 64 wide"):
        Autoencoder(**SETTINGS, precision="bf16").fit(rows)


def test_compiling_has_to_pay(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    choices = SETTINGS | {"engine": "compiled", "penalty": "posterior_kl:1,warmup=5", "latent": "gaussian"}
    short = Autoencoder(**choices).fit(rows)
    assert short.history_.engine == "autograd"
    assert short.history_.events == ["end_to_end: not compiled, as the training is too short to pay for it"]
    assert not compiled
    monkeypatch.setattr(engine, "_WORK_TO_COMPILE", 1.0)
    long = Autoencoder(**choices).fit(rows)
    assert long.history_.engine == "compiled"
    assert len(compiled) == 1
    np.testing.assert_allclose(long.transform(rows), short.transform(rows), rtol=1e-5, atol=1e-6)
