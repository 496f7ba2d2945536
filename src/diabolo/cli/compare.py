"""Kinds side by side: ``compare`` on any data, and ``demo`` on the digits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import streams
from diabolo.cli.config import fraction
from diabolo.cli.console import Output, print_table, table_width, to_json
from diabolo.cli.options import DataName, ParameterOptions, SourceOptions, StreamOptions, check_kind, given
from diabolo.cli.output import check_place, write_text
from diabolo.cli.page import ReportFolder, check_report_place, write_page
from diabolo.cli.progress import Bars
from diabolo.cli.train import TestFraction
from diabolo.errors import InvalidParameterError
from diabolo.kinds import KINDS

if TYPE_CHECKING:
    from rich.console import Console

    from diabolo.report.compare import Comparison


@dataclass(frozen=True)
class Contest:
    """What is compared, on which data, and where the results go."""

    data: str
    kinds: tuple[str, ...]
    latent_dim: int | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: SourceOptions = field(default_factory=SourceOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    test_fraction: float | None = None
    report: Path | None = None
    output: Path | None = None


_ORDER = (
    "kind",
    "error",
    "r2",
    "noisy_error",
    "neighbour_accuracy",
    "code_size",
    "used_units",
    "dead_units",
    "active_share",
    "jacobian_norm",
    "relative_jacobian",
    "fit_seconds",
    "n_parameters",
    "saturated_share",
    "noisy_r2",
)
"""Columns of the table: where a terminal is too narrow for all, those not named here go, then the last."""

DEMO = Contest(
    data="digits",
    kinds=("deep", "denoising", "variational", "sparse", "convolutional"),
    latent_dim=10,
    parameters={"epochs": 60, "random_state": 0},
)
"""What `demo` trains: small enough for a minute on two cores."""


def compare(
    out: Output,
    source: SourceOptions,
    parameters: ParameterOptions,
    data: DataName,
    stream: StreamOptions,
    kinds: Annotated[
        str,
        typer.Option(
            "--kinds", metavar="A,B,...", help="Kinds joined by commas, or all; `diabolo kinds` lists them."
        ),
    ] = "all",
    test_fraction: TestFraction = None,
    report: ReportFolder = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the table to this file as well: .md or .json."
        ),
    ] = None,
) -> None:
    """Train several kinds on DATA and show them beside PCA at the same code size and the mean predictor.

    Without --latent-dim the code has half as many values as a sample, at most 32; sparse kinds, whose code
    has more values than a sample and uses few of them at a time, keep their own size. Parameters given
    here hold for all kinds. Errors are squared, summed over a sample, in the units of the data; 8-bit
    values (pixels) are divided by 255 first. Of data larger than the memory, read piece by piece by every
    kind, up to 10,000 rows are held out, and PCA is fitted on as many.
    """
    chosen = given(parameters)
    names = [kind.name for kind in KINDS] if kinds == "all" else [name.strip() for name in kinds.split(",")]
    contest = Contest(
        data=data,
        kinds=tuple(dict.fromkeys(check_kind(name) for name in names)),
        latent_dim=chosen.pop("latent_dim", None),
        parameters=chosen,
        source=source,
        stream=stream,
        test_fraction=None if test_fraction is None else fraction("test_fraction")(test_fraction),
        report=report,
        output=None if output is None else check_place(output, (".md", ".json")),
    )
    if report is not None:
        check_report_place(report)
    _run(out, contest)


def demo(
    out: Output,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder for the report.")
    ] = Path("diabolo-demo"),
) -> None:
    """Train five kinds on scikit-learn's digits in about a minute: a table, and a report to look at."""
    output = output.expanduser()
    check_report_place(output, "--output")
    _run(out, replace(DEMO, report=output))


def _run(out: Output, contest: Contest) -> None:
    """Train, show the table, write what was asked for."""
    from diabolo.report.compare import compare as run_comparison

    parameters = dict(contest.parameters)
    seed = parameters.pop("random_state", 0)
    if seed is None:
        raise InvalidParameterError(
            "random_state must be a whole number here, where all kinds see the same rows; got none. "
            "Leave it out for 0."
        )
    name, rows, split = streams.training_data(
        out, contest.data, contest.source, contest.stream, contest.test_fraction, seed
    )
    out.note(f"{name}: {len(rows)} training rows, tested on {split.told}")

    start = time.perf_counter()
    with Bars(out) as bars:
        comparison = run_comparison(
            list(contest.kinds),
            split.X,
            split.X_test,
            y_test=split.y_test,
            latent_dim=contest.latent_dim,
            params=parameters,
            random_state=seed,
            progress=bars,
            source=None if rows is split.X else rows,
        )
    payload = {"data": name, "tested_on": split.told, **comparison.to_dict()}
    table = to_json(payload) + "\n"
    payload |= {"output": None, "report": None}
    try:
        if contest.output is not None:
            as_json = contest.output.suffix.lower() == ".json"
            write_text(contest.output, table if as_json else comparison.to_markdown())
            payload["output"] = contest.output
        if contest.report is not None:
            payload["report"] = write_page(
                contest.report, f"Autoencoders on {name}", comparison.estimators, split, comparison
            )
    finally:  # whatever could not be written, the training was not for nothing
        payload["seconds"] = time.perf_counter() - start
        out.result(payload, lambda to: _show(to, comparison, payload))


def _show(to: Console, comparison: Comparison, payload: Mapping[str, Any]) -> None:
    from diabolo.report.compare import COLUMNS, format_value

    keys = comparison.columns()
    texts = {key: [format_value(row[key], COLUMNS[key][1]) for row in comparison.rows] for key in keys}
    left_out = []
    while len(keys) > 2 and _width(keys, texts) > to.width:
        left_out.append(max(keys, key=_rank))
        keys.remove(left_out[-1])
    rows = list(zip(*(texts[key] for key in keys), strict=True))
    best = {
        (index, column)
        for column, key in enumerate(keys)
        for index, row in enumerate(comparison.rows)
        if row["kind"] in comparison.best(key)
    }
    title = f"{payload['data']}: squared error per sample on {payload['tested_on']}"
    print_table(to, [COLUMNS[key][0] for key in keys], rows, title, bold=best)
    if left_out:
        names = ", ".join(COLUMNS[key][0] for key in reversed(left_out))
        to.print(f"Too wide for here: {names}. All are in --json, -o and --report.", soft_wrap=True)
    for name in ("output", "report"):
        if payload[name] is not None:
            to.print(f"{name}: {payload[name]}", soft_wrap=True)


def _rank(key: str) -> int:
    return _ORDER.index(key) if key in _ORDER else len(_ORDER)


def _width(keys: Sequence[str], texts: Mapping[str, Sequence[str]]) -> int:
    from diabolo.report.compare import COLUMNS

    rows = zip(*(texts[key] for key in keys), strict=True)
    return table_width([COLUMNS[key][0] for key in keys], rows)
