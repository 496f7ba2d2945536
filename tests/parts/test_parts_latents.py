"""The latents: what is kept, what is drawn, how thresholds learn, how dead units come back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import IncompatiblePartsError
from diabolo.objective import REVIVAL, TOTAL, Objective
from diabolo.parts import (
    BatchTopK,
    Dense,
    Deterministic,
    GaussianPosterior,
    JumpReLU,
    Latent,
    LatentModule,
    Noisy,
    SquaredError,
    TopK,
    activation,
)
from diabolo.parts.latents import jump

EACH: list[Latent] = [
    Deterministic(), Noisy(0.5), GaussianPosterior(), TopK(k=2), BatchTopK(k=2), JumpReLU(),
]  # fmt: skip


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ------------------------------------------------------------------------------------------- all of them
@pytest.mark.parametrize("latent", EACH, ids=lambda x: x.name)
@pytest.mark.parametrize("positions", [(), (3, 2)])
def test_without_a_generator_nothing_is_drawn(latent: Latent, positions: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(1)
    h = torch.randn(8, 4 * latent.parameters_per_unit, *positions, generator=g)
    module = latent.build(4, None).eval()
    code = module(h)
    assert code.value is code.mean
    assert code.value.shape == (8, 4, *positions)
    assert torch.equal(module(h).mean, code.mean)
    assert torch.equal(module(h, g).mean, code.mean)  # the mean is the same where the value is drawn
    assert code.pre_activation is h
    torch.testing.assert_close(module(h[:1]).mean, code.mean[:1])  # no sample depends on its neighbours


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softplus"])
def test_deterministic_applies_its_activation(name: str) -> None:
    h = tensor([[-1.0, 2.0]])
    assert torch.equal(Deterministic().build(2, name)(h).value, activation(name).function(h))


@pytest.mark.parametrize("latent", [GaussianPosterior(), JumpReLU()], ids=lambda x: x.name)
def test_an_activation_without_effect_is_refused(latent: Latent) -> None:
    latent.build(3, "linear")
    words = rf"latent_activation must be None for latent='{latent.name}'; got 'relu'\. \w+"
    with pytest.raises(IncompatiblePartsError, match=words):
        latent.build(3, "relu")


# ------------------------------------------------------------------------------------- noisy and gaussian
def test_noisy_has_power_one_and_its_noise(generator: torch.Generator) -> None:
    module = Noisy(0.4).build(3, None).train()
    h = torch.randn(20_000, 3, generator=generator) * torch.tensor([0.1, 1.0, 30.0]) + 5
    code = module(h, generator)
    torch.testing.assert_close(code.mean.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(code.mean.var(0), torch.ones(3), atol=2e-3, rtol=0)
    noise = code.value - code.mean
    assert float(noise.std()) == pytest.approx(0.4, rel=5 / math.sqrt(2 * noise.numel()))
    assert abs(float(noise.mean())) < 5 * 0.4 / math.sqrt(noise.numel())


def test_noisy_cannot_speak_louder(generator: torch.Generator) -> None:
    module = Noisy(0.4).build(3, None).train()
    h = torch.randn(50, 3, generator=generator)
    torch.testing.assert_close(module(h).mean, module(1000 * h).mean, rtol=1e-3, atol=1e-3)


def test_noisy_running_statistics_approach_the_datas(generator: torch.Generator) -> None:
    module = Noisy(0.4).build(2, None).train()
    for _ in range(200):
        module(torch.randn(200, 2, generator=generator) * 3 + 7, generator)
    module.eval()
    z = module(torch.randn(5000, 2, generator=generator) * 3 + 7).mean
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(2), atol=0.1, rtol=0)


def test_gaussian_draws_from_its_posterior_and_lets_gradients_through(generator: torch.Generator) -> None:
    h = tensor([[1.0, -2.0, math.log(0.25), math.log(4.0)]]).requires_grad_()
    module = GaussianPosterior().build(2, None)
    code = module(h.expand(40_000, 4), generator)
    mean, deviation = code.value.mean(0).detach(), code.value.std(0).detach()
    assert mean.tolist() == pytest.approx([1.0, -2.0], abs=5 * 2.0 / 200)
    assert deviation.tolist() == pytest.approx([0.5, 2.0], rel=5 / math.sqrt(80_000))
    (slope,) = torch.autograd.grad(code.value.square().mean(0).sum(), h)
    # d/dmu E z^2 = 2 mu and d/dlog s^2 = s^2
    assert slope[0].tolist() == pytest.approx([2.0, -4.0, 0.25, 4.0], abs=0.25)


def test_gaussian_survives_extreme_log_variances(generator: torch.Generator) -> None:
    code = GaussianPosterior().build(1, None)(tensor([[0.0, 1e6], [0.0, -1e6]]), generator)
    assert torch.isfinite(code.value).all()
    assert code.log_variance is not None
    assert code.log_variance.flatten().tolist() == [10.0, -18.0]


# ------------------------------------------------------------------------------------ topk and batch topk
def test_topk_keeps_the_k_largest_by_hand() -> None:
    h = tensor([[3.0, -5.0, 1.0, 2.0], [-1.0, -2.0, -3.0, 0.5]])
    assert TopK(k=2).build(4, None)(h).value.tolist() == [[3.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.5]]
    linear = TopK(k=2).build(4, "linear")(h).value
    assert linear.tolist() == [[3.0, 0.0, 0.0, 2.0], [-1.0, 0.0, 0.0, 0.5]]


def test_topk_gives_only_the_kept_units_a_gradient() -> None:
    h = tensor([[3.0, -5.0, 1.0, 2.0]]).requires_grad_()
    (slope,) = torch.autograd.grad(TopK(k=2).build(4, None)(h).value.sum(), h)
    assert slope.tolist() == [[1.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize("k", [1, 3, 6])
def test_topk_counts_per_sample_and_position(k: int, generator: torch.Generator) -> None:
    h = torch.rand(5, 6, 2, 3, generator=generator)
    z = TopK(k=k).build(6, None)(h).value
    assert ((z != 0).sum(1) == k).all()
    assert torch.equal(z[z != 0], h[z != 0])
    assert (z.sum(1) == h.sort(1, descending=True).values[:, :k].sum(1)).all() or k > 1


@pytest.mark.parametrize("positions", [(), (3, 2)])
@pytest.mark.parametrize("k", [1, 3])
def test_batch_topk_keeps_k_per_sample_on_average(
    k: int, positions: tuple[int, ...], generator: torch.Generator
) -> None:
    h = torch.rand(7, 6, *positions, generator=generator)
    h[0] += 1.0  # one sample wants more
    z = BatchTopK(k=k).build(6, None).train()(h).value
    n = 7 * math.prod(positions)
    assert int((z != 0).sum()) == k * n
    assert float(z[z != 0].min()) >= float(h[z == 0].max())
    assert int((z[0] != 0).sum()) > k * math.prod(positions)


def test_batch_topk_threshold_starts_at_the_first_batch_and_follows(generator: torch.Generator) -> None:
    module = BatchTopK(k=1).build(4, None).train()
    first = torch.rand(50, 4, generator=generator)
    module(first)
    least = first.flatten().sort(descending=True).values[49]
    assert float(module.threshold) == pytest.approx(float(least))
    module(first + 1.0)
    assert float(module.threshold) == pytest.approx(float(least) + 0.02, abs=1e-6)
    module.eval()
    z = module(first).value
    assert torch.equal(z, first * (first >= module.threshold))
    assert float(module.threshold) == pytest.approx(float(least) + 0.02, abs=1e-6)


@pytest.mark.parametrize("part", [TopK, BatchTopK])
def test_k_defaults_to_a_tenth_and_must_fit(part: type[TopK] | type[BatchTopK]) -> None:
    h = torch.rand(1, 40, generator=torch.Generator().manual_seed(1))
    assert int((part().build(40, None).train()(h).value != 0).sum()) == 4
    assert int((part().build(3, None).train()(h[:, :3]).value != 0).sum()) == 1
    with pytest.raises(
        IncompatiblePartsError, match=rf"k of {part.__name__} must be at most latent_dim=4; got 5\. Lower"
    ):
        part(k=5).build(4, None)


# ------------------------------------------------------------------------------------------------ jumprelu
def test_jump_by_hand() -> None:
    h = tensor([[-0.2, 0.07, 0.12, 0.3]]).requires_grad_()
    threshold = tensor([[0.1] * 4]).requires_grad_()
    z, active = jump(h, threshold, 0.1)
    assert z.tolist() == [[0.0, 0.0, 0.12, 0.3]]
    assert active.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    weights = tensor([[1.0, 2.0, 3.0, 5.0]])
    to_h, to_threshold = torch.autograd.grad((z * weights).sum(), (h, threshold), retain_graph=True)
    assert to_h.tolist() == [[0.0, 0.0, 3.0, 5.0]]
    # -theta / b = -1 within 0.05 of the threshold
    assert to_threshold[0].tolist() == pytest.approx([0.0, -2.0, -3.0, 0.0])
    to_h, to_threshold = torch.autograd.grad((active * weights).sum(), (h, threshold), allow_unused=True)
    assert to_h is None or not to_h.any()
    # -1 / b = -10 within the window
    assert to_threshold[0].tolist() == pytest.approx([0.0, -20.0, -30.0, 0.0])


def test_jump_estimates_the_derivative_of_the_expected_count(generator: torch.Generator) -> None:
    """For values of a smooth density p, d/dtheta P(h > theta) = -p(theta)."""
    h = torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
    threshold = tensor([[0.5]]).requires_grad_()
    z, active = jump(h, threshold, 0.1)
    density = math.exp(-0.125) / math.sqrt(2 * math.pi)
    (slope,) = torch.autograd.grad(active.mean(), threshold, retain_graph=True)
    assert slope.item() == pytest.approx(-density, rel=0.05)
    (slope,) = torch.autograd.grad(z.mean(), threshold)
    assert slope.item() == pytest.approx(-0.5 * density, rel=0.05)


def test_jumprelu_counts_and_shares_a_threshold_per_unit(generator: torch.Generator) -> None:
    module = JumpReLU(threshold=0.2).build(3, None)
    h = torch.randn(4, 3, 2, 2, generator=generator)
    code = module(h)
    assert code.count is not None
    assert torch.equal(code.count.detach(), (h > 0.2).flatten(1).sum(1).float())
    assert module.log_threshold.shape == (3,)
    assert module.log_threshold.exp().tolist() == pytest.approx([0.2] * 3)


# ------------------------------------------------------------------------------------------------- revival
@pytest.mark.parametrize("part", [TopK, BatchTopK])
def test_silence_is_counted_in_samples_and_dead_units_are_offered(part: type[TopK] | type[BatchTopK]) -> None:
    module: LatentModule = part(k=1, revive_after=5).build(4, None).train()
    h = tensor([[2.0, -1.0, -3.0, -2.0]]).expand(3, 4)
    assert module(h).auxiliary is None
    assert module.silent.tolist() == [0, 3, 3, 3]
    auxiliary = module(h).auxiliary  # six samples without units 1 to 3
    assert auxiliary is not None
    assert module.silent.tolist() == [0, 6, 6, 6]
    assert auxiliary[0].tolist() == [0.0, -1.0, 0.0, -2.0]  # the half of the code that is nearest to firing
    assert module(-h).auxiliary is not None  # now unit 2 fires and is no longer offered
    assert module.silent.tolist()[2] == 0
    module.eval()
    assert module(h).auxiliary is None
    assert module.silent.tolist()[2] == 0


def dead_after_training(
    auxiliary_weight: float, part: type[TopK] | type[BatchTopK]
) -> tuple[int, int, float]:
    """Train on sums of two of 24 atoms with three quarters of the units pushed below zero."""
    g = torch.Generator().manual_seed(4)
    atoms = torch.nn.functional.normalize(torch.randn(24, 16, generator=g), dim=1)
    latent = part(k=2, auxiliary_weight=auxiliary_weight, revive_after=256)
    network = Dense(()).build((16,), 32, 1, g)
    module = AutoencoderModule(network, latent.build(32, None), SquaredError().build(), None).train()
    with torch.no_grad():
        network.encoder[0][0].bias[8:] = -1.5
    objective = Objective(revival_weight=latent.auxiliary_weight)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    before, cost = 0, math.inf
    for step in range(400):
        chosen = torch.rand(64, 24, generator=g).topk(2, dim=1).indices
        x = atoms[chosen].sum(1)
        terms = objective(module, module(x, g), step, g)
        optimizer.zero_grad()
        terms[TOTAL].mean().backward()
        optimizer.step()
        if step == 10:
            before = int((module.latent.silent > 256).sum())
        cost = float((terms[TOTAL] - terms.get(REVIVAL, 0.0)).detach().mean())
    return before, int((module.latent.silent > 256).sum()), cost


@pytest.mark.parametrize("part", [TopK, BatchTopK])
def test_dead_units_come_back_and_the_error_falls(part: type[TopK] | type[BatchTopK]) -> None:
    dead_before, dead_without, cost_without = dead_after_training(0.0, part)
    assert dead_before >= 20
    assert dead_without >= 20  # nothing brings them back by itself
    _, dead_with, cost_with = dead_after_training(1 / 32, part)
    assert dead_with <= dead_without - 6
    assert cost_with < 0.6 * cost_without
