"""Kinds side by side: ``compare`` on any data, and ``demo`` on the digits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs
from diabolo.cli.config import fraction
from diabolo.cli.console import Output, number, plain, print_table
from diabolo.cli.options import DataName, ParameterOptions, SourceOptions, check_kind, given
from diabolo.cli.output import check_place, write_text
from diabolo.cli.train import ReportFolder, TestFraction, check_report_place, command_line
from diabolo.errors import InvalidParameterError
from diabolo.kinds import KINDS

if TYPE_CHECKING:
    from diabolo.report.compare import Comparison


@dataclass(frozen=True)
class Contest:
    """What is compared, on which data, and where the results go."""

    data: str
    kinds: tuple[str, ...]
    latent_dim: int | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    per_kind: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: SourceOptions = field(default_factory=SourceOptions)
    test_fraction: float | None = None
    report: Path | None = None
    output: Path | None = None


def compare(
    out: Output,
    source: SourceOptions,
    parameters: ParameterOptions,
    data: DataName,
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
        typer.Option("--output", "-o", metavar="FILE", help="Where the table goes too: .md or .json."),
    ] = None,
) -> None:
    """Train several kinds on DATA and show them beside PCA at the same code size and the mean predictor."""
    chosen = given(parameters)
    names = [kind.name for kind in KINDS] if kinds == "all" else [name.strip() for name in kinds.split(",")]
    contest = Contest(
        data=data,
        kinds=tuple(dict.fromkeys(check_kind(name) for name in names)),
        latent_dim=chosen.pop("latent_dim", None),
        parameters=chosen,
        source=source,
        test_fraction=None if test_fraction is None else fraction("test_fraction")(test_fraction),
        report=report,
        output=None if output is None else check_place(output, (".md", ".json")),
    )
    _run(out, contest)


def demo(
    out: Output,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder for the report.")
    ] = Path("diabolo-demo"),
) -> None:
    """Train five kinds on scikit-learn's digits in about a minute: a table, and a report to look at."""
    contest = Contest(
        data="digits",
        kinds=("deep", "denoising", "variational", "sparse", "convolutional"),
        latent_dim=10,
        parameters={"random_state": 0, "epochs": 30},
        report=output.expanduser(),
    )
    _run(out, contest)


def _run(out: Output, contest: Contest) -> None:
    """Train, show the table, write what was asked for."""
    if contest.report is not None:
        check_report_place(contest.report)
    from diabolo.report.compare import compare as run_comparison

    seed = contest.parameters.get("random_state", 0)
    dataset = inputs.load_data(contest.data, contest.source)
    split = inputs.train_and_test(dataset, contest.test_fraction, seed)
    out.note(
        f"training {len(contest.kinds)} kinds on {len(split.X)} rows of {dataset.name}; tested on {split.told}"
    )
    comparison = run_comparison(
        list(contest.kinds),
        split.X,
        split.X_test,
        y_test=split.y_test,
        latent_dim=contest.latent_dim,
        params={name: value for name, value in contest.parameters.items() if name != "random_state"},
        per_kind=contest.per_kind or None,
        random_state=seed,
    )
