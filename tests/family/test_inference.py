"""What goes through NumPy is what goes through the module; what is kept for speed is never stale or seen."""

from __future__ import annotations

import gc
import pickle
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import make
from threadpoolctl import threadpool_info

import diabolo
from diabolo.data import ArraySource
from diabolo.estimators import inference
from diabolo.estimators.plan import plan_of
from diabolo.parts.activations import ACTIVATIONS
from diabolo.training import machine

METHODS = ("transform", "reconstruct", "reconstruction_error", "score_samples")


def by_module(model, monkeypatch, method, X):
    """What the method gives where everything goes through the module."""
    with monkeypatch.context() as patch:
        patch.setattr(plan_of(model.module_), "covers", False)
        return getattr(model, method)(X)


def agrees(model, X, monkeypatch, methods=METHODS):
    for method in methods:
        expected = by_module(model, monkeypatch, method, X)
        found = getattr(model, method)(X)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def noise(n, width, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


# ------------------------------------------------------------------ the same as the module
@pytest.mark.parametrize("n", [1, 2, 33, 90])
def test_every_kind_gives_what_its_module_gives(name, fitted, rows, monkeypatch, n):
    assert plan_of(fitted.module_).covers == (name != "ConvolutionalAutoencoder")
    agrees(fitted, rows[:n], monkeypatch)


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "linear"])
def test_every_activation(rows, monkeypatch, activation):
    model = make("DeepAutoencoder", activation=activation, latent_activation="tanh", tied_weights=True)
    model.fit(rows)
    assert plan_of(model.module_).covers
    agrees(model, rows, monkeypatch)


@pytest.mark.parametrize("settings", [{"norm": "layer"}, {"norm": "batch"}])
def test_what_is_not_covered_goes_through_the_module(rows, settings):
    model = make("DeepAutoencoder", **settings).fit(rows)
    assert not plan_of(model.module_).covers
    assert np.isfinite(model.score_samples(rows[:1])).all()


@pytest.mark.parametrize("n", [1, 2, 40])
def test_wide_nets_and_images(monkeypatch, n):
    X = np.random.default_rng(0).random((60, 12, 13)).astype(np.float32)
    model = diabolo.Autoencoder(hidden_dims=(140,), latent_dim=5, epochs=1, random_state=0).fit(X)
    assert plan_of(model.module_).covers
    agrees(model, X[:n], monkeypatch)
    together = model.transform(X)[:1]  # one row of a wide net is another product, the same to rounding
    np.testing.assert_allclose(model.transform(X[:1]), together, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_row_of_a_wide_net_is_the_same_beside_others(monkeypatch, activation):
    X = noise(500, 300)
    model = diabolo.Autoencoder(
        hidden_dims=(200,), latent_dim=20, activation=activation, epochs=1, random_state=0, tied_weights=True
    ).fit(X)
    used = []
    wide = inference.WideRunner
    monkeypatch.setattr(inference, "WideRunner", lambda *a: used.append(1) or wide(*a))
    for method in METHODS:
        whole = getattr(model, method)(X)
        for first, last in ((0, 2), (5, 90), (499 - 33, 499)):
            np.testing.assert_array_equal(getattr(model, method)(X[first:last]), whole[first:last])
    assert bool(used) == machine.has_dnn()
    agrees(model, X, monkeypatch)


def test_what_leaves_single_precision_in_a_wide_net(monkeypatch):
    X = noise(64, 200)
    model = diabolo.Autoencoder(
        hidden_dims=(180, 150), latent_dim=4, activation="relu", epochs=1, random_state=0, scaling=None
    ).fit(X)
    X[10] = 3e38 * np.sign(X[10])  # inf - inf in the second layer
    for method in ("transform", "reconstruct"):
        expected = by_module(model, monkeypatch, method, X)
        found = getattr(model, method)(X)
        assert not np.isfinite(found[10]).any()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["plain", "strided", "expanded"])
