"""The page of benchmarks/medical.py: its tables and its picture."""

from __future__ import annotations

import json
import statistics
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from kinds import processor

import diabolo

OURS = "AnomalyMap, aligned, bright, symmetric"
Floats = np.ndarray[Any, np.dtype[Any]]
Found = dict[str, dict[str, dict[str, list[float]]]]


def table(found: dict[str, dict[str, list[float]]], columns: list[str]) -> list[str]:
    """Return mean and standard deviation over the splits as lines of Markdown."""
    lines = ["| method | " + " | ".join(columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for name, numbers in found.items():
        cells = []
        for column in columns:
            mean, digits = statistics.fmean(numbers[column]), 1 if column == "seconds" else 3
            spread = statistics.stdev(numbers[column]) if len(numbers[column]) > 1 else 0.0
            cells.append(f"{mean:.{digits}f} ± {spread:.{digits}f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def draw(slices: Any, maps: Floats, test: Floats, threshold: float, path: Path) -> None:
    """Draw slices chosen by lot, with the true outline and that of the map at its threshold."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    chance = np.random.default_rng(0)
    chosen = [
        chance.permutation(np.flatnonzero(test & (slices.tumour == x)))[:n] for x, n in ((1, 12), (0, 4))
    ]
    figure, axes = plt.subplots(2, 8, figsize=(13, 3.6), constrained_layout=True)
    for axis, i in zip(axes.ravel(), np.concatenate(chosen), strict=True):
        axis.imshow(slices.images[i], cmap="gray", vmin=0, vmax=2)
        axis.imshow(maps[i], cmap="inferno", vmin=0, vmax=2 * threshold, alpha=0.4)
        for level, colour, values in ((threshold, "cyan", maps[i]), (0.5, "lime", slices.masks[i])):
            if values.min() < level <= values.max():
                axis.contour(values, [level], colors=colour, linewidths=0.9)
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def write(found: Found, seeds: int, options: Any, about: dict[str, Any]) -> None:
    """Write the page and its numbers; ``about`` are settings to be told in the latter."""
    settings = {
        "seeds": list(range(seeds)),
        "quick": options.quick,
        **about,
        "threads": torch.get_num_threads(),
        "hardware": processor(),
        "versions": {m.__name__: m.__version__ for m in (diabolo, torch, np, scipy, sklearn)},
        "date": date.today().isoformat(),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"settings": settings, "results": found}, indent=1)
    (options.output / "medical.json").write_text(content + "\n")
    command = "--quick" if options.quick else f"--seeds {seeds}"
    page = [
        "# Medical images",
        "",
        f"Made by `python benchmarks/medical.py {command}`: mean ± standard deviation over splits. Seconds",
        "are of the processor, on a shared machine. No medical device: a comparison on two public data sets.",
        "",
        f"- hardware: {processor()}, {torch.get_num_threads()} threads, no GPU",
        "- versions: " + ", ".join(f"{k} {v}" for k, v in settings["versions"].items()),
        f"- date: {settings['date']}",
        "",
        "Settings of `AnomalyMap` were chosen on one half of the patients and of the x-rays; all test images",
        "are of the other half, whose rest, with the first half, trains and validates.",
        "",
        "## FLAIR: pixels of tumours, by maps that learned from slices without one",
        "",
        "Dice at the threshold chosen on validation patients, and average precision, on test patients; on",
        "whole slices, and on the inner head, where the bright scalp is out of the question. Asymmetry: the",
        "map minus that of the other side of the head. A and B: the lower of the two. Such rows use a net",
        "of a row above, whose seconds are not counted again. Everybody gets slices in units of their own",
        "brain, and those of rows with asymmetry but for `AnomalyMap` the head's middle, too.",
        "",
        *table(found["flair"], ["whole dice", "whole ap", "inner dice", "inner ap", "seconds"]),
        "",
        "What helps is the map's way of comparing. Whether a net, 20 principal components or the mean slice",
        "stands for the restored picture matters little here, and the net is not the best of the three; on",
        "x-rays it is. Without `polarity` an aligned map is worse than the intensity: dark places count too.",
        "In a first run the map was the lower of its parts instead of their mean (whole slice .447, inner",
        "head .542 with symmetry). The mean was chosen by figures of the development patients, but while",
        "that run was on: some of its figures had been seen.",
        "",
        "![maps](medical.png)",
        "",
        f'Test slices of seed 0, drawn by lot, the last four without tumour: the map of "{OURS}", its',
        "mask (blue) at the threshold of the whole slice, and the tumour as it was drawn by hand (green).",
        "",
        "## Chest x-rays: normal against pneumonia, trained on normal ones",
        "",
        *table(found["x-rays"], ["auc", "seconds"]),
    ]
    (options.output / "medical.md").write_text("\n".join(page) + "\n")
