"""AnomalyMap of aligned images: found where it lies, said in units of what is usual there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import diabolo
from diabolo import Autoencoder
from diabolo.applications import AnomalyMap, whole
from diabolo.applications.tiles import reduced
from diabolo.applications.whole import Usual, copies, default_net, factor_for
from diabolo.errors import InvalidDataError, InvalidParameterError

QUICK = diabolo.Autoencoder(
    latent_dim=64,
    hidden_dims=[128],
    activation="silu",
    corruption="gaussian:1",
    scaling="center",
    optimizer="adam",
    epochs=8,
    batch_size=32,
    validation_fraction=0,
)
ALIGNED = {"layout": "aligned", "estimator": QUICK, "false_alarm_rate": 0.2, "random_state": 0}
SHAPE = (24, 22)
PATCH = (slice(6, 10), slice(4, 8))
OTHER = (slice(6, 10), slice(14, 18))  # the same place on the other side


@pytest.fixture(scope="module", autouse=True)
def quick():
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diabolo.applications.whole._STEPS", 200)
        yield


def parts(n, seed, shape=SHAPE):
    """Good images: a bright frame, a dark middle, both sides alike, moved by up to a pixel, under noise."""
    chance = np.random.default_rng(seed)
    rows, columns = (np.abs(np.arange(k) - (k - 1) / 2) / k for k in shape[-2:])
    out = []
    for _ in range(n):
        far = np.maximum(rows[:, None], columns[None])
        image = 100 + 80 * (far > 0.35) - 50 * (far < 0.12) + chance.normal(0, 5)
        image = np.roll(image, chance.integers(-1, 2, 2), (0, 1))
        out.append(image + chance.normal(0, 4, shape))
    return np.array(out)


def spoiled(n, seed, by, *places):
    images = parts(n, seed)
    for place in places:
        images[:, *place] += by
    return images


def inside(*places):
    mask = np.zeros(SHAPE, dtype=bool)
    for place in places:
        mask[place] = True
    return mask


@pytest.fixture(scope="module")
def fitted():
    return AnomalyMap(**ALIGNED | {"estimator": None}).fit(parts(60, 0))


def test_defects_are_found_where_they_are(fitted):
    images = spoiled(10, 1, 40, PATCH)
    maps, truth = fitted.heatmap(images), np.broadcast_to(inside(PATCH), (10, *SHAPE))
    assert maps.shape == images.shape
    area = roc_auc_score(truth.ravel(), maps.ravel())
    plain = np.abs(images - parts(60, 0).mean(0))
    assert area > 0.95
    assert area > roc_auc_score(truth.ravel(), plain.ravel())
    assert all(truth[0][areas[0].position] for areas in fitted.regions(images))
    shown = fitted.mask(images, threshold=fitted.pixel_calibration_.threshold(0.02))
    assert shown[truth].mean() > 0.9
    assert shown[~truth].mean() < 0.15
    good = parts(20, 2)
    assert roc_auc_score([0] * 20 + [1] * 10, -fitted.score_samples(np.concatenate([good, images]))) > 0.95


def test_verdicts_agree_and_the_promise_is_kept(fitted):
    images = np.concatenate([parts(40, 3), spoiled(10, 4, 40, PATCH)])
    maps, scores = fitted.heatmap(images), fitted.score_samples(images)
    highest = [np.sort(heat.ravel())[-(heat.size // 10) :].mean() for heat in maps]
    assert np.allclose(scores, -np.array(highest), rtol=1e-5)
    assert np.array_equal(fitted.predict(images), np.where(-scores > fitted.threshold_, -1, 1))
    assert np.array_equal(fitted.p_value(images) <= 0.2, -scores > fitted.calibration_.threshold(0.2))
    assert np.mean(fitted.predict(images[:40]) == -1) < 0.45  # 0.2, of 12 held-out images
    assert abs(fitted.mask(images[:40]).mean() - 0.2) < 0.1


def test_polarity_says_what_counts():
    bright, dark = spoiled(6, 5, 40, PATCH), spoiled(6, 5, -40, PATCH)
    for polarity, found, left in (("bright", bright, dark), ("dark", dark, bright)):
        one = AnomalyMap(**ALIGNED, polarity=polarity).fit(parts(40, 0))
        assert one.heatmap(found)[:, *PATCH].mean() > 1.5
        assert one.heatmap(left)[:, *PATCH].mean() < -1.5
        assert one.mask(found)[:, *PATCH].mean() > 0.9
        assert not one.mask(left)[:, *PATCH].any()


def test_symmetry_leaves_alone_what_is_on_both_sides():
    one, plain = (AnomalyMap(**ALIGNED, symmetry=s).fit(parts(40, 0)) for s in (-1, None))
    single, double = spoiled(6, 5, 40, PATCH), spoiled(6, 5, 40, PATCH, OTHER)
    assert one.heatmap(single)[:, *PATCH].mean() > 3 * one.heatmap(double)[:, *PATCH].mean()
    assert plain.heatmap(double)[:, *PATCH].mean() > 3
    turned = AnomalyMap(**ALIGNED, symmetry=-2).fit(parts(40, 0).swapaxes(1, 2))
    assert roc_auc_score(inside(PATCH).T.ravel(), turned.heatmap(single.swapaxes(1, 2))[0].ravel()) > 0.9


@pytest.mark.parametrize("polarity", ["both", "bright"])
def test_channels(polarity):
    chance = np.random.default_rng(0)
    images = np.stack([parts(30, 0), parts(30, 0) / 2 + chance.normal(0, 1, (30, *SHAPE))], axis=1)
    one = AnomalyMap(**ALIGNED, polarity=polarity).fit(images)
    bad = images[:3].copy()
    bad[:, 1, *PATCH] += 40
    maps = one.heatmap(bad)
    assert maps.shape == (3, *SHAPE)
    assert roc_auc_score(inside(PATCH).ravel(), maps[0].ravel()) > 0.95
    single, plain = (AnomalyMap(**ALIGNED).fit(x).heatmap(x[:2]) for x in (images[:, :1], images[:, 0]))
    assert np.array_equal(single, plain)


def test_volumes_and_large_images():
    volumes = parts(20, 0, (6, 24, 22))
    one = AnomalyMap(**ALIGNED, n_dims=3, symmetry=-1).fit(volumes)
    assert (one.size_, one.factors) == ((6, 24, 22), [1])
    bad = volumes[:2].copy()
    bad[:, 2:5, *PATCH] += 60
    truth = np.zeros(bad.shape)
    truth[:, 2:5, *PATCH] = 1
    assert roc_auc_score(truth.ravel(), one.heatmap(bad).ravel()) > 0.9
    large = np.kron(parts(20, 0), np.ones((4, 5)))
    one = AnomalyMap(**ALIGNED, polarity="dark", tile=25).fit(large)
    assert one.factors == [factor_for((96, 110), 25)] == [4]
    bad = large[:2].copy()
    bad[:, 24:40, 20:40] -= 60
    assert one.heatmap(bad)[:, 24:40, 20:40].mean() > 3
    assert one.heatmap(bad).shape == bad.shape


def test_what_is_usual_worked_by_hand():
    """Values with the variance 4 where there is no contrast, and 4 + 3 * 7 where it is 7."""
    contrast = np.zeros((400, 2, 4, 4), dtype=np.float32)
    contrast[:, :, :, 2:] = 7
    values = np.random.default_rng(0).choice([-1, 1], size=contrast.shape) * np.sqrt(4 + 3 * contrast)
    values -= values.mean(0)
    usual = Usual.of((values + 5).astype(np.float32), contrast)
    assert np.allclose(usual.mean, 5, atol=1e-4)
    assert usual.spread == pytest.approx(np.array([[4, 3], [4, 3]]), rel=0.02)
    assert usual.deviation(contrast[0]) == pytest.approx(np.sqrt(4 + 3 * contrast[0]), rel=0.02)
    never = Usual.of(np.ones((5, 1, 3, 3), dtype=np.float32), contrast[:5, :1, :3, :3])
    assert (never.deviation(contrast[0, :1]) > 0).all()


def test_copies_are_moved_and_from_the_other_side():
    images = [image[None].astype(np.float32) for image in parts(5, 0, (32, 64))]
    chance = np.random.RandomState(0)
    plain = copies(iter(images), 5, 2, None, chance)
    assert plain.shape == (25, 1, 16, 32)
    assert np.array_equal(plain[::5], np.stack([reduced(image, 2) for image in images]))
    both = copies(iter(images), 5, 2, -1, chance)
    assert both.shape == (50, 1, 16, 32)
    assert np.array_equal(both[5::10], np.flip(both[::10], -1))
    bright = [np.zeros((1, 32, 64), dtype=np.float32)]
    bright[0][0, 16, 32] = 1
    places = {tuple(int(k) for k in np.argwhere(x[0])[0]) for x in copies(iter(bright), 1, 1, None, chance)}
    assert len(places) > 2
    assert all(abs(y - 16) <= 2 and abs(x - 32) <= 4 for y, x in places)
    many = copies((np.zeros((1, 2, 2), dtype=np.float32) for _ in range(20_001)), 20_001, 1, None, chance)
    assert len(many) == 20_001


def test_the_default_net_grows_with_the_images():
    small, large = default_net(100, 16), default_net(100_000, 4096)
    assert (small.latent_dim, small.hidden_dims) == (8, [32])
    assert (large.latent_dim, large.hidden_dims, large.epochs) == (512, [1024], 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "align"}, "Did you mean 'aligned'"),
        ({"overlap": 0.5}, "overlap must be left out with layout='aligned'"),
        ({"scales": (1, 2)}, "scales must be left out with layout='aligned'"),
        ({"scales": np.array([1, 2])}, "scales must be left out with layout='aligned'"),
        ({"reference": "image"}, "reference must be left out with layout='aligned'"),
        ({"layout": "tiles", "polarity": "dark"}, "polarity must be left out with layout='tiles'"),
        ({"layout": "tiles", "symmetry": -1}, "symmetry must be left out with layout='tiles'"),
        ({"polarity": "brigth"}, "Did you mean 'bright'"),
        ({"symmetry": 1}, "symmetry must be an integer >= -2 and <= -1; got 1"),
        ({"symmetry": -3}, "symmetry must be an integer >= -2 and <= -1; got -3"),
        ({"symmetry": True}, "symmetry must be an integer >= -2 and <= -1; got True"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        AnomalyMap(**ALIGNED | settings).fit(parts(3, 0))


def test_images_of_other_sizes_are_refused(fitted):
    several = [parts(1, 0)[0], parts(1, 0, (24, 20))[0]]
    message = r"must all have the extents \(24, 22\), as image 0; got image 1 with \(24, 20\).*layout='tiles'"
    with pytest.raises(InvalidDataError, match=message):
        AnomalyMap(**ALIGNED).fit(several)
    for method in (fitted.heatmap, fitted.predict, fitted.regions, fitted.p_value):
        with pytest.raises(InvalidDataError, match=r"\(24, 22\), as in fit; got image 0 with \(24, 20\)"):
            method(several[1:])


def test_fitting_anew_forgets_the_layout():
    one = AnomalyMap(**ALIGNED | {"false_alarm_rate": 0.5}).fit(parts(6, 0))
    one.set_params(layout="tiles").fit(parts(6, 0))
    assert (one.whole_, one.size_, one.smoothing_) == (None, None, 1.0)
    assert one.heatmap(parts(1, 0, (20, 50))).shape == (1, 20, 50)


def test_the_same_seed_gives_the_same_bytes():
    images = parts(20, 0)
    settings = ALIGNED | {"polarity": "bright", "symmetry": -1}
    first, second, other = (
        AnomalyMap(**settings | {"random_state": seed}).fit(images).heatmap(images) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_other_side_lies_right_where_the_factor_does_not_go_into_the_width() -> None:
    chance = np.random.default_rng(0)
    half = ndimage.gaussian_filter(chance.normal(size=(48, 50)), 3).astype(np.float32)
    picture = np.concatenate([half, half[:, ::-1]], axis=1)[None]

    class Nothing(Autoencoder):
        def reconstruct(self, X: Any) -> Any:
            return np.zeros_like(X)

    left = {}
    for width in (96, 98, 100):  # by 3: a multiple, and two that are padded
        cut = (100 - width) // 2
        small = reduced(picture[:, :, cut : 100 - cut], 3)[None]
        for off in (0.0, whole._off((48, width), 3, -1)):
            excess, _ = whole._excess(Nothing(), small, 0.0, -1, off, flat=True)
            left[width, off > 0] = float(np.sqrt(np.square(excess[..., 3:-3]).mean()))
    assert whole._off((48, 96), 3, -1) == 0
    # what remains is that the other side is smoothed
    assert max(left[98, True], left[100, True]) < 1.3 * left[96, False] < left[100, False], left


def test_settings_changed_after_fit_change_neither_maps_nor_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(12, 20, 24)).astype(np.float32)
    one = AnomalyMap(
        layout="aligned", polarity="bright", estimator=Autoencoder(latent_dim=4, epochs=1), random_state=0,
        false_alarm_rate=0.4,
    ).fit(images)  # fmt: skip
    heat = one.heatmap(images)
    one.set_params(
        layout="tiles", polarity="dark", symmetry=-1, n_dims=3, tile=10, smoothing=5, scales=(1, 2),
        estimator__epochs=77,
    )  # fmt: skip
    assert one.settings_["estimator"].epochs == 1
    np.testing.assert_array_equal(one.heatmap(images), heat)
    read = AnomalyMap.load(one.save(tmp_path / "map.safetensors"))
    np.testing.assert_array_equal(read.heatmap(images), heat)
    assert (read.layout, read.polarity, read.symmetry, read.estimator.epochs) == (
        "aligned",
        "bright",
        None,
        1,
    )
