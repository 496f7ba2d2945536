"""The sparse step about a TopK code equals the autograd step, in double precision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from diabolo import Autoencoder
from diabolo.parameters import Parameters
from diabolo.parts.activations import ACTIVATIONS
from diabolo.recipe import resolve
from diabolo.training import largest, sparse
from diabolo.training.dense import DenseStep
from diabolo.training.engine import AutogradStep, choose_step
from diabolo.training.machine import multiplies_half
from diabolo.training.optimizers import set_rate
from diabolo.training.settings import Settings
from diabolo.training.sparse import SparseStep

half = pytest.mark.skipif(
    not multiplies_half(torch.device("cpu")), reason="the processor does not multiply bfloat16"
)
SHAPE = (3, 4)
NETS: dict[str, dict[str, Any]] = {
    "one layer": {"hidden_dims": ()},
    "one layer, tied": {"hidden_dims": (), "tied_weights": True},
    "deep": {"hidden_dims": (9, 7), "activation": "tanh"},
    "deep, tied": {"hidden_dims": (9, 7), "tied_weights": True},
    "dropout": {"hidden_dims": (9,), "dropout": 0.3, "corruption": "masking:0.2"},
    "clipped, l1": {"hidden_dims": (9,), "output_activation": "clip", "penalty": "l1:0.1"},
}
REVIVAL = {"none": 10_000, "many": 5, "all that are silent": 1}


def steps(
    choices: dict[str, Any], optimizer: str, *kinds: type, dtype: torch.dtype = torch.float64
) -> list[Any]:
    recipe = resolve(
        Parameters(**{"latent": "topk:k=2", "latent_dim": 32} | choices),
        shape=SHAPE, n_rows=60, scaling=None, bounded=False, seed=0, default_depth=1,
    )  # fmt: skip
    module = recipe.build(torch.Generator().manual_seed(0)).to(dtype).train()
    module.reach(torch.full(SHAPE, 0.2, dtype=dtype), torch.full(SHAPE, 0.8, dtype=dtype))
    settings = Settings(0.01, optimizer, 16, 1, "constant", 0.1, None, None)
    made = []
    for kind in kinds:
        own = copy.deepcopy(module)
        generator = torch.Generator().manual_seed(1)
        own.draw_from(generator)
        made.append(kind(own, recipe.objective(), settings, generator))
    return made


def compare(choices: dict[str, Any], optimizer: str = "adam", n_steps: int = 4) -> int:
    """Compare both steps; return in how many steps units were revived."""
    slow, fast = steps(choices, optimizer, AutogradStep, SparseStep)
    assert SparseStep.suits(fast.module, fast.objective)
    data = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(2)).double()
    set_rate([*slow.optimizers, *fast.optimizers], 0.01)
    revived = 0
    for i in range(n_steps):
        rows = torch.arange(13 * i, 13 * i + 13 - i)
        expected, found = slow(data, rows, i), fast(data, rows, i)
        assert list(expected) == list(found)
        revived += "revival" in found
        for name in expected:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-10, abs=1e-10)
    mine = dict(fast.module.named_parameters())
    for name, w in slow.module.named_parameters():
        torch.testing.assert_close(mine[name].grad, w.grad, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(mine[name], w, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    assert torch.equal(fast.module.latent.silent, slow.module.latent.silent)
    return revived


@pytest.mark.parametrize("revival", REVIVAL)
@pytest.mark.parametrize("net", NETS)
def test_it_equals_autograd(net: str, revival: str) -> None:
    for loss, optimizer in (("squared_error", "adam"), ("huber", "muon"), ("gaussian", "adam")):
        choices = NETS[net] | {"latent": f"topk:k=2,revive_after={REVIVAL[revival]}", "loss": loss}
        revived = compare(choices, optimizer)
        assert revived == {"none": 0, "many": revived, "all that are silent": 4}[revival]


def test_more_dead_units_than_take_part() -> None:
    # of 8 units at most 4 take part in a sample's auxiliary code; with k=1 and few rows more are dead
    for hidden in ((), (9,)):
        few = {"latent_dim": 12, "latent": "topk:k=1,revive_after=1", "hidden_dims": hidden}
        _, step = steps(few, "adam", AutogradStep, SparseStep)
        step(torch.rand(2, *SHAPE).double(), torch.arange(2), 0)
        assert int((step.module.latent.silent > 1).sum()) > step.module.latent.most_revived
        assert compare(few) == 4


def test_weight_of_revival_zero() -> None:
    assert compare({"latent": "topk:k=2,auxiliary_weight=0,revive_after=1"}) == 0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_the_code(name: str) -> None:
    choices = {"hidden_dims": (9,), "latent_activation": name, "latent": "topk:k=2,revive_after=10"}
    if name in ("gelu", "silu"):  # not monotone: the largest before are not the largest after
        (step,) = steps(choices, "adam", DenseStep)
        assert not SparseStep.suits(step.module, step.objective)
    else:
        compare(choices)


@pytest.mark.parametrize("name", NETS)
def test_rows_that_it_does_not_train_on(name: str) -> None:
    (step,) = steps(NETS[name], "adam", SparseStep)
    x = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(2)).double()
    step.module.eval()
    totals = []
    for net in (step.net, step.module):
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            passed = net(x, generator)
            terms = step.objective(step.module, passed, None, generator)
        totals.append([passed.raw.flatten(1), passed.seen, *terms.values()])
    for found, expected in zip(*totals, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_nothing_of_the_code_is_stored_beyond_the_kept_units() -> None:
    (step,) = steps({"hidden_dims": (9,), "latent_dim": 4000}, "adam", SparseStep)
    step(torch.rand(7, *SHAPE).double(), torch.arange(7), 0)
    assert step._z.shape == step._h.shape == step._code_gradient.shape == (7, 2)


def test_rows_in_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data, results = torch.rand(31, *SHAPE).double(), []
    for values in (1, 200, 10**6):
        monkeypatch.setattr(largest, "_CHUNK_VALUES", values)
        (step,) = steps({"hidden_dims": (9,)}, "adam", SparseStep)
        for i in range(3):
            step(data, torch.arange(31), i)
        results.append([w.detach().clone() for w in step.module.parameters()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_same_seed_same_bytes_and_single_precision_is_near() -> None:
    data = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(3))
    choices = {"hidden_dims": (9,), "latent_dim": 64, "latent": "topk:k=2,revive_after=100"}
    results = []
    for kind in (SparseStep, SparseStep, AutogradStep):
        (step,) = steps(choices, "adam", kind, dtype=torch.float32)
        step(data, torch.arange(64), 0)
        results.append([w.grad.clone() for w in step.module.parameters()])
    for a, b, c in zip(*results, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-6)


@half
def test_the_shortlist_changes_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(largest, "_LEAST_WORK", 1)
    monkeypatch.setattr(largest, "_UNITS_PER_CANDIDATE", 4)
    data = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(3))
    choices = {"hidden_dims": (9,), "latent_dim": 256, "latent": "topk:k=2,revive_after=100"}
    asked, shortlisted = [], largest._Shortlist.__call__
    monkeypatch.setattr(
        largest._Shortlist, "__call__", lambda *a: asked.append(found := shortlisted(*a)) or found
    )
    results = []
    for kind in (SparseStep, AutogradStep):
        (step,) = steps(choices, "adam", kind, dtype=torch.float32)
        step(data, torch.arange(64), 0)
        results.append([w.grad.clone() for w in step.module.parameters()])
    assert len(asked) == 1
    assert asked[0] is not None
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_it_is_chosen_where_it_pays() -> None:
    def chosen(penalty: str | None = None, engine: str = "auto", batch: int = 512, **more: Any) -> type:
        p = Parameters(**{"latent": "topk:k=8", "latent_dim": 1024, "hidden_dims": ()} | more)
        p.penalty = penalty
        recipe = resolve(
            p, shape=(64,), n_rows=999, scaling=None, bounded=False, seed=0, default_depth=1
        )  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        settings = Settings(0.01, "adam", batch, 1, "constant", 0.0, None, None, engine)
        return type(choose_step(recipe.build(generator), recipe.objective(), settings, generator))

    assert chosen() is chosen(engine="dense") is chosen("l1:0.1") is SparseStep
    assert chosen(engine="autograd") is AutogradStep
    assert chosen("contractive:0.1") is DenseStep
    assert chosen(latent="topk:k=200") is DenseStep
    assert chosen(latent="batch_topk:k=8") is DenseStep
    assert chosen(latent_dim=100) is DenseStep
    assert chosen(batch=32, latent_dim=10_000) is DenseStep


def test_fit_copies_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_LEAST_WORK", 1)
    monkeypatch.setattr(sparse, "_LEAST_ROWS", 1)
    rows = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    codes = []
    for engine in ("autograd", "dense"):
        est = Autoencoder(latent="topk:k=2", latent_dim=64, random_state=0, engine=engine).partial_fit(rows)
        other = copy.deepcopy(est)
        before = est.transform(rows)
        other.partial_fit(rows)
        assert np.array_equal(est.transform(rows), before)
        codes.append(est.partial_fit(rows).transform(rows))
    np.testing.assert_allclose(*codes, rtol=1e-3, atol=1e-5)
    a, b = (
        Autoencoder(latent="topk:k=2", latent_dim=64, random_state=0, epochs=3).fit(rows) for _ in range(2)
    )
    assert a.history_.engine == "dense"
    assert a.transform(rows).tobytes() == b.transform(rows).tobytes()
