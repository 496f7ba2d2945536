"""What was learned: the map of the codes, what each unit does, the weights as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo import metrics
from diabolo.report import plots
from diabolo.report.pictures import labelled_rows, montage, to_pixels, to_signed_pixels
from diabolo.report.study import MOST_POINTS, Floats, Study
from diabolo.report.theme import figure, heat_table

MOST_FILTERS = 48
MOST_UNITS = 8
STEPS = 11


def latent_space(study: Study) -> str:
    """Return the codes of the test rows in the plane, coloured by label where there is one."""
    rows = study.some(MOST_POINTS)
    codes = study.codes[rows]
    labels = None if study.bed.labels is None else study.bed.labels.take(rows)
    values, classes = (None, ()) if labels is None else (labels.values, labels.classes)
    told = f"The codes of {len(rows):,} test samples."
    if study.code_size == 1:
        return figure(plots.latent_histogram(codes[:, 0], values if classes else None, classes), told)
    if study.code_size == 2:
        points, names = codes, ("first unit", "second unit")
        told += " The code has two values: this is all of it."
    else:
        fitted = metrics.pca(study.codes, 2)
        points = fitted.transform(codes)
        if points.shape[1] < 2:
            points = np.column_stack([points, np.zeros(len(points))])
        shares = np.nan_to_num(100 * fitted.explained_variance_ratio_)
        axes = [f"component {i + 1} of the codes ({share:.0f} %)" for i, share in enumerate(shares)]
        names = (axes[0], axes[-1])
        told += (
            f" The code has {study.code_size:,} values; their two principal components show "
            f"{shares.sum():.0f} % of its variance."
        )
    if classes:
        assert study.bed.labels is not None
        share = 100 * metrics.neighbour_accuracy(study.codes, study.bed.labels.values.astype(str))
        if np.isfinite(share):
            told += f" The five nearest codes, in all dimensions, vote rightly in {share:.1f} % of cases."
    return figure(plots.latent_map(points, (names[0], names[1]), values, classes), told)


def units(study: Study) -> str:
    """Return what the output does when one unit of the code moves and the others stay."""
    codes = study.codes
    order = np.argsort(codes.std(axis=0))[::-1][
        : MOST_UNITS // 2 if study.frugal and study.view.kind == "image" else MOST_UNITS
    ]
    center = typical(codes)
    if study.view.kind == "image":
        return _traversal(study, order, center)
    if study.view.kind == "signal":
        return _signal_traversal(study, order, center)
    return _effects(study, order, center)


def typical(codes: Floats) -> Floats:
    """Return the code nearest to the mean of all: one that stands for a real sample."""
    return np.asarray(codes[np.argmin(metrics.squared_error(codes, codes.mean(axis=0)[None]))])


def _decode(study: Study, codes: Floats) -> NDArray[Any]:
    return np.asarray(study.estimator.inverse_transform(codes.astype(np.float32)))


def _traversal(study: Study, order: NDArray[Any], center: Floats) -> str:
    low, high = study.bed.limits
    strips = []
    for unit in order:
        start, end = np.percentile(study.codes[:, unit], (1, 99))
        path = np.tile(center, (STEPS, 1))
        path[:, unit] = np.linspace(start, end, STEPS)
        tiles = to_pixels(study.view.arrange(_decode(study, path)), low, high)
        strips.append((f"unit {unit}", montage(tiles, STEPS, f"what unit {unit} does", side=56)))
    told = (
        "From the code of a typical sample, one unit moves through the middle 98 % of its values; "
        f"the {len(order)} units with the largest spread of {study.code_size:,}."
    )
    return figure(labelled_rows(strips), told)


def _signal_traversal(study: Study, order: NDArray[Any], center: Floats) -> str:
    panels = []
    for unit in order:
        cuts = np.percentile(study.codes[:, unit], (50, 1, 99))
        path = np.tile(center, (3, 1))
        path[:, unit] = cuts
        decoded = study.view.arrange(_decode(study, path))[:, 0]
        panels.append([("middle", decoded[0]), ("1 %", decoded[1]), ("99 %", decoded[2])])
    told = (
        "From the code of a typical sample, one unit at the middle, the 1 % and the 99 % point of "
        "its values; first channel."
    )
    return figure(plots.signals([f"unit {unit}" for unit in order], panels), told)


def _effects(study: Study, order: NDArray[Any], center: Floats) -> str:
    path = np.tile(center, (len(order) + 1, 1))
    for row, unit in enumerate(order):
        path[row + 1, unit] += study.codes[:, unit].std()
    decoded = metrics.flat(_decode(study, path)).astype(np.float64)
    effect = (decoded[1:] - decoded[0]) / study.bed.spread
    features = np.argsort(np.abs(effect).max(axis=0))[::-1][:32]
    if effect.shape[1] <= 32:
        features = np.arange(effect.shape[1])
    body = heat_table(
        [study.feature_names[i] for i in features],
        [f"unit {unit}" for unit in order],
        effect[:, features].T.tolist(),
    )
    largest = float(np.abs(effect).max())
    told = (
        "What one standard deviation of a unit adds to each feature of a typical sample; blue up, rust down, "
        f"full colour at {largest:.2g} standard deviations of the feature."
    )
    return figure(body, told)


def weights(study: Study) -> str:
    """Return the first layer's filters and the last layer's atoms, as images or by feature."""
    first, last = _matrices(study.estimator.module_)
    if study.view.kind != "row":
        body = ""
        if first is not None:
            body += _filters(study, first, "The first layer: what each hidden unit looks for.")
        if last is not None and last.ndim == 2:
            body += _filters(study, last.T, "The last layer: what each unit below the output draws.")
        return body
    if last is not None and last.ndim == 2 and len(last) == study.n_values:
        return _atoms(study, last)
    return ""


def _matrices(module: Any) -> tuple[Floats | None, Floats | None]:
    """Return the weights of the encoder's first and the decoder's last layer that has any."""
    found: list[list[Floats]] = []
    for half in (module.encoder, module.decoder):
        layers = [getattr(layer, "weight", None) for layer in half.modules()]
        found.append([w.detach().cpu().double().numpy() for w in layers if w is not None and w.ndim > 1])
    return (found[0][0] if found[0] else None), (found[1][-1] if found[1] else None)


def _filters(study: Study, matrix: Floats, told: str) -> str:
    """Show the strongest filters, each scaled by itself."""
    shape = study.view.shape
    if matrix.ndim == 2:
        if matrix.shape[1] != int(np.prod(shape)):
            return ""
        tiles = study.view.arrange(matrix)
        tiles = tiles[:, None] if tiles.ndim == 3 else tiles
    elif matrix.ndim == 3:
        tiles = matrix[:, None]
    else:
        tiles = matrix if matrix.ndim == 4 else matrix[:, :, matrix.shape[2] // 2]
    channels = " Averaged over channels." if tiles.shape[1] > 1 else ""
    tiles = tiles.mean(axis=1, keepdims=True)
    strength = np.abs(tiles).max(axis=(1, 2, 3))
    order = np.argsort(np.linalg.norm(tiles.reshape(len(tiles), -1), axis=1))[::-1][:MOST_FILTERS]
    scaled = tiles[order] / np.where(strength > 0, strength, 1.0)[order][:, None, None, None]
    if tiles.shape[2] == 1:
        panels = [[("weight", kernel.ravel())] for kernel in scaled[:MOST_UNITS]]
        told = f"{told} The {len(panels)} largest of {len(tiles):,}, each scaled by itself."
        return figure(plots.signals([""] * len(panels), panels), told)
    image = montage(to_signed_pixels(scaled, 1.0), 12, told).replace('"pixels"', '"pixels signed"', 1)
    count = f" {len(order)} of {len(tiles):,}, the largest first." if len(order) < len(tiles) else ""
    return figure(image, f"{told}{count}{channels} Blue positive, rust negative, each scaled by itself.")


def _atoms(study: Study, last: Floats) -> str:
    strongest = np.argsort(np.linalg.norm(last, axis=0))[::-1][:16]
    features = np.argsort(np.abs(last[:, strongest]).max(axis=1))[::-1][:32]
    features = np.arange(len(last)) if len(last) <= 32 else features
    body = heat_table(
        [study.feature_names[i] for i in features],
        [str(unit) for unit in strongest],
        last[np.ix_(features, strongest)].tolist(),
    )
    largest = np.abs(last[:, strongest]).max()
    told = (
        f"Weights from the last hidden level to each feature, {len(strongest)} of {last.shape[1]:,} units, "
        f"the largest first; blue positive, rust negative, full colour at {largest:.2g}."
    )
    return figure(body, told)
