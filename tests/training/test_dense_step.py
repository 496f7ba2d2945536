"""The hand-written step equals the autograd step, over the whole dense family, in double precision."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from diabolo import Autoencoder
from diabolo.errors import IncompatiblePartsError
from diabolo.parameters import Parameters
from diabolo.parts import L1, Dense, LossModule, Network, Penalty, SquaredError
from diabolo.parts.activations import ACTIVATIONS
from diabolo.parts.architectures.base import SeededDropout, TiedLinear
from diabolo.parts.latents import TopKModule
from diabolo.parts.losses import SquaredErrorModule
from diabolo.recipe import resolve
from diabolo.training.bottleneck import _NarrowTopK, _TopK
from diabolo.training.dense import DenseStep
from diabolo.training.derivatives import DERIVATIVES
from diabolo.training.engine import AutogradStep
from diabolo.training.optimizers import make_optimizers, set_rate
from diabolo.training.settings import Settings

SHAPE = (3, 4)
WIDE = (15, 10)  # beyond what NumPy multiplies
LATENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sigmoid": {"latent_activation": "sigmoid"},
    "l1": {"penalty": "l1:0.1"},
    "kl": {"latent_activation": "sigmoid", "penalty": "kl_sparsity"},
    "contractive": {"penalty": "contractive:0.3"},
    "contractive, estimated": {"penalty": "contractive:0.3,method=estimate"},
    "noisy": {"latent": "noisy"},
    "gaussian": {"latent": "gaussian", "penalty": "posterior_kl:0.7"},
    "gaussian, l1": {"latent": "gaussian", "penalty": "posterior_kl:0.7+l1:0.3"},
    "topk": {"latent": "topk:k=2,revive_after=5", "latent_dim": 8},
    "topk, all": {"latent": "topk:k=8,revive_after=5", "latent_dim": 8},
    "batch topk": {"latent": "batch_topk:k=2,revive_after=5", "latent_dim": 8},
    "jumprelu": {"latent": "jumprelu", "penalty": "l0:0.01"},
}
NETS: dict[str, dict[str, Any]] = {
    "deep": {"hidden_dims": (9, 7), "activation": "tanh"},
    "clipped": {"hidden_dims": (9,), "output_activation": "clip"},
    "tied": {"hidden_dims": (9, 7), "tied_weights": True},
    "dropout": {"hidden_dims": (9, 7), "dropout": 0.3},
    "none": {"hidden_dims": (), "corruption": "masking:0.2+gaussian:0.1"},
    "sigmoid out": {"hidden_dims": (9,), "output_activation": "sigmoid"},
}
WIDE_NETS: dict[str, dict[str, Any]] = {
    "deep": {"hidden_dims": (140, 133), "activation": "tanh"},
    "narrow between": {"hidden_dims": (140, 20, 133), "activation": "gelu"},
    "tied": {"hidden_dims": (140, 133), "tied_weights": True},
    "dropout": {"hidden_dims": (140, 133), "dropout": 0.3},
    "none": {"hidden_dims": (), "corruption": "masking:0.2+gaussian:0.1"},
}
LOSSES = ("squared_error", "binary_cross_entropy", "absolute", "huber", "gaussian", "gaussian:0.5")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)


def pair(
    choices: dict[str, Any], optimizer: str, shape: tuple[int, ...] = SHAPE, **more: Any
) -> tuple[AutogradStep, DenseStep]:
    recipe = resolve(
        Parameters(**{"latent_dim": 4} | choices),
        shape=shape, n_rows=60, scaling=None, bounded=False, seed=0, default_depth=1,
    )  # fmt: skip
    module = recipe.build(torch.Generator().manual_seed(0)).double().train()
    module.reach(torch.full(shape, 0.2).double(), torch.full(shape, 0.8).double())
    settings = Settings(0.01, optimizer, 16, 1, "constant", 0.1, None, None, **more)
    steps = []
    for kind in (AutogradStep, DenseStep):
        own = copy.deepcopy(module)
        generator = torch.Generator().manual_seed(1)
        own.draw_from(generator)
        steps.append(kind(own, recipe.objective(), settings, generator))
    return tuple(steps)  # type: ignore[return-value]


def compare(choices: dict[str, Any], optimizer: str, shape: tuple[int, ...] = SHAPE, **more: Any) -> None:
    slow, fast = pair(choices, optimizer, shape, **more)
    data = torch.rand(60, *shape, generator=torch.Generator().manual_seed(2)).double()
    set_rate([*slow.optimizers, *fast.optimizers], 0.01)
    # shifts before a normalised code have no effect: their gradients are rounding alone, which Adam blows
    # up, so that only the first gradients can be compared
    noisy = choices.get("latent") == "noisy"
    for i in range(1 if noisy else 4):
        rows = torch.arange(13 * i, 13 * i + 13)
        expected, found = slow(data, rows, i), fast(data, rows, i)
        assert list(expected) == list(found)
        for name in expected:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-10, abs=1e-10)
    mine = dict(fast.module.named_parameters())
    for name, w in slow.module.named_parameters():
        torch.testing.assert_close(mine[name].grad, w.grad, rtol=1e-10, atol=1e-10)
        if noisy:
            continue
        torch.testing.assert_close(mine[name], w, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("net", NETS)
def test_it_equals_autograd(net: str, latent: str) -> None:
    turn = list(LATENTS).index(latent)
    # every loss meets every latent over the nets; the optimizers take turns
    for i, (loss, optimizer) in enumerate(zip(LOSSES, itertools.cycle(("adam", "muon")))):
        if (i + turn) % 2 and loss != "squared_error":
            continue
        choices = NETS[net] | LATENTS[latent] | {"loss": loss}
        if loss == "binary_cross_entropy":
            choices.pop("output_activation", None)
        if choices.get("tied_weights") and choices.get("latent") == "gaussian":
            continue
        compare(choices, optimizer)


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("net", WIDE_NETS)
def test_it_equals_autograd_in_wide_layers(net: str, latent: str) -> None:
    """Where buffers lie upright too, but products are torch's; with a narrow code and with a wide one."""
    if WIDE_NETS[net].get("tied_weights") and LATENTS[latent].get("latent") == "gaussian":
        return
    for wide_code in (False, True):
        choices = WIDE_NETS[net] | LATENTS[latent] | ({"latent_dim": 150} if wide_code else {})
        compare(choices, "muon" if wide_code else "adam", WIDE)


