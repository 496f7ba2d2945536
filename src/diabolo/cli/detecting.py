"""What the commands of detection share: detector files, labels of two kinds, rows judged part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli.console import Output, number, print_pairs, print_table
from diabolo.cli.inputs import check_format
from diabolo.cli.options import SourceOptions
from diabolo.cli.output import check_place, naming
from diabolo.cli.page import COMMAND
from diabolo.errors import InvalidDataError, InvalidParameterError, ModelFileError
from diabolo.names import did_you_mean, quoted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from diabolo.applications import AnomalyDetector, AnomalyMap
    from diabolo.persistence import Kind
    from diabolo.report.verdicts import Judged

    Array = NDArray[Any]
    Doubles = NDArray[np.float64]

DetectorFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A detector file that `detect fit` wrote.")
]
NormalValue = Annotated[
    str | None,
    typer.Option(
        "--normal",
        metavar="VALUE",
        help="The label of normal rows; all others are anomalies. `detect fit` then trains on rows with this "
        "label only. Not given: labels are 0 and 1, 1 and -1, false and true, no and yes or normal and "
        "anomaly, the latter being the anomalies, and are used for measuring only.",
    ),
]

_CODED = 8192  # rows of a mixed table that are judged at a time
_NORMAL = frozenset({"0", "false", "no", "normal", "inlier", "good", "ok"})
_ANOMALY = frozenset({"1", "true", "yes", "anomaly", "anomalous", "abnormal", "outlier", "bad", "defect"})


def load_detector(path: Path) -> AnomalyDetector:
    """Return the detector of rows in a file.

    Raises
    ------
    ModelFileError
        When there is no such file, or it is anything but a detector of diabolo.
    """
    from diabolo.applications import AnomalyDetector
    from diabolo.persistence import DETECTOR

    _check_file(path, DETECTOR)
    return AnomalyDetector.load(path)


def load_map(path: Path) -> AnomalyMap:
    """Return the map of images in a file.

    Raises
    ------
    ModelFileError
        When there is no such file, or it is anything but a map of diabolo.
    """
    from diabolo.applications import AnomalyMap
    from diabolo.persistence import MAP

    _check_file(path, MAP)
    return AnomalyMap.load(path)


def is_map(path: Path) -> bool:
    """Return whether a file is a map of images."""
    from diabolo.persistence import MAP, format_of

    return format_of(path) == MAP.format


def _check_file(path: Path, wanted: Kind) -> None:
    """Raise where a file is missing or one of another command's."""
    if not path.is_file():
        got = "is a folder" if path.is_dir() else "does not exist"
        raise ModelFileError(
            f"MODEL must be a file that 'diabolo detect fit' wrote; got {path}, which {got}. Check the path."
        )
    check_format(path, wanted)


def check_detector_place(path: Path) -> Path:
    """Return ``path`` if a detector can be written there; a file that is none is never overwritten.

    Raises
    ------
    ModelFileError
        When the file exists and is not a detector of diabolo.
    """
    path = check_place(path)
    if path.exists():
        from diabolo.persistence import DETECTOR, MAP, format_of

        if format_of(path) not in (DETECTOR.format, MAP.format):
            raise ModelFileError(
                f"--output must be a new file or a detector to replace; got {path}, which is neither. "
                "Choose another name."
            )
    return path


