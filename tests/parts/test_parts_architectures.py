"""Architectures: sizes, tied weights, starting weights, dropout, and where their chance comes from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import IncompatiblePartsError
from diabolo.parts import (
    Architecture,
    BinaryCrossEntropy,
    Conv,
    Dense,
    Deterministic,
    Gaussian,
    Loss,
    Network,
    SquaredError,
)
from diabolo.parts.activations import Activate
from diabolo.parts.architectures.base import LayerNorm, SeededDropout, TiedLinear, initialise, uninitialised
from diabolo.parts.losses import Linked

VARIANTS: dict[str, tuple[Architecture, tuple[int, ...]]] = {
    "dense": (Dense((6, 5)), (7,)),
    "dense, no hidden layer": (Dense(()), (7,)),
    "dense, image": (Dense((6,), norm="batch", dropout=0.2), (2, 3, 4)),
    "dense, tied": (Dense((6, 5), norm="layer", tied_weights=True), (7,)),
    "conv": (Conv(channels=(3, 4)), (5, 6)),
    "conv, pool, resize": (Conv(channels=(3, 4), down="pool", up="resize", norm="layer"), (2, 5, 6)),
    "conv, spatial": (Conv(channels=(3, 4), code="spatial", norm="batch", dropout=0.2), (5, 6)),
    "conv 1d": (Conv(1, (3,)), (2, 9)),
    "conv 3d": (Conv(channels=(2,), down="pool"), (1, 3, 4, 5)),
}


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str, seed: int = 7, parameters_per_unit: int = 1) -> Network:
    architecture, shape = VARIANTS[name]
    return architecture.build(shape, 3, parameters_per_unit, seeded(seed))


# -------------------------------------------------------------------------------------------------- sizes
@settings(max_examples=120)
@given(data=st.data())
def test_every_size_comes_back_exactly(data: st.DataObject) -> None:
    n_dims = data.draw(st.integers(1, 3), "n_dims")
    extents = tuple(data.draw(st.lists(st.integers(1, 17), min_size=n_dims, max_size=n_dims), "extents"))
    channels = data.draw(st.sampled_from([(), (1,), (2,)]), "channels of the input")
    architecture = Conv(
        n_dims,
        tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3), "stages")),
        kernel_size=data.draw(st.sampled_from([1, 3, 5]), "kernel"),
        down=data.draw(st.sampled_from(["stride", "pool"]), "down"),
        up=data.draw(st.sampled_from(["transposed", "resize"]), "up"),
        code=data.draw(st.sampled_from(["dense", "spatial"]), "code"),
    )
    shape = (*channels, *extents)
    p = data.draw(st.integers(1, 2), "parameters per unit")
    network = architecture.build(shape, 2, p, seeded())
    x = torch.randn(2, *shape, generator=seeded())
    with torch.no_grad():
        h = network.encoder(x)
        assert h.shape == (2, p * network.code_shape[0], *network.code_shape[1:])
        assert network.decoder(h[:, :2]).shape == x.shape
    assert network.code_shape[0] == 2
    stages = len(architecture.channels)
    if architecture.code == "spatial":
        assert network.code_shape[1:] == tuple(math.ceil(n / 2**stages) for n in extents)
    levels = network.levels
    assert len(levels) == 2 * stages + 3
    assert (levels[0].shape, levels[-1].shape) == (shape, shape)
    assert [level.role for level in levels].index("code") == stages + 1
    assert levels[stages + 1].shape == network.code_shape


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes_and_levels(name: str) -> None:
    _, shape = VARIANTS[name]
    network = build(name, parameters_per_unit=1)
    x = torch.randn(4, *shape, generator=seeded())
    z = network.encoder(x)
    assert z.shape == (4, *network.code_shape)
    assert network.decoder(z).shape == x.shape
    assert network.levels[0].size == x[0].numel()
    sizes = [level.size for level in network.levels]
    assert sizes == sizes[::-1]  # an hourglass


@pytest.mark.parametrize("shape", [(5,), (5, 6), (2, 5, 6), (1, 3, 4, 5)])
def test_n_dims_follows_from_the_shape(shape: tuple[int, ...]) -> None:
    expected = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv2d, 4: nn.Conv3d}[len(shape)]
    encoder = Conv(channels=(2,)).build(shape, 2, 1, seeded()).encoder
    assert any(isinstance(m, expected) for m in encoder)


@pytest.mark.parametrize(
    ("n_dims", "shape"), [(None, (1, 2, 3, 4, 5)), (1, (2, 3, 4)), (3, (4, 5)), (2, (9,))]
)
def test_a_shape_that_does_not_fit_is_refused(n_dims: int | None, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        IncompatiblePartsError, match=r"a sample must have .* extents.*got shape \(.*\. Set n_dims"
    ):
        Conv(n_dims).build(shape, 2, 1, seeded())


def test_pairs_mirror_each_other() -> None:
    network = build("dense")
    assert network.pairs == [2, 1, 0]
    x = torch.randn(4, 7, generator=seeded())
    for i, mirrored in enumerate(network.pairs):
        below = x
        x = network.encoder[i](x)
        assert network.decoder[mirrored](x).shape == below.shape


# ------------------------------------------------------------------------------------------- tied weights
def test_tied_weights_share_their_storage_and_get_one_gradient() -> None:
    network = build("dense, tied")
    module = AutoencoderModule(network, Deterministic().build(3, None), SquaredError().build(), None)
    down = [m for m in module.encoder.modules() if isinstance(m, nn.Linear)]
    up = [m for m in module.decoder.modules() if isinstance(m, TiedLinear)]
    assert len(down) == len(up) == 3
    for a, b in zip(down, reversed(up), strict=True):
        assert a.weight.data_ptr() == b.weight.data_ptr()
        assert torch.equal(b.weight, a.weight.t())
    assert sum(1 for w in module.parameters() if w.ndim == 2) == 3  # registered once
    assert not any(k.startswith("decoder") and k.endswith("0.weight") for k in module.state_dict())


def test_a_tied_gradient_is_the_sum_of_both_sides() -> None:
    tied = Dense((6,), "tanh", tied_weights=True).build((7,), 3, 1, seeded())
    free = Dense((6,), "tanh").build((7,), 3, 1, seeded())
    with torch.no_grad():
        for i in range(2):
            free.encoder[i][0].weight.copy_(tied.encoder[i][0].weight)
            free.decoder[1 - i][0].weight.copy_(tied.encoder[i][0].weight.t())
    x = torch.randn(5, 7, generator=seeded())
    for network in (tied, free):
        (network.decoder(network.encoder(x)) - x).square().sum().backward()
    for i in range(2):
        both = free.encoder[i][0].weight.grad + free.decoder[1 - i][0].weight.grad.t()
        torch.testing.assert_close(tied.encoder[i][0].weight.grad, both)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda n: copy.deepcopy(n).double()], ids=["copied", "copied, double"]
)
def test_the_tie_survives(how: Callable[[nn.Module], nn.Module]) -> None:
    network = build("dense, tied")
    module = how(AutoencoderModule(network, Deterministic().build(3, None), SquaredError().build(), None))
    source, tied = module.encoder[0][0], module.decoder[2][0]
    assert source.weight.data_ptr() == tied.weight.data_ptr()
    assert source.weight.data_ptr() != network.encoder[0][0].weight.data_ptr()
    with torch.no_grad():
        source.weight.zero_()
    assert not tied.weight.any()


def test_tied_weights_and_a_gaussian_posterior_are_refused() -> None:
    with pytest.raises(
        IncompatiblePartsError, match=r"tied_weights must be False for .*gaussian.*Untie the weights"
    ):
        Dense(tied_weights=True).build((7,), 3, 2, None)


# --------------------------------------------------------------------------------------- starting weights
def variance_is(weight: Tensor, expected: float) -> bool:
    found, n = float(weight.detach().double().var()), weight.numel()
    return (
        abs(float(weight.detach().mean())) < 5 * (expected / n) ** 0.5
        and abs(found - expected) < 5 * expected * (2 / n) ** 0.5
    )


@pytest.mark.parametrize(
    ("activation", "init", "expected"),
    [
        ("relu", "auto", 2 / 300),
        ("leaky_relu", "auto", 2 / 1.0001 / 300),
        ("selu", "auto", 1 / 300),
        ("tanh", "auto", 2 / (300 + 200)),
        ("sigmoid", "auto", 2 / (300 + 200)),
        ("tanh", "he", 1 / 300),
        ("relu", "xavier", 2 / (300 + 200)),
    ],
)
def test_variance_of_dense_weights(activation: str, init: str, expected: float) -> None:
    network = Dense((200,), activation, init=init).build((300,), 100, 1, seeded())
    assert variance_is(network.encoder[0][0].weight, expected)
    # code and output are linear layers: Xavier's unless asked otherwise
    linear = 1 / 200 if init == "he" else 2 / (200 + 100)
    assert variance_is(network.encoder[1][0].weight, linear)
    assert not any(m.bias.any() for m in network.encoder.modules() if isinstance(m, nn.Linear))


def test_variance_of_convolutions() -> None:
    network = Conv(channels=(32, 48, 40)).build((16, 8, 8), 20, 1, seeded())
    layers = [m for m in network.encoder if isinstance(m, nn.Conv2d)]
    for layer, fan_in in zip(layers, (16 * 9, 32 * 9, 48 * 9), strict=True):
        assert variance_is(layer.weight, 2 / fan_in)
    ups = [m for m in network.decoder if isinstance(m, nn.ConvTranspose2d)]
    for layer, channels in zip(ups[:-1], (40, 48), strict=True):
        assert variance_is(
            layer.weight, 2 / (channels * 9 / 4)
        )  # stride 2: a quarter of the kernel meets input
    assert variance_is(ups[-1].weight, 2 / (32 * 9 + 16 * 9))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_he_keeps_the_signal_through_ten_layers(activation: str) -> None:
    encoder = Dense((256,) * 10, activation).build((256,), 256, 1, seeded()).encoder
    x = torch.randn(200, 256, generator=seeded())
    with torch.no_grad():
        ratio = encoder[:10](x).square().mean() / x.square().mean()
    assert 0.3 < float(ratio) < 3


@pytest.mark.parametrize(
    ("layer", "units", "fan_in"),
    [
        (uninitialised(nn.Linear, 100, 60), 60, 100),
        (uninitialised(nn.Linear, 9, 500), 500, 9),
        (uninitialised(nn.Conv2d, 8, 60, 3), 60, 72),
        (uninitialised(nn.ConvTranspose2d, 8, 60, 3), 60, 72),
    ],
    ids=["dense", "narrow", "conv", "transposed"],
)
def test_sparse_gives_a_unit_at_most_15_inputs(layer: nn.Module, units: int, fan_in: int) -> None:
    initialise([layer], "sparse", "tanh", seeded())
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    by_unit = weight.reshape(units, fan_in)
    incoming = min(15, fan_in)
    assert ((by_unit != 0).sum(1) == incoming).all()
    assert variance_is(by_unit[by_unit != 0], 1 / incoming)


# ------------------------------------------------------------------------------------------------- chance
@pytest.mark.parametrize("name", VARIANTS)
def test_same_seed_same_bytes(name: str) -> None:
    def state(seed: int) -> list[Tensor]:
        network = build(name, seed)
        return [*network.encoder.state_dict().values(), *network.decoder.state_dict().values()]

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(torch.isfinite(w).all() for w in first)


def test_without_a_generator_nothing_is_drawn() -> None:
    for architecture, shape in VARIANTS.values():
        architecture.build(shape, 3, 1, None)  # the autouse fixture watches the global state


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    layer = SeededDropout(0.3).train()
    layer.generator = seeded()
    x = torch.ones(100_000)
    y = layer(x)
    dropped = float((y == 0).float().mean())
    assert abs(dropped - 0.3) < 5 * (0.3 * 0.7 / 100_000) ** 0.5
    assert y[y != 0].unique().tolist() == pytest.approx([1 / 0.7])
    layer.generator = seeded()
    assert torch.equal(layer(x), y)
    assert layer.eval()(x) is x
    layer.train().generator = None
    assert layer(x) is x  # never torch's global generator


def test_the_module_hands_its_generator_to_every_dropout_layer() -> None:
    module = AutoencoderModule(
        Dense((50,), dropout=0.5).build((7,), 3, 1, seeded()),
        Deterministic().build(3, None),
        SquaredError().build(),
        None,
    ).train()
    x = torch.randn(4, 7, generator=seeded())
    still = module(x).raw
    assert torch.equal(module(x).raw, still)
    module.draw_from(seeded(1))
    drawn = module(x).raw
    assert not torch.equal(drawn, still)
    module.draw_from(seeded(1))
    assert torch.equal(module(x).raw, drawn)
    module.draw_from(None)
    assert torch.equal(module(x).raw, still)


# ------------------------------------------------------------------------------------------ normalisation
def test_layer_norm_is_torchs(generator: torch.Generator) -> None:
    for x, fused in (
        (torch.randn(5, 6, generator=generator, dtype=torch.float64), nn.LayerNorm(6)),
        (torch.randn(5, 6, 3, 2, generator=generator, dtype=torch.float64), nn.GroupNorm(1, 6)),
    ):
        own, fused = LayerNorm(6).double(), fused.double()
        with torch.no_grad():
            for a, b in zip(own.parameters(), fused.parameters(), strict=True):
                a.copy_(b.normal_(generator=generator))
        x = (3 * x + 1).requires_grad_()
        torch.testing.assert_close(own(x), fused(x), rtol=1e-10, atol=1e-10)
        (a,) = torch.autograd.grad(own(x).square().sum(), x)
        (b,) = torch.autograd.grad(fused(x).square().sum(), x)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_layer_norm_of_one_unit_would_be_constant_and_is_refused() -> None:
    with pytest.raises(IncompatiblePartsError, match=r"norm must not be 'layer' .*width 1.*Use norm='batch'"):
        Dense((8, 1), norm="layer")


# ------------------------------------------------------------------------------------ the first output
@pytest.mark.parametrize("loss", [SquaredError(), Gaussian(), BinaryCrossEntropy()], ids=str)
@pytest.mark.parametrize("tied", [False, True])
def test_training_starts_at_the_mean(loss: Loss, tied: bool) -> None:
    network = Dense((6,), tied_weights=tied).build((2, 3), 2, 1, seeded())
    module = AutoencoderModule(network, Deterministic().build(2, None), loss.build(), None)
    mean = torch.rand(2, 3, generator=seeded()) * 0.8 + 0.1
    module.start_at(mean)
    with torch.no_grad():
        torch.testing.assert_close(module.decode(torch.zeros(1, 2))[0], mean)


def test_only_an_output_layer_is_set_to_the_mean() -> None:
    # the dense layer that enters the decoder has 4 * 3 * 3 = 36 units, as many as the image has pixels
    network = Conv(channels=(4,)).build((6, 6), 2, 1, seeded())
    module = AutoencoderModule(network, Deterministic().build(2, None), SquaredError().build(), None)
    module.start_at(torch.ones(6, 6))
    assert not any(m.bias.any() for m in module.decoder if isinstance(m, nn.Linear))
    linked = Linked(SquaredError().build(), Activate("sigmoid"))
    module = AutoencoderModule(
        Dense(()).build((3,), 2, 1, seeded()), Deterministic().build(2, None), linked, None
    )
    module.start_at(torch.ones(3))
    assert not module.decoder[0][0].bias.any()
