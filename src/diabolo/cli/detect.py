"""``diabolo detect``: a detector of anomalies is fitted, scores rows, and has its threshold set."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs, streams
from diabolo.cli.console import Output, counted, duration, number, print_pairs
from diabolo.cli.detecting import (
    DetectorFile,
    NormalValue,
    Part,
    about,
    anomalies,
    check_detector_place,
    judged,
    load_detector,
    percent,
    print_areas,
    print_labels,
    threshold_told,
    told,
)
from diabolo.cli.options import (
    DATA_HELP,
    DataName,
    ParameterOptions,
    SourceOptions,
    StreamOptions,
    check_kind,
    given,
)
from diabolo.cli.output import TABLES, aside, check_place, naming, parquet_writer, write_npy
from diabolo.cli.page import COMMAND, ReportFolder, check_report_place
from diabolo.cli.progress import Bars, counting
from diabolo.cli.train import make_estimator
from diabolo.errors import InvalidDataError, InvalidParameterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from diabolo.applications import AnomalyDetector
    from diabolo.data import Dataset, Source
    from diabolo.report.verdicts import Judged

    Array = NDArray[Any]

_OWN = ("random_state", "input_shape", "device")  # parameters that the detector has too
_MEASURED_FRACTION = 0.2
_COLUMNS = ("row", "score", "p_value", "verdict")


# ---------------------------------------------------------------------------------------------------- fit
@dataclass(frozen=True)
class _Rows:
    """What is learned from and what is judged afterwards, with its numbers in DATA and its labels."""

    name: str
    train: Array | Source
    judged: Array | None
    numbers: NDArray[np.int64] | None
    truth: NDArray[np.bool_] | None
    told: str
    feature_names: tuple[str, ...] | None


def fit(
    out: Output,
    source: SourceOptions,
    stream: StreamOptions,
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
    ] = 0.01,
    trim: Annotated[
        float | None,
        typer.Option(
            "--trim",
            metavar="X",
            help="Share of the training rows, in [0, 0.5), that are left out after a first look, as they may "
            "be anomalies themselves. (default: 0.1; 0 with --normal)",
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
            help="Detect with this kind of autoencoder and the parameters below, instead of the four "
            "denoising ones that need no tuning.",
        ),
    ] = None,
    report: ReportFolder = None,
) -> None:
    """Learn what the rows of DATA look like and write a detector of those that are unlike them.

    Some anomalies among the rows do little harm. The threshold comes from rows that were held out: of fresh
    normal rows at most the share --false-alarm-rate is beyond it. `detect threshold` changes it later. With
    labels (--label, or sub-folders of pictures with --normal) it is measured how well the detector finds
    labelled anomalies, beside PCA and KNN of the same training rows.
    """
    output = check_detector_place(output.expanduser())
    if report is not None:
        check_report_place(report)
    detector = _unfitted(kind, given(parameters))
    detector.set_params(
        false_alarm_rate=false_alarm_rate,
        calibration_fraction=calibration_fraction,
        trim=trim if trim is not None else 0.0 if normal is not None else detector.trim,
    )
    detector._check_settings()
    seed = detector.random_state
    rows = _rows(out, data, source, stream, normal, test_fraction, None if seed is None else int(seed))  # type: ignore[arg-type]
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
            payload["report"] = _page(report, f"Anomalies in {rows.name}", detector, seen)
    except BaseException:
        out.note(f"The detector is in {output}.")  # whatever fails now, the training was not for nothing
        raise
    _note_one_sided(out, seen)
    out.result(payload, lambda to: _show_fit(to, payload))


def _unfitted(kind: str | None, chosen: dict[str, Any]) -> AnomalyDetector:
    """Return a detector with the default's members, or with those that were asked for."""
    own = {name: chosen.pop(name) for name in _OWN if name in chosen}
    if kind is None and chosen:
        raise InvalidParameterError(
            f"parameters of an autoencoder must go with --kind; got {', '.join(chosen)}. Give for example "
            "--kind denoising, or leave them out for the members that need no tuning."
        )
    estimator = None
    if kind is not None:
        device = {"device": own.pop("device")} if "device" in own else {}
        estimator = make_estimator(check_kind(kind), {**chosen, **device})
    from diabolo.applications import AnomalyDetector

    return AnomalyDetector(estimator=estimator, **own)


def _rows(
    out: Output,
    data: str,
    source: SourceOptions,
    options: StreamOptions,
    normal: str | None,
    test_fraction: float | None,
    seed: int | None,
) -> _Rows:
    if test_fraction is not None and not 0 <= test_fraction < 1:
        raise InvalidParameterError(
            f"--test-fraction must be in [0, 1); got {test_fraction:g}. Give for example 0.2."
        )
    stream = streams.open_stream(data, source, options)
    if stream is None:
        dataset = inputs.load_data(data, source)
        return _parted(out, dataset, _truth(out, dataset, source, normal), normal, test_fraction, seed)
    _refuse_labels(out, source, normal)
    if test_fraction is not None:
        raise InvalidParameterError(
            f"--test-fraction must be left out where DATA is read piece by piece; got {test_fraction:g}. "
            "Judge other data with 'diabolo detect score'."
        )
    name = streams.name_of(data)
    out.note(f"{name}: {counted(len(stream), 'row')}, read piece by piece")
    return _Rows(name, stream, None, None, None, f"all rows of {name}", stream.feature_names)


