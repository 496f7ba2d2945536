"""Law 7: a file gives back the same bytes in a fresh process, and nothing else is taken for a model."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from altered import altered, examples
from conftest import NAMES, make
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import diabolo
from diabolo import persistence
from diabolo.errors import InvalidParameterError, ModelFileError
from diabolo.parts import Chain, Conv, Dense, GaussianNoise, LayerWise, MaskingNoise, TopK
from diabolo.parts.base import to_plain
from diabolo.recipe import Recipe

# run both here and in the fresh process: what every method gives for one model
OUTPUTS = '''
import json
import numpy as np

def outputs(model, X):
    """Everything that the methods give, by name, as bytes."""
    Z = model.transform(X)
    found = {
        "transform": Z,
        "inverse_transform": model.inverse_transform(Z),
        "reconstruct": model.reconstruct(X),
        "reconstruction_error": model.reconstruction_error(X),
        "score_samples": model.score_samples(X),
        "score": np.float64(model.score(X)),
        "sample": model.sample(5, random_state=3),
        "interpolate": model.interpolate(np.asarray(X)[0], np.asarray(X)[1], 4),
    }
    numbers = model.diagnostics(X)
    for key, value in numbers.items():
        found[f"diagnostics {key}"] = np.float64(value if value is not None else -1)
    texts = {
        "names": list(model.get_feature_names_out()),
        "features": list(map(str, getattr(model, "feature_names_in_", []))),
        "history": model.history_.to_dict(),
        "recipe": model.recipe_.to_dict(),
        "sizes": [model.n_features_in_, model.n_parameters_, list(model.sample_shape_)],
        "shapes": {key: list(value.shape) for key, value in found.items()},
    }
    texts = {"texts": json.dumps(texts, sort_keys=True)}
    return {key: value.tobytes().hex() for key, value in found.items()} | texts
'''
FRESH = (
    OUTPUTS
    + """
import sys, pandas, torch, diabolo
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    model = diabolo.load(folder + "/model.safetensors")
    X = np.load(folder + "/X.npy")
    if hasattr(model, "feature_names_in_"):
        X = pandas.DataFrame(X, columns=model.feature_names_in_)
    with open(folder + "/fresh.json", "w") as file:
        json.dump(outputs(model, X), file)