def test_linear_without_and_with_onednn(monkeypatch, layout):
    x, w, b = (torch.from_numpy(noise(*shape)) for shape in ((40, 30), (50, 30), (50, 2)))
    if layout == "expanded":
        x, w, b = x[:1].expand(40, 30), w[:, :1].expand(50, 30), b[:1].expand(50, 2)
    elif layout == "strided":
        x, w = x.repeat(2, 1)[::2], w.t().contiguous().t()
    b = b[:, 0] if layout != "plain" else b[:, 0].contiguous()
    expected = (x.double() @ w.double().t() + b.double()).float()
    for there in {False, machine.has_dnn()}:
        monkeypatch.setattr(machine, "has_dnn", lambda there=there: there)
        torch.testing.assert_close(machine.linear(x, w, b), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(machine.linear(x.double(), w.double(), b.double()).float(), expected)


def test_no_onednn_where_it_is_switched_off():
    torch._C._set_mkldnn_enabled(False)  # as torch.backends.mkldnn.flags does, which warns of another setting
    try:
        assert not machine.has_dnn()
    finally:
        torch._C._set_mkldnn_enabled(True)


def test_a_torch_without_onednn_multiplies_no_halves(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    machine._cpu_multiplies_half.cache_clear()
    assert not machine.multiplies_half(torch.device("cpu"))
    machine._cpu_multiplies_half.cache_clear()


def test_many_rows_are_those_rows(monkeypatch):
    X = noise(9001, 7)
    model = make("DeepAutoencoder").fit(X[:100])
    size = plan_of(model.module_).rows_per_batch
    assert size < len(X)
    agrees(model, X, monkeypatch)
    for at in (0, size - 1, size, len(X) - 1):
        for method in METHODS:
            whole = getattr(model, method)(X)[at : at + 1]
            alone = getattr(model, method)(X[at : at + 1])
            np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["F", "strided", "double", "list"])
def test_the_layout_of_the_rows_does_not_matter(layout):
    X = noise(70, 6)
    model = make("Autoencoder", scaling="minmax").fit(X)
    same = {"F": np.asfortranarray(X), "strided": np.repeat(X, 2, 0)[::2], "double": X.astype(float)}
    for method in ("transform", "score_samples"):
        expected = getattr(model, method)(X)
        np.testing.assert_array_equal(getattr(model, method)(same.get(layout, X.tolist())), expected)


# ------------------------------------------------------------------ never stale, never seen
def test_a_plan_follows_the_weights(rows, monkeypatch):
    model = make("DeepAutoencoder", optimizer="adam").fit(rows)
    before = model.transform(rows)
    first = plan_of(model.module_)
    model.partial_fit(rows)
    agrees(model, rows, monkeypatch)
    after = model.transform(rows)
    assert not np.array_equal(after, before)
    layer = model.module_.encoder[0][0]
    with torch.no_grad():
        layer.weight.mul_(2.0)  # in place
    agrees(model, rows, monkeypatch)
    assert not np.array_equal(model.transform(rows), after)
    with torch.no_grad():
        layer.weight = torch.nn.Parameter(layer.weight / 2.0)  # another tensor
    agrees(model, rows, monkeypatch)
    np.testing.assert_allclose(model.transform(rows), after, rtol=1e-5, atol=1e-6)
    model.module_.encoder[0][0] = torch.nn.Linear(*reversed(layer.weight.shape))  # another part
    agrees(model, rows, monkeypatch)
    model.fit(rows)
    assert plan_of(model.module_) is not first
    np.testing.assert_array_equal(model.transform(rows), before)


def test_hooks_are_called(rows):
    model = make("DeepAutoencoder").fit(rows)
    model.transform(rows)
    seen = []
    hook = model.module_.encoder[0].register_forward_hook(lambda *_: seen.append(1))
    model.transform(rows)
    assert seen
    hook.remove()
    model.transform(rows)
    assert len(seen) == 1
    assert plan_of(model.module_).covers


def test_a_progress_function_may_look_at_the_model(rows, monkeypatch):
    looked = []
    model = make("DeepAutoencoder")
    model.fit(rows, progress=lambda row, total: looked.append(model.transform(rows)))
    assert not np.array_equal(looked[0], looked[1])
    agrees(model, rows, monkeypatch)


def test_a_plan_is_not_part_of_the_estimator(rows, tmp_path):
    model = make("DeepAutoencoder").fit(rows)
    model.save(tmp_path / "before.safetensors")
    attributes, pickled = set(vars(model)), len(pickle.dumps(model.module_))
    model.transform(rows)
    assert set(vars(model)) == attributes
    assert len(pickle.dumps(model.module_)) == pickled
    model.save(tmp_path / "after.safetensors")
    assert (tmp_path / "before.safetensors").stat().st_size == (tmp_path / "after.safetensors").stat().st_size
    gone = weakref.ref(plan_of(model.module_))
    del model
    gc.collect()
    assert gone() is None


# ------------------------------------------------------------------ threads and memory
def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_threads_change_no_byte_and_no_setting():
    X = noise(60_000, 30)
    model = make("DeepAutoencoder", hidden_dims=(40,)).fit(X[:200])
    one = {method: getattr(model, method)(X).tobytes() for method in METHODS}
    before = torch.get_num_threads(), blas_threads()
    torch.set_num_threads(3)
    try:
        for method in METHODS:
            assert getattr(model, method)(X).tobytes() == one[method]
        with ThreadPoolExecutor(4) as pool:
            codes = list(pool.map(lambda _: model.transform(X).tobytes(), range(4)))
            alone = list(pool.map(lambda i: model.transform(X[i : i + 1]), range(200)))
    finally:
        torch.set_num_threads(before[0])
    assert set(codes) == {one["transform"]}
    np.testing.assert_allclose(np.concatenate(alone), model.transform(X[:200]), rtol=1e-5, atol=1e-6)
    assert (torch.get_num_threads(), blas_threads()) == before
    assert not inference._users


@pytest.mark.parametrize("method", METHODS)
def test_only_a_batch_is_in_scaled_units(method):
    X = noise(400_000, 10)
    model = make("DeepAutoencoder").fit(X[:200])
    most = X.nbytes if method == "reconstruction_error" else X.nbytes / 2
    tracemalloc.start()
    result = getattr(model, method)(X)
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grown < result.nbytes + most, grown


# ------------------------------------------------------------------ refused as on the long way
BAD = {
    "NaN": lambda X: X.__setitem__((-3, 2), np.nan),
    "inf": lambda X: X.__setitem__((0, 1), -np.inf),
    "several": lambda X: X.__setitem__((slice(None, None, 2), 3), np.nan),
    "beyond single": lambda X: X.__setitem__((-1, 0), 1e39),
    "beyond when scaled": lambda X: X.__setitem__((-2, 5), 3e38),
}


@pytest.mark.parametrize("n", [3, 7000])
@pytest.mark.parametrize("what", BAD)
def test_bad_values_are_named_as_ever(what, n):
    X = noise(n, 6).astype(float)
    model = make("Autoencoder", scaling="standard").fit(noise(50, 6) * 1e-3)
    BAD[what](X)
    with pytest.raises(diabolo.errors.InvalidDataError) as long:
        model.transform(X.tolist())
    for method in METHODS:
        with pytest.raises(diabolo.errors.InvalidDataError) as short:
            getattr(model, method)(X)
        assert str(short.value) == str(long.value)


def test_values_that_are_large_only_before_they_are_scaled():
    X = noise(50, 3).astype(float) * 1e37
    model = make("Autoencoder", latent_dim=2, scaling="standard").fit(X)
    assert np.isfinite(model.transform(X)).all()
    with pytest.raises(diabolo.errors.InvalidDataError, match=r"single precision; got 1e\+39 at row 1"):
        model.transform(np.where([[False], [True]], 1e39, X[:2]))


def test_other_ways_to_be_wrong_are_still_seen(rows):
    with pytest.raises(ValueError, match="is not fitted yet"):
        make("Autoencoder").transform(rows)
    model = make("Autoencoder").fit(rows)
    for wrong, message in (
        (rows[:, :4], "4 features"),
        (rows[:0], "at least 1 row"),
        (rows[0], r"an array of rows; got the shape \(6,\)\. Reshape your data"),
        (rows.astype(complex), "[Cc]omplex"),
    ):
        with pytest.raises(ValueError, match=message):
            model.transform(wrong)


@pytest.mark.parametrize("method", ["transform", "reconstruct", "reconstruction_error", "score_samples"])
def test_a_last_row_is_the_same_from_a_source(method, monkeypatch):
    monkeypatch.setattr("diabolo.estimators.incoming._STREAMED", 1)
    monkeypatch.setattr("diabolo.estimators.fitted._AT_ONCE", 1)
    X = np.random.default_rng(0).normal(size=(130, 200)).astype(np.float32)
    model = diabolo.Autoencoder(hidden_dims=(150,), latent_dim=20, epochs=1, random_state=0).fit(X)
    size = model._rows_per_batch()
    X = np.resize(X, (2 * size + 1, 200))
    assert getattr(model, method)(ArraySource(X)).tobytes() == getattr(model, method)(X).tobytes()


def test_values_at_the_edge_of_single_precision_pass_in_silence():
    model = diabolo.Autoencoder(latent_dim=2, epochs=1, scaling=None).fit(np.eye(4))
    assert model.reconstruct(np.full((2, 4), 3.0e38)).shape == (2, 4)


def test_an_error_ends_the_work_of_all_threads():
    X = np.random.default_rng(0).normal(size=(400_000, 6)).astype(np.float32)
    model = diabolo.Autoencoder(hidden_dims=(5,), latent_dim=2, epochs=1, random_state=0).fit(X[:500])
    before = model.transform(X[:10])
    X[50_000, 3] = np.nan
    with pytest.raises(diabolo.errors.InvalidDataError, match="row 50000"):
        model.transform(X)
    np.testing.assert_array_equal(model.transform(X[:10]), before)
