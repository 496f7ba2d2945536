"""Curves, maps and bars as inline SVG, by matplotlib, without pyplot and its global state.

Every function returns SVG text whose colours are the page's variables and whose texts use the
page's font. Sizes are in pixels of the page.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.errors import MissingExtraError
from diabolo.report.theme import CARD, INK, LINE, MUTED, SERIES, themed

Floats = NDArray[np.floating[Any]]
MARKERS = "osD^vPX*<>"
_ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "ncols": 2,
}  # of axes without a title
_LOOK: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "diabolo",
    "font.size": 11.5,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.55,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "axes.formatter.useoffset": False,
}


@contextmanager
def canvas(width: int, height: int, label: str) -> Iterator[tuple[Any, list[str]]]:
    """Yield a figure and a list that receives its SVG when the block ends."""
    try:
        import matplotlib
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a report", "matplotlib", "report") from error
    out: list[str] = []
    with matplotlib.style.context("default"), matplotlib.rc_context(_LOOK):
        drawing = Figure(figsize=(width / 72, height / 72), layout="constrained")
        yield drawing, out
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawing.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    out.append(_inline(buffer.getvalue(), width, height, label))


def _inline(svg: str, width: int, height: int, label: str) -> str:
    """Strip what a standalone file needs and a page does not."""
    from html import escape

    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"font: ((?:bold |\d+ )?)([\d.]+px) [^;\"]*", r"font-size: \2", body)
    # places are rounded, numbers that are read are not
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = _POINTS.sub(_as_one_path, body)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'style="width:100%;max-width:{width}px;height:auto">{themed(body)}</svg>'
    )


# a circle that matplotlib defines, then the group of its uses
_POINTS = re.compile(
    r'(?P<definition><defs>\n<path id="m\w+" d="M 0 (?P<radius>[\d.]+)\nC [^"]*"/>\n</defs>\n)'
    r"<g(?P<clip>[^>]*)>\n(?P<uses>(?:<use [^>]*/>\n){5,})</g>"
)


def _as_one_path(match: re.Match[str]) -> str:
    """Write circles of one colour as one path of points with round ends: a tenth of the size."""
    uses = match["uses"]
    looks = set(re.findall(r'style="([^"]*)"', uses))
    if len(looks) != 1:
        return match[0]
    look = looks.pop().replace("fill", "stroke") + f"; stroke-width: {2 * float(match['radius']):.2f}"
    points = "".join(f"M{x} {y}h0" for x, y in re.findall(r' x="([-\d.]+)" y="([-\d.]+)"', uses))
    path = f'<path d="{points}" style="fill: none; stroke-linecap: round; {look}"/>'
    return f"{match['definition']}<g{match['clip']}>{path}</g>"  # others may use the definition too


def learning_curves(rows: Sequence[dict[str, Any]], best: int | None) -> str:
    """Draw every term of the objective over the epochs; ``best`` is the index of the best row."""
    terms = [key.removeprefix("training_") for key in rows[0] if key.startswith("training_")]
    terms = [t for t in terms if t == "total" or len(terms) > 2] or terms
    terms.sort(key=lambda term: term != "total")
    columns = min(3, len(terms))
    lines = math.ceil(len(terms) / columns)
    with canvas(960, 60 + 220 * lines, "learning curves") as (drawing, out):
        epochs = np.arange(1, len(rows) + 1)
        for i, term in enumerate(terms):
            axes = drawing.add_subplot(lines, columns, i + 1)
            values = {}
            for name, color in (("training", SERIES[0]), ("validation", SERIES[1])):
                curve = np.array([float(row.get(f"{name}_{term}", math.nan)) for row in rows])
                if not np.isfinite(curve).any():
                    continue
                values[name] = curve
                mark = "o" if len(rows) < 4 else None
                axes.plot(epochs, curve, color=color, label=name, marker=mark, markersize=4)
            if best is not None and 0 <= best < len(rows):
                axes.axvline(best + 1, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
                last = values.get("validation", values.get("training"))
                if last is not None:
                    axes.plot(
                        [best + 1],
                        [last[best]],
                        "o",
                        color=INK,
                        markersize=5,
                        label=f"best, epoch {best + 1}",
                    )
            staged = _stages(axes, rows)
            _maybe_log(axes, list(values.values()))
            axes.set_title(term.replace("_", " "), pad=20 if staged else None)
            axes.set_xlabel("epoch")
            axes.margins(x=0.02)
            if len(rows) < 4:
                axes.set_xlim(0.5, len(rows) + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if i == 0:
                legend_above(axes)
    return out[0]


def legend_above(*parts: Any) -> None:
    """Name what is drawn in some axes of a figure above all of them: anything may lie anywhere within."""
    pairs = [pair for axes in parts for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    named = {label: handle for handle, label in pairs}
    parts[0].figure.legend(named.values(), named, loc="outside upper left", ncols=5)


def _stages(axes: Any, rows: Sequence[dict[str, Any]]) -> bool:
    """Mark where one stage of the training ends and the next begins; say whether there are several."""
    stages = [str(row.get("stage", "")) for row in rows]
    starts = [i for i in range(len(stages)) if i == 0 or stages[i] != stages[i - 1]]
    if len(starts) < 2:
        return False
    for start in starts:
        if start:
            axes.axvline(start + 0.5, color=LINE, linewidth=1)
        axes.text(
            start + 1, 1.02, stages[start], transform=axes.get_xaxis_transform(), color=MUTED, fontsize=9.5
        )
    return True


def _maybe_log(axes: Any, curves: Sequence[Floats]) -> None:
    every = np.concatenate(curves) if curves else np.zeros(1)
    every = every[np.isfinite(every)]
    if len(every) and every.min() > 0 and every.max() > 6 * every.min():
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)


def plain_ticks(axis: Any) -> None:
    """Write the ticks of a logarithmic axis as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,), numticks=9))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def latent_map(
    points: Floats, names: tuple[str, str], labels: NDArray[Any] | None, classes: Sequence[str] = ()
) -> str:
    """Draw codes in the plane, (n, 2); ``labels`` are texts out of ``classes``, or numbers, or None."""
    size = float(np.clip(28000 / len(points), 14, 36))
    with canvas(960, 580, "map of the codes") as (drawing, out):
        axes = drawing.add_subplot()
        if labels is None:
            axes.scatter(points[:, 0], points[:, 1], s=size, color=SERIES[0], alpha=0.7, linewidths=0)
        elif not classes:
            shown = axes.scatter(
                points[:, 0], points[:, 1], s=size, c=np.asarray(labels, float), linewidths=0
            )
            drawing.colorbar(shown, ax=axes, label="label", shrink=0.8)
        else:
            _by_class(axes, points, labels, classes, size)
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.margins(0.03)
    return out[0]


