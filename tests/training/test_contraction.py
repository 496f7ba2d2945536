"""The contractive penalty by hand equals the autograd step, in double precision."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch

from diabolo.parameters import Parameters
from diabolo.parts.activations import ACTIVATIONS
from diabolo.recipe import resolve
from diabolo.training import contraction as contraction_module
from diabolo.training.contraction import CURVATURES
from diabolo.training.dense import DenseStep
from diabolo.training.derivatives import DERIVATIVES
from diabolo.training.engine import AutogradStep
from diabolo.training.optimizers import set_rate
from diabolo.training.settings import Settings

SHAPE = (3, 4)
NETS: dict[str, dict[str, Any]] = {
    "one layer": {"hidden_dims": ()},
    "one layer, more units": {"hidden_dims": (), "latent_dim": 30},
    "two layers": {"hidden_dims": (9,)},
    "three layers": {"hidden_dims": (9, 7)},
    "more units": {"hidden_dims": (9, 7), "latent_dim": 30},
    "tied, corrupted": {"hidden_dims": (9,), "tied_weights": True, "corruption": "masking:0.2"},
    "l1 and clipped": {
        "hidden_dims": (9,),
        "penalty": ("l1:0.1", "contractive:0.3"),
        "output_activation": "clip",
    },
}


def compare(choices: dict[str, Any], *, by_hand: bool = True) -> None:
    recipe = resolve(
        Parameters(**{"latent_dim": 4, "penalty": "contractive:0.3"} | choices),
        shape=SHAPE, n_rows=60, scaling=None, bounded=False, seed=0, default_depth=1,
    )  # fmt: skip
    module = recipe.build(torch.Generator().manual_seed(0)).double().train()
    module.reach(torch.full(SHAPE, 0.2).double(), torch.full(SHAPE, 0.8).double())
    settings = Settings(0.01, "adam", 16, 1, "constant", 0.1, None, None)
    steps: list[Any] = []
    for kind in (AutogradStep, DenseStep):
        own, generator = copy.deepcopy(module), torch.Generator().manual_seed(1)
        own.draw_from(generator)
        steps.append(kind(own, recipe.objective(), settings, generator))
    slow, fast = steps
    assert (fast.contraction is not None) == by_hand
    data = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(2)).double()
    set_rate([*slow.optimizers, *fast.optimizers], 0.01)
    for i in range(3):
        rows = torch.arange(13 * i, 13 * i + 13 - i)
        expected, found = slow(data, rows, i), fast(data, rows, i)
        assert set(expected) == set(found)
        for name in expected:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-10, abs=1e-10)
    mine = dict(fast.module.named_parameters())
    for name, w in slow.module.named_parameters():
        torch.testing.assert_close(mine[name].grad, w.grad, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(mine[name], w, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("net", NETS)
def test_it_equals_autograd(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # every hidden activation meets some activation of the code, narrow products some with torch's
    others = itertools.cycle(("linear", "sigmoid", "tanh", "gelu", "relu"))
    for i, (hidden, code) in enumerate(zip(ACTIVATIONS, others, strict=False)):
        monkeypatch.setattr(contraction_module, "_NARROW", 128 if i % 3 else 0)
        compare(NETS[net] | {"activation": hidden, "latent_activation": code})
        compare(NETS[net] | {"activation": hidden})


@pytest.mark.parametrize(
    "more", [{"dropout": 0.3}, {"latent": "topk:k=2"}, {"penalty": "contractive:0.3,method=estimate"}]
)
def test_what_is_not_by_hand_goes_through_autograd(more: dict[str, Any]) -> None:
    compare({"hidden_dims": (9,)} | more, by_hand=False)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivatives(name: str) -> None:
    a = torch.linspace(-4, 4, 101).double().requires_grad_()  # 0 is among them: a kink's side is free
    y = ACTIVATIONS[name].function(a)
    slope = ACTIVATIONS[name].derivative(a, y)
    expected = torch.zeros_like(a)
    if slope.requires_grad:
        (expected,) = torch.autograd.grad(slope.sum(), a)
    if name not in CURVATURES:
        assert not expected.any()
        return
    saved = (a if DERIVATIVES[name].of_input else y).detach()
    found = CURVATURES[name](saved, slope.detach())
    apart = a.detach() != 0
    torch.testing.assert_close(found[apart], expected[apart], rtol=1e-10, atol=1e-10)
