"""The report of a detector: what it flagged, how sure that is, why, and how it does beside PCA and KNN."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.applications.ensemble import shares
from diabolo.report import detection_plots as plots
from diabolo.report.compare import format_value
from diabolo.report.page import write_page
from diabolo.report.pictures import SampleView, labelled_rows, montage, to_pixels
from diabolo.report.plots import short
from diabolo.report.theme import cards, figure, percent, section, table
from diabolo.report.verdicts import Judged, by_column, one_sided

Array = NDArray[Any]

_FEATURES = 6  # named of each row
_KINDS = {
    "shuffled": "each value is normal, their combination is not",
    "shifted": "a quarter of the values lie 2 to 4 standard deviations off",
}
_CHOSEN = ("false_alarm_rate", "calibration_fraction", "trim", "remember", "whitening", "random_state")
_SECTIONS = (
    ("surprises", "Surprises"),
    ("labels", "Against the labels"),
    ("rivals", "Beside PCA and KNN"),
    ("rows", "The most anomalous rows"),
    ("members", "Members and settings"),
)


def write_detection_report(
    directory: str | os.PathLike[str],
    *,
    title: str,
    detector: Any,
    judged: Judged,
    command: str | None = None,
) -> Path:
    """Write ``index.html`` into ``directory`` and return its path; the page loads nothing.

    Parameters
    ----------
    directory : path
        Made where it does not exist; an ``index.html`` in it is replaced.
    title : str
        Heading of the page.
    detector : AnomalyDetector
        Fitted.
    judged : Judged
        The rows that it has judged, at least one, with their labels where these are known.
    command : str or None, default=None
        How the report was made, shown at its foot.

    Raises
    ------
    MissingExtraError
        Where matplotlib or pillow is not installed.
    """
    bodies = {
        "surprises": _surprises(detector, judged),
        "labels": _labels(judged),
        "rivals": _rivals(detector, judged),
        "rows": _rows(detector, judged),
        "members": _members(detector),
    }
    body = _headline(detector, judged)
    body += "\n".join(section(key, name, bodies[key]) for key, name in _SECTIONS)
    shape = " × ".join(str(extent) for extent in detector.sample_shape_)
    return write_page(
        directory,
        title=title,
        subtitle=f"{type(detector).__name__}; rows of {shape} values; judged: {judged.told}.",
        links=_SECTIONS,
        body=body,
        command=command,
    )


def _headline(detector: Any, judged: Judged) -> str:
    scores = detector.calibration_.scores
    values = [
        ("Flagged", f"{judged.flagged:,}", f"of {judged.n:,} rows, {percent(judged.flagged / judged.n)}"),
        ("Threshold", format_value(detector.threshold_), "surprise; 1 is typical of a normal row"),
        (
            "Held-out rows beyond",
            percent(float((scores > detector.threshold_).mean())),
            f"of {len(scores):,} that the weights had not seen",
        ),
    ]
    found = judged.measures()
    if found is not None and found["auc_roc"] is not None:
        values += [
            (
                "Area under ROC",
                format_value(found["auc_roc"], "fixed"),
                "1 perfect, 0.5 chance; by the labels",
            ),
            ("Average precision", format_value(found["average_precision"], "fixed"), "by the labels"),
        ]
    else:
        seen = detector.comparison_["diabolo"]
        values += [
            (f"{name.capitalize()} anomalies", format_value(area, "fixed"), "area under ROC, planted ones")
            for name, area in seen.items()
        ]
    return cards(values)


def _surprises(detector: Any, judged: Judged) -> str:
    every = judged.all_surprises
    if judged.truth is None:
        groups = {"rows judged": every}
    else:
        groups = {"labelled normal": every[~judged.truth], "labelled anomalies": every[judged.truth]}
    told = (
        "Share of the rows in each bin. The threshold comes from the held-out rows alone; normal rows that "
        "are new should lie as these do."
    )
    if judged.truth is None and len(every) < judged.n:
        told += f" {len(every):,} of the {judged.n:,} rows judged are drawn."
    return figure(plots.surprises(detector.calibration_.scores, groups, detector.threshold_), told)


def _labels(judged: Judged) -> str:
    found = judged.measures()
    if found is None or judged.truth is None:
        return ""
    said = one_sided(found)
    if said is not None:
        kept = [
            f"{percent(found[key])} of the {what} are flagged."
            for key, what in (("false_alarm_rate", "normal rows"), ("recall", "anomalies"))
            if found[key] is not None
        ]
        return f"<p>{escape(said)} {escape(' '.join(kept))}</p>"
    scores = {"this detector": judged.all_surprises, **judged.by_rivals}
    svg = plots.curves(judged.truth, scores, (found["false_alarm_rate"], found["recall"]))
    told = (
        f"{found['n_anomalies']:,} labelled anomalies and {found['n_normal']:,} normal rows. At the threshold"
        f" {percent(found['recall'])} of the anomalies are found, and {percent(found['false_alarm_rate'])}"
        " of the normal rows flagged."
    )
    return figure(svg, told)


def _rivals(detector: Any, judged: Judged) -> str:
    planted: Mapping[str, Mapping[str, float]] = detector.comparison_
    kinds = list(planted["diabolo"])
    found = judged.comparison()
    both = bool(found) and found["diabolo"]["auc_roc"] is not None
    head = ["area under the ROC curve", *(f"planted, {kind}" for kind in kinds)]
    if both:
        head += ["labelled", "labelled: average precision"]
    names = {"diabolo": "this detector", "PCA": "PCA", "KNN": "KNN"}
    numbers = []
    for name in names:
        row: list[float | None] = [planted[name][kind] for kind in kinds]
        if both:
            areas = found.get(name, {})
            row += [areas.get("auc_roc"), areas.get("average_precision")]
        numbers.append(row)
    marks = {(i + 1, 0): "baseline" for i in range(len(numbers) - 1)}
    for j in range(len(head) - 1):
        column = [row[j] for row in numbers]
        best = max(value for value in column if value is not None)
        marks |= {(i, j + 1): "best" for i, value in enumerate(column) if value == best}
    lines = [
        [shown, *("–" if value is None else f"{value:.3f}" for value in row)]
        for shown, row in zip(names.values(), numbers, strict=True)
    ]
    told = "Planted anomalies are made of held-out rows: " + "; ".join(
        f"{kind}, {_KINDS[kind]}" for kind in kinds if kind in _KINDS
    )
    told += ". PCA scores by the Mahalanobis distance in its components, KNN by the distance to the fifth "
    told += "neighbour, both of standardised features and fitted on the same training rows (4,096 at most)."
    if both and not judged.by_rivals:
        told += " The detector's file does not hold these rows, so that only it is judged by the labels."
    return table(head, lines, marked=marks) + f'<p class="quiet">{escape(told)}</p>'


# ------------------------------------------------------------------------------------------------ rows
def _rows(detector: Any, judged: Judged) -> str:
    rows = judged.rows
    if rows is None:
        return ""
    parts = by_column(detector, shares(detector.voters, rows))
    p_values = detector.calibration_.p_value(judged.surprises)
    titles = []
    for i, (number, surprise, p) in enumerate(zip(judged.numbers, judged.surprises, p_values, strict=True)):
        title = f"row {number}: surprise {format_value(float(surprise))}, p = {p:.2g}"
        if judged.top_truth is not None:
            title += ", labelled anomaly" if judged.top_truth[i] else ", labelled normal"
        titles.append(title)
    view = SampleView.of(detector.sample_shape_)
    if view.kind == "image":
        return _images(view, rows, parts, titles)
    if view.kind == "signal":
        svg = plots.signal_explanations(titles, view.arrange(rows)[:, 0], view.arrange(parts).sum(1))
        return figure(svg, "First channel; shaded where the surprise comes from.")
    names = [str(name) for name in getattr(detector, "feature_names_in_", [])]
    names = names or [f"x{k}" for k in range(rows.shape[1])]
    panels = []
    shown = rows if judged.cells is None else judged.cells(judged.numbers)
    for values, part in zip(shown, parts, strict=True):
        order = np.argsort(-part, kind="stable")[:_FEATURES]
        total = float(part.sum()) or 1.0
        panels.append([(names[k], _cell(values[k]), float(part[k]) / total) for k in order])
    told = (
        "Each feature's share of the row's surprise, the largest ones; in grey its value. Rows count from 0."
    )
    return figure(plots.explanations(titles, panels), told)


def _cell(value: Any) -> str:
    """Return the value of a feature as a person reads it."""
    if value is None or value != value:
        return "missing"
    if isinstance(value, (str, bool, np.bool_)):
        return short(str(value), 20)
    return format_value(float(value))


def _images(view: SampleView, rows: Array, parts: Array, titles: list[str]) -> str:
    images, told_by = view.arrange(rows), view.arrange(parts).sum(1, keepdims=True)
    low, high = float(images.min()), float(images.max())
    largest = told_by.reshape(len(told_by), -1).max(1).reshape(-1, 1, 1, 1)
    strength = told_by / np.where(largest > 0, largest, 1.0)
    tiles = to_pixels(images, low, high)
    heat = to_pixels(np.repeat(images.mean(1, keepdims=True), 3, axis=1), low, high).astype(np.float64)
    weight = np.sqrt(strength).transpose(0, 2, 3, 1)
    heat[..., :3] = (1 - weight) * heat[..., :3] + weight * np.array([235.0, 60.0, 20.0])
    told = f"Below each image, in red, where its surprise comes from. {view.remark}".rstrip()
    columns = len(rows)
    strips = [
        ("image", montage(tiles, columns, "the most anomalous images")),
        ("why", montage(np.round(heat).astype(np.uint8), columns, "where their surprise comes from")),
    ]
    listed = "".join(f"<li>{escape(title)}</li>" for title in titles)
    return figure(labelled_rows(strips), told) + f"<ol>{listed}</ol>"


# --------------------------------------------------------------------------------------------- settings
def _members(detector: Any) -> str:
    lines = []
    for fold, members in enumerate(detector.members_):
        for member in members:
            estimator = member.estimator
            epochs = len(estimator.history_.rows)
            lines.append(
                [
                    f"{type(estimator).__name__}, {estimator.recipe_.corruption or 'no corruption'}",
                    *([str(fold + 1)] if len(detector.members_) > 1 else []),
                    f"{estimator.n_parameters_:,}",
                    f"{epochs:,}",
                    format_value(float(member.typical)),
                ]
            )
    for fold, memory in enumerate(detector.memories_):
        lines.append(
            [
                f"the nearest of {len(memory.rows):,} remembered rows",
                *([str(fold + 1)] if len(detector.members_) > 1 else []),
                *("–" * 2),
                format_value(float(memory.typical)),
            ]
        )
    folds = ["fold"] if len(detector.members_) > 1 else []
    body = table(["member", *folds, "parameters", "epochs", "typical error"], lines)
    chosen = [(name.replace("_", " "), _setting(getattr(detector, name))) for name in _CHOSEN]
    return body + "<h4>Settings</h4>" + table(("setting", "value"), chosen, kind="plain")


def _setting(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
