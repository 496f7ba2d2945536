"""Activations: the derivative is autograd's, once and twice; range and gain are what they say."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from diabolo.errors import InvalidParameterError
from diabolo.parts import ACTIVATIONS, activation
from diabolo.parts.activations import Activate

RECTIFIERS = ("relu", "leaky_relu")


def points() -> torch.Tensor:
    # away from 0, where the rectifiers have a corner
    return torch.cat([torch.linspace(-6, -0.01, 40), torch.linspace(0.01, 6, 40)]).double().requires_grad_()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_is_autograds(name: str) -> None:
    f, a = activation(name), points()
    y = f.function(a)
    (expected,) = torch.autograd.grad(y.sum(), a)
    torch.testing.assert_close(f.derivative(a, y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_can_be_differentiated_once_more(name: str) -> None:
    f, a = activation(name), points()
    (once,) = torch.autograd.grad(f.function(a).sum(), a, create_graph=True)
    expected = torch.autograd.grad(once.sum(), a, allow_unused=True)[0] if once.requires_grad else None
    found = f.derivative(a, f.function(a))
    second = torch.autograd.grad(found.sum(), a, allow_unused=True)[0] if found.requires_grad else None
    zero = torch.zeros_like(a)
    torch.testing.assert_close(
        zero if second is None else second, zero if expected is None else expected, rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in RECTIFIERS])
def test_gradcheck(name: str) -> None:
    a = torch.tensor([-2.0, -0.7, 0.3, 1.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(activation(name).function, a)
    with torch.random.fork_rng():  # it draws its own directions
        assert torch.autograd.gradgradcheck(activation(name).function, a)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_range_is_tight_and_kept(name: str) -> None:
    f = activation(name)
    y = f.function(torch.linspace(-60, 60, 200_001, dtype=torch.float64))
    assert y.min() >= f.low - 1e-5
    assert y.max() <= f.high
    for bound, reached in ((f.low, y.min()), (f.high, y.max())):
        assert abs(bound) == float("inf") or abs(float(reached) - bound) < 1e-3


@pytest.mark.parametrize("name", RECTIFIERS)
def test_he_gain_keeps_the_second_moment(name: str) -> None:
    f = activation(name)
    assert f.gain is not None
    x = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
    normal = torch.exp(-0.5 * x * x)
    moment = (f.function(x).square() * normal).sum() / normal.sum()
    assert float(moment) * f.gain**2 == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_layer_prints_its_name_copies_and_pickles(name: str) -> None:
    layer = Activate(name)
    assert name in repr(layer)
    x = torch.linspace(-1, 1, 5)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert torch.equal(layer(x), other(x))


def test_an_unknown_name_gets_its_neighbour() -> None:
    with pytest.raises(
        InvalidParameterError, match=r"latent_activation must be .*'sigmiod'.*Did you mean 'sigmoid'\?"
    ):
        activation("sigmiod", "latent_activation")