"""
)
exec(OUTPUTS)  # noqa: S102 - the text above


def models(rows, digits):
    """Fitted models with what they were fitted on: every kind, and every way of giving data and parts."""
    images = digits[0][:120].reshape(-1, 8, 8)
    frame = pd.DataFrame(rows, columns=[f"column {i}" for i in range(6)])
    yield from ((name, make(name), rows) for name in NAMES)
    yield "frame", make("Autoencoder"), frame
    yield "images", make("ConvolutionalAutoencoder", channels=(3,)), images
    yield "flattened", make("ConvolutionalAutoencoder", input_shape=(8, 8), depth=1), images.reshape(-1, 64)
    chain = Chain([GaussianNoise(np.float32(0.1)), MaskingNoise(0.1)])
    yield (
        "parts",
        make("SparseAutoencoder", latent=TopK(2), corruption=chain, training=LayerWise(epochs=1)),
        rows,
    )
    yield "numpy", make("Autoencoder", hidden_dims=[np.int64(7), 5], epochs=np.int64(2), dropout=0.2), rows
    yield "network", make("Autoencoder", architecture=Dense(hidden_dims=(np.int64(9),), norm="layer")), rows
    mixture = {"latent": "gaussian", "penalty": ["posterior_kl", "l1:0.1"], "loss": "gaussian:0.5"}
    spatial = Conv(channels=(4,), code="spatial", norm="batch")
    yield "mixture", make("Autoencoder", architecture=spatial, corruption="masking", **mixture), images
    yield (
        "cross-entropy",
        make("Autoencoder", loss="binary_cross_entropy", latent="jumprelu", penalty="l0"),
        images,
    )


@pytest.fixture(scope="module")
def stored(rows, digits, tmp_path_factory):
    """Every model saved, and its outputs computed by one fresh process."""
    found = {}
    for name, model, X in models(rows, digits):
        folder = tmp_path_factory.mktemp("model")
        model.fit(X).save(folder / "model.safetensors")
        np.save(folder / "X.npy", np.asarray(X))
        found[name] = model, X, folder
    folders = [str(folder) for *_, folder in found.values()]
    subprocess.run(
        [sys.executable, "-c", FRESH, *folders], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return found


CASES = [*NAMES, "frame", "images", "flattened", "parts", "numpy", "network", "mixture", "cross-entropy"]


@pytest.mark.parametrize("case", CASES)
def test_a_fresh_process_gives_the_same_bytes(stored, case):
    model, X, folder = stored[case]
    here = outputs(model, X)  # noqa: F821 - defined by exec
    fresh = json.loads((folder / "fresh.json").read_text())
    assert [key for key in here if here[key] != fresh[key]] == []


@pytest.mark.parametrize("case", CASES)
def test_the_settings_come_back(stored, case):
    model, _, folder = stored[case]
    loaded = diabolo.load(folder / "model.safetensors")
    assert type(loaded) is type(model)
    before, after = (m.get_params(deep=False) for m in (model, loaded))
    for key, value in before.items():
        plain = [json.dumps(to_plain(v), default=persistence._plain) for v in (value, after[key])]
        assert plain[0] == plain[1]
        assert isinstance(after[key], tuple) == isinstance(value, tuple)
        assert type(after[key]) is type(value) or isinstance(value, np.generic)


def test_a_loaded_model_learns_on_and_can_be_saved_again(stored, tmp_path):
    _, X, folder = stored["VariationalAutoencoder"]
    loaded = diabolo.load(folder / "model.safetensors")
    assert (
        loaded.save(tmp_path / "again.safetensors").read_bytes()
        == (folder / "model.safetensors").read_bytes()
    )
    n = len(loaded.history_.rows)
    loaded.partial_fit(X)
    assert len(loaded.history_.rows) == n + 1
    assert loaded.set_params(epochs=1).fit(X).recipe_.epochs == 1


def test_samples_after_partial_fit_come_from_the_new_codes(rows, tmp_path):
    model = make("Autoencoder").fit(rows)
    model.save(tmp_path / "m.safetensors")
    for m in (model, diabolo.load(tmp_path / "m.safetensors")):
        before = m._code_density()
        for _ in range(3):
            m.partial_fit(rows)
        assert not np.array_equal(before.means, m._code_density().means)


def test_wide_codes_are_drawn_and_stored_in_little_room(digits, tmp_path):
    model = make("SparseAutoencoder", latent_dim=900, epochs=1).fit(digits[0])
    path = model.save(tmp_path / "wide.safetensors")
    assert path.stat().st_size < 8 * 2**20
    drawn = model.sample(2000, random_state=0)
    assert drawn.shape == (2000, 64)
    assert np.isfinite(drawn).all()


def test_device_can_be_chosen_while_loading(stored):
    _, _, folder = stored["Autoencoder"]
    assert diabolo.load(folder / "model.safetensors", device="cpu").device == "cpu"
    with pytest.raises(ModelFileError, match="device must be a known name; got 'tpu'"):
        diabolo.load(folder / "model.safetensors", device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that should be missing")
def test_a_missing_device_is_a_sentence(stored, rows):
    _, _, folder = stored["Autoencoder"]
    with pytest.raises(InvalidParameterError, match="device must be one that this machine has; got 'cuda'"):
        diabolo.load(folder / "model.safetensors", device="cuda")
    with pytest.raises(InvalidParameterError, match="Set device='auto'"):
        make("Autoencoder", device="cuda").fit(rows)


# ------------------------------------------------------------------ damaged and hostile files
@pytest.fixture(scope="module")
def whole(stored):
    """A model file's bytes, header and tensors."""
    path = stored["SparseAutoencoder"][2] / "model.safetensors"
    return path.read_bytes(), *persistence.read_model(path)


def refused(path, match="must"):
    with pytest.raises(ModelFileError, match=match) as caught:
        diabolo.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 20))
