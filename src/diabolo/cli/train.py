"""``diabolo train``: from data to a model file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs, numbers, streams
from diabolo.cli.checkpoints import CheckpointOptions, note_replaced, resuming_command
from diabolo.cli.config import boolean, fraction, read_config, text
from diabolo.cli.console import STOPPED, Output, counted, duration, print_pairs
from diabolo.cli.options import (
    DATA_HELP,
    ParameterOptions,
    SourceOptions,
    StreamOptions,
    check_kind,
    given,
)
from diabolo.cli.outcomes import FAILED
from diabolo.cli.output import check_model_place
from diabolo.cli.page import ReportFolder, check_report_place, write_page
from diabolo.cli.progress import Bars
from diabolo.cli.workers import (
    RayOptions,
    check_skipping,
    everywhere,
    folder_for_ray,
    is_first,
    may_start_anew,
    refusing,
    started_anew,
    started_by_torchrun,
    train_on_ray,
)
from diabolo.errors import InvalidParameterError
from diabolo.kinds import BY_NAME

if TYPE_CHECKING:
    from rich.console import Console

    from diabolo import Autoencoder

TestFraction = Annotated[
    float | None,
    typer.Option(
        "--test-fraction",
        metavar="X",
        help="Share of the rows held out to measure the errors on, in [0, 1); with 0 they are measured on "
        "the training rows. Not given: the test split of DATA if it has one, else 0.2.",
    ),
]


@dataclass(frozen=True)
class Run:
    """All that one training run was asked to do, from the config file and the command line."""

    data: str
    kind: str = "deep"
    output: Path = Path("model.safetensors")
    source: SourceOptions = field(default_factory=SourceOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    report: Path | None = None
    test_fraction: float | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    kept: CheckpointOptions = field(default_factory=CheckpointOptions)
    ray: RayOptions = field(default_factory=RayOptions)


_BUSY = 1.5  # processes for each core; two threads then wait for each other most of the time
_SETTINGS: dict[str, Callable[[Any], Any]] = {
    **{name: text(name) for name in ("data", "kind", "output", "report", "label", "data_home", "image_size")},
    "test_fraction": fraction("test_fraction"),
    "stream": boolean("stream"),
    "broken": text("broken"),
}


def train(
    out: Output,
    source: SourceOptions,
    kept: CheckpointOptions,
    stream: StreamOptions,
    ray: RayOptions,
    parameters: ParameterOptions,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help=DATA_HELP, show_default=False),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            help="The kind of autoencoder, one of those that `diabolo kinds` lists. (default: deep)",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where the model goes. (default: model.safetensors)"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="A TOML file with any of data, kind, output, report, label, data_home, image_size, "
            "test_fraction, stream, broken and the parameters of the estimator by name; options given here "
            "win.",
        ),
    ] = None,
    test_fraction: TestFraction = None,
    report: ReportFolder = None,
) -> None:
    """Train a model on DATA, write it to a file, and say how well it restores rows it has not seen.

    Errors are squared, summed over a sample, in the units of the data; 8-bit values (pixels) are
    divided by 255 first. Ctrl-C and SIGTERM keep the best weights so far; pressed again after two seconds,
    Ctrl-C stops at once and keeps nothing. With --ray only --checkpoint keeps what was learned. Data larger
    than the memory are read piece by piece, once for each epoch.

    With --checkpoint, a training that was stopped, or killed, goes on by the same command and --resume, and
    ends as if it had never been stopped: the same bytes.

    Several workers, each with its rows of every batch, give the result of one, to rounding: torchrun
    --nproc-per-node N -m diabolo train ... starts them, as does --ray. With --checkpoint they go on by
    themselves where torchrun --max-restarts, or Ray, starts them anew because one was lost. Every worker
    reads all of DATA.
    """
    flags = {
        "data": data,
        "kind": kind,
        "output": output,
        "report": report,
        "test_fraction": None if test_fraction is None else fraction("test_fraction")(test_fraction),
        **{name: getattr(source, name) for name in ("label", "data_home", "image_size")},
        "stream": stream.stream,
        "broken": stream.broken,
    }
    kept.check()
    ray.check()
    if kept.folder is not None and started_anew():
        kept = replace(kept, resume=True)
    run = replace(_merge(config, flags, given(parameters)), kept=kept, ray=ray)
    check_skipping(run.stream.broken, ray)
    if is_first():
        check_model_place(run.output)
        if run.report is not None:
            check_report_place(run.report)
    else:
        out = replace(out, quiet=True, as_json=False)
    _train(out, run)


def _merge(config: Path | None, flags: Mapping[str, Any], parameters: Mapping[str, Any]) -> Run:
    """Return the run that the config file and the command line describe; the latter wins."""
    settings, chosen = ({}, {}) if config is None else read_config(config, _SETTINGS)
    settings.update({name: value for name, value in flags.items() if value is not None})
    chosen.update(parameters)
    if "data" not in settings:
        raise InvalidParameterError(
            "DATA must be given, on the command line or as data = '...' in --config; got none. "
            "Try 'diabolo train digits'."
        )
    home = settings.get("data_home")
    return Run(
        data=settings["data"],
        kind=check_kind(settings.get("kind", Run.kind)),
        output=Path(settings.get("output", Run.output)).expanduser(),
        source=SourceOptions(
            label=settings.get("label"),
            data_home=None if home is None else Path(home).expanduser(),
            image_size=settings.get("image_size"),
        ),
        stream=StreamOptions(stream=settings.get("stream"), broken=settings.get("broken")),
        report=None if settings.get("report") is None else Path(settings["report"]).expanduser(),
        test_fraction=settings.get("test_fraction"),
        parameters=chosen,
    )


def make_estimator(kind: str, parameters: Mapping[str, Any]) -> Autoencoder:
    """Return the estimator of a kind, with these parameters and else its defaults."""
    import diabolo

    estimator: Autoencoder = getattr(diabolo, BY_NAME[kind].estimator)(**parameters)
    return estimator


def _train(out: Output, run: Run) -> None:
    from diabolo.training.checkpoint import NAME
    from diabolo.training.machine import load_per_core
    from diabolo.training.workers import agreed, torchrun_group

    estimator = make_estimator(run.kind, run.parameters)
    folder = None if run.kept.resume or not may_start_anew() else run.kept.folder
    note_replaced(out, run.kept)  # an unfinished run's is refused, by every worker
    with torchrun_group(estimator.device):
        if folder is not None and is_first():  # who starts anew would go on from that of a finished run
            (folder / NAME).unlink(missing_ok=True)
        by_pieces = streams.by_pieces(run.data, run.source, run.stream)
        # one decision for all: other machines have other memories, and a stream holds out other rows
        run = replace(run, stream=replace(run.stream, stream=bool(agreed(by_pieces))))
        name, X, split = _load(out, run)
        out.note(f"{run.kind}: training on {len(X)} rows of {name}; tested on {split.told}")

        if load_per_core() > _BUSY:
            out.note(
                f"the machine is busy, with {load_per_core():.1f} processes for each core: this can take "
                "many times longer. With OMP_NUM_THREADS=1 in the environment it suffers less."
            )
        epochs_before, seconds_before = _behind(out, run.kept)
        start = time.perf_counter()
        if run.ray.ray is not None:
            estimator, interrupted = _fit_on_ray(out, run, estimator.device), False
        else:
            interrupted = _fit(out, run, estimator, X, epochs_before)
    if not is_first():
        raise typer.Exit  # also where it was interrupted: a failure would have torchrun stop who saves
    if run.ray.ray is None:
        _save(estimator, split, run.output)
    seconds = seconds_before + time.perf_counter() - start

    payload: dict[str, Any] = {
        "kind": run.kind,
        "data": name,
        "model": run.output,
        "n_train": len(X),
        "tested_on": split.told,
        "seconds": seconds,
        "epochs": len(estimator.history_.rows),
        "best_epoch": estimator.history_.best_epoch,
        "stopped_by": estimator.history_.stopped_by,
        "report": None,
    }
    if interrupted:
        out.result(payload, lambda to: None)
        out.error(
            f"interrupted after {counted(payload['epochs'], 'epoch')}; "
            f"the best weights so far are in {run.output}."
            + ("" if run.kept.folder is None else f" Go on with: {_resuming_command()}")
        )
        raise typer.Exit(FAILED)

    try:
        payload |= numbers.model_numbers(estimator, split.X_test)
        payload |= numbers.baseline_numbers(split.X, split.X_test, payload)
        if run.report is not None:
            title = f"{run.kind} on {name}"
            payload["report"] = write_page(run.report, title, {run.kind: estimator}, split)
    except BaseException:
        out.note(f"The model is in {run.output}.")  # whatever fails now, the training was not for nothing
        raise
    out.result(payload, lambda to: _show(to, payload))


def _load(out: Output, run: Run) -> tuple[str, Any, inputs.Split]:
    return streams.training_data(
        out, run.data, run.source, run.stream, run.test_fraction, run.parameters.get("random_state")
    )


def _save(estimator: Autoencoder, split: inputs.Split, output: Path) -> None:
    import numpy as np

    if split.feature_names is not None:  # the file remembers them: other commands find its columns by name
        estimator.feature_names_in_ = np.array(split.feature_names, dtype=object)
    estimator.save(output)


def _fit(out: Output, run: Run, estimator: Autoencoder, X: Any, epochs_before: int) -> bool:
    """Train; return whether that was interrupted."""
    try:
        with Bars(out, epochs_before) as bars:
            estimator.fit(
                X,
                progress=bars.of(run.kind),
                checkpoint=run.kept.folder,
                every=run.kept.every or 1,
                resume=run.kept.resume,
            )
    except KeyboardInterrupt:
        if is_first() and not (hasattr(estimator, "history_") and hasattr(estimator, "module_")):
            raise
        return True
    return False


def _fit_on_ray(out: Output, run: Run, device: str) -> Autoencoder:
    """Let the workers of a cluster train and write the model; return it."""
    from diabolo.training.checkpoint import NAME, Checkpoint

    out.note(f"training with {counted(run.ray.count, 'worker')} of Ray, at {run.ray.ray}")
    output = run.output.resolve()
    with folder_for_ray(run.kept.folder, output) as folder:
        if not run.kept.resume:  # the workers go on from what they find, be they the first or not
            Checkpoint(folder)
            (folder / NAME).unlink(missing_ok=True)
        data, source = everywhere(run.data, run.source)
        theirs = replace(
            run,
            data=data,
            source=source,
            output=output,
            kept=replace(run.kept, checkpoint=folder, resume=True),
        )
        try:
            train_on_ray(run.ray, _work, {"run": theirs}, device, folder)
        except KeyboardInterrupt:
            out.note(
                "with --ray only --checkpoint keeps what was learned: nothing is kept."
                if run.kept.folder is None
                else f"What was learned is in the checkpoint in {run.kept.folder}, if an epoch had ended. "
                f"Go on with: {resuming_command()}"
            )
            raise
    return inputs.load_model(output)


def _work(settings: dict[str, Any]) -> None:
    """Train as one of the workers of a cluster; the first one writes the model."""
    from diabolo.training import workers

    run: Run = settings["run"]
    with refusing(settings["storage"]) as refused:
        if refused:
            return
        estimator = make_estimator(run.kind, run.parameters)
        _, X, split = _load(Output(quiet=True), run)
        estimator.fit(X, checkpoint=run.kept.folder, every=run.kept.every or 1, resume=True)
        if workers.is_first():
            _save(estimator, split, run.output)


def _resuming_command() -> str:
    return "the same command, by torchrun, and --resume" if started_by_torchrun() else resuming_command()


def _behind(out: Output, kept: CheckpointOptions) -> tuple[int, float]:
    """Say where the training begins; return how many epochs and seconds it has behind it."""
    if kept.folder is None or not kept.resume:
        return 0, 0.0
    from diabolo.training.checkpoint import Checkpoint

    found = Checkpoint(kept.folder, resume=True)
    if found.epochs_done:
        out.note(
            f"going on after {counted(found.epochs_done, 'epoch')}, from the checkpoint in {kept.folder}"
        )
    else:
        out.note(f"no checkpoint in {kept.folder} yet: training from the beginning")
    return found.epochs_done, found.seconds


def _show(to: Console, payload: Mapping[str, Any]) -> None:
    pairs = [
        *numbers.told(dict(payload)),
        ("tested on", payload["tested_on"]),
        (
            "training",
            f"{counted(payload['epochs'], 'epoch')} in {duration(payload['seconds'])}, "
            f"ended by {STOPPED[payload['stopped_by']]}",
        ),
        ("model", str(payload["model"])),
    ]
    if payload["report"] is not None:
        pairs.append(("report", str(payload["report"])))
    print_pairs(to, pairs, title=f"{payload['kind']} on {payload['data']}")