def test_in_portions_adam_makes_the_same_step() -> None:
    chance = torch.Generator().manual_seed(0)
    sizes = [70_000, 1_600, 16]
    first, gradient = (torch.randn(sum(sizes), generator=chance) for _ in range(2))
    found = []
    for portions in ((), sizes):
        vector = nn.Parameter(first.clone())
        (adam,) = make_optimizers([], [vector], 0.01, 0.1, portions)
        for step in range(3):
            vector.grad = gradient * (step + 1)
            adam.update()
        found.append(vector.detach().clone())
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert not torch.equal(found[0], first)


def test_a_wide_weight_is_updated_by_itself() -> None:
    _, step = pair({"hidden_dims": (600, 300, 20), "latent_dim": 4}, "adam", WIDE)
    assert step.optimizers[0].portions[:3] == [90_000, 608, 180_000]
    assert sum(step.optimizers[0].portions) == step._vector.numel()


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n != "linear"])
def test_every_activation(name: str) -> None:
    assert name in DERIVATIVES
    compare({"hidden_dims": (9, 7), "activation": name}, "adam")


def test_linear_layers_and_clipped_gradients() -> None:
    compare({"hidden_dims": (9,), "activation": "linear"}, "adam")
    slow, fast = pair({"hidden_dims": (9,)}, "adam")
    slow.clip_norm = fast.clip_norm = 1e-3
    data = torch.rand(20, *SHAPE).double()
    for step in (slow, fast):
        step(data, torch.arange(20), 0)
    for a, b in zip(slow.module.parameters(), fast.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


class _Brightness(Penalty):
    """A penalty of a user's own, on the output instead of the code."""

    def __call__(self, encoder: Any, latent: Any, passed: Any, generator: Any) -> torch.Tensor:
        return passed.raw.square().flatten(1).sum(1)

    def weight_at(self, step: int | None) -> float:
        return 0.5


class _Fourfold(SquaredError):  # noqa: N818 - a loss, no exception
    """A loss of a user's own, whose module is derived from one that the step knows."""

    def build(self) -> LossModule:
        class Module(SquaredErrorModule):
            def forward(self, raw: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
                return 4 * super().forward(raw, target)

        return Module()


@pytest.mark.parametrize("net", ["deep", "clipped", "tied"])
def test_parts_of_a_user_s_own(net: str) -> None:
    compare(NETS[net] | {"penalty": _Brightness()}, "adam")
    compare(NETS[net] | {"penalty": [_Brightness(), L1(0.1)]}, "muon")
    compare(NETS[net] | {"loss": _Fourfold()}, "adam")


@pytest.mark.parametrize("net", ["one tied", "dropout before", "no bias", "frozen", "own layer", "twice"])
def test_nets_of_a_user_s_own_go_by_autograd_or_are_equal(net: str) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    class Net(Dense):
        name = ""

        def build(self, *args: Any) -> Network:
            network = super().build(*args)
            block = network.encoder[1]
            assert isinstance(block, nn.Sequential)
            if net == "one tied":
                source = block[0]
                assert isinstance(source, nn.Linear)
                network.decoder[1][0] = TiedLinear(source)  # type: ignore[index,operator]
            elif net == "dropout before":
                network.encoder[1] = nn.Sequential(block[0], SeededDropout(0.3), block[1])
            elif net == "no bias":
                block[0].bias = None  # type: ignore[assignment]
            elif net == "frozen":
                block[0].weight.requires_grad_(False)  # type: ignore[operator]
            elif net == "own layer":
                own = Doubled(9, 7)
                own.load_state_dict(block[0].state_dict())
                block[0] = own
            else:
                network.encoder.insert(2, nn.Sequential(nn.Linear(7, 9), block[0]))
            return network

    choices = {"architecture": Net((9, 7), "tanh")}
    recipe = resolve(
        Parameters(latent_dim=4, **choices),  # type: ignore[arg-type]
        shape=SHAPE, n_rows=60, scaling=None, bounded=False, seed=0, default_depth=1,
    )  # fmt: skip
    assert DenseStep.covers(recipe.build(torch.Generator().manual_seed(0))) == (net == "one tied")
    if net == "one tied":
        compare(choices, "adam")


def test_parameters_are_views_while_training_and_their_own_afterwards() -> None:
    _, step = pair({"hidden_dims": (9,)}, "muon")
    first = next(step.module.parameters())
    whole = first.untyped_storage().nbytes()
    assert whole > first.numel() * first.element_size()
    values = [w.detach().clone() for w in step.module.parameters()]
    step.detach()
    assert first.untyped_storage().nbytes() == first.numel() * first.element_size()
    assert all(torch.equal(a, b) for a, b in zip(values, step.module.parameters(), strict=True))
    step.attach()
    assert first.untyped_storage().nbytes() == whole
    assert all(torch.equal(a, b) for a, b in zip(values, step.module.parameters(), strict=True))


def test_what_it_cannot_train_goes_to_autograd_or_is_refused(rows: np.ndarray) -> None:
    normalised = Autoencoder(norm="batch", epochs=1, latent_dim=2, random_state=0)
    assert normalised.fit(rows).history_.engine == "autograd"
    assert Autoencoder(epochs=1, latent_dim=2).fit(rows).history_.engine == "dense"
    assert Autoencoder(epochs=1, latent_dim=2, engine="autograd").fit(rows).history_.engine == "autograd"
    with pytest.raises(IncompatiblePartsError, match="engine='dense' must go with dense layers"):
        normalised.set_params(engine="dense").fit(rows)


@pytest.mark.parametrize("latent", ["deterministic", "topk:k=1"])
def test_partial_fit_goes_on_in_both_engines_and_in_copies(rows: np.ndarray, latent: str) -> None:
    codes = []
    for engine in ("autograd", "dense"):
        est = Autoencoder(latent_dim=2, latent=latent, random_state=0, engine=engine).partial_fit(rows)
        other = copy.deepcopy(est)
        before = est.transform(rows)
        other.partial_fit(rows)
        assert np.array_equal(est.transform(rows), before)
        codes.append(est.partial_fit(rows).transform(rows))
    np.testing.assert_allclose(*codes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "silu"])
def test_of_equal_units_no_more_than_k_are_kept(name: str) -> None:
    """Also where another row of the batch has fewer than k positive ones."""
    h = torch.tensor([[1, 1, 1, 0.5], [-1, -1, -1, -1], [3, 0, 2, -1], [0, 0, 0, 0]], dtype=torch.float64)
    found = []
    for kind in (_TopK, _NarrowTopK):
        latent = TopKModule(4, 2, name, 10_000)
        one = kind(latent)
        output, down = h.clone(), torch.zeros_like(h)
        above = torch.arange(16, dtype=torch.float64).reshape(4, 4) + 1
        one.place(output, torch.zeros_like(h), above, down)
        one.forward(output, torch.Generator())
        one.backward(above, down)
        found.append((one.value.clone(), down, latent.silent.clone()))
    assert ((found[1][0] != 0).sum(1) <= 2).all()
    for by_torch, by_numpy in zip(*found, strict=True):
        np.testing.assert_array_equal(by_numpy, by_torch)
