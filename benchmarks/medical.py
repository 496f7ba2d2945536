"""Lesions found in FLAIR slices and x-rays told apart, by nets that saw no disease, beside simple rules.

    python benchmarks/medical.py --seeds 3
    python benchmarks/medical.py --quick

writes benchmarks/results/medical.json, .md and .png. Half of the patients, and of the x-rays, were for
development: settings were chosen on them, and they are never tested on. Of FLAIR patients 24 train (their
slices without tumour), 9 validate and 15 of the other half test; the seed says which. A map has one number
for each pixel; its threshold is the one with the best Dice over all pixels of the validation slices;
Dice, over all pixels of the test slices, and average precision are said of the test patients. Slices
are not skull-stripped, and the scalp is bright: every method is therefore measured twice, on the whole slice
and on the inner head, the pixels deeper under the head's outline than 0.3 of its greatest depth. All methods
get slices in units of their own brain, the 75th percentile of the inner head. X-rays: 250 normal ones train.
This is a comparison of methods on two public data sets and says nothing about use on patients.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medical_page import OURS, draw, write
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

import diabolo
from diabolo import Autoencoder
from diabolo.applications import AnomalyMap
from diabolo.estimators.scaling import Scaler
from diabolo.parts import CoarseNoise, Dense, GaussianNoise

RESULTS = Path(__file__).parent / "results"
Floats = np.ndarray[Any, np.dtype[Any]]
INNER = 0.3  # of the greatest depth under the head's outline
DARK = 12  # of 255: air
SIZE = 32  # pixels along an edge of what dense nets see
DEFAULTS = {
    "batch_size": 32,
    "optimizer": "adam",
    "scaling": "center",
    "validation_fraction": 0.0,
}


def reduced(images: Floats, size: int) -> Floats:
    """Return square images (n, h, w) as means over blocks, (n, size, size)."""
    n, height, _ = images.shape
    block = height // size
    means: Floats = images.reshape(n, size, block, size, block).mean((2, 4)).astype(np.float32)
    return means


def enlarged(maps: Floats, size: int) -> Floats:
    """Return maps (n, h, w) at a larger size, smooth between their pixels."""
    factor = size / maps.shape[1]
    return ndimage.zoom(maps, (1, factor, factor), order=1, grid_mode=True, mode="nearest")


class Slices:
    """FLAIR slices at half size, in units of the slice's own brain, with depth and tumours."""

    def __init__(self, path: Path, size: int = 64) -> None:
        with np.load(path) as stored:
            images, masks, self.patient = stored["images"], stored["masks"], stored["patient"]
        self.tumour = masks.any((1, 2))
        self.masks = reduced(masks, size) >= 0.5
        grey = reduced(images, size)
        head = np.stack([self._head(image) for image in grey])
        self.depth = np.stack([ndimage.distance_transform_edt(np.pad(h, 1))[1:-1, 1:-1] for h in head])
        self.depth /= np.maximum(self.depth.max((1, 2), keepdims=True), 1)
        level = [
            np.percentile(image[inner], 75) if inner.any() else 255.0
            for image, inner in zip(grey, self.depth > INNER, strict=True)
        ]
        self.images = np.minimum(grey / np.maximum(level, 8)[:, None, None], 4).astype(np.float32)
        columns = [np.flatnonzero(h.any(0)) for h in head]
        self.middle = np.array([c[0] + c[-1] if len(c) else size - 1 for c in columns])

    @staticmethod
    def _head(image: Floats) -> Floats:
        """Return the largest area that is brighter than air, without its holes."""
        bright = image > max(DARK, 0.15 * np.percentile(image, 99))
        closed = ndimage.binary_closing(np.pad(bright, 3), iterations=2)
        filled = ndimage.binary_fill_holes(closed)[3:-3, 3:-3]
        areas, n = ndimage.label(filled)
        if n < 2:
            return filled
        return areas == 1 + np.argmax(ndimage.sum_labels(filled, areas, range(1, n + 1)))

    def mirrored(self, maps: Floats) -> Floats:
        """Return maps (n, h, w) with left and right exchanged about the head's middle."""
        turned = ndimage.gaussian_filter(maps, (0, 1.5, 1.5))[:, :, ::-1]
        shift = self.middle - (maps.shape[2] - 1)
        return np.stack([np.roll(m, s, axis=1) for m, s in zip(turned, shift, strict=True)])


