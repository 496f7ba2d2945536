"""``diabolo detect score`` and ``threshold``: what is done with a fitted detector."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs, streams
from diabolo.cli.console import Output, counted, number, print_pairs
from diabolo.cli.detect_tables import cells_of, open_table_for, refuse_broken, refuse_holes
from diabolo.cli.detecting import (
    DetectorFile,
    NormalValue,
    Part,
    about,
    is_map,
    judged,
    labelled,
    load_detector,
    load_map,
    note_one_sided,
    percent,
    print_labels,
    threshold_told,
    write_detection_page,
)
from diabolo.cli.options import DataName, SourceOptions, StreamOptions
from diabolo.cli.output import TABLES, aside, check_place, parquet_writer, write_npy
from diabolo.cli.page import ReportFolder, check_report_place
from diabolo.cli.progress import counting
from diabolo.errors import InvalidDataError, InvalidParameterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from diabolo.applications import AnomalyDetector
    from diabolo.report.verdicts import Judged

    Array = NDArray[Any]

_MAP_THRESHOLDS = ("threshold", "held_out_rate", "pixel_threshold", "held_out_pixel_rate")
_COLUMNS = ("row", "score", "p_value", "verdict")


def score(
    out: Output,
    source: SourceOptions,
    options: StreamOptions,
    model: DetectorFile,
    data: DataName,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where scores go: .csv, .parquet or .npy.")
    ],
    top: Annotated[
        int,
        typer.Option(
            "--top", metavar="N", help="How many features are named for each row; 0 takes less time."
        ),
    ] = 3,
    normal: NormalValue = None,
    report: ReportFolder = None,
) -> None:
    """Write for each row of DATA its score, its p-value, the verdict, and the features that tell most.

    A row's score is 1 where it is typical of normal rows; the greater, the more surprising. Its p-value is
    the share of normal rows that are at least so surprising; those with a score beyond the threshold are
    anomalies. Each of the features named stands beside its share of the score. Rows and pixels are counted
    from 0. Of pictures in a folder the path within it is written too. In a .npy file an anomaly is 1 and
    features are numbers.

    Data larger than the memory are read, and scores written, piece by piece. With --label it is measured
    how many labelled anomalies are found.
    """
    output = check_place(output, TABLES, read=(data, model))
    if top < 0:
        raise InvalidParameterError(f"--top must be a whole number from 0 up; got {top}. Give for example 3.")
    if report is not None:
        check_report_place(report)
    detector = load_detector(model)
    rows, name, truth = _rows_to_score(out, detector, data, source, options, normal)
    from diabolo.report.verdicts import Judged

    seen = Judged(detector.threshold_, f"{counted(len(rows), 'row')} of {name}", cells=cells_of(rows))
    from diabolo.cli.pictures import names_of_pictures

    pictures = names_of_pictures(data)
    n = _write_scores(out, output, detector, rows, min(top, detector.n_features_in_), seen, truth, pictures)
    if n < len(rows):
        streams.note_unread(out, name, rows, n)
        seen.told = f"{counted(n, 'row')} of {name}"
    payload: dict[str, Any] = {
        "model": model,
        "data": name,
        "output": output,
        "n": n,
        "flagged": seen.flagged,
        "threshold": detector.threshold_,
        "labels": seen.measures(),
        "report": None,
    }
    if report is not None:
        payload["report"] = write_detection_page(report, f"Anomalies in {name}", detector, seen)
    note_one_sided(out, seen)
    out.result(payload, lambda to: _show_score(to, payload))


def _rows_to_score(
    out: Output,
    detector: AnomalyDetector,
    data: str,
    source: SourceOptions,
    options: StreamOptions,
    normal: str | None,
) -> tuple[Any, str, NDArray[np.bool_] | None]:
    """Return all rows of DATA as the detector takes them, DATA's name, and which are labelled anomalies."""
    import numpy as np

    if detector.encoder_ is not None:
        refuse_broken(options)
        mixed = open_table_for(out, detector, data, source)
        found = labelled(out, mixed.table.y, None, mixed.table.name, source, normal, learned=False)
        rows = mixed.frame() if options.stream is False else mixed
        return rows, mixed.table.name, None if found is None else found[0]
    stream = streams.open_for(out, detector, data, source, options)
    if stream is not None:
        name = streams.name_of(data)
        found = labelled(out, stream.labels(), None, name, source, normal, learned=False)
        return stream, name, None if found is None else found[0]
    dataset = inputs.load_for(out, detector, data, source)
    refuse_holes(dataset, data)
    found = labelled(out, dataset.y, dataset.y_test, dataset.name, source, normal, learned=False)
    parts = [dataset.X] if dataset.X_test is None else [dataset.X, dataset.X_test]
    if found is not None and len(found) < len(parts):
        raise InvalidDataError(
            f"{dataset.name} must have labels of its test rows too; got none. Leave --label out."
        )
    return np.concatenate(parts), dataset.name, None if found is None else np.concatenate(found)


