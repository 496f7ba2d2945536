"""``diabolo detect fit``: from data to a detector of anomalies, or to a map of images."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli.console import Output, counted, duration, print_pairs
from diabolo.cli.detect_rows import Rows, rows_for_fit
from diabolo.cli.detect_tables import ColumnOptions
from diabolo.cli.detecting import (
    NormalValue,
    about,
    check_detector_place,
    judged,
    note_one_sided,
    percent,
    print_areas,
    print_labels,
    told,
    write_detection_page,
)
from diabolo.cli.options import (
    DATA_HELP,
    MapOptions,
    ParameterOptions,
    ScanOptions,
    SourceOptions,
    StreamOptions,
    check_kind,
    given,
)
from diabolo.cli.page import ReportFolder, check_report_place
from diabolo.cli.progress import Bars, counting
from diabolo.cli.train import make_estimator
from diabolo.errors import InvalidParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from diabolo.applications import AnomalyDetector
    from diabolo.report.verdicts import Judged

    Array = NDArray[Any]

_OWN = ("random_state", "input_shape", "device")  # parameters that the detector has too


def fit(
    out: Output,
    source: SourceOptions,
    stream: StreamOptions,
    columns: ColumnOptions,
    maps: MapOptions,
    scans: ScanOptions,
    parameters: ParameterOptions,
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the detector goes.")
    ] = Path("detector.safetensors"),
    false_alarm_rate: Annotated[
        float,
        typer.Option(
            "--false-alarm-rate", metavar="X", help="Share of normal rows that may be flagged, in (0, 1)."
        ),
    ] = 0.05,
    trim: Annotated[
        float | None,
        typer.Option(
            "--trim",
            metavar="X",
            help="Share of the training rows, in [0, 0.5), that are left out after a first look, as they may "
            "be anomalies themselves. (default: a fifth, which members that do not mask learn too; 0 with "
            "--normal)",
        ),
    ] = None,
    remember: Annotated[
        int | None,
        typer.Option(
            "--remember",
            metavar="N",
            help="Number of training rows at most that the detector and its file keep, to see what is far "
            "from all of them; 0 keeps none. (default: 20,000 for up to 48 columns; none with --kind)",
        ),
    ] = None,
    calibration_fraction: Annotated[
        float,
        typer.Option(
            "--calibration-fraction",
            metavar="X",
            help="Share of the rows, in (0, 1), that the weights do not see and the threshold comes from.",
        ),
    ] = 0.2,
    normal: NormalValue = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(
            "--test-fraction",
            metavar="X",
            help="Share of the rows, in [0, 1), kept from training to be judged afterwards; with 0 the "
            "training rows are. Not given: the test split of DATA if it has one, else 0.2 with labels and 0 "
            "without.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            help="Detect with this kind of autoencoder and the parameters below, instead of the six "
            "denoising ones that need no tuning.",
        ),
    ] = None,
    as_map: Annotated[
        bool | None,
        typer.Option(
            "--map/--no-map",
            help="Learn what small parts of images look like, so that `detect map` shows where one is unlike "
            "the others; with --no-map an image is a row of pixels. Not given: a map for a folder of "
            "pictures and for scans.",
        ),
    ] = None,
    report: ReportFolder = None,
) -> None:
    """Learn what the rows of DATA look like and write a detector of those that are unlike them.

    DATA may be a table of numbers, or one with text, truth values and missing cells too (.csv, .tsv,
    .parquet). Some anomalies among the rows do little harm. The threshold comes from rows that were held
    out: of fresh normal rows at most the share --false-alarm-rate is beyond it. `detect threshold` changes
    it later. Of a table of mixed columns that is larger than the memory a random sample is learned from
    (--most-rows). With labels (--label, or sub-folders of pictures with --normal) it is measured how well the
    detector finds labelled anomalies, beside PCA and KNN of the same training rows.

    Of images, all of them good ones, a map is learned: `detect map` then shows where other images are unlike
    them. Slices of one scan are held out together.
    """
    output = check_detector_place(output.expanduser())
    if as_map is None:
        from diabolo.cli.pictures import is_for_maps

        as_map = is_for_maps(data)
    if as_map:
        unused = {
            "--report": report,
            "--label": source.label,
            "--trim": trim,
            "--remember": remember,
            "--test-fraction": test_fraction,
            "--drop": columns.drop,
            "--categorical": columns.categorical,
            "--most-rows": columns.most_rows,
            "--stream": stream.stream,
            "--broken": stream.broken,
        }
        rates = {"false_alarm_rate": false_alarm_rate, "calibration_fraction": calibration_fraction}
        _fit_map(
            *(out, data, source, scans, output, kind, given(parameters), unused, normal),
            rates | maps.given(),
        )
        return
    for_maps = [
        f"--{name}"
        for one in (maps, scans)
        for name, value in asdict(one).items()
        if value is not None and value is not False
    ]
    if for_maps:
        raise InvalidParameterError(
            f"{' and '.join(for_maps)} must go with a map of images; got rows. Give --map too, or leave out."
        )
    if report is not None:
        check_report_place(report)
    detector = _unfitted(kind, given(parameters))
    detector.set_params(
        false_alarm_rate=false_alarm_rate,
        calibration_fraction=calibration_fraction,
        trim=trim if trim is not None else 0.0 if normal is not None else detector.trim,
        remember=detector.remember if remember is None else remember,
    )
    detector._check_settings()
    chosen_seed: Any = detector.random_state
    seed = None if chosen_seed is None else int(chosen_seed)
    rows = rows_for_fit(out, data, source, stream, columns, normal, test_fraction, seed)
    detector.set_params(kinds=rows.kinds)
    out.note(f"detector: learning from {counted(len(rows.train), 'row')} of {rows.name}")
    start = time.perf_counter()
    with Bars(out) as bars:
        detector.fit(rows.train, progress=bars.sharer("detector"))
    seconds = time.perf_counter() - start
    if rows.feature_names is not None:  # the file remembers them: other commands find its columns by name
        import numpy as np

        detector.feature_names_in_ = np.array(rows.feature_names, dtype=object)
    detector.save(output)
    payload: dict[str, Any] = {
        "data": rows.name,
        "model": output,
        "n_train": len(rows.train),
        "seconds": seconds,
        **about(detector),
        "judged": rows.told,
        "report": None,
    }
    try:
        seen = _look_back(out, detector, rows, report is not None)
        payload |= _verdicts(seen)
        if report is not None:
            payload["report"] = write_detection_page(report, f"Anomalies in {rows.name}", detector, seen)
    except BaseException:
        out.note(f"The detector is in {output}.")  # whatever fails now, the training was not for nothing
        raise
    note_one_sided(out, seen)
    out.result(payload, lambda to: _show_fit(to, payload))


def _unfitted(kind: str | None, chosen: dict[str, Any]) -> AnomalyDetector:
    """Return a detector with the default's members, or with those that were asked for."""
    own = {name: chosen.pop(name) for name in _OWN if name in chosen}
    device = {"device": own.pop("device")} if kind is not None and "device" in own else {}
    estimator = _members(kind, chosen | device)
    from diabolo.applications import AnomalyDetector

    return AnomalyDetector(estimator=estimator, **own)