def _by_class(axes: Any, points: Floats, labels: NDArray[Any], classes: Sequence[str], size: float) -> None:
    """One colour and, past ten classes, one marker each; the class's name at its median."""
    for i, name in enumerate(classes):
        own = points[labels == name]
        color, marker = SERIES[i % 10], MARKERS[i // 10 % 10]
        look = {"s": size, "alpha": 0.75, "linewidths": 0, "label": short(name)}
        axes.scatter(own[:, 0], own[:, 1], color=color, marker=marker, **look)
    if len(classes) <= 12:
        for i, name in enumerate(classes):
            x, y = np.median(points[labels == name], axis=0)
            box = {
                "boxstyle": "round,pad=0.25",
                "facecolor": CARD,
                "edgecolor": SERIES[i % 10],
                "linewidth": 1.2,
            }
            look = {"fontweight": "bold", "fontsize": 11, "bbox": box}
            axes.text(x, y, short(name), color=INK, ha="center", va="center", **look)
    if len(classes) <= 20:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.8, handletextpad=0.3)


def latent_histogram(values: Floats, labels: NDArray[Any] | None, classes: Sequence[str] = ()) -> str:
    """Draw the distribution of a code of one value, (n,), one colour for each class."""
    with canvas(960, 300, "distribution of the code") as (drawing, out):
        axes = drawing.add_subplot()
        bins = np.histogram_bin_edges(values, bins=40)
        if labels is None or not classes:
            axes.hist(values, bins=bins, color=SERIES[0])
        else:
            parts = [values[np.asarray(labels) == name] for name in classes]
            colors = [SERIES[i % 10] for i in range(len(classes))]
            axes.hist(parts, bins=bins, color=colors, stacked=True, label=[short(name) for name in classes])
            if len(classes) <= 20:
                axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.set_xlabel("code")
        axes.set_ylabel("samples")
    return out[0]