def net(corruption: Any, latent_dim: int, hidden: int, epochs: int, seed: int) -> Autoencoder:
    """Return a dense net of one hidden layer on each side."""
    return Autoencoder(
        architecture=Dense((hidden,), activation="silu"),
        latent_dim=latent_dim,
        corruption=corruption,
        epochs=epochs,
        random_state=seed,
        **DEFAULTS,
    )


def restored(model: Any, train: Floats, images: Floats) -> Floats:
    """Return image - restored image of a model that learns from ``train``: positive where too bright."""
    size = images.shape[1]
    model.fit(reduced(train, SIZE))
    small = reduced(images, SIZE)
    return enlarged(small - model.reconstruct(small).reshape(small.shape), size)


class Unscaled:
    """What takes images as they are, where an AnomalyMap asks how they are scaled."""

    _scaler = Scaler(None, np.zeros(1), np.ones(1))


class Components(Unscaled):
    """PCA with the two methods that are needed of an estimator."""

    def __init__(self, n: int, seed: int) -> None:
        self._pca = PCA(n, svd_solver="randomized", random_state=seed)

    def fit(self, images: Floats) -> None:
        """Learn from images (n, h, w)."""
        self._pca.fit(images.reshape(len(images), -1))

    def reconstruct(self, images: Floats) -> Floats:
        """Return the nearest images that the components can make."""
        flat = self._pca.inverse_transform(self._pca.transform(images.reshape(len(images), -1)))
        return flat.reshape(images.shape).astype(np.float32)


class Mean(Unscaled):
    """The same with the mean image."""

    def fit(self, images: Floats) -> None:
        """Learn from images (n, h, w)."""
        self._mean = images.mean(0, dtype=np.float32)

    def reconstruct(self, images: Floats) -> Floats:
        """Return the mean image for each."""
        return np.broadcast_to(self._mean, images.shape)


class OtherMap(AnomalyMap):
    """An AnomalyMap with something else in the net's place."""

    _other: Any = None

    def _estimator(self, default: Any, samples: Any, chance: Any) -> Any:
        return self._other


def aligned(seed: int, other: Any = None, **choices: Any) -> AnomalyMap:
    """Return an AnomalyMap of aligned images; ``other`` takes the net's place."""
    if other is None:
        return AnomalyMap(layout="aligned", random_state=seed, **choices)
    one = OtherMap(layout="aligned", random_state=seed, **choices)
    one._other = other
    return one


def moved(images: Floats, seed: int, copies: int = 4) -> Floats:
    """Return images, the same with left and right exchanged, and copies of both shifted by up to 4 pixels."""
    chance = np.random.default_rng(seed)
    both = np.concatenate([images, images[:, :, ::-1]])
    shifted = [
        np.stack([np.roll(image, chance.integers(-4, 5, 2), axis=(0, 1)) for image in both])
        for _ in range(copies)
    ]
    return np.concatenate([both, *shifted])