def _write_scores(
    out: Output,
    path: Path,
    detector: AnomalyDetector,
    rows: Any,
    top: int,
    seen: Judged,
    truth: NDArray[np.bool_] | None,
    pictures: Sequence[str] | None,
) -> int:
    """Write one line for each row as it is judged; return how many."""
    names = feature_names(detector)
    columns = [*_COLUMNS, *(f"{what}_{k + 1}" for k in range(top) for what in ("feature", "share"))]
    if pictures is not None:
        columns.insert(1, "image")

    def parts() -> Iterator[Part]:
        for part in judged(detector, rows, truth):
            seen.add(part.numbers, part.rows, part.surprise, part.truth)
            yield part

    lines = (_numbers(detector, part, top) for part in counting(out, "scores", parts(), len(rows)))
    suffix = path.suffix.lower()
    with aside(path) as place:
        if suffix == ".npy":
            with place.open("w+b") as stream:
                write_npy(stream, lines, len(rows))
        elif suffix == ".parquet":
            with parquet_writer(place, columns) as write:
                for line in lines:
                    write(_worded(line, names, pictures))
        else:
            with place.open("w", encoding="utf-8", newline="") as text:
                writer = csv.writer(text, lineterminator="\n")
                writer.writerow(columns)
                for line in lines:
                    writer.writerows(
                        [f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row]
                        for row in _worded(line, names, pictures)
                    )
    return seen.n


def _numbers(detector: AnomalyDetector, part: Part, top: int) -> Array:
    """Return row, score, p-value, 1 for an anomaly, and features with their shares, (k, 4 + 2 top)."""
    import numpy as np

    from diabolo.applications import ensemble
    from diabolo.report.verdicts import by_column

    out = np.empty((len(part), len(_COLUMNS) + 2 * top))
    out[:, 0], out[:, 1] = part.numbers, part.surprise
    out[:, 2] = detector.calibration_.p_value(part.surprise)
    out[:, 3] = part.surprise > detector.threshold_
    if top:
        parts = by_column(detector, ensemble.shares(detector.voters, part.rows))
        shares = parts / part.surprise[:, None]
        most = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        out[:, 4::2], out[:, 5::2] = most, np.take_along_axis(shares, most, axis=1)
    return out


def _worded(lines: Array, names: Sequence[str], pictures: Sequence[str] | None) -> Array:
    """Return the same with words: the verdict, the features' names, after the row's number its picture's."""
    import numpy as np

    out = lines.astype(object)
    out[:, 0] = lines[:, 0].astype(np.int64)
    out[:, 3] = np.where(lines[:, 3] > 0, "anomaly", "normal")
    out[:, 4::2] = np.array(names, dtype=object)[lines[:, 4::2].astype(np.int64)]
    return out if pictures is None else np.insert(out, 1, [pictures[row] for row in out[:, 0]], axis=1)