def _refuse_labels(out: Output, source: SourceOptions, normal: str | None) -> None:
    """Say that labels of data that are read piece by piece are not looked at."""
    if normal is not None:
        raise InvalidParameterError(
            f"--normal must be left out where DATA is read piece by piece; got {normal!r}. Give --no-stream, "
            "or a file with these rows only."
        )
    if source.label is not None:
        out.note(f"the labels in {source.label!r} are not looked at: DATA is read piece by piece")


def _truth(
    out: Output, dataset: Dataset, source: SourceOptions, normal: str | None
) -> list[NDArray[np.bool_]] | None:
    """Return which rows of X, and of X_test where there is one, are labelled anomalies."""
    if dataset.y is None:
        if normal is not None:
            raise InvalidParameterError(
                f"--normal must go with labels; got {normal!r} and {dataset.name} without any. Name their "
                "column with --label."
            )
        return None
    if source.label is None and normal is None:
        out.note(f"the labels of {dataset.name} are not looked at; --normal VALUE says which mean normal")
        return None
    import numpy as np

    parts = [dataset.y] if dataset.y_test is None else [dataset.y, dataset.y_test]
    found = anomalies(np.concatenate(parts), normal)
    return [found[: len(dataset.y)], found[len(dataset.y) :]][: len(parts)]


def _parted(
    out: Output,
    dataset: Dataset,
    truth: list[NDArray[np.bool_]] | None,
    normal: str | None,
    test_fraction: float | None,
    seed: int | None,
) -> _Rows:
    """Part rows in memory into those that are learned from and those that are judged."""
    import numpy as np

    from diabolo.estimators.validation import check_values

    X, X_test, name = dataset.X, dataset.X_test, dataset.name
    for part in (X, X_test):
        if part is not None:
            check_values(part.reshape(len(part), -1), dataset.feature_names, part.shape[1:])
    anomalous = np.zeros(len(X), dtype=bool) if truth is None else truth[0]
    learned = np.flatnonzero(~anomalous) if normal is not None else np.arange(len(X))
    left_out = np.setdiff1d(np.arange(len(X)), learned)
    if len(left_out):
        out.note(f"{name}: {counted(len(left_out), 'row')} not labelled {normal!r} not learned from")

    def rows(train: Any, shown: Any, numbers: Any, marks: Any, told: str) -> _Rows:
        return _Rows(name, train, shown, numbers, marks, told, dataset.feature_names)

    if X_test is not None and test_fraction is None:
        marks = truth[1] if truth is not None and len(truth) > 1 else None
        told_ = f"the {len(X_test):,} test rows of {name}"
        return rows(X[learned], X_test, np.arange(len(X_test)), marks, told_)
    share = test_fraction if test_fraction is not None else 0.0 if truth is None else _MEASURED_FRACTION
    n_test = round(share * len(learned))
    drawn = np.random.default_rng(inputs.seed_of(seed)).permutation(len(learned))[:n_test]
    train = np.delete(learned, drawn)
    shown = np.sort(np.concatenate([learned[drawn] if n_test else learned, left_out]))
    told_ = f"{n_test:,} of {len(learned):,} rows of {name}, kept from training"
    if not n_test:
        told_ = f"all {len(learned):,} training rows of {name} themselves"
    if len(left_out):
        told_ += f", and {len(left_out):,} labelled otherwise"
    return rows(X[train], X[shown], shown, None if truth is None else anomalous[shown], told_)


def _look_back(out: Output, detector: AnomalyDetector, rows: _Rows, for_page: bool) -> Judged | None:
    """Judge rows after the fit; those of a source only for the report: it takes another pass."""
    from diabolo.data import Source
    from diabolo.report.verdicts import Judged, rival_scores

    if rows.judged is None and not for_page:
        return None
    seen = Judged(detector.threshold_, rows.told, rows.truth)
    if rows.judged is not None and rows.truth is not None and not isinstance(rows.train, Source):
        seen.by_rivals = rival_scores(rows.train, rows.judged)
    source = rows.train if rows.judged is None else rows.judged
    for part in counting(out, "judged", judged(detector, source), len(source)):
        numbers = part.numbers if rows.numbers is None else rows.numbers[part.numbers]
        seen.add(numbers, part.rows, part.surprise)
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


def _note_one_sided(out: Output, seen: Judged | None) -> None:
    from diabolo.report.verdicts import one_sided

    found = None if seen is None else seen.measures()
    said = None if found is None else one_sided(found)
    if said is not None:
        out.note(said)


