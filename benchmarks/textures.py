"""AnomalyMap on a few small pictures of made textures: masks, maps and false alarms, beside simple rules.

    python benchmarks/textures.py --sizes 32 64 --pictures 24

writes ``benchmarks/results/textures.md``: four textures, each with four kinds of defects planted in it. All
contestants see good pictures only. How errors are smoothed, and what too small ones count, was chosen on such
textures, other draws of them, and on magnetic tiles for development: the figures are kind to AnomalyMap.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from maps import PcaMap, score_of
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from diabolo.applications import AnomalyMap
from diabolo.errors import CalibrationWarning

TEXTURES = ("stripes", "noise", "blobs", "gradient")
DEFECTS = ("square", "scratch", "missing texture", "blur")
GOOD, BAD = 40, 6  # fresh pictures, and spoiled ones of each kind
RATE = 0.01


def picture(kind: str, size: int, colour: bool, chance: np.random.Generator) -> np.ndarray:
    """Return a good picture, (size, size) or (3, size, size), in [0, 1]."""
    y, x = np.mgrid[:size, :size] - size / 2
    if kind == "stripes":
        angle, phase = chance.normal(0.5, 0.05), chance.uniform(0, 2 * np.pi)
        base = 0.5 + 0.25 * np.sin(np.pi / 4 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        base += chance.normal(0, 0.03, base.shape)
    elif kind == "noise":
        base = 0.5 + 2 * ndimage.gaussian_filter(chance.normal(0, 0.1, (size, size)), 0.8)
    elif kind == "blobs":
        smooth = ndimage.gaussian_filter(chance.normal(size=(size, size)), 3, mode="wrap")
        base = 0.5 + 0.3 * np.tanh(2 * smooth / smooth.std()) + chance.normal(0, 0.03, smooth.shape)
    else:
        angle = chance.uniform(0, 2 * np.pi)
        base = 0.5 + 0.3 * (x * np.cos(angle) + y * np.sin(angle)) / size
        base += chance.normal(0, 0.02, base.shape)
    if colour:
        base = base * np.array([1, 0.8, 0.6])[:, None, None] + chance.normal(0, 0.01, (3, size, size))
    return np.clip(base, 0, 1).astype(np.float32)


def spoiled(good: np.ndarray, defect: str, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture with a defect about an eighth as wide, and where that is."""
    size = good.shape[-1]
    width = max(5, size // 8)
    y, x = np.mgrid[:size, :size]
    centre = chance.uniform(width, size - width, 2)
    dy, dx = y - centre[0], x - centre[1]
    if defect == "square":
        mask = np.maximum(np.abs(dy), np.abs(dx)) < width / 2
    elif defect == "scratch":
        angle = chance.uniform(0, np.pi)
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        mask = (np.abs(along) < size / 6) & (np.abs(across) < 1)
    else:
        mask = dy**2 + dx**2 < (0.75 * width) ** 2
    level = 0.95 if chance.random() < 0.5 else 0.05
    out = good.copy().reshape(-1, size, size)
    for channel in out:
        if defect == "blur":
            channel[mask] = ndimage.gaussian_filter(channel, 2)[mask]
        else:
            channel[mask] = channel[mask].mean() if defect == "missing texture" else level
    return out.reshape(good.shape), mask


class PlainMap:
    """No net: how far a pixel, smoothed, is from the mean over training pictures, in standard deviations."""

    def fit(self, images: list[np.ndarray]) -> PlainMap:
        """Learn mean and deviation of each pixel; thresholds as AnomalyMap's, from a fifth held out."""
        k = max(1, len(images) // 5)
        smooth = np.stack([self._smooth(image) for image in images])
        self.mean, self.deviation = smooth[k:].mean(0), smooth[k:].std(0) + 1e-6
        held_out = list(self.heatmaps(images[:k]))
        self.pixel_threshold_ = float(np.quantile(np.ravel(held_out), 1 - RATE))
        self.threshold_ = max(score_of(heat) for heat in held_out)
        return self

    def _smooth(self, image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, [0] * (image.ndim - 2) + [1, 1])

    def heatmaps(self, images: list[np.ndarray]) -> Any:
        """Return the maps one by one."""
        for image in images:
            far = np.abs(self._smooth(image) - self.mean) / self.deviation
            yield far if far.ndim == 2 else far.mean(0)


CONTESTANTS: dict[str, Callable[[], Any]] = {
    "AnomalyMap": lambda: AnomalyMap(random_state=0),
    "PCA, 32 components, same tiles": lambda: PcaMap(random_state=0),
    "deviation from the mean picture": PlainMap,
}


def run(make: Callable[[], Any], kind: str, size: int, colour: bool, n: int) -> dict[str, list[float]]:
    """Fit to n pictures; return the figures of each defect, and of good pictures."""
    chance = np.random.default_rng([size, n, TEXTURES.index(kind), int(colour)])
    training = [picture(kind, size, colour, chance) for _ in range(n)]
    fresh = [picture(kind, size, colour, chance) for _ in range(GOOD)]
    one = make().fit(training)
    good = list(one.heatmaps(fresh))
    scores = [score_of(heat) for heat in good]
    out = {
        "good": [
            100 * float(np.mean([heat > one.pixel_threshold_ for heat in good])),
            100 * float(np.mean(np.array(scores) > one.threshold_)),
        ]
    }
    for defect in DEFECTS:
        pairs = [spoiled(picture(kind, size, colour, chance), defect, chance) for _ in range(BAD)]
        maps, masks = list(one.heatmaps([image for image, _ in pairs])), [mask for _, mask in pairs]
        shown = [heat > one.pixel_threshold_ for heat in maps]
        own = [score_of(heat) for heat in maps]
        out[defect] = [
            100 * float(roc_auc_score(np.ravel(masks), np.ravel(maps))),
            100 * float(np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(shown, masks, strict=True)])),
            float(np.mean([a.sum() / b.sum() for a, b in zip(shown, masks, strict=True)])),
            100 * float(roc_auc_score([0] * GOOD + [1] * BAD, scores + own)),
            100 * float(np.mean(np.array(own) > one.threshold_)),
        ]
    return out


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--colour", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CalibrationWarning)
    found: dict[str, list[dict[str, list[float]]]] = {}
    for name, make in CONTESTANTS.items():
        for size in given.sizes:
            for kind in TEXTURES:
                found.setdefault(name, []).append(run(make, kind, size, given.colour, given.pictures))
                print(name, size, kind, found[name][-1], flush=True)
    sizes = " ".join(str(size) for size in given.sizes)
    command = f"python benchmarks/textures.py --sizes {sizes} --pictures {given.pictures}"
    lines = ["# Maps of defects planted in made textures", ""]
    lines += [f"Made by `{command + ' --colour' * given.colour}`: means over {', '.join(TEXTURES)}.", ""]
    lines += [
        "Pixel and image: areas under ROC curves in per cent. IoU: of the mask at the default threshold"
    ]
    lines += [
        "with the defect, in per cent; area: of that mask, in areas of the defect, which would be 1. Found:"
    ]
    lines += ["pictures flagged at the default threshold, in per cent. How errors are smoothed, and what too"]
    lines += [
        "small ones count, was chosen on other draws of these textures: the figures are kind to AnomalyMap.",
        "",
    ]
    head = ["defect", "method", "pixel", "IoU", "area", "image", "found"]
    lines += ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * 5]
    for defect in DEFECTS:
        for name, runs in found.items():
            means = np.mean([one[defect] for one in runs], axis=0)
            lines += [f"| {defect} | {name} | " + " | ".join(f"{value:.1f}" for value in means) + " |"]
    lines += ["", "Fresh good pictures at a promised rate of 1 %, in per cent:", ""]
    lines += ["| method | pixels flagged | pictures flagged |", "|---|---:|---:|"]
    for name, runs in found.items():
        pixels, images = np.mean([one["good"] for one in runs], axis=0)
        lines += [f"| {name} | {pixels:.1f} | {images:.1f} |"]
    (Path(__file__).parent / "results" / "textures.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
