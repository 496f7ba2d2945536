"""What every part offers: settings read, set, checked, compared, cloned, named and written down."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from diabolo.errors import IncompatiblePartsError, InvalidParameterError
from diabolo.parts import (
    L0,
    L1,
    Absolute,
    Architecture,
    BatchTopK,
    BinaryCrossEntropy,
    Chain,
    CoarseNoise,
    Contractive,
    Conv,
    Corruption,
    Dense,
    Deterministic,
    EndToEnd,
    Gaussian,
    GaussianNoise,
    GaussianPosterior,
    Huber,
    JumpReLU,
    KLSparsity,
    Latent,
    LayerWise,
    Loss,
    MaskingNoise,
    Mixed,
    Noisy,
    Part,
    Penalty,
    PosteriorKL,
    SaltAndPepper,
    SquaredError,
    TopK,
    Training,
    as_part,
    known_parts,
)
from diabolo.parts.base import check_range, from_dict, from_text

AXES: tuple[type[Part], ...] = (Architecture, Corruption, Latent, Loss, Penalty, Training)
PARTS: list[Part] = [
    Dense(),
    Dense([5, 4], "tanh", "batch", 0.2, True, "sparse"),
    Dense(np.array([5, 4])),
    Dense(()),
    Conv(),
    Conv(2, [3], 5, "elu", "pool", "resize", "spatial", "layer", 0.1, "he"),
    GaussianNoise(),
    GaussianNoise(0.2),
    CoarseNoise(),
    CoarseNoise(0.5, 8),
    MaskingNoise(),
    MaskingNoise(0.3),
    SaltAndPepper(),
    SaltAndPepper(0.1, -1.0, 2.0),
    Chain([GaussianNoise(0.2), MaskingNoise()]),
    Chain([Chain([GaussianNoise()])]),
    Deterministic(),
    Noisy(),
    Noisy(1.5),
    GaussianPosterior(),
    TopK(),
    TopK(3, 0.5, 7),
    BatchTopK(4),
    JumpReLU(),
    JumpReLU(0.2, 0.3),
    SquaredError(),
    Absolute(),
    Huber(),
    Huber(0.5),
    BinaryCrossEntropy(),
    Gaussian(),
    Gaussian(0.25),
    Mixed("numeric? binary categorical:3"),
    L1(),
    L1(2.0),
    L0(0.1),
    KLSparsity(),
    KLSparsity(0.2, 3.0),
    Contractive(),
    Contractive(0.5, "estimate", 3),
    PosteriorKL(),
    PosteriorKL(4.0, 0.1, 100),
    EndToEnd(),
    LayerWise(),
    LayerWise(3, False, False),
]


def axis_of(part: Part) -> Any:
    return next(axis for axis in AXES if isinstance(part, axis))


def test_every_part_is_here() -> None:
    assert {(axis_of(p), p.name) for p in PARTS} == {
        (axis, name) for axis in AXES for name in known_parts(axis)
    }


each = pytest.mark.parametrize("part", PARTS, ids=str)


@each
def test_round_trip_through_a_dict_and_json(part: Part) -> None:
    data = part.to_dict()
    assert data["name"] == part.name
    assert from_dict(axis_of(part), "p", data) == part
    assert from_dict(axis_of(part), "p", json.loads(json.dumps(data))) == part
    assert as_part(axis_of(part), "p", data) == part
    assert as_part(axis_of(part), "p", part) is part


@each
def test_defaults_are_not_written(part: Part) -> None:
    defaults = {} if isinstance(part, Chain) else type(part)().get_params()
    written = {k: v for k, v in part.to_dict().items() if k != "name"}
    assert all(defaults.get(k, ...) != getattr(part, k) for k in written)
    missing = set(part.get_params()) - set(written)
    assert all(defaults[k] == getattr(part, k) for k in missing)


@each
def test_clone_is_equal_and_apart(part: Part) -> None:
    other = clone(part)
    assert other == part
    assert other is not part
    assert type(other) is type(part)


@each
def test_get_and_set_params_are_inverse(part: Part) -> None:
    assert clone(part).set_params(**part.get_params()) == part


@each
def test_an_unknown_setting_is_named(part: Part) -> None:
    words = rf"a setting of {type(part).__name__} must be a known name; got 'nonsense'\. \S"
    with pytest.raises(InvalidParameterError, match=words):
        clone(part).set_params(nonsense=1)
    with pytest.raises(
        InvalidParameterError, match=rf"p\.nonsense must be a setting of '{part.name}'; got 'nonsense'\. \S"
    ):
        from_dict(axis_of(part), "p", part.to_dict() | {"nonsense": 1})
    for setting in part.get_params():
        with pytest.raises(InvalidParameterError, match=f"must be a known name; got '{setting}__x'"):
            clone(part).set_params(**{f"{setting}__x": 1})


# ---------------------------------------------------------------------------------------------- from text
@pytest.mark.parametrize(
    ("axis", "text", "part"),
    [
        (Corruption, "coarse:0.5,8", CoarseNoise(0.5, 8)),
        (Corruption, "masking", MaskingNoise()),
        (Corruption, "masking:0.3", MaskingNoise(0.3)),
        (Corruption, " gaussian : std = 0.2 ", GaussianNoise(0.2)),
        (Corruption, "salt_and_pepper:0.1,-1,high=2", SaltAndPepper(0.1, -1, 2)),
        (Corruption, "salt_and_pepper:low=none", SaltAndPepper()),
        (Latent, "topk:5", TopK(5)),
        (Latent, "topk:k=5,revive_after=10", TopK(5, revive_after=10)),
        (Penalty, "contractive:method=estimate,n_probes=3", Contractive(method="estimate", n_probes=3)),
        (Penalty, "posterior_kl:4", PosteriorKL(4)),
        (Penalty, "l1:1e-3", L1(0.001)),
        (Penalty, "kl_sparsity:0.1,2", KLSparsity(target=0.1, weight=2)),
        (Loss, "gaussian:learned", Gaussian()),
        (Loss, "gaussian:0.5", Gaussian(0.5)),
        (Loss, "mixed:numeric? categorical:3", Mixed("numeric? categorical:3")),
        (Training, "layerwise:corrupt=false,epochs=2", LayerWise(2, False)),
        (
            Architecture,
            "dense:activation=tanh,tied_weights=true",
            Dense(activation="tanh", tied_weights=True),
        ),
    ],
)
def test_from_text(axis: Any, text: str, part: Part) -> None:
    assert from_text(axis, "p", text) == part
    assert as_part(axis, "p", text) == part


@given(fraction=st.floats(1e-6, 1 - 1e-6), std=st.floats(1e-9, 1e9))
def test_written_numbers_are_read_back_exactly(fraction: float, std: float) -> None:
    assert as_part(Corruption, "p", f"masking:{fraction!r}") == MaskingNoise(fraction)
    assert as_part(Corruption, "p", f"gaussian:std={std!r}") == GaussianNoise(std)
    chain = Chain([MaskingNoise(fraction), GaussianNoise(std)])
    assert as_part(Corruption, "p", json.loads(json.dumps(chain.to_dict()))) == chain


@pytest.mark.parametrize(
    ("axis", "value", "words"),
    [
        (Corruption, "maskin", "corruption must be a known name; got 'maskin'. Did you mean 'masking'?"),
        (
            Corruption,
            "",
            "corruption must be a known name; got ''. Choose one of 'chain', 'coarse', 'gaussian'",
        ),
        (Corruption, "masking:fractoin=0.3", "got 'fractoin'. Did you mean 'fraction'?"),
        (Corruption, "masking:0.3,0.4", "corruption.0.4 must be a setting of 'masking'"),
        (Corruption, "masking:0.3,fraction=0.4", "given once; got 'fraction' twice."),
        (Corruption, "masking:much", "fraction of MaskingNoise must be a number > 0 and < 1; got 'much'."),
        (Corruption, "chain", "steps of Chain must be corruptions, at least one; got ()."),
        (Latent, "deterministic:3", "'deterministic' has no settings."),
        (Latent, "top_k", "Did you mean 'topk'"),
        (Latent, MaskingNoise(), "latent must be a name or a Latent part; got MaskingNoise("),
        (Corruption, 3, "corruption must be a name or a Corruption part; got 3. Choose one of"),
        (Corruption, MaskingNoise, "must be a name or a Corruption part; got <class"),
        (Loss, {"name": "hubr"}, "loss.name must be a known name; got 'hubr'. Did you mean 'huber'?"),
        (Loss, {}, "loss.name must be a known name; got None."),
        (Architecture, "dense:64,32", "hidden_dims must be a sequence of integers >= 1; got 64."),
        (
            Architecture,
            {"name": "conv", "channels": "ab"},
            "channels must be a sequence of integers >= 1; got 'ab'.",
        ),
    ],
)
def test_wrong_names_get_their_neighbours(axis: Any, value: Any, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=re.escape(words)):
        as_part(axis, axis.__name__.lower(), value)


# ------------------------------------------------------------------------------------------- out of range
@pytest.mark.parametrize(
    ("cls", "settings", "words"),
    [
        (GaussianNoise, {"std": 0}, "std of GaussianNoise must be a number > 0; got 0."),
        (CoarseNoise, {"std": 0}, "std of CoarseNoise must be a number > 0; got 0."),
        (CoarseNoise, {"cells": 0}, "cells of CoarseNoise must be an integer >= 1; got 0."),
        (GaussianNoise, {"std": -1}, "std of GaussianNoise must be a number > 0; got -1."),
        (GaussianNoise, {"std": math.inf}, "std of GaussianNoise must be a number > 0; got inf."),
        (GaussianNoise, {"std": math.nan}, "std of GaussianNoise must be a number > 0; got nan."),
        (GaussianNoise, {"std": True}, "std of GaussianNoise must be a number > 0; got True."),
        (MaskingNoise, {"fraction": 0.0}, "fraction of MaskingNoise must be a number > 0 and < 1; got 0.0."),
        (MaskingNoise, {"fraction": 1.0}, "fraction of MaskingNoise must be a number > 0 and < 1; got 1.0."),
        (SaltAndPepper, {"fraction": 2}, "fraction of SaltAndPepper must be a number > 0 and < 1; got 2."),
        (
            SaltAndPepper,
            {"low": 1, "high": 1},
            "low of SaltAndPepper must be less than high; got low=1, high=1. Give for",
        ),
        (SaltAndPepper, {"low": "dark"}, "low of SaltAndPepper must be a number; got 'dark'."),
        (Chain, {"steps": [3]}, "steps of Chain must be corruptions, at least one; got (3,). Give for"),
        (Chain, {"steps": 3}, "steps of Chain must be corruptions, at least one; got 3."),
        (Noisy, {"std": 0}, "std of Noisy must be a number > 0; got 0."),
        (TopK, {"k": 0}, "k of TopK must be an integer >= 1; got 0."),
        (TopK, {"k": 2.5}, "k of TopK must be an integer >= 1; got 2.5."),
        (BatchTopK, {"k": math.inf}, "k of BatchTopK must be an integer >= 1; got inf."),
        (TopK, {"auxiliary_weight": -1}, "auxiliary_weight of TopK must be a number >= 0; got -1."),
        (TopK, {"revive_after": 0}, "revive_after of TopK must be an integer >= 1; got 0."),
        (JumpReLU, {"threshold": 0}, "threshold of JumpReLU must be a number > 0; got 0."),
        (JumpReLU, {"bandwidth": 0}, "bandwidth of JumpReLU must be a number > 0; got 0."),
        (Huber, {"delta": 0}, "delta of Huber must be a number > 0; got 0."),
        (Gaussian, {"variance": 0}, "variance of Gaussian must be a number > 0; got 0."),
        (
            Gaussian,
            {"variance": "leaned"},
            "variance of Gaussian must be 'learned' or a number > 0; got 'leaned'. Give for",
        ),
        (L1, {"weight": 0}, "weight of L1 must be a number > 0; got 0. Leave the penalty out instead of 0."),
        (L0, {"weight": -1}, "weight of L0 must be a number > 0; got -1."),
        (KLSparsity, {"target": 1}, "target of KLSparsity must be a number > 0 and < 1; got 1."),
        (
            Contractive,
            {"method": "exat"},
            "method of Contractive must be a known name; got 'exat'. Did you mean",
        ),
        (Contractive, {"n_probes": 0}, "n_probes of Contractive must be an integer >= 1; got 0."),
        (
            Contractive,
            {"n_probes": 4},
            "n_probes of Contractive must be 1 with method='exact'; got 4. Set method=",
        ),
        (PosteriorKL, {"beta": 0}, "beta of PosteriorKL must be a number > 0; got 0."),
        (PosteriorKL, {"free_bits": -1}, "free_bits of PosteriorKL must be a number >= 0; got -1."),
        (PosteriorKL, {"warmup": 1.5}, "warmup of PosteriorKL must be an integer >= 0; got 1.5."),
        (LayerWise, {"epochs": 0}, "epochs of LayerWise must be an integer >= 1; got 0."),
        (LayerWise, {"corrupt": "yes"}, "corrupt of LayerWise must be True or False; got 'yes'."),
        (Dense, {"hidden_dims": (4, 0)}, "every number in hidden_dims must be an integer >= 1; got 0."),
        (Dense, {"hidden_dims": 5}, "hidden_dims must be a sequence of integers >= 1; got 5."),
        (Dense, {"activation": "rely"}, "activation must be a known name; got 'rely'. Did you mean"),
        (Dense, {"norm": "bach"}, "norm must be a known name; got 'bach'. Did you mean 'batch'?"),
        (Dense, {"init": "hee"}, "init must be a known name; got 'hee'. Did you mean 'he'?"),
        (Dense, {"dropout": 1.0}, "dropout must be a number >= 0 and < 1; got 1.0."),
        (Dense, {"dropout": "half"}, "dropout must be a number >= 0 and < 1; got 'half'."),
        (Dense, {"tied_weights": "no"}, "tied_weights must be True or False; got 'no'."),
        (Conv, {"channels": ()}, "channels must be at least one number; got (). Use architecture='dense'."),
        (Conv, {"channels": (0,)}, "every number in channels must be an integer >= 1; got 0."),
        (Conv, {"kernel_size": 4}, "kernel_size must be odd; got 4. Use 5."),
        (Conv, {"kernel_size": 0}, "kernel_size must be an integer >= 1; got 0."),
        (Conv, {"n_dims": 4}, "n_dims of Conv must be an integer >= 1 and <= 3; got 4."),
        (Conv, {"down": "strid"}, "down must be a known name; got 'strid'. Did you mean 'stride'?"),
        (Conv, {"up": "transpose"}, "up must be a known name; got 'transpose'. Did you mean 'transposed'?"),
        (Conv, {"code": "map"}, "code must be a known name; got 'map'. Choose one of 'dense', 'spatial'."),
    ],
)
def test_out_of_range_is_said_in_words(cls: type[Part], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameterError, match="^" + re.escape(words)):
        cls(**settings)
    if cls is not Chain:
        part = cls()
        with pytest.raises(InvalidParameterError, match=re.escape(words)):
            part.set_params(**settings)
        assert part == cls()  # refused as a whole
        part.__dict__.update(settings)
        with pytest.raises((InvalidParameterError, IncompatiblePartsError), match=re.escape(words)):
            as_part(axis_of(part), "p", part)  # checked again where it is used


def test_settings_that_only_fit_together_are_set_together() -> None:
    part = SaltAndPepper(low=0.0, high=1.0)
    assert part.set_params(low=5.0, high=6.0) == SaltAndPepper(low=5.0, high=6.0)


# --------------------------------------------------------------------------------------- numpy and numbers
def test_numpys_numbers_are_numbers_and_are_written_plainly() -> None:
    part = TopK(k=np.int64(3), auxiliary_weight=np.float32(0.5))
    data = part.to_dict()
    assert data == {"name": "topk", "k": 3, "auxiliary_weight": 0.5}
    assert type(data["k"]) is int
    assert json.loads(json.dumps(data)) == data
    with pytest.raises(InvalidParameterError, match="k of TopK"):
        TopK(k=np.bool_(True))
    assert Dense(np.array([4, 3])) == Dense([4, 3]) == Dense((4, 3))


@given(
    value=st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=3), st.none()),
    low=st.floats(-5, 5),
    width=st.floats(0, 5),
    open_low=st.booleans(),
    open_high=st.booleans(),
    integer=st.booleans(),
)
def test_check_range_accepts_just_what_it_says(
    value: Any, low: float, width: float, open_low: bool, open_high: bool, integer: bool
) -> None:
    number = type(value) is int or (type(value) is float and not integer and math.isfinite(value))
    good = number and low <= value <= low + width
    good = good and not (open_low and value == low) and not (open_high and value == low + width)
    limits: dict[str, Any] = {"low": low, "high": low + width, "open_low": open_low, "open_high": open_high}
    if good:
        check_range("w", value, integer=integer, **limits)
    else:
        with pytest.raises(InvalidParameterError, match=r"^w must be an? (integer|number) >"):
            check_range("w", value, integer=integer, **limits)


def test_equality_is_by_type_and_settings() -> None:
    assert MaskingNoise(0.3) == MaskingNoise(0.3) != MaskingNoise(0.4)
    assert GaussianNoise(0.25) != MaskingNoise(0.25)
    assert str(MaskingNoise(0.3)) == "masking(fraction=0.3)"
    assert str(MaskingNoise()) == "masking"