def _page(folder: Path, title: str, detector: AnomalyDetector, seen: Judged | None) -> Path:
    from diabolo.report.detection import write_detection_report

    assert seen is not None
    with naming(folder):
        return write_detection_report(
            folder, title=title, detector=detector, judged=seen, command=COMMAND.get()
        )


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


# -------------------------------------------------------------------------------------------------- score
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
    from 0. In a .npy file an anomaly is 1 and features are numbers.

    Data larger than the memory are read, and scores written, piece by piece. With --label it is measured
    how many labelled anomalies are found.
    """
    output = check_place(output, TABLES)
    if top < 0:
        raise InvalidParameterError(f"--top must be a whole number from 0 up; got {top}. Give for example 3.")
    if report is not None:
        check_report_place(report)
    detector = load_detector(model)
    rows, name, truth = _rows_to_score(out, detector, data, source, options, normal)
    from diabolo.report.verdicts import Judged

    seen = Judged(detector.threshold_, f"{counted(len(rows), 'row')} of {name}", truth)
    n = _write_scores(out, output, detector, rows, min(top, detector.n_features_in_), seen)
    if n < len(rows):
        out.note(f"{name}: {len(rows) - n} of {len(rows)} could not be read and were left out")
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
        payload["report"] = _page(report, f"Anomalies in {name}", detector, seen)
    _note_one_sided(out, seen)
    out.result(payload, lambda to: _show_score(to, payload))


def _rows_to_score(
    out: Output,
    detector: AnomalyDetector,
    data: str,
    source: SourceOptions,
    options: StreamOptions,
    normal: str | None,
) -> tuple[Array | Source, str, NDArray[np.bool_] | None]:
    """Return all rows of DATA as the detector takes them, DATA's name, and which are labelled anomalies."""
    stream = streams.open_for(out, detector, data, source, options)
    if stream is not None:
        _refuse_labels(out, source, normal)
        return stream, streams.name_of(data), None
    import numpy as np

    dataset = inputs.load_for(out, detector, data, source)
    found = _truth(out, dataset, source, normal)
    parts = [dataset.X] if dataset.X_test is None else [dataset.X, dataset.X_test]
    if found is not None and len(found) < len(parts):
        raise InvalidDataError(
            f"{dataset.name} must have labels of its test rows too; got none. Leave --label out."
        )
    return np.concatenate(parts), dataset.name, None if found is None else np.concatenate(found)


def _write_scores(
    out: Output, path: Path, detector: AnomalyDetector, rows: Array | Source, top: int, seen: Judged
) -> int:
    """Write one line for each row as it is judged; return how many."""
    names = feature_names(detector)
    columns = [*_COLUMNS, *(f"{what}_{k + 1}" for k in range(top) for what in ("feature", "share"))]

    def parts() -> Iterator[Part]:
        for part in judged(detector, rows):
            seen.add(part.numbers, part.rows, part.surprise)
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
                    write(_worded(line, names))
        else:
            with place.open("w", encoding="utf-8", newline="") as text:
                writer = csv.writer(text, lineterminator="\n")
                writer.writerow(columns)
                for line in lines:
                    writer.writerows(
                        [f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row]
                        for row in _worded(line, names)
                    )
    return seen.n


def _numbers(detector: AnomalyDetector, part: Part, top: int) -> Array:
    """Return row, score, p-value, 1 for an anomaly, and features with their shares, (k, 4 + 2 top)."""
    import numpy as np

    from diabolo.applications import ensemble

    out = np.empty((len(part), len(_COLUMNS) + 2 * top))
    out[:, 0], out[:, 1] = part.numbers, part.surprise
    out[:, 2] = detector.calibration_.p_value(part.surprise)
    out[:, 3] = part.surprise > detector.threshold_
    if top:
        shares = ensemble.shares(detector.members, part.rows) / part.surprise[:, None]
        most = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        out[:, 4::2], out[:, 5::2] = most, np.take_along_axis(shares, most, axis=1)
    return out


def _worded(lines: Array, names: Sequence[str]) -> Array:
    """Return the same with words: the verdict, the features' names."""
    import numpy as np

    out = lines.astype(object)
    out[:, 0] = lines[:, 0].astype(np.int64)
    out[:, 3] = np.where(lines[:, 3] > 0, "anomaly", "normal")
    out[:, 4::2] = np.array(names, dtype=object)[lines[:, 4::2].astype(np.int64)]
    return out


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
    if sum(one is not None for one in chosen.values()) != 1:
        got = [f"--{name.replace('_', '-')}" for name, one in chosen.items() if one is not None]
        raise InvalidParameterError(
            "the threshold must be set by one of --false-alarm-rate, --contamination and --value; got "
            f"{' and '.join(got) or 'none of them'}. Give for example --false-alarm-rate 0.01."
        )
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