def flair_maps(slices: Slices, train: Floats, seed: int, quick: bool) -> dict[str, Callable[[], Floats]]:
    """Return what computes each method's map (n, h, w); ``train`` numbers the slices to learn from."""
    images, good = slices.images, slices.images[train]

    @functools.cache
    def smooth(name: str) -> Floats:
        """Return the image or a model's residual, smoothed. Kept: combinations share it."""
        if name == "intensity":
            maps = images
        elif name == "pca":
            maps = restored(Components(20, seed), good, images)
        elif name == "bottleneck":
            maps = restored(net(None, 32, 256, 5 if quick else 50, seed), good, images)
        else:
            model = net(GaussianNoise(1.0), 512, 1024, 1 if quick else 10, seed)
            maps = restored(model, moved(good, seed), images)
        return ndimage.median_filter(maps, size=(1, 5, 5))

    def asymmetry(name: str) -> Floats:
        """Return by how much a map is higher here than on the other side of the head."""
        maps = smooth(name)
        return ndimage.median_filter(maps - slices.mirrored(maps), size=(1, 3, 3))

    def both(one: Floats, other: Floats) -> Floats:
        """Return the lower of two maps, in standard deviations from the training slices' median."""
        inner = slices.depth[train] > INNER
        parts = [(m - np.median(m[train][inner])) / m[train][inner].std() for m in (one, other)]
        return np.minimum(*parts)

    def located(model: AnomalyMap) -> Floats:
        return np.asarray(model.fit(good, groups=slices.patient[train]).heatmap(images))

    own: dict[str, Any] = {"polarity": "bright", "symmetry": -1}
    return {
        "intensity": lambda: smooth("intensity"),
        "intensity and its asymmetry": lambda: both(smooth("intensity"), asymmetry("intensity")),
        "PCA-20, residual": lambda: smooth("pca"),
        "PCA-20, asymmetry of the residual": lambda: asymmetry("pca"),
        "autoencoder, bottleneck of 32, residual": lambda: smooth("bottleneck"),
        "denoising net, residual": lambda: smooth("denoising"),
        "denoising net, intensity and asymmetry of the residual": lambda: both(
            smooth("intensity"), asymmetry("denoising")
        ),
        "AnomalyMap, tiles": lambda: located(AnomalyMap(random_state=seed)),
        "AnomalyMap, aligned": lambda: located(aligned(seed)),
        "AnomalyMap, aligned, bright": lambda: located(aligned(seed, polarity="bright")),
        OURS: lambda: located(aligned(seed, **own)),
        "the same with PCA-20 in the net's place": lambda: located(
            aligned(seed, Components(20, seed), **own)
        ),
        "the same with the mean slice in its place": lambda: located(aligned(seed, Mean(), **own)),
    }


def best_dice(maps: Floats, masks: Floats) -> float:
    """Return the threshold with the best Dice over all pixels."""
    order = np.argsort(-maps.ravel(), kind="stable")
    hits = np.cumsum(masks.ravel()[order])
    dice = 2 * hits / (np.arange(1, len(hits) + 1) + masks.sum())
    return float(maps.ravel()[order[dice.argmax()]])


def parted(slices: Slices, seed: int) -> tuple[Floats, Floats, Floats]:
    """Return which slices are those of patients for training, validation and test."""
    patients = np.random.default_rng(0).permutation(np.unique(slices.patient))
    own, others = np.split(patients, 2)  # settings were chosen on the former
    chance = np.random.default_rng(seed + 1)
    others = chance.permutation(others)
    rest = chance.permutation(np.concatenate([own, others[15:]]))
    train, valid, test = (np.isin(slices.patient, p) for p in (rest[:24], rest[24:], others[:15]))
    return train & ~slices.tumour, valid, test


def flair(path: Path, seed: int, quick: bool, picture: Path) -> dict[str, dict[str, float]]:
    """Return Dice, average precision and seconds for each method; draw some of ours for the first seed."""
    slices = Slices(path)
    found: dict[str, dict[str, float]] = {}
    train, valid, test = parted(slices, seed)
    for name, compute in flair_maps(slices, np.flatnonzero(train), seed, quick).items():
        start = time.process_time()
        maps = compute()
        own = {"seconds": time.process_time() - start}
        for region, deep in (("inner", INNER), ("whole", -1.0)):
            seen = np.where(slices.depth > deep, maps, maps.min())
            threshold = best_dice(seen[valid], slices.masks[valid])
            truth = slices.masks[test]
            shown = seen[test] >= threshold
            own[f"{region} dice"] = float(2 * (shown & truth).sum() / (shown.sum() + truth.sum()))
            own[f"{region} ap"] = float(average_precision_score(truth.ravel(), seen[test].ravel()))
        found[name] = own
        print(f"flair {seed} {name}: {own['whole dice']:.3f} {own['inner dice']:.3f}", flush=True)
        if name == OURS and not seed:
            draw(slices, maps, test, threshold, picture)
    return found