def test_truncated_files(whole, tmp_path, share):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[0][: int(share * len(whole[0]))])
    refused(path, "must be a whole diabolo model file")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(tmp_path, seed):
    path = tmp_path / "noise.safetensors"
    path.write_bytes(np.random.default_rng(seed).bytes(5000))
    refused(path, "must be a whole diabolo model file")


def test_files_of_others(tmp_path):
    path = tmp_path / "model.safetensors"
    refused(path, "must exist")
    refused(tmp_path, "must exist")
    save_file({"weight": torch.zeros(3)}, path)
    refused(path, "safetensors file of another program")
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path)
    torch.save({"weight": torch.zeros(3), "bomb": Bomb()}, path)
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model", "x")
    refused(path)
    assert not Bomb.went_off


class Bomb:
    went_off = False

    def __reduce__(self):
        return explode, ()


def explode():
    Bomb.went_off = True


def written(path, header, tensors, text=None):
    text = persistence.sealed(json.dumps(header), tensors) if text is None else text
    save_file(tensors, path, metadata={"diabolo": text})
    return path


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "3", "null", '"x"', "{", "[" * 100_000, '{"format": "diabolo-model"}']
)
def test_headers_that_are_none(whole, tmp_path, text):
    refused(written(tmp_path / "m.safetensors", None, whole[2], text))


def test_versions(whole, tmp_path):
    for version in (1, 3, 0, "2", None, [2]):
        header = whole[1] | {"version": version, "versions": {"diabolo": "9.8"}}
        way_out = "Write the file" if version in (0, 1) else "Update diabolo"
        said = f"got format {re.escape(repr(version))}, written by diabolo 9.8. {way_out}"
        refused(written(tmp_path / "m.safetensors", header, whole[2]), said)


def test_a_flipped_bit_anywhere_is_seen(whole, tmp_path):
    """In the weights, where it would be a number like any other, as in the header."""
    content, chance = bytearray(whole[0]), np.random.default_rng(0)
    length = int.from_bytes(content[:8], "little")
    places = [
        *range(8 + length, len(content), 13),
        *chance.integers(8, 8 + length, size=100),
        len(content) - 1,
    ]
    path, seen = tmp_path / "m.safetensors", []
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(chance.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ModelFileError) as caught:
            diabolo.load(path)
        if place >= 8 + length:
            seen.append("checksum does not fit" in str(caught.value))
    assert len(seen) > 50
    assert all(seen)
    path.write_bytes(content)
    diabolo.load(path)


HOSTILE = {
    "estimator": ["Pipeline", "load", "__class__", None, 3, ["Autoencoder"], {"a": 1}],
    "params": [
        None,
        3,
        [1],
        {"nonsense": 1},
        {"architecture": {"name": "os"}},
        {"latent": {"name": "topk", "k": 0}},
    ],
    "tuples": [None, 3, ["nonsense"], [["hidden_dims"]]],
    "sample_shape": [None, [], [7], [-6], [2, 3], [6.0], ["6"], [float("inf")], [10**30], 6],
    "row_shape": [None, [3, 2], [7]],
    "scaling": ["nonsense", 3, ["unit"]],
    "feature_names": [["a"], 3, [1, 2, 3, 4, 5, 6]],
    "history": [None, [], {"rows": 3}, {"rows": [1]}, {"events": "x"}, {"best_epoch": "x"}, {"nonsense": 1}],
    "recipe": [None, {}, [], "x"],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in HOSTILE.items() for v in values])
def test_hostile_headers(whole, tmp_path, key, value):
    refused(written(tmp_path / "m.safetensors", whole[1] | {key: value}, whole[2]))


@pytest.mark.parametrize(
    "key", ["estimator", "params", "tuples", "recipe", "sample_shape", "scaling", "history"]
)
def test_headers_without_a_key(whole, tmp_path, key):
    refused(written(tmp_path / "m.safetensors", {k: v for k, v in whole[1].items() if k != key}, whole[2]))


