"""The report: one HTML file that needs nothing beside itself."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import Any

from diabolo.errors import InvalidParameterError
from diabolo.report import learned, sections
from diabolo.report.compare import COLUMNS, Comparison, format_value
from diabolo.report.study import Bench, Study
from diabolo.report.theme import section, table

# anchor, heading, what makes its body, lead; two in one tuple stand side by side
Entry = tuple[str, str, Callable[[Study], str], str]
SECTIONS: tuple[Entry, ...] = (
    ("reconstructions", "Reconstructions", sections.reconstructions, "Test samples and what came back."),
    ("learning", "Learning curves", sections.learning, ""),
    ("latent", "Latent space", learned.latent_space, ""),
    ("units", "What each unit of the code does", learned.units, ""),
    ("samples", "Samples", sections.samples, ""),
    ("weights", "Filters and atoms", learned.weights, ""),
    (
        "pca",
        "Against PCA",
        sections.against_pca,
        "The best linear code of the same size is the mark to beat.",
    ),
    ("diagnostics", "Diagnostics", sections.diagnostics, ""),
)
PAIR: tuple[Entry, Entry] = (
    ("architecture", "Architecture", sections.architecture, ""),
    ("settings", "Settings", sections.settings, ""),
)

ORDER = (SECTIONS[0], *PAIR, *SECTIONS[1:])
SHORT = {"learning": "Learning", "units": "Units", "weights": "Weights", "pca": "PCA"}  # in the navigation


def write_report(
    directory: str | os.PathLike[str],
    *,
    title: str,
    estimators: Mapping[str, Any],
    X_train: Any,
    X_test: Any,
    y_test: Any = None,
    comparison: Comparison | None = None,
    command: str | None = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
) -> Path:
    """Write ``index.html`` into ``directory`` and return its path.

    The page holds its images and curves itself and loads nothing; it appears whole or not at all.
    Data of more than 30 million values are thinned out to that, and the page says so.

    Parameters
    ----------
    directory : path
        Made where it does not exist; an ``index.html`` in it is replaced.
    title : str
        Heading of the page.
    estimators : mapping of str to estimator
        Fitted estimators by the name under which they are shown; at least one.
    X_train, X_test : array-like of shape (n_samples, ...)
        What they were fitted to, and held-out samples of the same shape.
    y_test : array-like of shape (n_test,) or None, default=None
        Labels (texts, or numbers) that colour the latent space.
    comparison : Comparison or None, default=None
        What ``compare`` returned; its table comes first.
    command : str or None, default=None
        How the report was made, shown at its foot.
    class_names : sequence of str or None, default=None
        Names of the labels: by label where these are 0, 1, 2, ..., otherwise in their sorted order.
    feature_names : sequence of str or None, default=None
        Names of the values of a sample; None takes those of a frame, or numbers them.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InvalidParameterError
        Without an estimator.
    InvalidDataError
        Where training and test samples differ in shape, or labels and samples in number.
    MissingExtraError
        Where matplotlib or pillow is not installed.
    """
    if not estimators:
        raise InvalidParameterError(
            "estimators must be at least one fitted estimator; got none. Pass {'name': estimator}."
        )
    bed = Bench.of(X_train, X_test, y_test, class_names, feature_names)
    anchors = _anchors(list(estimators))
    studies = [
        Study(name, estimator, bed, frugal=len(estimators) > 3) for name, estimator in estimators.items()
    ]
    parts = [_comparison(comparison, anchors)] if comparison is not None else []
    if len(studies) > 1:
        same = sections.side_by_side(studies)
        parts.append(section("side-by-side", "The same samples through every model", same))
    parts += [_article(study, anchors[study.name], alone=len(studies) == 1) for study in studies]
    body = "\n".join(part for part in parts if part)
    subtitle = _subtitle(bed, estimators)
    return write_page(
        directory, title=title, subtitle=subtitle, links=_links(anchors), body=body, command=command
    )


def _article(study: Study, anchor: str, alone: bool) -> str:
    kind = type(study.estimator).__name__
    heading = (
        escape(study.name) if study.name == kind else f"{escape(study.name)} <small>{escape(kind)}</small>"
    )
    entries = {
        key: section(f"{anchor}--{key}", name, make(study), lead)
        for key, name, make, lead in (*SECTIONS, *PAIR)
    }
    pair = f'<div class="pair">{"".join(entries.pop(key) for key, *_ in PAIR)}</div>'
    links = " · ".join(
        f'<a href="#{anchor}--{key}">{escape(SHORT.get(key, name))}</a>'
        for key, name, *_ in ORDER
        if entries.get(key, pair)
    )
    first = entries.pop("reconstructions")
    index = "" if alone else f'<p class="quiet links">{links}</p>'
    body = first + pair + "".join(entries.values())
    return f'<article id="{anchor}"><h2>{heading}</h2>{index}{sections.headline(study)}{body}</article>'


def _comparison(comparison: Comparison, anchors: Mapping[str, str]) -> str:
    columns = comparison.columns()
    marks: dict[tuple[int, int], str] = {}
    for j, key in enumerate(columns):
        best = comparison.best(key) if j else set()
        marks |= {(i, j): "best" for i, row in enumerate(comparison.rows) if row["kind"] in best}
    for i, row in enumerate(comparison.rows):
        if row["kind"] not in anchors:
            marks[i, 0] = "baseline"
    lines = [[format_value(row[key], COLUMNS[key][1]) for key in columns] for row in comparison.rows]
    body = table([COLUMNS[key][0] for key in columns], lines, marked=marks, kind="compact")
    settings = comparison.settings
    told = (
        "All were trained on the same rows and measured on the same held-out rows. Squared errors are summed "
    )
    told += (
        "over a sample and averaged over samples, in the units of the data; R² is against the mean sample."
    )
    if "noise_std" in settings:
        told += (
            f" The noisy input has Gaussian noise, standard deviation {format_value(settings['noise_std'])},"
            f" {settings['noise']:g} times that of a typical value; the target stays clean."
        )
    if "used_units" in columns:
        told += (
            " A sparse code has more units than the others and uses few of them on a sample; "
            "PCA stands beside it with as many components."
        )
    elif len({row["code_size"] for row in comparison.rows if row["kind"] != "mean"}) > 1:
        told += " The codes differ in size: a larger one has it easier."
    told += (
        " The Jacobian is that of the encoder between scaled data and code: it also grows with the scale "
        "that a code happens to have, the relative one does not."
    )
    told += " The best of each column is marked."
    return section("comparison", "Comparison", body + f'<p class="quiet">{escape(told)}</p>')


def _links(anchors: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the anchors and names of the models or, where there is one only, of its sections."""
    links = [("comparison", "Comparison"), ("side-by-side", "Side by side")]
    if len(anchors) > 1:
        return links + [(anchor, name) for name, anchor in anchors.items()]
    (anchor,) = anchors.values()
    return links + [(f"{anchor}--{key}", SHORT.get(key, name)) for key, name, *_ in ORDER]