def anomalies(labels: Array, normal: str | None, out: Output | None = None) -> NDArray[np.bool_]:
    """Return which rows are labelled anomalies.

    Parameters
    ----------
    labels : ndarray (n,)
        Numbers or texts.
    normal : str, optional
        The label of normal rows; all others are anomalies. None: labels of two kinds are known by their
        names.
    out : Output, optional
        Where it is told that no row is labelled ``normal``, as may be when rows are judged; None: it is an
        error, since there is nothing to learn from.

    Raises
    ------
    InvalidDataError
        When a label is missing, or labels cannot be read as normal and anomaly.
    InvalidParameterError
        When no row is labelled ``normal`` and ``out`` is None.
    """
    import numpy as np

    values, places = np.unique(labels, return_inverse=True)
    texts = [_text(value) for value in values.tolist()]
    unknown = [i for i, text in enumerate(texts) if text in ("", "nan")]
    if unknown:
        row = int(np.flatnonzero(places == unknown[0])[0])
        raise InvalidDataError(
            f"every row must have a label; got none in row {row} (rows count from 0). Fill it, or leave the "
            "row out."
        )
    if normal is not None:
        wanted = _text(float(normal)) if labels.dtype.kind in "biuf" and _is_number(normal) else normal
        if wanted not in texts:
            if out is None:
                raise InvalidParameterError(
                    f"--normal must be the label of some row; got {normal!r}. "
                    f"{did_you_mean(normal, texts[:20])}"
                )
            out.note(
                f"nothing is labelled {normal!r}, so all counts as anomalies; labels are {quoted(texts)}"
            )
        return np.asarray([text != wanted for text in texts])[places]
    words = [text.casefold() for text in texts]
    if "-1" in words and set(words) <= {"-1", "1"}:
        return np.asarray([word == "-1" for word in words])[places]
    if not all(word in _NORMAL or word in _ANOMALY for word in words):
        raise InvalidDataError(
            "labels must tell normal rows from anomalies, as 0 and 1, 1 and -1, false and true, no and yes "
            f"or normal and anomaly do; got {quoted(texts)}. Say with --normal VALUE which of them is normal."
        )
    return np.asarray([word in _ANOMALY for word in words])[places]


def _text(value: Any) -> str:
    return f"{value:.17g}" if isinstance(value, float) else str(value).strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Part:
    """Some rows as members take them (k, values), their numbers, surprises and, where known, labels (k,)."""

    numbers: NDArray[np.int64]
    rows: Array
    surprise: Doubles
    truth: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.rows)


def judged(detector: AnomalyDetector, rows: Any, truth: NDArray[np.bool_] | None = None) -> Iterator[Part]:
    """Judge rows, a frame, a source or pieces of them, part by part; a row is named by its number in these.

    ``truth`` (n,) says which of them are labelled anomalies; its rows have the same numbers.
    """
    from diabolo.applications import ensemble

    for numbers, part in _parts(detector, rows):
        known = None if truth is None else truth[numbers]
        yield Part(numbers, part, ensemble.surprise(detector.voters, part), known)