RECIPES = {
    "latent_dim": [0, -1, "4", 2**40, 4.5, 5, float("nan")],
    "input_shape": [[7], [2**40], [-6], [], None, [2, 3]],
    "architecture": [
        {"name": "nonsense"},
        {"name": "dense", "hidden_dims": [2**40]},
        {"name": "dense", "hidden_dims": [40_000] * 2000},
        {"name": "dense", "hidden_dims": "abc"},
        {"name": "dense", "hidden_dims": 3},
        {"name": "conv", "channels": [2**40]},
        {"name": "conv", "channels": [1], "kernel_size": 2**40 + 1},
        {"name": ["dense"]},
        "dense",
        None,
    ],
    "latent": [{"name": "topk", "k": 2**40}, {"name": "gaussian"}, {"name": "jumprelu", "threshold": -1}],
    "epochs": [0, "x", float("inf")],
    "batch_size": [0, -3],
    "learning_rate": [float("nan"), -1, "x"],
    "optimizer": ["nonsense", 3],
    "schedule": ["nonsense"],
    "seed": [-1, 2**70, "x"],
    "penalty": [3, ["nonsense"], [[]]],
    "nonsense": [1],
}


def test_a_shape_that_the_file_has_no_values_for_takes_no_memory(rows, tmp_path, monkeypatch):
    shape = [20_000, 20_000]
    model = make("ConvolutionalAutoencoder", channels=(1,), input_shape=(2, 3)).fit(rows)
    header, tensors = persistence.read_model(model.save(tmp_path / "small.safetensors"))
    header |= {"sample_shape": shape, "row_shape": shape, "recipe": header["recipe"] | {"input_shape": shape}}
    monkeypatch.setattr(Recipe, "build", lambda *_: pytest.fail("memory was asked for"))
    refused(written(tmp_path / "m.safetensors", header, tensors), "samples of 400000000 values")


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in RECIPES.items() for v in values])
def test_hostile_recipes_take_no_memory(whole, tmp_path, key, value):
    recipe = whole[1]["recipe"] | {key: value}
    refused(
        written(tmp_path / "m.safetensors", whole[1] | {"recipe": recipe}, whole[2]), "do not fit together"
    )


UNFIT = {
    "latent_dim": [0, -1, "4", 4.5, True, None],
    "input_shape": [[], [0], [-6], [2.5], 3, "6", None],
    "batch_size": [0, 1.5, None],
    "epochs": [0, float("inf"), "x", None],
    "learning_rate": [0, -1.0, float("nan"), "x", None],
    "weight_decay": [-0.1, float("inf"), None],
    "validation_fraction": [-0.1, 1, "x", None],
    "clip_norm": [0, -1.0, "x"],
    "patience": [0, 2.5],
    "seed": [-1, 2**64, 0.5, None],
    "optimizer": ["nonsense", 3, None],
    "schedule": ["nonsense", None],
    "engine": ["nonsense", 3, None],
    "precision": ["nonsense", 3, None],
    "scaling": ["nonsense", 3],
    "latent_activation": ["nonsense", 3],
    "output_activation": ["nonsense", 3],
    "architecture": ["nonsense", 3, None],
    "latent": [None],
    "loss": ["nonsense", None],
    "training": [None],
    "penalty": [3, ["l1", "l1"], ["posterior_kl"], None],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in UNFIT.items() for v in values])
def test_a_recipe_alone_is_checked_as_a_user_s_settings_are(whole, key, value):
    recipe = whole[1]["recipe"]
    assert Recipe.from_dict(recipe).to_dict() == recipe
    with pytest.raises(InvalidParameterError, match=key):
        Recipe.from_dict(recipe | {key: value})


def test_every_setting_of_a_recipe_is_among_those():
    assert set(UNFIT) | {"corruption"} == {field.name for field in fields(Recipe)}


