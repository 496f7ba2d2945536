"""Law 5 for the penalties, and the objective that adds them up."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import IncompatiblePartsError
from diabolo.objective import LOSS, REVIVAL, TOTAL, Objective
from diabolo.parts import (
    L0,
    L1,
    BatchTopK,
    Code,
    Contractive,
    Dense,
    Deterministic,
    ForwardPass,
    Gaussian,
    GaussianPosterior,
    JumpReLU,
    KLSparsity,
    Latent,
    Noisy,
    Penalty,
    PosteriorKL,
    SquaredError,
    TopK,
    known_parts,
)
from diabolo.parts.latents import jump

Floats = torch.float64
NOTHING = nn.Sequential()
PLAIN = Deterministic().build(1, None)


def of_code(
    penalty: Penalty, mean: Tensor, log_variance: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """The penalty of a code given outright; the drawn value differs from the mean, to tell them apart."""
    code = Code(mean + 100.0, mean, mean, log_variance=log_variance, count=count)
    empty = mean.new_zeros(len(mean), 1)
    return penalty(NOTHING, PLAIN, ForwardPass(empty, empty, code, empty), None)


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=Floats)


# ------------------------------------------------------------------------------- values worked by hand
def test_l1_by_hand() -> None:
    z = tensor([[1.0, -2.0, 0.5], [0.0, 0.0, -4.0]])
    assert of_code(L1(), z).tolist() == [3.5, 4.0]
    spatial = tensor([[[[1.0, -1.0], [2.0, 0.0]], [[0.5, 0.5], [0.0, -3.0]]]])  # (1, 2, 2, 2)
    assert of_code(L1(), spatial).tolist() == [8.0]


def test_l0_by_hand() -> None:
    assert of_code(L0(), tensor([[1.0], [2.0]]), count=tensor([3.0, 1.0])).tolist() == [3.0, 1.0]


def test_kl_sparsity_by_hand() -> None:
    # means over the batch: 0.5 and 0.05, the target: only the first unit costs anything
    z = tensor([[0.2, 0.02], [0.8, 0.08]])
    expected = 0.05 * math.log(0.1) + 0.95 * math.log(1.9)
    assert of_code(KLSparsity(target=0.05), z).tolist() == pytest.approx([expected] * 2)
    assert expected == pytest.approx(0.4946, abs=1e-4)


def test_posterior_kl_by_hand() -> None:
    mean, log_variance = tensor([[1.0, 0.0], [0.0, -2.0]]), tensor([[0.0, 0.0], [math.log(4.0), 0.0]])
    expected = [0.5, 0.5 * (4 - 1 - math.log(4.0)) + 2.0]
    assert of_code(PosteriorKL(), mean, log_variance).tolist() == pytest.approx(expected)


def test_contractive_by_hand() -> None:
    # sigmoid'(0) = 1/4 and W = [[2, 0], [0, 4]]: (1/4)^2 (2^2 + 4^2) = 1.25
    encoder = Dense(()).build((2,), 2, 1, torch.Generator()).encoder.double()
    with torch.no_grad():
        encoder[0][0].weight.copy_(tensor([[2.0, 0.0], [0.0, 4.0]]))
    x = tensor([[0.0, 0.0]])
    latent = Deterministic().build(2, "sigmoid")
    z = latent(encoder(x))
    assert Contractive()(encoder, latent, ForwardPass(x, x, z, x), None).tolist() == [1.25]


# ------------------------------------------------------------------------------------- second formulas
def test_kl_sparsity_is_torchs_bernoulli_divergence(generator: torch.Generator) -> None:
    z = torch.rand(20, 7, generator=generator, dtype=Floats).requires_grad_()
    expected = kl_divergence(Bernoulli(tensor(0.1)), Bernoulli(z.mean(0))).sum()
    found = of_code(KLSparsity(target=0.1), z)
    torch.testing.assert_close(found, expected.expand(20), rtol=1e-10, atol=1e-12)
    (a,) = torch.autograd.grad(found.mean(), z)
    (b,) = torch.autograd.grad(expected, z)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_kl_sparsity_of_maps_takes_the_mean_over_positions(generator: torch.Generator) -> None:
    z = torch.rand(6, 3, 2, 4, generator=generator, dtype=Floats)
    rows = z.movedim(1, -1).reshape(-1, 3)
    torch.testing.assert_close(of_code(KLSparsity(), z)[:1], of_code(KLSparsity(), rows)[:1])


def test_kl_sparsity_is_finite_for_silent_and_saturated_units() -> None:
    z = tensor([[0.0, 1.0], [0.0, 1.0]]).requires_grad_()
    value = of_code(KLSparsity(), z)
    assert torch.isfinite(value).all()
    assert torch.isfinite(torch.autograd.grad(value.sum(), z)[0]).all()


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3, 2)])
def test_posterior_kl_is_torchs_normal_divergence(shape: tuple[int, ...], generator: torch.Generator) -> None:
    mean = torch.randn(shape, generator=generator, dtype=Floats).requires_grad_()
    log_variance = torch.randn(shape, generator=generator, dtype=Floats).requires_grad_()
    normal = Normal(mean, torch.exp(0.5 * log_variance))
    expected = kl_divergence(normal, Normal(tensor(0.0), tensor(1.0))).flatten(1).sum(1)
    found = of_code(PosteriorKL(), mean, log_variance)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(found.sum(), (mean, log_variance)),
        torch.autograd.grad(expected.sum(), (mean, log_variance)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------------------- gradcheck
Z = tensor([[0.4, -0.7, 1.3], [0.2, 0.9, -0.1]])
SHARES = torch.sigmoid(Z)


def _contractive(w: Tensor) -> Tensor:
    encoder = Dense((2,), "tanh").build((3,), 2, 1, torch.Generator().manual_seed(1)).encoder.double()
    latent = Deterministic().build(2, "sigmoid")
    with torch.no_grad():
        encoder[0][0].weight.copy_(w)
    del encoder[0][0]._parameters["weight"]
    encoder[0][0].weight = w
    return Contractive()(encoder, latent, ForwardPass(Z, Z, latent(encoder(Z)), Z), None)


def _count(threshold: Tensor) -> Tensor:
    return of_code(L0(), Z, count=jump(Z, threshold.expand(3), 1e-3)[1].sum(1))


GRADCHECKS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "l1": (lambda z: of_code(L1(), z), Z),
    "l0": (_count, tensor(0.5)),  # far from every value: flat, as the exact derivative is
    "kl_sparsity": (lambda z: of_code(KLSparsity(target=0.2), z), SHARES),
    "posterior_kl": (lambda z: of_code(PosteriorKL(), z, 0.5 * z), Z),
    "contractive": (_contractive, tensor([[0.5, -1.0, 0.3], [0.2, 0.8, -0.6]])),
}


def test_every_penalty_is_here() -> None:
    assert set(GRADCHECKS) == set(known_parts(Penalty))


@pytest.mark.parametrize("name", GRADCHECKS)
def test_gradcheck(name: str) -> None:
    function, at = GRADCHECKS[name]
    assert torch.autograd.gradcheck(function, at.clone().requires_grad_())


# ---------------------------------------------------------------------------- free bits, warm-up, estimate
def test_free_bits_by_hand() -> None:
    # unit 0 costs (0.5 + 0) / 2 = 0.25 nats on average, unit 1 (2 + 4.5) / 2 = 3.25
    mean = tensor([[1.0, 2.0], [0.0, 3.0]]).requires_grad_()
    log_variance = torch.zeros(2, 2, dtype=Floats)
    value = of_code(PosteriorKL(free_bits=1.0), mean, log_variance)
    assert value.tolist() == [1.0 + 3.25] * 2
    (slope,) = torch.autograd.grad(value.mean(), mean)
    assert slope.tolist() == [[0.0, 1.0], [0.0, 1.5]]  # mu / n for the unit above, nothing below
    assert of_code(PosteriorKL(free_bits=0.1), mean, log_variance).tolist() == [0.25 + 3.25] * 2


def test_warm_up_is_linear_and_ends() -> None:
    penalty = PosteriorKL(beta=4.0, warmup=8)
    assert [penalty.weight_at(s) for s in (0, 1, 4, 8, 9, 1000, None)] == [0.0, 0.5, 2.0, 4.0, 4.0, 4.0, 4.0]
    assert PosteriorKL(beta=2.0).weight_at(0) == 2.0
    assert L1(0.3).weight_at(0) == L1(0.3).weight_at(None) == 0.3
    objective = Objective([penalty, L1()])
    assert [objective.settled(step) for step in (0, 7, 8)] == [False, False, True]


def test_estimate_needs_a_generator_and_is_exact_without(generator: torch.Generator) -> None:
    encoder = Dense((6,), "tanh").build((5,), 4, 1, generator).encoder
    latent = Deterministic().build(4, "sigmoid")
    x = torch.randn(3, 5, generator=generator)
    passed = ForwardPass(x, x, latent(encoder(x)), x)
    exact = Contractive()(encoder, latent, passed, generator)
    estimate = Contractive(method="estimate", n_probes=2)
    assert torch.equal(estimate(encoder, latent, passed, None), exact)
    drawn = estimate(encoder, latent, passed, generator)
    assert not torch.allclose(drawn, exact)
    assert torch.equal(
        estimate(encoder, latent, passed, torch.Generator().manual_seed(1)),
        estimate(encoder, latent, passed, torch.Generator().manual_seed(1)),
    )


def test_contractive_is_taken_where_the_encoder_looks(generator: torch.Generator) -> None:
    encoder = Dense((6,), "tanh").build((5,), 4, 1, generator).encoder
    latent = Deterministic().build(4, None)
    clean, seen = torch.randn(2, 3, 5, generator=generator)
    at_seen = Contractive()(encoder, latent, ForwardPass(seen, seen, latent(encoder(seen)), seen), None)
    corrupted = Contractive()(encoder, latent, ForwardPass(clean, seen, latent(encoder(seen)), seen), None)
    assert torch.equal(corrupted, at_seen)


# -------------------------------------------------------------------------------------- what fits together
LATENTS: list[Latent] = [Deterministic(), Noisy(), GaussianPosterior(), TopK(), BatchTopK(), JumpReLU()]
FITS: dict[str, set[tuple[str, str | None]]] = {
    "l1": {(latent.name, a) for latent in LATENTS for a in (None, "sigmoid")},
    "contractive": {(latent.name, a) for latent in LATENTS for a in (None, "sigmoid")},
    "l0": {("jumprelu", None), ("jumprelu", "sigmoid")},
    "kl_sparsity": {("deterministic", "sigmoid"), ("topk", "sigmoid"), ("batch_topk", "sigmoid")},
    "posterior_kl": {("gaussian", None), ("gaussian", "sigmoid")},
}


def test_every_latent_is_here() -> None:
    assert {latent.name for latent in LATENTS} == set(known_parts(Latent))


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("latent", LATENTS, ids=lambda x: x.name)
@pytest.mark.parametrize(
    "penalty", [L1(), L0(), KLSparsity(), Contractive(), PosteriorKL()], ids=lambda p: p.name
)
def test_fits_or_says_what_would(penalty: Penalty, latent: Latent, activation: str | None) -> None:
    if (latent.name, activation) in FITS[penalty.name]:
        penalty.check_fits(latent, activation)
    else:
        words = rf"penalty '{penalty.name}' must .*; got latent='{latent.name}'.*\. (Use|Set) .*\.$"
        with pytest.raises(IncompatiblePartsError, match=words):
            penalty.check_fits(latent, activation)


# ------------------------------------------------------------------------------------------ the objective
def composed(latent: Latent, generator: torch.Generator, activation: str | None = None) -> AutoencoderModule:
    network = Dense((6,), "tanh").build((5,), 4, latent.parameters_per_unit, generator)
    return AutoencoderModule(network, latent.build(4, activation), SquaredError().build(), None)


def test_terms_by_name_weighted_and_total_last(generator: torch.Generator) -> None:
    module = composed(GaussianPosterior(), generator)
    x = torch.randn(3, 5, generator=generator)
    passed = module(x, generator)
    penalties = [PosteriorKL(beta=4.0, warmup=10), L1(0.5), Contractive(2.0)]
    terms = Objective(penalties)(module, passed, 5, generator)
    assert list(terms) == [LOSS, "posterior_kl", "l1", "contractive", TOTAL]
    assert all(term.shape == (3,) for term in terms.values())
    torch.testing.assert_close(terms[LOSS], (passed.raw - x).square().sum(1))
    plain = [p(module.encoder, module.latent, passed, generator) for p in penalties]
    for weight, value, penalty in zip((2.0, 0.5, 2.0), plain, penalties, strict=True):
        torch.testing.assert_close(terms[penalty.name], weight * value)
    torch.testing.assert_close(terms[TOTAL], sum(t for name, t in terms.items() if name != TOTAL))
    after = Objective(penalties)(module, passed)
    torch.testing.assert_close(after["posterior_kl"], 4.0 * plain[0])


def test_without_penalties_the_total_is_the_loss(generator: torch.Generator) -> None:
    module = composed(Deterministic(), generator)
    terms = Objective()(module, module(torch.randn(3, 5, generator=generator)))
    assert list(terms) == [LOSS, TOTAL]
    assert torch.equal(terms[LOSS], terms[TOTAL])


def test_revival_is_the_squared_error_of_what_the_living_leave_over(generator: torch.Generator) -> None:
    module = composed(TopK(k=1, revive_after=1), generator).train()
    module.latent.silent += 100
    x = torch.randn(3, 5, generator=generator)
    passed = module(x, generator)
    assert passed.code.auxiliary is not None
    with torch.no_grad():
        added = module.decoder(passed.code.auxiliary) - module.decoder(torch.zeros(3, 4))
        expected = (x - passed.raw - added).square().sum(1)
    terms = Objective(revival_weight=0.25)(module, passed)
    torch.testing.assert_close(terms[REVIVAL].detach(), 0.25 * expected)
    assert list(terms) == [LOSS, REVIVAL, TOTAL]
    assert REVIVAL not in Objective(revival_weight=0.0)(module, passed)


def test_the_negative_elbo_bounds_the_negative_log_likelihood(generator: torch.Generator) -> None:
    """A linear decoder with unit noise has a Gaussian marginal: the bound is tight at the true posterior."""
    w = tensor([[0.8, -0.5, 0.3]])
    x = torch.randn(4, 3, generator=generator, dtype=Floats)
    precision = 1 + w.square().sum()
    mean = (x @ w.T) / precision
    log_variance = -precision.log().expand(4, 1)
    # E over z of the cost is the cost of the mean plus the decoder's spread
    cost = Gaussian(1.0).build().double()(mean @ w, x) + 0.5 * w.square().sum() / precision
    marginal = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=Floats), torch.eye(3) + w.T @ w)
    bound = cost + of_code(PosteriorKL(), mean, log_variance)
    torch.testing.assert_close(bound, -marginal.log_prob(x), rtol=1e-7, atol=1e-7)
