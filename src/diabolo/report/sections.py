"""The sections of the report on one estimator: each a function from a study to HTML.

What concerns the learned code and the weights stands in ``learned.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo import metrics
from diabolo.errors import DiaboloError
from diabolo.report import plots
from diabolo.report.compare import format_value
from diabolo.report.pictures import labelled_rows, montage, to_pixels, to_signed_pixels
from diabolo.report.study import MOST_POINTS, Study
from diabolo.report.theme import cards, details, figure, number, table

MOST_FEATURES = 24


def headline(study: Study) -> str:
    """Return the numbers one wants to know first."""
    error, pca = float(study.errors.mean()), float(study.pca_errors.mean())
    values = [
        ("Test error", format_value(error), "squared error of a sample"),
        ("R²", format_value(study.r2, "fixed"), "1 perfect, 0 the mean sample"),
    ]
    if study.view.kind == "image":
        low, high = study.bed.limits
        value = metrics.psnr(study.bed.x, study.restored, (high - low) or 1.0)
        values.append(("PSNR", f"{value:.1f} dB", "peak signal over error"))
    if pca > 1e-4 * float(study.bed.mean_errors.mean()):
        values.append(("Error / PCA's", f"{error / pca:.2f}", f"PCA with {study.pca_size} components"))
    if study.view.kind == "row":
        value = metrics.feature_r2(study.bed.x, study.restored, study.bed.center)
        values.append(("R², alike", format_value(value, "fixed"), "every feature counts alike"))
    ratio = study.n_values / study.code_size
    told = f"{format_value(ratio)} to 1" if ratio >= 1 else "over-complete"
    values.append(("Code", f"{study.code_size:,}", f"for {study.n_values:,} values, {told}"))
    values.append(("Parameters", _count(int(study.estimator.n_parameters_)), "weights and biases"))
    if study.history:
        seconds = float(study.history[-1].get("seconds", 0.0))  # since the start of the fit
        epochs = f"{len(study.history)} epoch{'s' if len(study.history) > 1 else ''}"
        values.append(("Training", _duration(seconds), epochs))
    return cards(values)


def _count(n: int) -> str:
    return f"{n:,}" if n < 1_000_000 else f"{n / 1e6:.3g} M"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def architecture(study: Study) -> str:
    """Return the hourglass."""
    return figure(study.estimator.diagram().to_svg(), kind="diagram")


def settings(study: Study) -> str:
    """Return the settings that a reader looks for, and the whole recipe behind a click."""
    recipe = study.estimator.recipe_
    plain: dict[str, Any] = recipe.to_dict()
    rows = [(key.replace("_", " "), _setting(value)) for key, value in plain.items()]
    history = study.estimator.history_
    rows += [("stopped by", str(history.stopped_by)), ("trained by", str(history.engine))]
    body = table(("setting", "value"), rows, kind="plain")
    told = list(history.events)
    if told:
        body += "<h4>What happened while training</h4><ul>"
        body += "".join(f"<li>{escape(str(event))}</li>" for event in told) + "</ul>"
    return body + details("The recipe as TOML", f"<pre>{escape(recipe.to_toml())}</pre>")


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{k}={_setting(v)}" for k, v in value.items() if k != "name")
        name = str(value.get("name", ""))
        return f"{name}({inside})" if name and inside else name or inside or "–"
    if isinstance(value, list | tuple):
        return ", ".join(_setting(v) for v in value) or "–"
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else str(value)


def learning(study: Study) -> str:
    """Return the learning curves."""
    if not study.history:
        return ""
    svg = plots.learning_curves(study.history, study.best_row)
    validated = any(key.startswith("validation_") for key in study.history[0])
    told = "Mean over samples, in the units of the objective."
    if validated:
        told += " The validation rows were held out of the training rows; their loss chose the weights."
    return figure(svg, told)


def reconstructions(study: Study) -> str:
    """Return originals beside what came back, as images, signals or features."""
    if study.view.kind == "image":
        return _image_reconstructions(study)
    if study.view.kind == "signal":
        rows = study.some(6)
        x, y = study.view.arrange(study.bed.x[rows]), study.view.arrange(study.restored[rows])
        pairs = [[("original", a[0]), ("reconstruction", b[0])] for a, b in zip(x, y, strict=True)]
        titles = [f"sample {study.bed.rows[row]}" for row in rows]
        return figure(plots.signals(titles, pairs), "Test signals, first channel.")
    return _row_reconstructions(study)


def _image_reconstructions(study: Study) -> str:
    typical = study.some(study.shown)
    hardest = np.argsort(study.errors)[::-1][: study.shown]
    low, high = study.bed.limits
    body, remark = "", f" {study.view.remark}".rstrip()
    grids = (("Drawn at random", typical), ("The hardest ones", hardest))
    for heading, rows in grids[: 1 if study.frugal else 2]:
        original, ours = study.view.arrange(study.bed.x[rows]), study.view.arrange(study.restored[rows])
        pca = study.view.arrange(study.bed.pca(study.pca_size)[rows])
        difference = ours - original
        largest = float(np.abs(difference.mean(axis=1)).max())
        strips = [
            ("original", montage(to_pixels(original, low, high), study.shown, "original test images")),
            ("reconstruction", montage(to_pixels(ours, low, high), study.shown, "their reconstructions")),
            ("difference", _signed(to_signed_pixels(difference, largest), study.shown, "differences")),
        ]
        if study.pca_size < study.n_values:
            name = f"PCA, {study.pca_size}"
            strips.append((name, montage(to_pixels(pca, low, high), study.shown, "reconstructions by PCA")))
        told = f"Difference: blue too bright, rust too dark, full colour at {format_value(largest)}.{remark}"
        body += f"<h4>{escape(heading)}</h4>" + figure(labelled_rows(strips), told)
    return body


def side_by_side(studies: Sequence[Study]) -> str:
    """Return the same test images through several models and PCA; nothing for other samples."""
    first, shown = studies[0], 12
    if first.view.kind != "image":
        return ""
    rows, (low, high) = first.some(shown), first.bed.limits

    def strip(name: str, X: NDArray[Any]) -> tuple[str, str]:
        return name, montage(to_pixels(first.view.arrange(X[rows]), low, high), shown, f"test images: {name}")

    strips = [strip("original", first.bed.x)]
    strips += [strip(study.name, study.restored) for study in studies]
    sizes = {study.pca_size for study in studies if study.pca_size < study.n_values}
    strips += [strip(f"PCA, {size}", first.bed.pca(size)) for size in sorted(sizes)]
    return figure(
        labelled_rows(strips), "Test images drawn at random; each row below is what a model made of them."
    )


def _signed(tiles: NDArray[np.uint8], columns: int, label: str) -> str:
    return montage(tiles, columns, label).replace('class="pixels"', 'class="pixels signed"', 1)


def _row_reconstructions(study: Study) -> str:
    x, y = metrics.flat(study.bed.x), metrics.flat(study.restored)
    scale = study.bed.spread**2
    ours = metrics.squared_error_per_feature(x, y) / scale
    size, alike = study.pca_size, study.features_alike
    linear = study.bed.standardized_pca(size) if alike else metrics.flat(study.bed.pca(size))
    pca = metrics.squared_error_per_feature(x, linear) / scale
    label = f"PCA, {size} components" + (", standardised features" if alike else "")
    order = np.argsort(ours)[::-1][:MOST_FEATURES]
    names = [study.feature_names[i] for i in order]
    told = "A test feature at 0 % comes back exactly; at 100 % the mean would have done as well."
    if len(ours) > len(order):
        told += f" The {len(order)} of {len(ours):,} features with the largest share."
    body = figure(plots.feature_bars(names, ours[order], pca[order], label), told)
    rows, columns = study.some(5), order[:8]
    lines = []
    for row in rows:
        lines.append((f"sample {study.bed.rows[row]}", *(format_value(float(v)) for v in x[row, columns])))
        lines.append(("came back as", *(format_value(float(v)) for v in y[row, columns])))
    head = ("", *(study.feature_names[i].replace("_", "_\u200b") for i in columns))  # may break there
    return body + "<h4>Some rows, the features with the largest share</h4>" + table(head, lines)


def samples(study: Study) -> str:
    """Return what the model makes up, and what lies between two test samples."""
    n = study.shown if study.view.kind == "image" else 500
    try:
        made = np.asarray(study.estimator.sample(n, random_state=0))
    except DiaboloError as error:
        return f'<p class="quiet">{escape(str(error))}</p>'
    low, high = study.bed.limits
    if study.view.kind == "image":
        tiles = to_pixels(study.view.arrange(made), low, high)
        strips = [("made up", montage(tiles, study.shown, "samples of the model"))]
        a, b = study.some(2)[0], study.some(2)[-1]
        inputs = [study.bed.input_for(study.estimator, np.array([i])) for i in (a, b)]
        path = np.asarray(
            study.estimator.interpolate(_first(inputs[0]), _first(inputs[1]), steps=study.shown)
        )
        between = to_pixels(study.view.arrange(path), low, high)
        strips.append(("between two", montage(between, study.shown, "interpolation between two test images")))
        told = (
            "Above, codes drawn at random and decoded; below, the codes on the line between two test images."
        )
        return figure(labelled_rows(strips), told)
    if study.view.kind == "signal":
        single = [[("made up", signal[0])] for signal in study.view.arrange(made[:6])]
        return figure(plots.signals([""] * 6, single), "Codes drawn at random and decoded, first channel.")
    return _row_samples(study, metrics.flat(made))


def _first(X: Any) -> Any:
    return X if hasattr(X, "iloc") else X[0]


def _row_samples(study: Study, made: NDArray[Any]) -> str:
    data = metrics.flat(study.bed.x_train)
    spread = study.bed.spread
    order = (
        np.argsort(spread)[::-1][:MOST_FEATURES]
        if data.shape[1] > MOST_FEATURES
        else np.arange(data.shape[1])
    )
    scale = spread[order]
    center = data.mean(axis=0, dtype=np.float64)[order]
    cuts = [5, 50, 95]
    of_data = (np.percentile(data[:, order], cuts, axis=0) - center) / scale
    of_samples = (np.percentile(made[:, order], cuts, axis=0) - center) / scale
    names = [study.feature_names[i] for i in order]
    told = f"{len(made)} codes drawn at random and decoded, against the training rows."
    return figure(plots.feature_ranges(names, of_data, of_samples), told)


def against_pca(study: Study) -> str:
    """Return the errors beside those of PCA and of the mean sample."""
    bed = study.bed
    rows = [
        ("this model", study.restored, study.code_size),
        (_pca_name(study), bed.pca(study.pca_size), study.pca_size),
    ]
    if study.view.kind == "row":
        rows.append(("PCA, standardised features", bed.standardized_pca(study.pca_size), study.pca_size))
    rows.append(("the mean sample", np.broadcast_to(bed.center, bed.x.shape), 0))
    head = ["", "code size", "mean squared error", "median", "R²"]
    lines = []
    for name, restored, size in rows:
        errors = metrics.squared_error(bed.x, restored)
        line = [name, f"{size:,}", format_value(float(errors.mean())), format_value(float(np.median(errors)))]
        line.append(format_value(metrics.r2(bed.x, restored, bed.center), "fixed"))
        if study.view.kind == "row":
            line.append(format_value(metrics.feature_r2(bed.x, restored, bed.center), "fixed"))
        lines.append(line)
    if study.view.kind == "row":
        head.append("R², features alike")
    body = table(head, lines)
    if study.view.kind == "row":
        note = "Squared error counts most what comes in large numbers; the last column treats features alike."
        body += f'<p class="quiet">{escape(note)}</p>'
    if float(study.pca_errors.mean()) <= 1e-4 * float(bed.mean_errors.mean()):
        note = "PCA of this size loses next to nothing, which leaves nothing to gain on reconstruction."
        return body + f'<p class="quiet">{escape(note)}</p>'
    points = study.some(MOST_POINTS)
    told = (
        "One point for each test sample; below the dashed line this model is closer to the original than PCA."
    )
    return body + figure(plots.against(study.errors[points], study.pca_errors[points]), told)


def _pca_name(study: Study) -> str:
    if study.used_units is not None:
        return "PCA, one component for each unit used by a sample"
    return "PCA, same code size" if study.pca_size == study.code_size else "PCA, all components"


def diagnostics(study: Study) -> str:
    """Return what the units of the code do: how many live, how much each carries."""
    found = study.diagnostics
    activity = metrics.code_activity(study.codes)
    rows = [
        (
            "Active units",
            f"{int(found['active_units']):,} of {study.code_size:,}",
            "vary over the samples",
        ),
        ("Dead units", number(found["dead_units"], "count"), "never vary"),
        ("Active share", number(found["active_share"], "share"), "of the units, on a sample"),
        ("Saturated share", number(found["saturated_share"], "share"), "of code values at a flat end"),
        ("Jacobian ‖J‖²", number(found["jacobian_norm"]), "of the encoder, scaled units"),
        ("Jacobian, relative", number(found["relative_jacobian"]), "to its gain along the data"),
    ]
    charts = [plots.unit_bars(study.codes.std(axis=0), "spread of each unit (standard deviation)")]
    divergence = found.get("kl_per_unit")
    if divergence is not None:
        values = np.asarray(divergence, dtype=np.float64).ravel()
        rows.append(("KL, all units", f"{values.sum():.3g} nats", "what the code tells on average"))
        charts.append(plots.unit_bars(values, "KL of each unit, nats"))
    elif activity.min() < 0.995:
        charts.append(plots.unit_bars(100 * activity, "samples on which each unit is active, %"))
    kept = [row for row in rows if row[1] != "–"]
    return cards(kept) + '<div class="side">' + "".join(figure(chart) for chart in charts) + "</div>"
