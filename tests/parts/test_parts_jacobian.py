"""Law 5 for the contractive penalty: the autograd Jacobian agrees in value and gradient for any encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diabolo.parts import (
    ACTIVATIONS,
    Architecture,
    BatchTopK,
    Conv,
    Dense,
    Deterministic,
    GaussianPosterior,
    JumpReLU,
    Latent,
    LatentModule,
    Noisy,
    TopK,
    chains,
    jacobian,
)
from diabolo.parts.activations import Activate
from diabolo.parts.jacobian import estimated_jacobian_norm, running_statistics, squared_jacobian_norm

DETERMINISTIC = Deterministic()
Case = tuple[Architecture, Latent, str | None, tuple[int, ...], int]
DENSE_STACKS: dict[str, Case] = {
    "one layer, sigmoid": (Dense(()), DETERMINISTIC, "sigmoid", (5,), 3),
    "one layer, linear": (Dense(()), DETERMINISTIC, None, (5,), 3),
    "one layer, wider than the input": (Dense(()), DETERMINISTIC, "tanh", (3,), 7),
    "two layers": (Dense((6,), "sigmoid"), DETERMINISTIC, "sigmoid", (5,), 3),
    "two layers, narrow hidden": (Dense((2,), "elu"), DETERMINISTIC, "tanh", (5,), 3),
    "two layers, wide hidden": (Dense((11,), "tanh"), DETERMINISTIC, None, (5,), 3),
    "two layers, more units": (Dense((6,), "softplus"), DETERMINISTIC, "sigmoid", (4,), 9),
    "three layers, batch norm": (Dense((7, 6), "tanh", norm="batch"), DETERMINISTIC, "sigmoid", (5,), 3),
    "three layers, more units": (Dense((6, 7), "gelu", norm="batch"), DETERMINISTIC, None, (4,), 9),
    "four layers": (Dense((8, 7, 6), "silu"), DETERMINISTIC, None, (5,), 3),
    "linear hidden layer": (Dense((4,), "linear"), DETERMINISTIC, "sigmoid", (5,), 3),
    "dropout": (Dense((6,), "tanh", dropout=0.5), DETERMINISTIC, "sigmoid", (5,), 3),
    "tied weights": (Dense((6,), "tanh", tied_weights=True), DETERMINISTIC, None, (5,), 3),
    "image into dense": (Dense((6,), "tanh"), DETERMINISTIC, None, (1, 2, 3), 3),
    "gaussian": (Dense((6,), "tanh"), GaussianPosterior(), None, (5,), 3),
    "gaussian, one layer": (Dense(()), GaussianPosterior(), None, (5,), 3),
    "noisy": (Dense((6,), "tanh"), Noisy(0.5), "sigmoid", (5,), 3),
    "noisy, one layer": (Dense(()), Noisy(0.5), None, (5,), 3),
} | {f"hidden {name}": (Dense((6,), name), DETERMINISTIC, None, (5,), 3) for name in ACTIVATIONS}
OTHERS: dict[str, Case] = (
    {
        "layer norm": (Dense((6,), "tanh", norm="layer"), DETERMINISTIC, "sigmoid", (5,), 3),
        "layer norm, wider than the input": (Dense((6,), "gelu", norm="layer"), DETERMINISTIC, None, (4,), 9),
        "layer norm, gaussian": (Dense((6,), "tanh", norm="layer"), GaussianPosterior(), None, (5,), 3),
        "layer norm, noisy": (Dense((6,), "tanh", norm="layer"), Noisy(), None, (4,), 6),
        "topk": (Dense((6,), "tanh"), TopK(k=2), None, (5,), 4),
        "topk, wider than the input": (Dense(()), TopK(k=3), "softplus", (4,), 9),
        "batch topk": (Dense((6,), "tanh"), BatchTopK(k=2), "softplus", (5,), 4),
        "jumprelu": (Dense((6,), "tanh"), JumpReLU(), None, (5,), 4),
        "jumprelu, wider than the input": (Dense((6,), "softplus"), JumpReLU(), None, (4,), 9),
        "conv 1d, stride": (Conv(channels=(2, 3), activation="tanh"), DETERMINISTIC, "sigmoid", (9,), 3),
        "conv 1d, pool": (Conv(1, (2, 3), activation="tanh", down="pool"), DETERMINISTIC, None, (2, 7), 3),
        "conv 1d, more units": (Conv(1, (2,), activation="elu", down="pool"), DETERMINISTIC, None, (5,), 9),
        "conv 2d, stride": (Conv(channels=(2, 3), activation="tanh"), DETERMINISTIC, "sigmoid", (5, 4), 3),
        "conv 2d, pool": (
            Conv(channels=(2, 3), activation="tanh", down="pool", norm="batch"),
            DETERMINISTIC,
            None,
            (5, 4),
            3,
        ),
        "conv 2d, map": (
            Conv(channels=(2,), activation="tanh", code="spatial"),
            DETERMINISTIC,
            None,
            (2, 4, 3),
            2,
        ),
        "conv 2d, map, gaussian": (
            Conv(channels=(2,), activation="tanh", code="spatial"),
            GaussianPosterior(),
            None,
            (4, 3),
            2,
        ),
        "conv 2d, map, topk": (
            Conv(channels=(2,), activation="tanh", code="spatial"),
            TopK(k=1),
            "softplus",
            (4, 3),
            3,
        ),
        "conv 2d, map, more units": (
            Conv(channels=(3,), activation="tanh", code="spatial", down="pool", norm="layer"),
            DETERMINISTIC,
            "tanh",
            (4, 3),
            5,
        ),
        "conv 2d, layer norm, dropout": (
            Conv(channels=(2,), activation="gelu", norm="layer", dropout=0.3),
            Noisy(),
            None,
            (4, 3),
            3,
        ),
        "conv 3d, stride": (Conv(3, (2,), activation="tanh"), DETERMINISTIC, None, (3, 2, 3), 2),
        "conv 3d, pool": (
            Conv(3, (2,), activation="tanh", down="pool"),
            DETERMINISTIC,
            None,
            (1, 3, 2, 3),
            2,
        ),
    }
    | {
        f"columns, {name}": (Dense((6,), name, norm="layer"), DETERMINISTIC, "sigmoid", (4,), 9)
        for name in ACTIVATIONS
    }
    | {
        f"rows, {name}": (Dense((6,), name, norm="layer"), DETERMINISTIC, "sigmoid", (4,), 3)
        for name in ACTIVATIONS
    }
)
CASES = DENSE_STACKS | OTHERS


def build(case: Case, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, LatentModule, Tensor]:
    """Build encoder and latent in training mode with no parameter or statistic at its usual start."""
    architecture, latent_part, latent_activation, shape, latent_dim = case
    g = torch.Generator().manual_seed(3)
    encoder = architecture.build(shape, latent_dim, latent_part.parameters_per_unit, g).encoder.to(dtype)
    latent = latent_part.build(latent_dim, latent_activation).to(dtype)
    for module in (encoder, latent):
        with torch.no_grad():
            for name, tensor in module.state_dict(keep_vars=True).items():
                if name.endswith(("running_var", "threshold")):
                    tensor.uniform_(0.3, 0.6, generator=g)
                elif tensor.is_floating_point():
                    tensor.add_(torch.empty_like(tensor).normal_(0.0, 0.3, generator=g))
    for layer in encoder.modules():
        if hasattr(layer, "share"):
            layer.generator = g
    return encoder.train(), latent.train(), torch.randn(4, *shape, generator=g, dtype=dtype)


def by_autograd(encoder: nn.Module, latent: LatentModule, x: Tensor) -> Tensor:
    """The second formula: torch's own Jacobian of one sample at a time."""
    with running_statistics(encoder, latent):

        def encode(row: Tensor) -> Tensor:
            mean: Tensor = latent(encoder(row[None])).mean
            return mean[0]

        rows = [torch.autograd.functional.jacobian(encode, row, create_graph=True) for row in x]
        return torch.stack([row.square().sum() for row in rows])


