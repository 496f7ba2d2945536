"""The HTML report, as commands ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diabolo.cli.output import check_folder, naming
from diabolo.errors import MissingExtraError

if TYPE_CHECKING:
    from diabolo import Autoencoder
    from diabolo.cli.inputs import Split
    from diabolo.report.compare import Comparison

COMMAND: ContextVar[str] = ContextVar("COMMAND", default="diabolo")
"""The command as it was typed; reports say it."""

ReportFolder = Annotated[
    Path | None, typer.Option("--report", metavar="DIR", help="Write an HTML report into this folder.")
]


def check_report_place(folder: Path, option: str = "--report") -> None:
    """Raise unless a report can be made and written into ``folder``, which need not exist yet."""
    for module, package in (("matplotlib", "matplotlib"), ("PIL", "pillow")):
        if find_spec(module) is None:
            raise MissingExtraError("The report", package, "report")
    check_folder(folder, option)


def write_page(
    folder: Path,
    title: str,
    estimators: Mapping[str, Autoencoder],
    split: Split,
    comparison: Comparison | None = None,
) -> Path:
    """Write the report of one or several models and return the path of its page."""
    from diabolo.report.page import write_report

    with naming(folder):
        return write_report(
            folder,
            title=title,
            estimators=dict(estimators),
            X_train=split.X,
            X_test=split.X_test,
            y_test=split.y_test,
            comparison=comparison,
            command=COMMAND.get(),
            feature_names=split.feature_names,
        )