def feature_names(detector: AnomalyDetector) -> list[str]:
    """Return the names of the columns; of pixels, their places."""
    import numpy as np

    known = getattr(detector, "feature_names_in_", None)
    if known is not None:
        return [str(name) for name in known]
    if len(detector.sample_shape_) == 1:
        return [f"x{k}" for k in range(detector.n_features_in_)]
    return [",".join(map(str, place)) for place in np.ndindex(detector.sample_shape_)]


def _show_score(to: Console, payload: dict[str, Any]) -> None:
    pairs = [
        (
            "flagged",
            f"{payload['flagged']:,} of {payload['n']:,} rows ({percent(payload['flagged'] / payload['n'])})",
        ),
        ("threshold", number(payload["threshold"])),
        ("scores", str(payload["output"])),
    ]
    if payload["report"] is not None:
        pairs.append(("report", str(payload["report"])))
    print_pairs(to, pairs, title=f"{payload['model']} on {payload['data']}")
    if payload["labels"] is not None:
        to.print()
        print_labels(to, payload["labels"])


# ---------------------------------------------------------------------------------------------- threshold
def threshold(
    out: Output,
    model: DetectorFile,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            "--false-alarm-rate",
            metavar="X",
            help="Share of fresh normal rows that may be flagged, in (0, 1).",
        ),
    ] = None,
    contamination: Annotated[
        float | None,
        typer.Option(
            "--contamination",
            metavar="X",
            help="Share of rows like those of `detect fit` that are to be flagged, normal or not, in (0, 1).",
        ),
    ] = None,
    value: Annotated[
        float | None,
        typer.Option("--value", metavar="X", help="The score itself beyond which rows are anomalies."),
    ] = None,
) -> None:
    """Set beyond which score rows are anomalies, and write it into the detector's file; nothing is trained.

    Give one of the three. The file is replaced whole or not at all.
    """
    chosen = {"false_alarm_rate": false_alarm_rate, "contamination": contamination, "value": value}
    got = [f"--{name.replace('_', '-')}" for name, one in chosen.items() if one is not None]
    if len(got) != 1:
        raise InvalidParameterError(
            "the threshold must be set by one of --false-alarm-rate, --contamination and --value; got "
            f"{' and '.join(got) or 'none of them'}. Give for example --false-alarm-rate 0.01."
        )
    if is_map(model):
        _map_threshold(out, model, chosen, got)
        return
    detector = load_detector(model)
    before = about(detector)
    detector.set_threshold(**chosen)
    after = about(detector)
    if detector.threshold_ != before["threshold"]:
        detector.save(model)
    keys = ("threshold", "held_out_rate")
    payload = {
        "model": model,
        "n_held_out": after["n_held_out"],
        **{key: after[key] for key in keys},
        **{f"{key}_before": before[key] for key in keys},
    }
    pairs = [
        (name, threshold_told(one["threshold"], one["held_out_rate"]))
        for name, one in (("threshold", after), ("before", before))
    ]
    out.result(payload, lambda to: print_pairs(to, pairs, title=str(model)))


def _map_threshold(out: Output, model: Path, chosen: dict[str, float | None], got: list[str]) -> None:
    """Set the thresholds of a map: that of images, and with a rate that of pixels too."""
    from diabolo.cli.detect_map import about_map, told_of_map

    if chosen.pop("contamination") is not None:
        raise InvalidParameterError(
            f"the threshold of a map must be set by --false-alarm-rate or --value; got {got[0]}. Give one of "
            "these."
        )
    fitted = load_map(model)
    before = about_map(fitted)
    fitted.set_threshold(**chosen)
    after = about_map(fitted)
    if after != before:
        fitted.save(model)
    payload = {"model": model, **after, **{f"{key}_before": before[key] for key in _MAP_THRESHOLDS}}
    pairs = [*told_of_map(after)[3:], *((f"before: {name}", text) for name, text in told_of_map(before)[3:])]
    out.result(payload, lambda to: print_pairs(to, pairs, title=str(model)))
