"""Law 5 for the losses: a hand-worked value, gradcheck, a second formula; links and ranges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal
from torch.nn import functional

from diabolo.parts import (
    Absolute,
    BinaryCrossEntropy,
    Gaussian,
    Huber,
    Loss,
    SquaredError,
    activation,
    known_parts,
)
from diabolo.parts.activations import Activate
from diabolo.parts.losses import Clip, Linked, per_sample

LOG_2PI = math.log(2 * math.pi)

# loss, raw, target, cost by hand
BY_HAND: list[tuple[Loss, list[float], list[float], float]] = [
    (SquaredError(), [1.0, 2.0], [0.0, -1.0], 1.0 + 9.0),
    (Absolute(), [1.0, 2.0], [0.0, -1.0], 1.0 + 3.0),
    (Huber(), [0.5, 3.0], [0.0, 0.0], 0.125 + 2.5),
    (Huber(2.0), [0.5, -3.0], [0.0, 0.0], 0.125 + 4.0),
    (BinaryCrossEntropy(), [0.0, math.log(3.0)], [1.0, 0.0], math.log(2.0) + math.log(4.0)),
    (BinaryCrossEntropy(), [0.0, math.log(3.0)], [0.3, 0.5], math.log(2.0) - 0.5 * math.log(3 / 16)),
    (Gaussian(), [1.0, 2.0], [0.0, 0.0], 0.5 * 5.0 + LOG_2PI),
    (Gaussian(4.0), [1.0, 2.0], [0.0, 0.0], 0.5 * 5.0 / 4.0 + LOG_2PI + math.log(4.0)),
    (Gaussian(1e-8), [1e-4], [0.0], 0.5 + 0.5 * (LOG_2PI + math.log(1e-8))),
]

SECOND_FORMULA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared_error": lambda raw, x: functional.mse_loss(raw, x, reduction="none").flatten(1).sum(1),
    "absolute": lambda raw, x: functional.l1_loss(raw, x, reduction="none").flatten(1).sum(1),
    # the proximal form: the least over s of (e - s)^2 / 2 + |s|, at delta 1
    "huber": lambda raw, x: per_sample(
        0.5 * ((raw - x) - functional.softshrink(raw - x, 1.0)) ** 2
        + functional.softshrink(raw - x, 1.0).abs()
    ),
    "binary_cross_entropy": lambda raw, x: (
        -per_sample(Bernoulli(logits=raw, validate_args=False).log_prob(x))
    ),
    "gaussian": lambda raw, x: -per_sample(Normal(raw, 1.0).log_prob(x)),
}
LOSSES = [SquaredError(), Absolute(), Huber(), BinaryCrossEntropy(), Gaussian()]


def batch(generator: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    raw = torch.randn(*shape, generator=generator, dtype=torch.float64) * 2
    return raw.requires_grad_(), torch.rand(*shape, generator=generator, dtype=torch.float64)


def test_every_loss_is_here() -> None:
    names = set(known_parts(Loss)) - {"mixed"}  # whose rows have a layout: test_parts_mixed.py
    assert {loss.name for loss, *_ in BY_HAND} == set(SECOND_FORMULA) == {c.name for c in LOSSES} == names


@pytest.mark.parametrize(
    ("loss", "raw", "target", "cost"), BY_HAND, ids=lambda v: str(v) if isinstance(v, Loss) else ""
)
def test_value_by_hand(loss: Loss, raw: list[float], target: list[float], cost: float) -> None:
    module = loss.build().double()
    found = module(torch.tensor([raw], dtype=torch.float64), torch.tensor([target], dtype=torch.float64))
    assert found.shape == (1,)
    assert found.tolist() == pytest.approx([cost], rel=1e-6)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3, 2)])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_second_formula(loss: Loss, shape: tuple[int, ...], generator: torch.Generator) -> None:
    raw, x = batch(generator, *shape)
    cost = loss.build().double()(raw, x)
    assert cost.shape == (4,)
    expected = SECOND_FORMULA[loss.name](raw, x)
    torch.testing.assert_close(cost, expected, rtol=1e-12, atol=1e-12)
    (a,) = torch.autograd.grad(cost.sum(), raw)
    (b,) = torch.autograd.grad(expected.sum(), raw)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_cross_entropy_of_the_reconstruction(generator: torch.Generator) -> None:
    raw, x = batch(generator, 3, 5)
    module = BinaryCrossEntropy().build()
    plain = functional.binary_cross_entropy(module.mean(raw), x, reduction="none").sum(1)
    torch.testing.assert_close(module(raw, x), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", [*LOSSES, Huber(0.3), Gaussian(0.25)], ids=str)
def test_gradcheck(loss: Loss, generator: torch.Generator) -> None:
    raw, x = batch(generator, 3, 4)
    module = loss.build().double()
    assert torch.autograd.gradcheck(lambda r: module(r, x), raw)
    if list(module.parameters()):

        def cost(log_variance: Tensor) -> Tensor:
            return torch.func.functional_call(module, {"log_variance": log_variance}, (raw.detach(), x))

        assert torch.autograd.gradcheck(cost, torch.tensor(-0.7, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("variance", [0.04, 2.5])
def test_gaussian_is_torchs_normal(variance: float, generator: torch.Generator) -> None:
    raw, x = batch(generator, 3, 4)
    expected = -Normal(raw, variance**0.5).log_prob(x).sum(1)
    torch.testing.assert_close(Gaussian(variance).build().double()(raw, x), expected, rtol=1e-6, atol=1e-6)


def test_learned_variance_is_best_at_the_mean_square(generator: torch.Generator) -> None:
    raw, x = batch(generator, 30, 7)
    module = Gaussian().build().double()
    with torch.no_grad():
        module.log_variance.copy_((raw - x).square().mean().log())
    (slope,) = torch.autograd.grad(module(raw.detach(), x).mean(), module.log_variance)
    assert abs(float(slope)) < 1e-12


def test_learned_variance_stays_above_rounding() -> None:
    module = Gaussian().build()
    x = torch.zeros(2, 3)
    with torch.no_grad():
        module.log_variance.fill_(-100.0)
        cost = module(x, x)
    assert float(cost[0]) == pytest.approx(1.5 * (LOG_2PI - 12), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_link_maps_raw_output_into_the_range(loss: Loss, generator: torch.Generator) -> None:
    raw, _ = batch(generator, 50, 4)
    mean = loss.build().mean(raw.detach())
    torch.testing.assert_close(mean, activation(loss.link).function(raw.detach()))
    assert loss.low <= float(mean.min())
    assert float(mean.max()) <= loss.high
    assert str(loss) == loss.describe()


def test_cross_entropy_of_extreme_logits_is_finite() -> None:
    raw = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    cost = BinaryCrossEntropy().build()(raw, torch.tensor([[1.0, 0.0]]))
    assert cost.tolist() == [2e4]
    (slope,) = torch.autograd.grad(cost.sum(), raw)
    assert slope.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("loss", [SquaredError(), Absolute(), Huber(), Gaussian()], ids=str)
@pytest.mark.parametrize("output", ["sigmoid", "tanh", "relu"])
def test_an_output_activation_comes_before_the_cost(
    loss: Loss, output: str, generator: torch.Generator
) -> None:
    raw, x = batch(generator, 3, 4)
    inner = loss.build().double()
    module = Linked(inner, Activate(output))
    y = activation(output).function(raw)
    torch.testing.assert_close(module.mean(raw), y)
    torch.testing.assert_close(module(raw, x), inner(y, x))


def clipped(inner: Loss, low: float, high: float, n: int = 4) -> Linked:
    clip = Clip((n,)).double()
    clip.widen(torch.full((n,), low, dtype=torch.double), torch.full((n,), high, dtype=torch.double))
    return Linked(inner.build().double(), clip)


def test_a_clipped_output_by_hand() -> None:
    module = clipped(SquaredError(), 0.0, 1.0)
    raw = torch.tensor([[-2.0, -2.0, 0.5, 3.0]], dtype=torch.double, requires_grad=True)
    x = torch.tensor([[0.0, 0.5, 0.25, 1.0]], dtype=torch.double)
    assert module.mean(raw).tolist() == [[0.0, 0.0, 0.5, 1.0]]
    cost = module(raw, x)
    assert cost.tolist() == [0.25 + 0.0625]
    (slope,) = torch.autograd.grad(cost.sum(), raw)
    assert slope.tolist() == [[0.0, -1.0, 0.5, 0.0]]  # the second finds its way back


@pytest.mark.parametrize("loss", [SquaredError(), Absolute(), Huber(), Gaussian()], ids=str)
def test_a_clipped_output_has_the_gradient_of_the_matching_loss(
    loss: Loss, generator: torch.Generator
) -> None:
    raw, x = batch(generator, 50, 4)
    module = clipped(loss, -0.5, 0.7)
    x = x.detach().clamp(-0.5, 0.7)
    (found,) = torch.autograd.grad(module(raw, x).sum(), raw)
    end = raw.detach().clamp(-0.5, 0.7).requires_grad_()
    (slope,) = torch.autograd.grad(module.inner(end, x).sum(), end)

    def matching(a: Tensor) -> Tensor:
        c = a.clamp(-0.5, 0.7)
        beyond = (a - c) * slope
        # inside the cost itself moves; outside only the line does, whose slope is the cost's at the bound
        cost: Tensor = module.inner(c, x) + beyond.sum(1)
        return cost

    again = raw.detach().requires_grad_()
    (expected,) = torch.autograd.grad(matching(again).sum(), again)
    # where nothing is clipped, (a - c) has no gradient of its own in this form either
    torch.testing.assert_close(found, expected)
    assert bool((matching(raw.detach()) >= module(raw.detach(), x) - 1e-12).all())


def test_clip_bounds_only_widen() -> None:
    clip = Clip((2,))
    assert clip(torch.tensor([[-5.0, 5.0]])).tolist() == [[-5.0, 5.0]]
    clip.widen(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]))
    clip.widen(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5]))
    assert clip.low.tolist() == [0.0, -1.0]
    assert clip.high.tolist() == [2.0, 1.0]


def test_a_derived_loss_does_not_take_the_place_of_its_base() -> None:
    class Mine(SquaredError):  # noqa: N818 - a loss, no exception
        pass

    assert known_parts(Loss)["squared_error"] is SquaredError
    assert Mine().name == "squared_error"