def _parts(detector: AnomalyDetector, rows: Any) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Return rows in parts as the members take them, with their numbers."""
    import numpy as np

    from diabolo.cli.detect_tables import Pieces
    from diabolo.data import ArraySource
    from diabolo.data.opening import View

    if isinstance(rows, Pieces):
        for numbers, frame in rows.frames():
            yield numbers, detector._check(frame, reset=False)
        return
    if detector.encoder_ is not None:
        for numbers in np.array_split(np.arange(len(rows)), -(-len(rows) // _CODED)):
            yield numbers, detector._check(rows.iloc[numbers], reset=False)
        return
    source = ArraySource(rows) if isinstance(rows, np.ndarray) else rows
    passed: list[NDArray[np.int64]] = []  # chunks are read ahead; some of a source may be left out

    class Noted(View):
        def chunks(self, generator: Any = None) -> Iterator[Any]:
            for numbers, chunk in super().chunks(generator):
                passed.append(numbers)
                yield numbers, chunk

    for part in detector._each(lambda checked: checked, Noted(source)):
        while len(passed[0]) < len(part):
            passed[:2] = [np.concatenate(passed[:2])]
        numbers, passed[0] = passed[0][: len(part)], passed[0][len(part) :]
        yield numbers, part


def about(detector: AnomalyDetector) -> dict[str, Any]:
    """Return what a person asks about a fitted detector first."""
    scores = detector.calibration_.scores
    return {
        "members": [
            {
                "estimator": type(member.estimator).__name__,
                "corruption": str(member.estimator.recipe_.corruption or "none"),
                "parameters": member.estimator.n_parameters_,
            }
            for member in detector.members
        ],
        "folds": len(detector.members_),
        "remembered_rows": [len(memory.rows) for memory in detector.memories_],
        "sample_shape": detector.sample_shape_,
        "kinds": None if detector.encoder_ is None else detector.encoder_.kinds_,
        "n_held_out": len(scores),
        "threshold": detector.threshold_,
        "held_out_rate": float((scores > detector.threshold_).mean()),
        "comparison": detector.comparison_,
    }


def told(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the same as names and values for a person."""
    members, folds = found["members"], found["folds"]
    kinds = [f"{one['estimator']} with {one['corruption']}" for one in members[: len(members) // folds]]
    what = "; ".join(dict.fromkeys(kinds))
    held_out = f"{found['n_held_out']:,}" + (
        f", each judged by one of {folds} folds that had not seen it" if folds > 1 else ""
    )
    columns = []
    if found["kinds"] is not None:
        counts = Counter(found["kinds"].values())
        columns = [("columns", ", ".join(f"{n} {kind}" for kind, n in counts.items()))]
    return [
        *columns,
        ("members", f"{len(members)}" + (f", in {folds} folds" if folds > 1 else "") + f": {what}"),
        ("parameters", f"{sum(one['parameters'] for one in members):,}"),
        ("held-out rows", held_out),
        ("threshold", threshold_told(found["threshold"], found["held_out_rate"])),
    ]


def threshold_told(threshold: float, rate: float, what: str = "rows") -> str:
    """Return a threshold in words; ``rate`` is the share of what was held out beyond it."""
    return f"{number(threshold)}: {percent(rate)} of the held-out {what} are beyond it"


def percent(share: float | None) -> str:
    """Return a share as a person reads it.

    >>> percent(0.0123), percent(None)
    ('1.23 %', '-')
    """
    return "-" if share is None else f"{100 * share:.3g} %"


def print_areas(
    to: Console,
    planted: Mapping[str, Mapping[str, float]],
    labelled: Mapping[str, Mapping[str, float | None]],
) -> None:
    """Print the areas under the curve of the detector, PCA and KNN, on planted and on labelled anomalies."""
    kinds = list(next(iter(planted.values()), {}))
    head = ["detector", *(f"planted, {kind}" for kind in kinds)]
    if labelled:
        head += ["labelled", "average precision"]
    rows = []
    for name in planted:
        row = [name, *(number(planted[name][kind]) for kind in kinds)]
        if labelled:
            found = labelled.get(name, {})
            row += [number(found.get(key)) for key in ("auc_roc", "average_precision")]
        rows.append(row)
    to.print("area under the ROC curve, anomalies against normal rows:")
    print_table(to, head, rows)


def print_labels(to: Console, found: Mapping[str, Any]) -> None:
    """Print what ``measured`` found of labelled rows."""
    print_pairs(
        to,
        [
            ("labelled anomalies found", f"{percent(found['recall'])} of {found['n_anomalies']:,}"),
            (
                "labelled normal rows flagged",
                f"{percent(found['false_alarm_rate'])} of {found['n_normal']:,}",
            ),
            ("area under the ROC curve", number(found["auc_roc"])),
            ("average precision", number(found["average_precision"])),
        ],
    )


def labelled(
    out: Output,
    y: Array | None,
    y_test: Array | None,
    name: str,
    source: SourceOptions,
    normal: str | None,
    *,
    learned: bool,
) -> list[NDArray[np.bool_]] | None:
    """Return which rows with the labels y, and y_test where there are such, are anomalies.

    Rows that are ``learned`` from must be normal, some of them.
    """
    if y is None:
        if normal is not None:
            raise InvalidParameterError(
                f"--normal must go with labels; got {normal!r} and {name} without any. Name their "
                "column with --label."
            )
        return None
    if source.label is None and normal is None:
        out.note(f"the labels of {name} are not looked at; --normal VALUE says which mean normal")
        return None
    import numpy as np

    parts = [y] if y_test is None else [y, y_test]
    found = anomalies(np.concatenate(parts), normal, None if learned else out)
    return [found[: len(y)], found[len(y) :]][: len(parts)]


def note_one_sided(out: Output, seen: Judged | None) -> None:
    """Say where labels are all of one kind, so that there are no curves."""
    from diabolo.report.verdicts import one_sided

    found = None if seen is None else seen.measures()
    said = None if found is None else one_sided(found)
    if said is not None:
        out.note(said)


def write_detection_page(folder: Path, title: str, detector: AnomalyDetector, seen: Judged | None) -> Path:
    """Write the report of what a detector found and return the path of its page."""
    from diabolo.report.detection import write_detection_report

    assert seen is not None
    with naming(folder):
        return write_detection_report(
            folder, title=title, detector=detector, judged=seen, command=COMMAND.get()
        )
