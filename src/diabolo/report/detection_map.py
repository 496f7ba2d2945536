"""The report of a map of anomalies: scores beside the threshold, and the most anomalous images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.report import detection_plots as plots
from diabolo.report.compare import format_value
from diabolo.report.page import write_page
from diabolo.report.pictures import picture
from diabolo.report.theme import cards, figure, percent, section, table
from diabolo.report.verdicts import measured, one_sided

Doubles = NDArray[np.float64]

_SECTIONS = (
    ("scores", "Scores"),
    ("labels", "Against the labels"),
    ("images", "The most anomalous images"),
    ("map", "The map"),
)


@dataclass(frozen=True)
class Looked:
    """What was found in one image: its line in words, and itself without and with its heat map.

    Both pictures are (height, width, 3), 8 bits.
    """

    name: str
    score: float
    p_value: float
    area: int
    n_regions: int
    plain: NDArray[np.uint8]
    overlay: NDArray[np.uint8]
    is_anomaly: bool | None = None


def write_map_report(
    directory: str | os.PathLike[str],
    *,
    title: str,
    fitted: Any,
    level: float,
    told: str,
    scores: Doubles,
    most: Sequence[Looked],
    truth: NDArray[np.bool_] | None = None,
    settings: Sequence[tuple[str, str]] = (),
    command: str | None = None,
) -> Path:
    """Write ``index.html`` into ``directory`` and return its path; the page loads nothing.

    Parameters
    ----------
    directory : path
        Made where it does not exist; an ``index.html`` in it is replaced.
    title : str
        Heading of the page.
    fitted : AnomalyMap
    level : float
        The value of the heat map beyond which pixels are in the mask.
    told : str
        Which images these are, in words.
    scores : ndarray (n,)
        Of all images, higher = more anomalous.
    most : sequence of Looked
        The images to show, the most anomalous first.
    truth : ndarray of bool (n,), optional
        True for images that are labelled anomalies.
    settings : sequence of (name, value)
        What is said of the map.
    command : str or None, default=None
        How the report was made, shown at its foot.

    Raises
    ------
    MissingExtraError
        Where matplotlib or pillow is not installed.
    """
    bodies = {
        "scores": _scores(fitted, scores, truth),
        "labels": _labels(fitted, scores, truth),
        "images": _images(fitted, most, level),
        "map": table(("setting", "value"), settings, kind="plain") if settings else "",
    }
    body = _headline(fitted, scores, truth)
    body += "\n".join(section(key, name, bodies[key]) for key, name in _SECTIONS)
    return write_page(
        directory,
        title=title,
        subtitle=f"{type(fitted).__name__}; judged: {told}.",
        links=_SECTIONS,
        body=body,
        command=command,
    )


def _headline(fitted: Any, scores: Doubles, truth: NDArray[np.bool_] | None) -> str:
    held_out = fitted.calibration_.scores
    flagged = int((scores > fitted.threshold_).sum())
    values = [
        ("Flagged", f"{flagged:,}", f"of {len(scores):,} images, {percent(flagged / len(scores))}"),
        ("Threshold", format_value(fitted.threshold_), "score of an image"),
        (
            "Held-out images beyond",
            percent(float((held_out > fitted.threshold_).mean())),
            f"of {len(held_out):,} good ones that the weights had not seen",
        ),
    ]
    if truth is not None and 0 < truth.sum() < len(truth):
        found = measured(truth, scores, fitted.threshold_)
        values += [
            ("Area under ROC", format_value(found["auc_roc"], "fixed"), "1 perfect, 0.5 chance"),
            ("Average precision", format_value(found["average_precision"], "fixed"), "by the labels"),
        ]
    return cards(values)


def _scores(fitted: Any, scores: Doubles, truth: NDArray[np.bool_] | None) -> str:
    if truth is None:
        groups = {"images judged": scores}
    else:
        groups = {"labelled normal": scores[~truth], "labelled anomalies": scores[truth]}
    held_out = fitted.calibration_.scores
    part = "hundredth" if fitted.size_ is None else "tenth"
    told = (
        f"Share of the images in each bin. An image's score is the mean of the highest {part} of its heat "
        f"map. The threshold comes from the {len(held_out):,} held-out images alone; good images that are "
        "new should lie as these do."
    )
    return figure(plots.scores_of_images(held_out, groups, fitted.threshold_), told)


def _labels(fitted: Any, scores: Doubles, truth: NDArray[np.bool_] | None) -> str:
    if truth is None:
        return ""
    found = measured(truth, scores, fitted.threshold_)
    said = one_sided(found, "images")
    if said is not None:
        return f"<p>{escape(said)}</p>"
    svg = plots.curves(
        truth, {"this map": scores}, (found["false_alarm_rate"], found["recall"]), what="images"
    )
    told = (
        f"{found['n_anomalies']:,} labelled anomalies and {found['n_normal']:,} normal images. At the "
        f"threshold {percent(found['recall'])} of the anomalies are found, and "
        f"{percent(found['false_alarm_rate'])} of the normal images flagged."
    )
    return figure(svg, told)


def _images(fitted: Any, most: Sequence[Looked], level: float) -> str:
    shown = []
    for one in most:
        words = f"score {format_value(one.score)}, p = {one.p_value:.2g}"
        words += ", flagged" if one.score > fitted.threshold_ else ", not flagged"
        if one.is_anomaly is not None:
            words += ", labelled anomaly" if one.is_anomaly else ", labelled normal"
        areas = (
            "no area" if not one.n_regions else "1 area" if one.n_regions == 1 else f"{one.n_regions} areas"
        )
        words += f"; {areas} beyond {format_value(level)}, {one.area:,} pixels"
        pair = "".join(
            f'<div style="flex:1;min-width:0">{picture(pixels, f"{one.name}, {what}")}</div>'
            for pixels, what in ((one.plain, "the image"), (one.overlay, "where it is unlike the good ones"))
        )
        shown.append(figure(f'<div style="display:flex;gap:.5rem">{pair}</div>', f"{one.name}: {words}"))
    told = (
        "Each image beside itself with its heat map: red begins at half of the pixels' threshold, and the "
        "yellow line is the edge of the mask. The p-value is the share of good images that would look at "
        "least so anomalous."
    )
    return f'<div class="pair">{"".join(shown)}</div><p class="quiet">{escape(told)}</p>'
