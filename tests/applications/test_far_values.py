"""Maps of images far off in value, in any unit, and of errors next to nothing: numbers, and verdicts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from diabolo import Autoencoder
from diabolo.applications import AnomalyMap
from diabolo.applications.scale import Scale
from diabolo.applications.tiles import Tiling
from diabolo.applications.whole import Usual

MEMBER = Autoencoder(latent_dim=8, hidden_dims=(32,), activation="silu", epochs=3, batch_size=64)
SETTINGS: dict[str, dict[str, Any]] = {
    "tiles": {"scales": (1, 2), "tile": 8},
    "linear": {"scales": (1,), "tile": 8, "estimator": clone(MEMBER).set_params(output_activation="linear")},
    "aligned": {"layout": "aligned"},
    "bright": {"layout": "aligned", "polarity": "bright", "symmetry": -1},
}
FAR = (1e10, 1e20, 9.97e36, 3.4e38)  # 9.97e36 stands for what is missing in NetCDF


def images(n: int, seed: int) -> np.ndarray:
    chance = np.random.default_rng(seed)
    frame = 50 * (np.maximum(*np.abs(np.mgrid[-12:12, -12:12])) > 8)
    return 100 + frame + chance.normal(0, 5, (n, 24, 24)) + chance.normal(0, 5, (n, 1, 1))


def fit(kind: str, unit: float = 1.0) -> AnomalyMap:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diabolo.applications.localization._TILES", 2000)
        settings = {"estimator": MEMBER, "false_alarm_rate": 0.2, "random_state": 0} | SETTINGS[kind]
        return AnomalyMap(**settings).fit(images(20, 0) * unit)


@pytest.fixture(scope="module", params=list(SETTINGS))
def fitted(request: Any) -> tuple[str, AnomalyMap]:
    torch.set_num_threads(1)
    return request.param, fit(request.param)


@pytest.mark.parametrize("value", FAR)
def test_values_far_off_are_found(fitted: tuple[str, AnomalyMap], value: float) -> None:
    kind, one = fitted
    for sign in (1, -1) if kind != "bright" else (1,):
        bad = np.tile(images(1, 3), (2, 1, 1))
        bad[0, 5:8, 4:8] = sign * value
        bad[1] = sign * value
        heat = one.heatmap(bad)
        assert not np.isnan(heat).any()
        assert one.predict(bad).tolist() == [-1, -1]
        assert one.p_value(bad).tolist() == [1 / 6, 1 / 6]
        assert heat[0, 5:8, 4:8].min() > one.pixel_threshold_
        assert one.mask(bad)[1].all()
        first = one.regions(bad[:1])[0][0]
        assert first.box[0].start <= 5 < 8 <= first.box[0].stop
        assert first.box[1].start <= 4 < 8 <= first.box[1].stop


def test_the_unit_of_images_changes_nothing(fitted: tuple[str, AnomalyMap]) -> None:
    kind, one = fitted
    fresh = images(3, 4)
    for unit in (1e-30, 1e-18, 1e19, 1e20, 1e35):
        other = fit(kind, unit)
        assert other.threshold_ == pytest.approx(one.threshold_, rel=1e-3)
        np.testing.assert_allclose(other.heatmap(fresh * unit), one.heatmap(fresh), atol=5e-3)


def test_what_a_net_makes_no_number_of_is_found(fitted: tuple[str, AnomalyMap]) -> None:
    kind, one = fitted
    if kind == "bright":
        return  # both sides alike, and so nothing on the one only
    scale = one.whole_ or one.scales_[0]
    good, restore = images(2, 5), scale.estimator.reconstruct
    one.threshold_, before = 1e6, one.threshold_
    try:
        assert one.predict(good).tolist() == [1, 1]
        for value in (np.nan, np.inf, -np.inf):
            scale.estimator.reconstruct = lambda x, value=value: np.full(x.shape, value, dtype=np.float32)
            assert not np.isnan(one.heatmap(good)).any()
            assert (np.abs(one.score_samples(good)) > 10).all()
    finally:
        scale.estimator.reconstruct, one.threshold_ = restore, before


def test_a_map_that_is_no_number_is_the_strangest(fitted: tuple[str, AnomalyMap]) -> None:
    _, one = fitted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnomalyMap, "_compared", lambda self, image: np.full(image.shape[1:], np.nan))
        assert one.predict(images(1, 6)).tolist() == [-1]
        assert one.p_value(images(1, 6)).tolist() == [1 / 6]
        assert one.mask(images(1, 6)).all()


def restoring(by: float) -> Scale:
    """A scale whose net is off by so much everywhere, in units of the usual error."""
    net = SimpleNamespace(
        reconstruct=lambda x: x + np.float32(by),
        _scaler=SimpleNamespace(offset=np.zeros(1), scale=np.ones(1)),
    )
    return Scale(1, net, np.ones((1, 8, 8)), flat=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_errors_next_to_nothing_are_no_remarkable_ones(smoothing: float) -> None:
    image = np.zeros((1, 20, 20), dtype=np.float32)
    for by, expected in ((0.0, 1e-4), (1e-7, 1e-4), (1e-3, 1e-4), (0.1, 0.01), (1.0, 1.0), (1e20, 1e24)):
        logs, contrast = restoring(by).errors(image, Tiling(8, 2), smoothing)
        np.testing.assert_allclose(logs, np.log(expected), atol=2e-3)
        assert not contrast.any()


def test_a_value_far_off_leaves_the_contrast_of_others_alone() -> None:
    image = np.random.default_rng(0).normal(size=(1, 60, 60)).astype(np.float32)
    plain = restoring(0.1).errors(image, Tiling(8, 2), 0.0)[1]
    image[0, :2, :2] = 1e25
    spoiled = restoring(0.1).errors(image, Tiling(8, 2), 0.0)[1]
    np.testing.assert_allclose(spoiled[20:, 20:], plain[20:, 20:], rtol=1e-5)
    assert spoiled[0, 0] > 1e20


def test_what_is_usual_goes_by_the_unit() -> None:
    chance = np.random.default_rng(0)
    contrast = chance.gamma(2.0, size=(50, 1, 6, 6))
    values = np.sqrt(0.5 + 2 * contrast) * chance.normal(size=contrast.shape)
    plain = Usual.of(values, contrast).spread
    np.testing.assert_allclose(plain, [[0.5, 2.0]], rtol=0.3)
    for unit in (1e-30, 1e30):
        found = Usual.of(values * unit, contrast * unit**2).spread
        np.testing.assert_allclose(found, plain * [unit**2, 1.0], rtol=1e-6)
    assert Usual.of(0 * values, contrast).spread.tolist() == [[1.0, 0.0]]