def against(ours: Floats, theirs: Floats) -> str:
    """Draw each sample's squared error, ours over PCA's, and both distributions."""
    with canvas(960, 380, "error of each sample against PCA") as (drawing, out):
        left = drawing.add_subplot(1, 2, 1)
        smallest = max(float(min(ours.min(), theirs.min())), 1e-9)
        largest = float(max(ours.max(), theirs.max())) or 1.0
        wide = largest > 8 * smallest and theirs.min() > 1e-6 * largest
        better = ours < theirs
        size = float(np.clip(8000 / len(ours), 7, 26))
        for chosen, color, name in ((better, SERIES[0], "better than PCA"), (~better, SERIES[1], "worse")):
            share = f"{name}: {100 * chosen.mean():.0f} %"
            left.scatter(
                theirs[chosen], ours[chosen], s=size, color=color, alpha=0.65, linewidths=0, label=share
            )
        left.axline((smallest, smallest), (largest, largest), color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        if wide:
            left.set_xscale("log")
            left.set_yscale("log")
            plain_ticks(left.xaxis)
            plain_ticks(left.yaxis)
        left.set_xlabel("squared error of PCA")
        left.set_ylabel("squared error of this model")
        left.legend(markerscale=2, **_ABOVE)
        right = drawing.add_subplot(1, 2, 2)
        edges = np.geomspace(smallest, largest, 36) if wide else np.linspace(0, largest, 36)
        right.hist(theirs, bins=edges, histtype="step", linewidth=1.8, color=MUTED, label="PCA")
        right.hist(ours, bins=edges, color=SERIES[0], alpha=0.45, label="this model")
        if wide:
            right.set_xscale("log")
            plain_ticks(right.xaxis)
        right.set_xlabel("squared error of a sample")
        right.set_ylabel("samples")
        right.legend(**_ABOVE)
    return out[0]


def unit_bars(values: Floats, label: str) -> str:
    """Draw one number for each unit of the code, largest first."""
    ordered = np.sort(values)[::-1]
    with canvas(470, 240, label) as (drawing, out):
        axes = drawing.add_subplot()
        units = np.arange(1, len(ordered) + 1)
        if len(ordered) <= 80:
            axes.bar(units, ordered, color=SERIES[0], width=0.8)
        else:
            axes.fill_between(units, ordered, step="mid", color=SERIES[0], alpha=0.8, linewidth=0)
        axes.set_title(label)
        axes.set_xlabel("units of the code, largest first")
        axes.grid(axis="x", visible=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.01)
        axes.set_ylim(bottom=min(0.0, float(ordered.min())))
    return out[0]


def feature_bars(names: Sequence[str], ours: Floats, theirs: Floats, label: str) -> str:
    """Draw the share of each feature's variance left unexplained; PCA, called ``label``, as a mark."""

    def draw(axes: Any, y: NDArray[Any]) -> None:
        axes.barh(y, 100 * ours, color=SERIES[0], height=0.62, label="this model")
        axes.plot(100 * theirs, y, "|", color=INK, markersize=11, markeredgewidth=2, label=label)
        axes.set_xlabel("variance left unexplained, %")

    return _by_feature(names, "error by feature", draw)


def feature_ranges(names: Sequence[str], data: Floats, samples: Floats) -> str:
    """Draw the middle 90 % and the median of each feature, data over samples; both (5 %, 50 %, 95 %) x n."""

    def draw(axes: Any, y: NDArray[Any]) -> None:
        for values, shift, color, name in (
            (data, -0.16, MUTED, "data"),
            (samples, 0.16, SERIES[1], "samples"),
        ):
            axes.hlines(y + shift, values[0], values[2], color=color, linewidth=4, alpha=0.55, label=name)
            axes.plot(values[1], y + shift, "o", color=color, markersize=4.5)
        axes.set_xlabel("5 % to 95 %, median marked; in standard deviations of the data")

    return _by_feature(names, "samples beside data, by feature", draw)


def _by_feature(names: Sequence[str], label: str, draw: Callable[[Any, NDArray[Any]], None]) -> str:
    with canvas(900, 90 + 24 * len(names), label) as (drawing, out):
        axes = drawing.add_subplot()
        y = np.arange(len(names))
        draw(axes, y)
        axes.set_yticks(y, [short(name, 28) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.legend(**_ABOVE)
    return out[0]


def signals(titles: Sequence[str], panels: Sequence[Sequence[tuple[str, Floats]]]) -> str:
    """Draw small panels of named curves; the names are the same in every panel."""
    lines = math.ceil(len(panels) / 2)
    with canvas(960, 50 + 130 * lines, "signals") as (drawing, out):
        for i, (title, curves) in enumerate(zip(titles, panels, strict=True)):
            axes = drawing.add_subplot(lines, 2, i + 1)
            colors = [MUTED, *SERIES] if len(curves) > 1 else SERIES
            for (name, curve), color in zip(curves, colors, strict=False):
                axes.plot(curve, color=color, linewidth=1.4, label=name)
            axes.margins(x=0.01)
            axes.set_title(title, fontsize=10, color=MUTED)
        if len(panels[0]) > 1:
            legend_above(axes)
    return out[0]


def short(name: str, length: int = 18) -> str:
    """Return a name cut to a length."""
    return name if len(name) <= length else name[: length - 1] + "…"
