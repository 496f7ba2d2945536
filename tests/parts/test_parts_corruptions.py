"""Corruptions: what share is really changed, by how much, and that chance comes from the generator only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diabolo.autoencoder import AutoencoderModule
from diabolo.parts import (
    Chain,
    CoarseNoise,
    Corruption,
    Dense,
    Deterministic,
    GaussianNoise,
    MaskingNoise,
    SaltAndPepper,
    SquaredError,
    known_parts,
)

ONE_OF_EACH: list[Corruption] = [
    GaussianNoise(0.3),
    CoarseNoise(0.3, 3),
    MaskingNoise(0.4),
    SaltAndPepper(0.2),
    Chain([GaussianNoise(0.1), MaskingNoise(0.3)]),
]
N = 40_000
share = st.floats(0.02, 0.98)


def test_every_corruption_is_here() -> None:
    assert {c.name for c in ONE_OF_EACH} == set(known_parts(Corruption))


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within(observed: float, expected: float, deviation: float) -> bool:
    """Five standard deviations: a wrong factor is out, chance is not (3e-7)."""
    return abs(observed - expected) <= 5 * deviation


@settings(max_examples=25)
@given(fraction=share, seed=st.integers(0, 2**31))
def test_masking_zeroes_its_fraction_and_nothing_else(fraction: float, seed: int) -> None:
    x = 1 + torch.rand(N, generator=seeded(1))
    y = MaskingNoise(fraction)(x, seeded(seed))
    masked = y == 0
    assert within(float(masked.float().mean()), fraction, (fraction * (1 - fraction) / N) ** 0.5)
    assert torch.equal(y[~masked], x[~masked])


@settings(max_examples=25)
@given(std=st.floats(0.01, 10), seed=st.integers(0, 2**31))
def test_gaussian_noise_has_its_deviation_and_mean_zero(std: float, seed: int) -> None:
    x = torch.full((N,), 0.5, dtype=torch.float64)
    noise = GaussianNoise(std)(x, seeded(seed)) - x
    assert within(float(noise.mean()), 0.0, std / N**0.5)
    assert within(float(noise.std()), std, std / (2 * N) ** 0.5)
    assert within(float((noise.abs() < std).double().mean()), 0.6827, (0.6827 * 0.3173 / N) ** 0.5)


@pytest.mark.parametrize("shape", [(9,), (9, 7), (2, 9, 7), (2, 5, 9, 7)])
def test_coarse_noise_is_linear_between_the_points_of_its_grid(shape: tuple[int, ...]) -> None:
    x = torch.rand(3, *shape, generator=seeded(1), dtype=torch.float64)
    noise = CoarseNoise(0.5, 3)(x, seeded()) - x
    extents = shape[1:] if len(shape) > 2 else shape
    for axis, extent in enumerate(extents, start=x.ndim - len(extents)):
        if extent == 9:  # points at 0, 4 and 8, straight lines between them
            along = noise.movedim(axis, -1)
            bends = along.diff(n=2, dim=-1).abs().amax(dim=tuple(range(along.ndim - 1)))
            assert bends[3] > 1e-3
            assert bends[[0, 1, 2, 4, 5, 6]].max() < 1e-12
    if len(shape) > 2:
        assert not torch.equal(noise[:, 0], noise[:, 1])  # each channel has its own


def test_coarse_noise_has_its_deviation_at_the_points_and_half_between_four() -> None:
    noise = CoarseNoise(0.8, 2)(torch.zeros(N, 3, 3, dtype=torch.float64), seeded())
    for place, std in (((0, 0), 0.8), ((2, 2), 0.8), ((1, 1), 0.4)):
        at = noise[:, *place]
        assert within(float(at.mean()), 0.0, std / N**0.5)
        assert within(float(at.std()), std, std / (2 * N) ** 0.5)
    fine = CoarseNoise(0.8, 8)(torch.zeros(1, 4, 5), seeded())
    white = torch.randn(1, 4, 5, generator=seeded())
    assert torch.allclose(fine, 0.8 * white)


@settings(max_examples=25)
@given(fraction=share, seed=st.integers(0, 2**31))
def test_salt_and_pepper_replaces_its_fraction_half_by_each_extreme(fraction: float, seed: int) -> None:
    x = torch.rand(N, generator=seeded(1)) * 0.8 + 0.1
    y = SaltAndPepper(fraction, low=-1.0, high=2.0)(x, seeded(seed))
    half = fraction / 2
    for extreme in (-1.0, 2.0):
        assert within(float((y == extreme).float().mean()), half, (half * (1 - half) / N) ** 0.5)
    kept = (y != -1.0) & (y != 2.0)
    assert torch.equal(y[kept], x[kept])


def test_salt_and_pepper_takes_the_extremes_of_the_batch() -> None:
    x = torch.rand(50, 20, generator=seeded())
    y = SaltAndPepper(0.5)(x, seeded())
    changed = y[y != x]
    assert set(changed.tolist()) <= {float(x.min()), float(x.max())}
    one_sided = SaltAndPepper(0.5, low=-3.0)(x, seeded())
    assert set(one_sided[one_sided != x].tolist()) <= {-3.0, float(x.max())}


def test_a_chain_is_its_steps_in_order() -> None:
    x = torch.ones(500)
    steps = [MaskingNoise(0.5), GaussianNoise(0.1)]
    g = seeded()
    by_hand = steps[1](steps[0](x, g), g)
    assert torch.equal(Chain(steps)(x, seeded()), by_hand)
    assert (by_hand != 0).all()  # noise after the mask: nothing is exactly 0
    assert (Chain(steps[::-1])(x, seeded()) == 0).any()


@pytest.mark.parametrize("corruption", ONE_OF_EACH, ids=lambda c: c.name)
def test_same_seed_same_bytes_and_the_input_stays(corruption: Corruption) -> None:
    x = torch.rand(6, 2, 5, 4, generator=seeded())
    before = x.clone()
    assert torch.equal(corruption(x, seeded(1)), corruption(x, seeded(1)))
    assert not torch.equal(corruption(x, seeded(1)), corruption(x, seeded(2)))
    assert torch.equal(x, before)
    assert corruption(x, seeded(1)).shape == x.shape
    assert corruption(x.double(), seeded(1)).dtype == torch.float64


@pytest.mark.parametrize("corruption", ONE_OF_EACH, ids=lambda c: c.name)
def test_the_module_corrupts_only_with_a_generator_and_keeps_the_target_clean(corruption: Corruption) -> None:
    network = Dense((3,)).build((6,), 2, 1, seeded())
    module = AutoencoderModule(network, Deterministic().build(2, None), SquaredError().build(), corruption)
    x = torch.rand(9, 6, generator=seeded())
    off = module(x)
    assert off.seen is x
    on = module(x, seeded())
    assert not torch.equal(on.seen, x)
    assert on.target is x
    torch.testing.assert_close(off.raw, module(x).raw, rtol=0, atol=0)