def test_hostile_tensors(whole, tmp_path):
    path, header, tensors = tmp_path / "m.safetensors", whole[1], whole[2]
    for key, value in tensors.items():
        refused(written(path, header, {k: v for k, v in tensors.items() if k != key}))
        refused(written(path, header, tensors | {key: torch.zeros(2, 3, 5, dtype=value.dtype)}))
        refused(written(path, header, tensors | {key: value.to(torch.float16)}))
        if value.is_floating_point():
            spoiled = value.clone()
            spoiled.view(-1)[0] = float("nan")
            refused(written(path, header, tensors | {key: spoiled}), "holds NaN or inf")
    refused(written(path, header, tensors | {"module.extra": torch.zeros(1)}), "module.extra is not known")
    refused(written(path, header, tensors | {"extra": torch.zeros(1)}), "extra is not known")
    refused(
        written(path, header, tensors | {"scaler.scale": torch.zeros(6, dtype=torch.float64)}), "not positive"
    )
    no_shares = -torch.ones_like(tensors["density.weights"])
    refused(written(path, header, tensors | {"density.weights": no_shares}), "no shares")


@examples(150)
@given(data=st.data())
def test_mutated_headers_raise_nothing_else(whole, tmp_path, data):
    path = written(tmp_path / "m.safetensors", altered(whole[1], data), whole[2])
    try:
        model = diabolo.load(path)
    except ModelFileError:
        return
    assert np.isfinite(model.transform(np.zeros((3, model.n_features_in_)))).all()  # the mutation did no harm
    model.partial_fit(np.random.default_rng(0).normal(size=(9, model.n_features_in_)))


# ------------------------------------------------------------------ writing
def test_a_full_disk_leaves_what_was_there(stored, tmp_path, monkeypatch):
    model = stored["Autoencoder"][0]
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"what was there")

    def half(tensors, place, metadata):
        Path(place).write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))

    monkeypatch.setattr(persistence, "save_file", half)
    with pytest.raises(ModelFileError, match=r"No space left on device.*make room"):
        model.save(path)
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_really_full(stored, tmp_path):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        with pytest.raises(ModelFileError, match="No space left"):
            stored["DeepAutoencoder"][0].save(tmp_path / "model.safetensors")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_kind_that_no_file_could_name_is_refused_when_it_is_saved(rows, tmp_path):
    class Mine(diabolo.Autoencoder):
        pass

    class Autoencoder(diabolo.Autoencoder):
        pass

    for kind in (Mine, Autoencoder):
        model = kind(latent_dim=2, epochs=1).fit(rows)
        with pytest.raises(
            ModelFileError, match=f"must be one of diabolo's own kinds .* got {kind.__name__}"
        ):
            model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_single_code_is_density_enough(rows, tmp_path):
    model = make("Autoencoder").partial_fit(rows).partial_fit(rows[:1])
    assert np.isfinite(model.sample(3, random_state=0)).all()
    wide = make("Autoencoder", latent_dim=80, validation_fraction=0.9).fit(rows[:2])
    assert diabolo.load(wide.save(tmp_path / "m.safetensors")).sample(3).shape == (3, rows.shape[1])


def test_an_interrupted_save_leaves_nothing(stored, tmp_path, monkeypatch):
    def stopped(tensors, place, metadata):
        raise KeyboardInterrupt

    monkeypatch.setattr(persistence, "save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        stored["Autoencoder"][0].save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(stored, tmp_path):
    model = stored["Autoencoder"][0]
    with pytest.raises(ModelFileError, match=r"No such file or directory.*Choose another folder"):
        model.save(tmp_path / "nowhere" / "model.safetensors")
    with pytest.raises(ModelFileError, match="Is a directory"):
        model.save(tmp_path)
    with pytest.raises(ModelFileError, match="File name too long"):
        model.save(tmp_path / ("x" * 300))
    with pytest.raises(ModelFileError, match="null byte"):
        model.save("a\0b")


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder(stored, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ModelFileError, match="Permission denied"):
            stored["Autoencoder"][0].save(tmp_path / "model.safetensors")
    finally:
        tmp_path.chmod(0o700)


def test_the_file_holds_no_pickle_and_a_readable_header(stored):
    with safe_open(stored["parts"][2] / "model.safetensors", framework="np") as file:
        header = json.loads(file.metadata()["diabolo"])
    assert header["params"]["latent"] == {"name": "topk", "k": 2}
    assert header["versions"]["torch"] == str(torch.__version__)
