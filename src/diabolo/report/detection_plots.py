"""What a detector's report draws: surprises beside the threshold, curves, features that tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.report.plots import canvas, legend_above, plain_ticks, short
from diabolo.report.theme import INK, MUTED, SERIES

Floats = NDArray[np.floating[Any]]
_BINS = 44
_WIDTH = 145  # per cent: a full bar, its share and the value beside it
_NORMAL, _ANOMALY, _HELD_OUT = SERIES[0], SERIES[1], MUTED


def surprises(held_out: Floats, groups: Mapping[str, Floats], threshold: float) -> str:
    """Draw the distribution of the held-out rows' surprises and those of other rows, each of area 1.

    ``groups`` are the other rows by name: one group, or normal rows and then anomalies.
    """
    every = np.concatenate([held_out, *groups.values(), [threshold]])
    every = every[np.isfinite(every) & (every > 0)]
    low, high = float(every.min()), float(every.max())
    if not high > low:
        low, high = low / 2, high * 2
    edges = np.geomspace(low, high * (1 + 1e-9), _BINS)
    with canvas(960, 330, "histogram of surprises") as (drawing, out):
        axes = drawing.add_subplot()
        _histogram(axes, edges, held_out, groups, threshold, "rows")
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        axes.set_xlabel("surprise of a row; 1 is typical of a normal one")
    return out[0]


def scores_of_images(held_out: Floats, groups: Mapping[str, Floats], threshold: float) -> str:
    """Draw the same of the scores of images, which may be negative."""
    every = np.concatenate([held_out, *groups.values(), [threshold]])
    low, high = float(every.min()), float(every.max())
    if not high > low:
        low, high = low - 1, high + 1
    with canvas(960, 330, "histogram of scores") as (drawing, out):
        axes = drawing.add_subplot()
        _histogram(axes, np.linspace(low, high, _BINS), held_out, groups, threshold, "images")
        axes.set_xlabel("score of an image")
    return out[0]


def _histogram(
    axes: Any, edges: Floats, held_out: Floats, groups: Mapping[str, Floats], threshold: float, what: str
) -> None:
    for (name, values), color in zip(groups.items(), (_NORMAL, _ANOMALY), strict=False):
        if len(values):
            axes.hist(values, bins=edges, weights=_shares(values), color=color, alpha=0.5, label=name)
    look = {"histtype": "step", "linewidth": 1.8, "color": _HELD_OUT}
    axes.hist(held_out, bins=edges, weights=_shares(held_out), label=f"held-out {what} of the fit", **look)
    axes.axvline(threshold, color=INK, linewidth=1.4, linestyle=(0, (4, 3)), label="threshold")
    axes.set_ylabel(f"{what} of a bin, %")
    legend_above(axes)


def _shares(values: Floats) -> Floats:
    return np.full(len(values), 100.0 / max(1, len(values)))


def curves(
    truth: NDArray[np.bool_], scores: Mapping[str, Floats], mark: tuple[float, float], what: str = "rows"
) -> str:
    """Draw ROC and precision-recall curves.

    Parameters
    ----------
    truth : ndarray of bool (n,)
        True for anomalies; both kinds are there.
    scores : mapping of str to ndarray (n,)
        Higher = more anomalous, by detector, ours first.
    mark : tuple of float
        Share of normal rows and of anomalies that ours flags at its threshold.
    what : str
        Is judged, for the axes.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    colors = [SERIES[0], *([MUTED] if len(scores) == 2 else [SERIES[1], SERIES[2]])]
    with canvas(960, 400, "ROC and precision-recall curves") as (drawing, out):
        left, right = drawing.add_subplot(1, 2, 1), drawing.add_subplot(1, 2, 2)
        for (name, score), color in zip(scores.items(), colors, strict=False):
            look = {"color": color, "label": name, "linewidth": 2.2 if color == SERIES[0] else 1.3}
            false, true, _ = roc_curve(truth, score)
            left.plot(false, true, **look)
            precision, recall, _ = precision_recall_curve(truth, score)
            right.step(recall, precision, where="post", **look)
        false_alarms, found = mark
        flagged = false_alarms * (~truth).sum() + found * truth.sum()
        left.plot([false_alarms], [found], "o", color=INK, markersize=6, label="at the threshold")
        if flagged:
            right.plot([found], [found * truth.sum() / flagged], "o", color=INK, markersize=6)
        left.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        right.axhline(truth.mean(), color=MUTED, linewidth=1, linestyle=(0, (3, 3)), label="by chance")
        left.set_xlabel(f"share of normal {what} flagged")
        left.set_ylabel("share of anomalies found")
        right.set_xlabel("share of anomalies found")
        right.set_ylabel(f"share of flagged {what} that are anomalies")
        for axes, title in ((left, "ROC"), (right, "precision and recall")):
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.04)
            axes.set_title(title)
        legend_above(left, right)
    return out[0]


def explanations(titles: Sequence[str], panels: Sequence[Sequence[tuple[str, str, float]]]) -> str:
    """Draw for each row the features that tell most.

    ``panels`` hold (feature, its value in words, its share of the surprise in [0, 1]), largest first.
    """
    columns = 2
    lines = math.ceil(len(panels) / columns)
    most = max(len(panel) for panel in panels)
    with canvas(960, 30 + lines * (58 + 21 * most), "features that tell most of each row") as (drawing, out):
        for i, (title, panel) in enumerate(zip(titles, panels, strict=True)):
            axes = drawing.add_subplot(lines, columns, i + 1)
            y = np.arange(len(panel))
            axes.barh(y, [100 * share for _, _, share in panel], color=_ANOMALY, height=0.62, alpha=0.8)
            for k, (_, value, share) in enumerate(panel):
                axes.text(100 * share + 1.2, k, f"{100 * share:.0f} %", va="center", fontsize=10, color=INK)
                axes.text(_WIDTH, k, value, va="center", ha="right", fontsize=10, color=MUTED)
            axes.set_yticks(y, [short(name, 26) for name, _, _ in panel])
            axes.set_ylim(most - 0.4, -0.6)
            axes.set_xlim(0, _WIDTH)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
            axes.grid(visible=False)
            axes.set_title(title, fontsize=11)
    return out[0]


def signal_explanations(titles: Sequence[str], values: Floats, parts: Floats) -> str:
    """Draw signals (n, length), shaded where the surprise (parts of it (n, length)) comes from."""
    lines = math.ceil(len(titles) / 2)
    with canvas(960, 50 + 130 * lines, "the most surprising signals") as (drawing, out):
        for i, title in enumerate(titles):
            axes = drawing.add_subplot(lines, 2, i + 1)
            where = np.arange(values.shape[1])
            low, high = float(values[i].min()), float(values[i].max())
            height = parts[i] / (parts[i].max() or 1.0) * (high - low)
            axes.fill_between(where, low, low + height, color=_ANOMALY, alpha=0.35, linewidth=0, step="mid")
            axes.plot(where, values[i], color=_NORMAL, linewidth=1.4)
            axes.margins(x=0.01)
            axes.set_title(title, fontsize=10, color=MUTED)
    return out[0]
