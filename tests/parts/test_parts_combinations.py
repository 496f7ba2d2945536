"""Law 6: every combination of parts trains (a gradient reaches each parameter) or refuses in words."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch

from diabolo.errors import IncompatiblePartsError
from diabolo.objective import TOTAL
from diabolo.parameters import Parameters
from diabolo.parts import (
    L0,
    L1,
    Architecture,
    Contractive,
    Conv,
    Corruption,
    Dense,
    KLSparsity,
    Latent,
    Loss,
    Penalty,
    PosteriorKL,
    known_parts,
)
from diabolo.recipe import resolve

ARCHITECTURES: dict[str, Architecture] = {
    "dense": Dense((8,)),
    "dense, no hidden layer": Dense((), "tanh"),
    "dense, tied": Dense((8,), tied_weights=True),
    "dense, batch norm, dropout": Dense((8, 7), "elu", norm="batch", dropout=0.1),
    "dense, layer norm": Dense((8,), "selu", norm="layer"),
    "conv": Conv(channels=(4,)),
    "conv, pool, resize": Conv(channels=(4, 4), down="pool", up="resize", activation="gelu"),
    "conv, spatial": Conv(channels=(4,), code="spatial", norm="batch", activation="leaky_relu"),
    "conv, spatial, layer norm": Conv(
        channels=(4,), code="spatial", norm="layer", dropout=0.1, kernel_size=5
    ),
}
LATENTS = ["deterministic", "noisy", "gaussian", "topk:2", "batch_topk:2", "jumprelu:0.01"]
PENALTIES: dict[str, list[Penalty]] = {
    "none": [],
    "l1": [L1()],
    "l0": [L0()],
    "kl_sparsity": [KLSparsity()],
    "contractive": [Contractive()],
    "contractive, estimate": [Contractive(method="estimate", n_probes=2)],
    "posterior_kl": [PosteriorKL(free_bits=0.01, warmup=5)],
    "l1 + contractive": [L1(), Contractive()],
}
LOSSES = [
    "squared_error",
    "gaussian",
    "gaussian:0.1",
    "binary_cross_entropy",
    "absolute",
    "huber",
    "mixed:numeric? binary categorical:3? numeric categorical:12",
]
CORRUPTIONS = [None, "gaussian", "masking", "salt_and_pepper", "coarse", "gaussian:0.1+masking:0.2"]
SHAPE = (4, 5)


def test_the_family_is_complete() -> None:
    def names(texts: list[str]) -> set[str]:
        return {text.split(":")[0] for text in texts}

    assert {a.name for a in ARCHITECTURES.values()} == set(known_parts(Architecture))
    assert names(LATENTS) == set(known_parts(Latent))
    assert names(LOSSES) == set(known_parts(Loss))
    assert {p.name for ps in PENALTIES.values() for p in ps} == set(known_parts(Penalty))
    chained = {"chain"} if any("+" in (c or "") for c in CORRUPTIONS) else set()
    assert names([c for c in CORRUPTIONS if c and "+" not in c]) | chained == set(known_parts(Corruption))


def refused(
    architecture: Architecture, latent: str, activation: str | None, penalties: list[Penalty]
) -> str | None:
    """Which choice has to be named in the refusal, by the rules in the parts' docstrings; None: it trains."""
    latent = latent.split(":")[0]
    for penalty in penalties:
        if penalty.name == "l0" and latent != "jumprelu":
            return "penalty 'l0'"
        if penalty.name == "posterior_kl" and latent != "gaussian":
            return "penalty 'posterior_kl'"
        shares = activation == "sigmoid" and latent in ("deterministic", "topk", "batch_topk")
        if penalty.name == "kl_sparsity" and not shares:
            return "penalty 'kl_sparsity'"
    if getattr(architecture, "tied_weights", False) and latent == "gaussian":
        return "tied_weights"
    if activation is not None and latent in ("gaussian", "jumprelu"):
        return "latent_activation"
    return None