def _anchors(names: Sequence[str]) -> dict[str, str]:
    """Return an anchor for each name: letters, digits and dashes, each once."""
    anchors: dict[str, str] = {}
    for i, name in enumerate(names):
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
        taken = plain in anchors.values() or plain in ("comparison", "side-by-side")
        anchors[name] = f"{plain}-{i + 1}" if taken else plain
    return anchors


def _subtitle(bed: Bench, estimators: Mapping[str, Any]) -> str:
    shape = " × ".join(str(extent) for extent in bed.x.shape[1:])
    values = " values" if bed.x.ndim == 2 else ""
    kinds = (
        f"{len(estimators)} models" if len(estimators) > 1 else type(next(iter(estimators.values()))).__name__
    )
    told = f"{kinds}; samples of {shape}{values}; measured on {len(bed.x):,} held-out samples"
    if len(bed.x) < bed.n_test:
        told += f", drawn out of {bed.n_test:,}"
    return told + "."


def write_page(
    directory: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
    links: Iterable[tuple[str, str]],
    body: str,
    command: str | None,
) -> Path:
    """Write ``index.html`` into ``directory`` and return its path; all but ``body`` is plain text.

    Of ``links``, pairs of anchor and name, those that are in the body make the navigation.
    """
    inside = "".join(
        f'<li><a href="#{anchor}">{escape(name)}</a></li>'
        for anchor, name in links
        if f'id="{anchor}"' in body
    )
    template = Path(__file__).with_name("template.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        navigation=f'<nav aria-label="Sections"><ul>{inside}</ul></nav>',
        body=body,
        footer=_footer(command),
    )
    return _write_whole(Path(directory), page)


def _footer(command: str | None) -> str:
    """Return how, with what and when a page was made."""
    packages = ("diabolo", "torch", "scikit-learn", "numpy", "matplotlib")
    versions = ", ".join(f"{name} {found}" for name in packages if (found := _version(name)))
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    body = f"<pre>{escape(command)}</pre>" if command else ""
    body += f"<p>{escape(versions)}; Python {platform.python_version()}.<br>{escape(_hardware())}.<br>"
    return body + f"Written {when}. The page loads nothing from anywhere.</p>"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _hardware() -> str:
    told = f"{platform.system()} on {platform.machine()}, {os.cpu_count()} processors"
    try:
        import torch
    except ImportError:
        return told
    if torch.cuda.is_available():
        told += f", {torch.cuda.get_device_name()}"
    return f"{told}; {torch.get_num_threads()} threads"


def _write_whole(directory: Path, page: str) -> Path:
    """Write aside, then rename; a folder made for it goes again where that fails."""
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "index.html"
    handle, name = tempfile.mkstemp(dir=directory, prefix=".index-", suffix=".html")
    aside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        aside.chmod(0o644)
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                directory.rmdir()
        raise
    return target