def xray_scores(large: tuple[Floats, Floats], seed: int, quick: bool) -> dict[str, Callable[[], Floats]]:
    """Return what computes each method's score (n,), higher = less normal.

    ``large`` are pictures to learn from and to judge, twice the size of what rules and bare nets get.
    """
    train, images = (reduced(x, SIZE) for x in large)

    def residual(model: Any) -> Floats:
        model.fit(train)
        return np.square(images - model.reconstruct(images).reshape(images.shape)).mean((1, 2))

    def neighbours() -> Floats:
        index = NearestNeighbors(n_neighbors=5).fit(train.reshape(len(train), -1))
        return index.kneighbors(images.reshape(len(images), -1))[0].mean(1)

    epochs = 5 if quick else 150
    methods: dict[str, Callable[[], Floats]] = {
        "mean grey": lambda: images.mean((1, 2)),
        "KNN of pixels": neighbours,
        "PCA-50": lambda: residual(Components(min(50, len(train) - 1), seed)),
        "autoencoder, bottleneck of 32": lambda: residual(net(None, 32, 256, epochs, seed)),
        "denoising, white noise 0.5": lambda: residual(net(GaussianNoise(0.5), 512, 1024, epochs, seed)),
        "denoising, coarse noise 0.5 at 8 x 8": lambda: residual(
            net(CoarseNoise(0.5, 8), 512, 1024, epochs, seed)
        ),
    }
    maps = {
        "AnomalyMap, tiles": AnomalyMap(random_state=seed),
        "AnomalyMap, aligned": aligned(seed),
        "the same with PCA-50 in the net's place": aligned(seed, Components(50, seed)),
        "the same with the mean picture in its place": aligned(seed, Mean()),
    }
    for name, model in maps.items():
        methods[name] = lambda model=model: -model.fit(large[0]).score_samples(large[1])
    return methods


def xrays(path: Path, seed: int, quick: bool) -> dict[str, dict[str, float]]:
    """Return AUC, normal against pneumonia, and seconds for each method."""
    with np.load(path) as stored:
        images, labels = reduced(stored["images"], 2 * SIZE) / 255, stored["labels"]
    chance = np.random.default_rng(0)
    halves = [np.array_split(chance.permutation(np.flatnonzero(labels == kind)), 2) for kind in range(3)]
    own, others = (np.concatenate(half) for half in zip(*halves, strict=True))  # chosen on the former
    chance = np.random.default_rng(seed + 1)
    first, second = (chance.permutation(half[labels[half] == 0]) for half in (own, others))
    train = np.concatenate([first[:125], second[:125]])
    test = np.setdiff1d(others, train)
    found: dict[str, dict[str, float]] = {}
    for name, compute in xray_scores((images[train], images[test]), seed, quick).items():
        start = time.process_time()
        area = float(roc_auc_score(labels[test] != 0, compute()))
        found[name] = {"auc": area, "seconds": time.process_time() - start}
        print(f"x-rays {seed} {name}: {area:.3f}", flush=True)
    return found


def main() -> None:
    """Run all and write the two files."""
    home = Path(os.environ.get("DIABOLO_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="splits")
    parser.add_argument(
        "--quick", action="store_true", help="one split, short training: a trial of the script"
    )
    parser.add_argument("--data", type=Path, default=home / "medical")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the two files")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=diabolo.errors.CollapseWarning)
    warnings.filterwarnings("ignore", category=diabolo.errors.CalibrationWarning)
    seeds = 1 if options.quick else options.seeds
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for seed in range(seeds):
        parts = {
            "x-rays": xrays(options.data / "chest_xray_128.npz", seed, options.quick),
            "flair": flair(
                options.data / "lgg_flair_128.npz", seed, options.quick, options.output / "medical.png"
            ),
        }
        for part, methods in parts.items():
            for name, numbers in methods.items():
                own = found.setdefault(part, {}).setdefault(name, defaultdict(list))
                for key, value in numbers.items():
                    own[key].append(value)
        write(found, seed + 1, options, {"inner": INNER, "size of nets' input": SIZE, **DEFAULTS})


if __name__ == "__main__":
    main()
