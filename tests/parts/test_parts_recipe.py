"""Recipes: a run written down and read back is the same run."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diabolo.errors import InvalidParameterError
from diabolo.parameters import Parameters
from diabolo.parts import BatchTopK, Chain, Conv, Dense, GaussianNoise, MaskingNoise
from diabolo.recipe import Recipe, resolve

CHOICES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "defaults": ({}, (20,)),
    "deep": ({"hidden_dims": [16, 8], "latent_dim": 3, "norm": "batch", "dropout": 0.1}, (20,)),
    "denoising, convolutional, variational": (
        {
            "architecture": "conv",
            "channels": (4, 8),
            "latent": "gaussian",
            "loss": "gaussian",
            "penalty": "posterior_kl:beta=2,warmup=10",
            "corruption": "gaussian:0.1+masking:0.2",
        },
        (1, 9, 8),
    ),
    "parts": (
        {
            "architecture": Conv(1, (4,), down="pool", up="resize", code="spatial"),
            "latent": BatchTopK(2),
            "corruption": Chain([GaussianNoise(0.1), MaskingNoise(0.3)]),
            "penalty": ["l1", "contractive:method=estimate,n_probes=3"],
            "loss": "huber:0.5",
        },
        (2, 30),
    ),
    "sparse, layer by layer": (
        {
            "penalty": "kl_sparsity:0.1",
            "latent_activation": "sigmoid",
            "training": "layerwise:epochs=2,corrupt=false",
            "clip_norm": 1.0,
            "weight_decay": 0.01,
            "patience": None,
            "optimizer": "adam",
            "schedule": "plateau",
        },
        (20,),
    ),
    "jumprelu": ({"latent": "jumprelu:0.2", "penalty": "l0:0.01", "output_activation": "tanh"}, (20,)),
}


def recipe(name: str, **more: Any) -> Recipe:
    choices, shape = CHOICES[name]
    return resolve(
        Parameters(**choices | more),
        shape=shape,
        n_rows=100,
        scaling="standard",
        bounded=True,
        seed=3,
        default_depth=1,
    )


@pytest.mark.parametrize("name", CHOICES)
def test_round_trip(name: str) -> None:
    one = recipe(name)
    assert Recipe.from_dict(one.to_dict()) == one
    text = one.to_toml()
    assert Recipe.from_toml(text) == one
    assert Recipe.from_toml(text).to_toml() == text
    assert tomllib.loads(text) == one.to_dict()


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_read_back_builds_the_same_bytes(name: str) -> None:
    one = recipe(name)
    first = one.build(torch.Generator().manual_seed(1)).state_dict()
    second = Recipe.from_toml(one.to_toml()).build(torch.Generator().manual_seed(1)).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@settings(max_examples=50)
@given(
    widths=st.lists(st.integers(1, 64), max_size=4),
    latent_dim=st.integers(1, 50),
    rate=st.floats(1e-6, 1.0),
    fraction=st.floats(0.01, 0.99),
    weight=st.floats(1e-9, 1e9),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_numbers_survive(
    widths: list[int], latent_dim: int, rate: float, fraction: float, weight: float, seed: int
) -> None:
    one = resolve(
        Parameters(
            architecture=Dense(widths),
            latent_dim=latent_dim,
            learning_rate=rate,
            corruption=MaskingNoise(fraction),
            penalty=f"l1:{weight!r}",
        ),
        shape=(30,),
        n_rows=50,
        scaling=None,
        bounded=False,
        seed=seed,
        default_depth=1,
    )
    assert Recipe.from_toml(one.to_toml()) == one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rat": 1.0}, "got 'learning_rat'. Did you mean 'learning_rate'"),
        ({"latent": {"name": "topc"}}, "latent.name must be a known name; got 'topc'. Did you mean 'topk'"),
        ({"loss": {"name": "huber", "delt": 1.0}}, "loss.delt must be a setting of 'huber'"),
        ({"architecture": {"name": "dense", "hidden_dims": 3}}, "hidden_dims must be a sequence of integers"),
        ({"penalty": [{"name": "l1", "weight": -1.0}]}, "weight of L1 must be a number > 0; got -1.0"),
        ({"seed": None}, "a recipe must have the key 'seed'; got none"),
    ],
)
def test_a_damaged_recipe_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        Recipe.from_dict(recipe("defaults").to_dict() | change)