def _fit_map(
    out: Output,
    data: str,
    source: SourceOptions,
    scans: ScanOptions,
    output: Path,
    kind: str | None,
    chosen: dict[str, Any],
    unused: dict[str, Any],
    normal: str | None,
    settings: dict[str, Any],
) -> None:
    from diabolo.cli.detect_map import fit_map

    got = {name: value for name, value in unused.items() if value is not None}
    if got:
        told = [name if value is True else f"{name} {value}" for name, value in got.items()]
        raise InvalidParameterError(
            f"{' and '.join(got)} must be left out for a map of images; got {' '.join(told)}. Leave "
            f"{'it' if len(got) == 1 else 'them'} out, or give --no-map."
        )
    own = {name: chosen.pop(name) for name in ("random_state",) if name in chosen}
    estimator = _members(kind, chosen)
    fit_map(out, data, source, scans, output, estimator, settings | own, normal)


def _members(kind: str | None, chosen: dict[str, Any]) -> Any:
    """Return the autoencoder that was asked for, or None."""
    if kind is None and chosen:
        raise InvalidParameterError(
            f"parameters of an autoencoder must go with --kind; got {', '.join(chosen)}. Give for example "
            "--kind denoising, or leave them out for the members that need no tuning."
        )
    return None if kind is None else make_estimator(check_kind(kind), chosen)


def _look_back(out: Output, detector: AnomalyDetector, rows: Rows, for_page: bool) -> Judged | None:
    """Judge rows after the fit; those of a source only for the report: it takes another pass."""
    from diabolo.report.verdicts import Judged, rivals_of

    if rows.judged is None and not for_page:
        return None
    seen = Judged(detector.threshold_, rows.told, cells=rows.cells)
    if rows.truth is not None:
        encoder = detector.encoder_
        seen.rivals = rivals_of(rows.train if encoder is None else encoder.transform(rows.train))
    source = rows.train if rows.judged is None else rows.judged
    for part in counting(out, "judged", judged(detector, source, rows.truth), len(source)):
        numbers = part.numbers if rows.numbers is None else rows.numbers[part.numbers]
        seen.add(numbers, part.rows, part.surprise, part.truth)
    return seen


def _verdicts(seen: Judged | None) -> dict[str, Any]:
    if seen is None:
        return {"n_judged": None, "flagged": None, "labels": None, "labels_comparison": {}}
    return {
        "n_judged": seen.n,
        "flagged": seen.flagged,
        "labels": seen.measures(),
        "labels_comparison": seen.comparison(),
    }


def _show_fit(to: Console, payload: dict[str, Any]) -> None:
    pairs = told(payload)
    if payload["n_judged"] is not None:
        share = percent(payload["flagged"] / payload["n_judged"])
        pairs.append(("flagged", f"{payload['flagged']:,} ({share}) of {payload['judged']}"))
    pairs += [("time", duration(payload["seconds"])), ("detector", str(payload["model"]))]
    if payload["report"] is not None:
        pairs.append(("report", str(payload["report"])))
    print_pairs(to, pairs, title=f"detector on {payload['data']}")
    to.print()
    print_areas(to, payload["comparison"], payload["labels_comparison"])
    if payload["labels"] is not None:
        to.print()
        print_labels(to, payload["labels"])