def one_step(x: torch.Tensor, **choices: Any) -> dict[str, torch.Tensor | None]:
    """Build, pass a batch through in training mode, differentiate; return every parameter's gradient."""
    recipe = resolve(
        Parameters(latent_dim=4, **choices),
        shape=SHAPE,
        n_rows=len(x),
        scaling=None,
        bounded=False,
        seed=0,
        default_depth=1,
    )
    generator = torch.Generator().manual_seed(0)
    module = recipe.build(generator).train()
    module.draw_from(generator)
    terms = recipe.objective()(module, module(x, generator), 1, generator)
    total = terms[TOTAL]
    assert torch.isfinite(total).all()
    total.mean().backward()
    return {name: w.grad for name, w in module.named_parameters()}


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trains_or_refuses_in_words(architecture: str, latent: str, activation: str | None) -> None:
    part = ARCHITECTURES[architecture]
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    losses, corruptions = itertools.cycle(LOSSES), itertools.cycle(CORRUPTIONS)  # 7 and 5: all pairs in turn
    for name, penalties in PENALTIES.items():
        for _ in range(2):
            choices: dict[str, Any] = {
                "architecture": part, "latent": latent, "latent_activation": activation,
                "penalty": penalties, "loss": next(losses), "corruption": next(corruptions),
            }  # fmt: skip
            expected = refused(part, latent, activation, penalties)
            if expected is not None:
                with pytest.raises(
                    IncompatiblePartsError, match=rf"{expected}.* must .*; got .*\. [A-Z].*\.$"
                ):
                    one_step(x, **choices)
                continue
            for parameter, gradient in one_step(x, **choices).items():
                where = f"{name}, {choices['loss']}, {choices['corruption']}: {parameter}"
                assert gradient is not None, where
                assert torch.isfinite(gradient).all(), where
                # a threshold learns only from values in its window
                assert gradient.any() or parameter == "latent.log_threshold", where


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_with_every_corruption(loss: str, corruption: str | None) -> None:
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    gradients = one_step(x, architecture=Dense((8,)), loss=loss, corruption=corruption)
    assert all(g is not None and torch.isfinite(g).all() and g.any() for g in gradients.values())


@pytest.mark.parametrize("output", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize("loss", LOSSES)
def test_output_activation_trains_or_is_refused(loss: str, output: str) -> None:
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    choices: dict[str, Any] = {"architecture": Dense((8,)), "loss": loss, "output_activation": output}
    own = {"binary_cross_entropy": "None or 'sigmoid'", "mixed": "None"}.get(loss.split(":")[0])
    if own is not None and output not in own:
        with pytest.raises(IncompatiblePartsError, match=f"output_activation must be {own} for loss="):
            one_step(x, **choices)
        return
    assert all(g is not None and g.any() for g in one_step(x, **choices).values())


def test_jumprelu_thresholds_learn_from_values_near_them() -> None:
    x = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(1))
    gradients = one_step(x, architecture=Dense((8,)), latent="jumprelu:bandwidth=1.0", penalty="l0:0.5")
    slope = gradients["latent.log_threshold"]
    assert slope is not None
    assert slope.all()


@pytest.mark.parametrize(
    "architecture", [Conv(channels=(4,)), Dense((8,), tied_weights=True)], ids=["conv", "tied"]
)
def test_layerwise_needs_plain_pairs_of_layers(architecture: Architecture) -> None:
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    with pytest.raises(IncompatiblePartsError, match=re.escape("Use training='end_to_end'.")):
        one_step(x, architecture=architecture, training="layerwise")


@pytest.mark.parametrize("name", ["hidden_dims", "activation", "norm", "dropout", "tied_weights", "channels"])
def test_settings_beside_an_architecture_part_would_have_no_effect(name: str) -> None:
    value = {
        "hidden_dims": (3,),
        "channels": (3,),
        "activation": "tanh",
        "norm": "batch",
        "dropout": 0.1,
    }.get(name, True)
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    with pytest.raises(IncompatiblePartsError, match=f"{name} must be left out where architecture is a part"):
        one_step(x, architecture=Dense((8,)), **{name: value})