def gradients(value: Tensor, *modules: nn.Module) -> list[Tensor]:
    weights = [w for module in modules for w in module.parameters()]
    weighted = (value * torch.arange(1, len(value) + 1)).sum()  # so that the samples are told apart
    found = torch.autograd.grad(weighted, weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)]


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_exact_is_the_autograd_jacobian_in_value_and_gradient(name: str) -> None:
    encoder, latent, x = build(CASES[name])
    expected = by_autograd(encoder, latent, x)
    assert (expected > 0).any()
    found = squared_jacobian_norm(encoder, latent, x)
    close(found, expected, 1e-9)
    for a, b in zip(gradients(found, encoder, latent), gradients(expected, encoder, latent), strict=True):
        close(a, b, 1e-9)


@pytest.mark.parametrize(
    "name", ["two layers", "three layers, batch norm", "conv 1d, pool", "conv 2d, stride"]
)
def test_exact_in_float32_agrees_to_1e_5(name: str) -> None:
    encoder, latent, x = build(CASES[name], torch.float32)
    found, expected = squared_jacobian_norm(encoder, latent, x), by_autograd(encoder, latent, x)
    close(found, expected, 1e-5)
    for a, b in zip(gradients(found, encoder), gradients(expected, encoder), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize(
    "name", ["three layers, batch norm", "noisy", "topk", "conv 2d, layer norm, dropout"]
)
def test_training_mode_and_statistics_stay_as_they_were(name: str) -> None:
    encoder, latent, x = build(CASES[name])
    latent.eval()
    before = {k: v.clone() for m in (encoder, latent) for k, v in m.state_dict().items()}
    squared_jacobian_norm(encoder, latent, x)
    assert all(m.training for m in encoder.modules())
    assert not any(m.training for m in latent.modules())
    after = {k: v for m in (encoder, latent) for k, v in m.state_dict().items()}
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("name", CASES)
def test_chunks_and_no_grad_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, latent, x = build(CASES[name])
    whole = squared_jacobian_norm(encoder, latent, x)
    monkeypatch.setattr(jacobian, "_CHUNK_VALUES", 1)
    monkeypatch.setattr(chains, "_CHUNK_VALUES", 1)
    with torch.no_grad():
        pieces = squared_jacobian_norm(encoder, latent, x)
    assert not pieces.requires_grad
    close(pieces, whole.detach(), 1e-12)
    close(squared_jacobian_norm(encoder, latent, x), whole, 1e-12)


def test_dense_encoders_take_the_closed_form_and_only_they() -> None:
    def closed(case: Case) -> bool:
        encoder, latent, _ = build(case)
        return jacobian._dense_steps(encoder, latent) is not None

    assert {name for name, case in CASES.items() if closed(case)} == set(DENSE_STACKS)


def test_convolutions_are_turned_around_unless_something_else_lies_between() -> None:
    def turned(name: str) -> bool:
        encoder, _, _ = build(CASES[name])
        return jacobian._can_turn(list(jacobian._leaves(encoder)))

    assert turned("conv 1d, stride")
    assert turned("conv 2d, stride")
    assert turned("conv 3d, stride")
    assert not turned("conv 2d, pool")
    assert not turned("layer norm")
    encoder, latent, x = build(CASES["conv 2d, stride"])

    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    own = nn.utils.skip_init(Doubled, 2, 3, 3, stride=2, padding=1).double()
    children = list(encoder.children())
    at = [i for i, layer in enumerate(children) if isinstance(layer, nn.Conv2d)][1]
    own.load_state_dict(children[at].state_dict())
    doubled = nn.Sequential(*children[:at], own, *children[at + 1 :])
    assert not jacobian._can_turn(list(jacobian._leaves(doubled)))
    close(squared_jacobian_norm(doubled, latent, x), by_autograd(doubled, latent, x), 1e-9)


@pytest.mark.parametrize(
    "settings", [{"groups": 2}, {"dilation": 2}, {"stride": (2, 1)}, {"padding": (0, 2)}]
)
def test_every_setting_of_a_convolution(settings: dict[str, Any], generator: torch.Generator) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Conv2d(4, 6, 3, **settings)
        size = convolution(torch.zeros(1, 4, 7, 6)).numel()
        batch_norm = nn.BatchNorm2d(6)
        encoder = nn.Sequential(convolution, batch_norm, Activate("tanh"), nn.Flatten(), nn.Linear(size, 3))
    encoder = encoder.double()
    with torch.no_grad():
        for w in (batch_norm.weight, batch_norm.running_var):
            assert w is not None
            w.uniform_(0.3, 0.6, generator=generator)
    latent = Deterministic().build(3, "sigmoid")
    x = torch.randn(2, 4, 7, 6, generator=generator, dtype=torch.float64)
    assert jacobian._can_turn(list(jacobian._leaves(encoder)))
    found, expected = squared_jacobian_norm(encoder, latent, x), by_autograd(encoder, latent, x)
    close(found, expected, 1e-9)
    for a, b in zip(gradients(found, encoder), gradients(expected, encoder), strict=True):
        close(a, b, 1e-9)


def test_foreign_layers_are_left_to_autograd(generator: torch.Generator) -> None:
    encoder = nn.Sequential(nn.utils.skip_init(nn.Linear, 4, 3), nn.Softmax(1)).double()
    with torch.no_grad():
        for w in encoder.parameters():
            w.normal_(generator=generator)
    latent = Deterministic().build(3, None)
    x = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    close(squared_jacobian_norm(encoder, latent, x), by_autograd(encoder, latent, x), 1e-9)


@pytest.mark.parametrize("name", ["two layers", "conv 2d, pool", "gaussian", "three layers, more units"])
def test_estimate_is_unbiased(name: str, generator: torch.Generator) -> None:
    encoder, latent, x = build(CASES[name])
    n = 4000
    exact = squared_jacobian_norm(encoder, latent, x[:1])
    many = x[:1].expand(n, *x.shape[1:])  # every row draws its own probe
    draws = estimated_jacobian_norm(encoder, latent, many, 1, generator).detach()
    error = draws.std() / n**0.5
    assert error > 0
    assert (draws.mean() - exact[0]).abs() < 4 * error
    four = estimated_jacobian_norm(encoder, latent, many, 4, generator).detach()
    assert (four.mean() - exact[0]).abs() < 4 * four.std() / n**0.5
    assert float(four.var() / draws.var()) == pytest.approx(0.25, rel=0.2)


def test_estimate_has_an_unbiased_gradient(generator: torch.Generator) -> None:
    encoder, latent, x = build(CASES["two layers"])
    exact = gradients(squared_jacobian_norm(encoder, latent, x[:1]), encoder)
    n = 20_000
    draws = estimated_jacobian_norm(encoder, latent, x[:1].expand(n, -1), 1, generator)
    mean = torch.autograd.grad(draws.mean(), list(encoder.parameters()), allow_unused=True)
    for a, b in zip(mean, exact, strict=True):
        assert (torch.zeros_like(b) if a is None else a - b).norm() <= 0.05 * b.norm() + 1e-12


def test_estimate_of_one_unit_is_exact(generator: torch.Generator) -> None:
    case: Any = (Dense((6,), "tanh"), Deterministic(), None, (5,), 1)
    encoder, latent, x = build(case)
    found = estimated_jacobian_norm(encoder, latent, x, 1, generator)
    close(found, squared_jacobian_norm(encoder, latent, x), 1e-12)
    with torch.no_grad():
        assert not estimated_jacobian_norm(encoder, latent, x, 1, generator).requires_grad
