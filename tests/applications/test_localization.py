"""AnomalyMap: planted defects are found where they are, and good images are left alone."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

import diabolo
from diabolo import persistence
from diabolo.applications import AnomalyMap
from diabolo.applications.pictures import survey
from diabolo.data import ArraySource
from diabolo.errors import CalibrationWarning, InvalidDataError, InvalidParameterError, ModelFileError

QUICK = diabolo.Autoencoder(
    latent_dim=16,
    hidden_dims=[64],
    activation="silu",
    corruption="gaussian:0.5",
    optimizer="adam",
    learning_rate=0.003,
    epochs=3,
    batch_size=64,
)
FEW = {"estimator": QUICK, "scales": (1,), "false_alarm_rate": 0.5, "random_state": 0}  # rate: for 1 image


@pytest.fixture(scope="module", autouse=True)
def quick():
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diabolo.applications.localization._TILES", 10_000)
        yield


def textures(n, seed, shape=(48, 56), channels=None):
    """Good images: stripes of random phase and brightness under noise."""
    chance = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        phase, light = chance.uniform(0, 6), chance.uniform(90, 150)
        place = np.arange(shape[-1]) * 0.8 + phase
        image = light + 25 * np.sin(place) + 4 * chance.normal(size=shape)
        out.append(image if channels is None else np.stack([image * (1 + k / 4) for k in range(channels)]))
    return out


def spoiled(images, seed):
    """The images with a square of blurred surface, and where it is."""
    chance = np.random.default_rng(seed)
    out, masks = [], []
    for image in images:
        extents = image.shape[-2:]
        y, x = (int(chance.integers(3, n - 15)) for n in extents)
        mask = np.zeros(extents, dtype=bool)
        mask[y : y + 12, x : x + 12] = True
        smooth = ndimage.gaussian_filter(image, [0] * (image.ndim - 2) + [3, 3])
        out.append(np.where(mask, smooth, image))
        masks.append(mask)
    return out, masks


@pytest.fixture(scope="module")
def fitted():
    images = [np.round(i).astype(np.uint8) for i in textures(24, 0)]
    return AnomalyMap(estimator=QUICK, scales=(1, 2), false_alarm_rate=0.2, random_state=0).fit(images)


@pytest.fixture(scope="module")
def damaged():
    return spoiled(textures(12, 5), 6)


def test_defects_are_found_where_they_are(fitted, damaged):
    images, masks = damaged
    maps = fitted.heatmap(images)
    area = roc_auc_score(np.ravel(masks), np.ravel(maps))
    plain = np.ravel([np.abs(image - image.mean()) for image in images])
    assert area > 0.95
    assert area > roc_auc_score(np.ravel(masks), plain) + 0.1
    good = textures(12, 7)
    truth = [0] * 12 + [1] * 12
    assert roc_auc_score(truth, -fitted.score_samples(good + images)) > 0.95


def test_regions_hold_the_defects(fitted, damaged):
    images, masks = damaged
    hits = 0
    for areas, mask, heat in zip(fitted.regions(images), masks, fitted.heatmap(images), strict=True):
        first = areas[0]
        hits += mask[first.position]
        assert first.peak == heat[first.position] == heat.max()
        assert heat[first.box].max() == first.peak
        assert [a.peak for a in areas] == sorted((a.peak for a in areas), reverse=True)
    assert hits >= 11
    shown = fitted.mask(images)
    assert [sum(a.area for a in areas) for areas in fitted.regions(images)] == [int(m.sum()) for m in shown]
    assert not fitted.mask(images, threshold=1e6)[0].any()
    assert fitted.regions(images[:1], threshold=1e6) == [[]]


def test_good_images_are_left_alone():
    images = [i.astype(np.float32) for i in textures(120, 1, (20, 20))]
    rates, pixels = [], []
    for seed in range(2):
        some = np.random.default_rng(seed).permutation(len(images))[:60]
        one = AnomalyMap(
            estimator=QUICK, scales=(1,), calibration_fraction=0.65, false_alarm_rate=0.1, random_state=seed
        )
        one.fit([images[i] for i in some])
        fresh = textures(60, 100 + seed, (20, 20))
        rates.append(np.mean(one.predict(fresh) == -1))
        pixels.append(np.mean(one.mask(np.array(fresh))))
        assert np.mean(one.p_value(fresh) <= 0.1) == rates[-1]
    # 39 held-out images: the rate of one fit varies by 0.05, that of fresh images by 0.03
    assert abs(np.mean(rates) - 0.1) < 0.09
    assert abs(np.mean(pixels) - 0.1) < 0.03


def test_verdicts_agree(fitted, damaged):
    images = damaged[0] + textures(6, 9)
    scores = fitted.score_samples(images)
    highest = [np.sort(heat.ravel())[-(48 * 56 // 100) :].mean() for heat in fitted.heatmap(images)]
    assert np.allclose(scores, -np.array(highest), rtol=1e-6)
    assert np.allclose(fitted.decision_function(images), scores + fitted.threshold_)
    assert np.array_equal(fitted.predict(images), np.where(-scores > fitted.threshold_, -1, 1))
    assert np.array_equal(fitted.p_value(images) <= 0.2, -scores > fitted.calibration_.threshold(0.2))


def test_thresholds_are_set_without_training(fitted):
    before = fitted.threshold_, fitted.pixel_threshold_
    try:
        fitted.set_threshold(value=3.5)
        assert (fitted.threshold_, fitted.pixel_threshold_) == (3.5, before[1])
        fitted.set_threshold(pixel=2.0, value=1.0)
        assert (fitted.threshold_, fitted.pixel_threshold_) == (1.0, 2.0)
        fitted.set_threshold(false_alarm_rate=0.3)
        assert fitted.pixel_threshold_ < before[1]
        for wrong in ({}, {"false_alarm_rate": 0.1, "pixel": 1.0}):
            with pytest.raises(InvalidParameterError, match="set_threshold must get either"):
                fitted.set_threshold(**wrong)
        with pytest.raises(InvalidParameterError, match="false_alarm_rate must be between 0 and 1"):
            fitted.set_threshold(false_alarm_rate=1.5)
        with pytest.raises(InvalidParameterError, match="value must be a number"):
            fitted.set_threshold(value=float("nan"))
    finally:
        fitted.set_threshold(value=before[0], pixel=before[1])


def test_images_of_several_sizes(fitted):
    images = [textures(1, k, (h, w))[0] for k, (h, w) in enumerate([(30, 41), (7, 90), (3, 5), (1, 1)])]
    maps = fitted.heatmap(images)
    assert [m.shape for m in maps] == [i.shape for i in images]
    assert all(np.isfinite(m).all() for m in maps)
    alone = [fitted.heatmap(image[None])[0] for image in images]
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(maps, alone, strict=True))


def test_a_part_has_the_map_of_the_whole(fitted):
    image = textures(1, 8, (180, 200))[0]
    whole, part = fitted.heatmap([image])[0], fitted.heatmap([image[24:, 32:]])[0]
    assert np.allclose(whole[24 + 56 :, 32 + 56 :], part[56:, 56:], atol=1e-4)
    assert not np.allclose(whole[24:, 32:], part, atol=1e-2)


def test_channels():
    colour = textures(8, 0, (32, 32), channels=3)
    one = AnomalyMap(**FEW).fit(np.array(colour))
    images, masks = spoiled(textures(6, 3, (32, 32), channels=3), 4)
    maps = one.heatmap(np.array(images))
    assert maps.shape == (6, 32, 32)
    assert roc_auc_score(np.ravel(masks), np.ravel(maps)) > 0.75
    with pytest.raises(
        InvalidDataError, match="must have 3 channels as in fit; got image 0 with no axis of ch"
    ):
        one.heatmap(textures(1, 0))
    with pytest.raises(InvalidDataError, match="channels must come first"):
        one.heatmap([np.zeros((32, 32, 3))])
    single = [image[:1] for image in colour]
    plain = [image[0] for image in colour]
    maps = [AnomalyMap(**FEW).fit(x).heatmap(x)[0] for x in (single, plain)]
    assert np.array_equal(*maps)


def test_volumes():
    chance = np.random.default_rng(0)
    good = ndimage.gaussian_filter(chance.normal(size=(6, 14, 18, 16)), (0, 1, 1, 1))
    one = AnomalyMap(**FEW, n_dims=3, tile=6, overlap=0.5).fit(good[:4])
    bad = good[4:].copy()
    bad[:, 4:8, 6:10, 5:9] += 0.8
    maps = one.heatmap(bad)
    assert maps.shape == bad.shape
    truth = np.zeros(bad.shape)
    truth[:, 4:8, 6:10, 5:9] = 1
    assert roc_auc_score(truth.ravel(), maps.ravel()) > 0.9
    assert len(one.regions(bad)[0][0].box) == 3


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 32, 32)), "images must be at least 2, as some are held out"),
        (np.zeros((32, 32)), r"images must be \(n, height, width\).*Give one image as image\[None\]"),
        (np.zeros((2, 1, 8, 8, 8)), "Give n_dims=3 for volumes"),
        ([], "images must be at least one; got none"),
        ([np.ones((8, 8)), np.array([[1.0, np.nan], [2, 3]])], r"got nan in image 1 at \(0, 1\)"),
        ([np.ones((8, 8)), np.array([[1.0, 1e300]])], "images must be finite"),
        ([np.ones((8, 8)), np.ones(8)], r"got image 1 of the shape \(8,\)"),
        ([np.ones((8, 8)), np.ones((0, 8))], r"got image 1 of the shape \(0, 8\)"),
        (
            [np.ones((8, 8)), np.ones((3, 8, 8))],
            "no axis of channels as image 0; got image 1 with 3 channels",
        ),
        ([np.ones((8, 8)), np.full((8, 8), "a")], "images must be numeric; got image 1"),
        ([np.ones((8, 8)), [[1, 2], [3]]], "images must be arrays of numbers; got image 1, a list"),
        (((32, 32), (16, 16)), r"got image 0 of the shape \(2,\)"),
        (np.full((3, 20, 20), 7), "X must vary"),
    ],
)
def test_images_that_cannot_be_used(images, message):
    with pytest.raises(InvalidDataError, match=message):
        AnomalyMap(estimator=QUICK, random_state=0).fit(images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "dense"}, "estimator must be one of diabolo's autoencoders; got str"),
        ({"tile": 3}, "tile must be an integer >= 4 and <= 1024; got 3"),
        ({"overlap": 1.0}, "overlap must be a number >= 0 and < 1"),
        ({"scales": (2, 2)}, "scales must be different integers"),
        ({"scales": (0.5,)}, "scales must be an integer >= 1"),
        ({"scales": 2}, "scales must be different integers, at least one; got 2"),
        ({"scales": "12"}, "scales must be different integers, at least one; got '12'"),
        ({"scales": [[1], [1, 2]]}, "scales must be an integer >= 1"),
        ({"scales": np.array([[1, 2]])}, "scales must be different integers"),
        ({"smoothing": 1e9}, "smoothing must be a number >= 0 and <= 100"),
        ({"scales": {1, 2}}, "scales must be different integers"),
        ({"scales": (1, 10**9)}, "scales must be at most the smallest extent of the images, 48"),
        ({"scales": (None,)}, "scales must be an integer >= 1"),
        ({"tile": 10**6}, "tile must be an integer >= 4 and <= 1024"),
        ({"layout": "tile"}, "Did you mean 'tiles'"),
        ({"n_dims": True}, "n_dims must be 2 or 3"),
        ({"smoothing": -1}, "smoothing must be a number >= 0"),
        ({"reference": "images"}, "Did you mean 'image'"),
        ({"n_dims": 4}, "n_dims must be 2 or 3"),
        ({"false_alarm_rate": 0}, "false_alarm_rate must be between 0 and 1"),
        ({"calibration_fraction": 1}, "calibration_fraction must be between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        AnomalyMap(**settings).fit(textures(3, 0))


@pytest.mark.parametrize(
    ("shapes", "settings", "expected"),
    [
        ([(300, 400), (290, 390)], {}, (16, (2, 4, 8))),
        ([(28, 28)], {}, (11, (1,))),
        ([(40, 12)], {}, (8, (1,))),
        ([(40, 40)], {}, (16, (1,))),
        ([(79, 79)], {}, (16, (1,))),
        ([(80, 80)], {}, (16, (1, 2))),
        ([(80, 80)], {"tile": 8}, (8, (1, 2, 4))),
        ([(64, 64)], {"tile": 32}, (32, (1,))),
        ([(300, 400), (300, 400), (90, 60)], {}, (16, (2, 4, 8))),  # the median image says
        ([(64, 64)], {"scales": [8, 1]}, (16, (8, 1))),
    ],
)
def test_scales_follow_from_the_images(shapes, settings, expected):
    pictures = survey([np.zeros(shape) for shape in shapes], 2, aligned=False)
    one = AnomalyMap(**settings)
    one._settle(one._tile_for(pictures))
    assert (one.tile_, one._sizes(pictures)) == expected


@pytest.mark.parametrize(("by", "most"), [(25, 0.3), (50, 0.5)])
def test_the_mask_is_local_on_small_pictures(by, most):
    images, bad = np.array(textures(24, 0, (32, 32))), np.array(textures(6, 5, (32, 32)))
    place = np.zeros((32, 32), dtype=bool)
    place[12:18, 14:20] = True
    bad[:, place] += by
    one = AnomalyMap(estimator=QUICK, false_alarm_rate=0.2, random_state=0).fit(images)
    one.set_threshold(pixel=one.pixel_calibration_.threshold(0.01))
    shown = one.mask(bad)
    assert shown[:, place].mean() > 0.9
    assert shown[:, ~place].mean() < most
    every = AnomalyMap(estimator=QUICK, tile=16, scales=(1, 2), false_alarm_rate=0.2, random_state=0).fit(
        images
    )
    every.set_threshold(pixel=every.pixel_calibration_.threshold(0.01))
    assert every.mask(bad)[:, ~place].mean() > shown[:, ~place].mean() + 0.1


def test_groups_are_held_out_whole():
    images = textures(12, 0, (20, 20))
    one = AnomalyMap(**FEW, calibration_fraction=0.34)
    one.fit(images, groups=np.repeat(["a", "b", "c"], 4))
    assert len(one.calibration_.scores) == 4
    with pytest.raises(InvalidDataError, match="at least 2 groups"):
        one.fit(images, groups=np.zeros(12))
    with pytest.raises(InvalidDataError, match="groups must hold one label per image, 12"):
        one.fit(images, groups=[1, 2])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([None, 1, "a"], "groups must be labels of one kind.*got NoneType, number, text"),
        ([1, "1", "2"], "got number, text"),
        ([0.5, float("nan"), 1], "got NaN, number"),
        ([None] * 3, "got NoneType"),
        ([[1], [1, 2], [3]], "got list"),
        (np.array([np.zeros(2), np.zeros(3), 1], dtype=object), "got ndarray, number"),
        (7, r"groups must hold one label per image, 3; got the shape \(\)"),
    ],
)
def test_groups_that_cannot_be_used(groups, message):
    with pytest.raises(InvalidDataError, match=message):
        AnomalyMap(**FEW).fit(textures(3, 0, (20, 20)), groups=groups)


def test_a_tuple_of_images_of_several_sizes(fitted):
    images = tuple(textures(1, k, shape)[0] for k, shape in enumerate([(30, 41), (20, 50)]))
    assert [m.shape for m in fitted.heatmap(images)] == [(30, 41), (20, 50)]
    assert [m.shape for m in fitted.mask(images)] == [(30, 41), (20, 50)]
    assert fitted.heatmap(tuple(textures(2, 0)))[0].shape == (48, 56)


def test_reference_training_sees_an_image_that_is_other_as_a_whole():
    good = textures(20, 0, (24, 24))
    strange = [image + 15 * np.random.default_rng(k).normal(size=image.shape) for k, image in enumerate(good)]
    fresh = textures(20, 50, (24, 24))
    areas = {}
    for reference in ("image", "training"):
        one = AnomalyMap(**FEW, reference=reference).fit(good)
        areas[reference] = roc_auc_score([0] * 20 + [1] * 20, -one.score_samples(fresh + strange))
    assert areas["training"] > 0.95 > areas["image"]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    images = textures(4, 0, (20, 24))
    first, second = (
        AnomalyMap(**FEW | {"random_state": 3}).fit(images).save(tmp_path / name) for name in ("a", "b")
    )
    maps = [AnomalyMap.load(path).heatmap(images) for path in (first, second)]
    assert all(np.array_equal(a, b) for a, b in zip(*maps, strict=True))


def test_files_give_the_same_bytes(fitted, damaged, tmp_path):
    images = damaged[0][:3]
    back = AnomalyMap.load(fitted.save(tmp_path / "map.safetensors"))
    assert all(
        np.array_equal(a, b) for a, b in zip(back.heatmap(images), fitted.heatmap(images), strict=True)
    )
    assert np.array_equal(back.p_value(images), fitted.p_value(images))
    assert np.array_equal(back.predict(images), fitted.predict(images))
    assert (back.threshold_, back.pixel_threshold_) == (fitted.threshold_, fitted.pixel_threshold_)
    params = back.get_params(deep=False)
    assert params["scales"] == [1, 2]
    assert params["estimator"].hidden_dims == [64]
    back.set_threshold(false_alarm_rate=0.5)
    assert back.pixel_threshold_ < fitted.pixel_threshold_
    clone(back).set_params(false_alarm_rate=0.5).fit(textures(3, 0))


def test_foreign_and_damaged_files_are_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "map.safetensors")
    with pytest.raises(ModelFileError, match="diabolo model file"):
        diabolo.load(path)
    other = fitted.scales_[0].estimator.save(tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match="diabolo map file"):
        AnomalyMap.load(other)
    with pytest.raises(ModelFileError, match="must exist"):
        AnomalyMap.load(tmp_path / "none")
    whole = path.read_bytes()
    for wrong in (whole[:-100], whole[:50], b""):
        path.write_bytes(wrong)
        with pytest.raises(ModelFileError):
            AnomalyMap.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"n_channels": 0', '"n_channels": 2'),
        ('"factor": 2', '"factor": 0'),
        ('"tile": 16', '"tile": 17'),
        ('"overlap": null', '"overlap": "a"'),
        ('"reference": "training"', '"reference": 7'),
        ('"typical": {', '"typical": {"x": 1, '),
        ('"thresholds": [', '"thresholds": [NaN, '),
    ],
)
def test_headers_that_do_not_fit_are_refused(fitted, tmp_path, old, new):
    path = fitted.save(tmp_path / "map.safetensors")
    header, tensors = persistence.read_model(path, persistence.MAP)
    text = json.dumps(header)
    assert old in text
    persistence.write_model(path, json.loads(text.replace(old, new)), tensors, persistence.MAP)
    with pytest.raises(ModelFileError, match="must hold a consistent model"):
        AnomalyMap.load(path)


def test_too_few_images_for_the_rate_are_told():
    with pytest.warns(
        CalibrationWarning,
        match=r"1 / 2 = 0.5 to be promised for images by 1 image held out; got 0.01.* is now the highest",
    ):
        one = AnomalyMap(**FEW | {"false_alarm_rate": 0.01}).fit(textures(3, 0, (20, 20)))
    assert one.threshold_ == one.calibration_.scores[-1]
    with pytest.warns(CalibrationWarning, match="1 / 5 = 0.2 .* by 4 images held out; got 0.01.* normal"):
        one.fit(textures(12, 0, (20, 20)))
    assert len(one.calibration_.scores) == 4
    assert one.threshold_ > one.calibration_.scores[-1]


def test_groups_count_as_one_each(tmp_path):
    images = textures(12, 0, (20, 20))
    one = AnomalyMap(**FEW | {"false_alarm_rate": 0.4}, calibration_fraction=0.5)
    one.fit(images, groups=np.repeat(["a", "b", "c", "d"], 3))
    assert len(one.calibration_.scores) == 6
    assert one.p_value([image * 9 for image in images[:1]]) == pytest.approx(1 / 3)
    with pytest.warns(CalibrationWarning, match="1 / 3 = 0.33 .* by 2 groups of images held out; got 0.15"):
        one.set_threshold(false_alarm_rate=0.15)
    back = AnomalyMap.load(one.save(tmp_path / "m"))
    assert back.p_value(images).tobytes() == one.p_value(images).tobytes()
    with pytest.warns(CalibrationWarning):
        back.set_threshold(false_alarm_rate=0.15)
    assert back.threshold_ == one.threshold_
    with pytest.warns(CalibrationWarning, match="1 group of images held out; got 0.15.* is now the highest"):
        one.set_params(false_alarm_rate=0.15).fit(images[:6], groups=np.repeat(["a", "b"], 3))
    assert len(one.calibration_.scores) == 3
    assert one.threshold_ == one.calibration_.scores[-1]


def test_progress_comes_to_an_end():
    seen = []
    AnomalyMap(**FEW | {"scales": (1, 2)}).fit(
        textures(3, 0, (20, 20)), progress=lambda share, what: seen.append((share, what))
    )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert seen[-1] == (1.0, "done")
    assert "training at scale 1/2" in [what for _, what in seen]


def test_the_mask_of_a_strong_defect_is_hardly_wider_than_it():
    images, bad = np.array(textures(24, 0, (48, 48))), np.array(textures(4, 5, (48, 48)))
    bad[:, 20:28, 20:28] = 255
    one = AnomalyMap(estimator=QUICK, false_alarm_rate=0.2, random_state=0).fit(images)
    one.set_threshold(pixel=one.pixel_calibration_.threshold(0.01))
    for areas in one.regions(bad):
        extents = [part.stop - part.start for part in areas[0].box]
        assert 8 <= min(extents) <= max(extents) <= 30  # once 39


def test_places_without_texture_are_found():
    chance = np.random.default_rng(0)
    grain = [128 + 20 * chance.normal(size=(40, 40)) for _ in range(32)]
    one = AnomalyMap(estimator=QUICK, false_alarm_rate=0.2, random_state=0).fit(grain[:24])
    bad, masks = spoiled(grain[24:], 1)
    assert roc_auc_score(np.ravel(masks), np.ravel(one.heatmap(bad))) > 0.7  # once 0.2


class OnDemand(Sequence):
    """Images that are read when they are asked for; counts how many are in memory."""

    def __init__(self, images):
        self.images, self.read, self.most = images, [], 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = self.images[i].copy()
        self.read.append(weakref.ref(image))
        self.most = max(self.most, sum(one() is not None for one in self.read))
        return image


@pytest.mark.parametrize("settings", [{"scales": (1, 2)}, {"layout": "aligned", "tile": 8, "scales": None}])
def test_images_are_read_one_by_one(settings):
    images = [image.astype(np.float32) for image in textures(30, 0, (20, 24))]
    lazily = OnDemand(images)
    kinds = (np.stack(images), images, lazily, ArraySource(np.stack(images)))
    made = [AnomalyMap(**FEW | settings).fit(one) for one in kinds]
    same = [(one.threshold_, one.pixel_threshold_, one.heatmap(images)[0].tobytes()) for one in made]
    assert same[0] == same[1] == same[2] == same[3]
    assert lazily.most <= 2
    lazily.read = []
    found = [made[0].score_samples(one) for one in kinds]
    assert all(np.array_equal(found[0], one) for one in found)
    assert len(lazily.read) == 30
    shapes = [np.shape(made[0].mask(one)) for one in kinds]
    assert set(shapes) == {(30, 20, 24)}


def test_images_that_cannot_be_used_are_told_while_they_are_read(fitted):
    images = [image.astype(np.float32) for image in textures(4, 0)]
    images[2][3, 4] = np.nan
    message = r"must be finite, without NaN or inf; got nan in image 2 at \(3, 4\)"
    for call in (AnomalyMap(**FEW).fit, fitted.score_samples):
        with pytest.raises(InvalidDataError, match=message):
            call(OnDemand(images))
    images[2] = np.zeros((3, 48, 56))
    for call in (AnomalyMap(**FEW).fit, fitted.score_samples):
        with pytest.raises(InvalidDataError, match=r"no axis of channels .* got image 2 with 3 channels"):
            call(OnDemand(images))


def test_a_source_that_leaves_images_out_is_refused(fitted):
    class Gaps(ArraySource):
        def chunks(self, generator=None):
            for numbers, rows in super().chunks(generator):
                yield numbers[:-1], rows[:-1]

    with pytest.raises(InvalidDataError, match="got a source that left out 1, image 3 among them"):
        AnomalyMap(**FEW).fit(Gaps(np.array(textures(4, 0))))
