"""What a detector said of rows: how many it flagged, which most, and how right it was where labels tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data import Source
from diabolo.data.opening import gather

Array = NDArray[Any]
Doubles = NDArray[np.float64]

MOST_SHOWN = 12  # rows that are looked at one by one
_MOST_KEPT = 200_000  # surprises that a histogram is drawn of


def measured(truth: NDArray[np.bool_], surprise: Doubles, threshold: float) -> dict[str, Any]:
    r"""Return how well surprises tell labelled anomalies from normal rows.

    Parameters
    ----------
    truth : ndarray of bool (n,)
        True for anomalies.
    surprise : ndarray (n,)
        Higher = more anomalous.
    threshold : float
        Rows with a greater surprise are flagged.

    Returns
    -------
    dict
        ``n_normal`` and ``n_anomalies``; the areas ``auc_roc`` and ``average_precision``, None where either
        kind of row is missing; ``recall``, the share of anomalies flagged, and ``false_alarm_rate``, that of
        normal rows, None where there are no such rows.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    flagged, n, n_anomalies = surprise > threshold, len(truth), int(truth.sum())
    both = 0 < n_anomalies < n
    return {
        "n_normal": n - n_anomalies,
        "n_anomalies": n_anomalies,
        "auc_roc": float(roc_auc_score(truth, surprise)) if both else None,
        "average_precision": float(average_precision_score(truth, surprise)) if both else None,
        "recall": float(flagged[truth].mean()) if n_anomalies else None,
        "false_alarm_rate": float(flagged[~truth].mean()) if n_anomalies < n else None,
    }


def one_sided(numbers: Mapping[str, Any], what: str = "rows") -> str | None:
    """Return in words why there are no curves where all rows of ``measured`` are of one kind; else None."""
    if numbers["auc_roc"] is not None:
        return None
    n, kind = numbers["n_normal"], "normal"
    if not n:
        n, kind = numbers["n_anomalies"], "anomalies"
    return (
        f"All {n:,} {what} that are judged are labelled {kind}: ROC and precision-recall curves need both "
        f"normal {what} and anomalies."
    )


@dataclass
class Judged:
    """The rows that a detector judged, as they come part by part.

    Parameters
    ----------
    threshold : float
        Rows with a greater surprise are flagged.
    told : str
        Which rows these are, in words.
    rivals : mapping of str to callable(rows) -> ndarray (n,)
        Other detectors, higher = more anomalous, which judge labelled rows too.
    cells : callable(numbers) -> ndarray (n, columns), optional
        The cells of rows by their numbers, where ``rows`` are coded.

    Attributes
    ----------
    n, flagged : int
    numbers, rows, surprises : ndarray
        Of the most surprising rows, the most surprising first.
    truth : ndarray of bool (n,) or None
        True for anomalies, where rows came with their labels. Then every surprise is kept; else some
        200,000, evenly spread.
    """

    threshold: float
    told: str = ""
    rivals: Mapping[str, Callable[[Array], Doubles]] = field(default_factory=dict)
    cells: Callable[[NDArray[np.int64]], Array] | None = None
    n: int = 0
    flagged: int = 0
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    surprises: Doubles = field(default_factory=lambda: np.zeros(0))
    rows: Array | None = None
    top_truth: NDArray[np.bool_] | None = None
    _step: int = 1
    _kept: list[Doubles] = field(default_factory=list)
    _truth: list[NDArray[np.bool_]] = field(default_factory=list)
    _rival_scores: dict[str, list[Doubles]] = field(default_factory=dict)

    def add(
        self,
        numbers: NDArray[np.int64],
        rows: Array,
        surprises: Doubles,
        truth: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take note of some more rows (k, ...), of their numbers, surprises and labels (k,).

        All rows have labels, or none.
        """
        start, self.n = self.n, self.n + len(rows)
        self.flagged += int((surprises > self.threshold).sum())
        self._kept.append(surprises[-start % self._step :: self._step])
        if truth is None and sum(map(len, self._kept)) > 2 * _MOST_KEPT:
            self._kept, self._step = [self.all_surprises[::2]], 2 * self._step
        every = np.concatenate([self.surprises, surprises])
        order = np.argsort(-every, kind="stable")[:MOST_SHOWN]
        flat = rows.reshape(len(rows), -1)
        if truth is not None:
            for name, score in self.rivals.items():
                self._rival_scores.setdefault(name, []).append(score(flat))
            self._truth.append(truth)
            before = truth[:0] if self.top_truth is None else self.top_truth
            self.top_truth = np.concatenate([before, truth])[order]
        candidates = flat if self.rows is None else np.concatenate([self.rows, flat])
        self.surprises, self.rows = every[order], candidates[order]
        self.numbers = np.concatenate([self.numbers, numbers])[order]

    @property
    def truth(self) -> NDArray[np.bool_] | None:
        """Which rows are labelled anomalies, in their order."""
        return np.concatenate(self._truth) if self._truth else None

    @property
    def by_rivals(self) -> dict[str, Doubles]:
        """What the rivals say of the same rows."""
        return {name: np.concatenate(parts) for name, parts in self._rival_scores.items()}

    @property
    def all_surprises(self) -> Doubles:
        """The surprises of all rows in their order, or of every k-th one."""
        return np.concatenate([np.zeros(0), *self._kept])

    def measures(self) -> dict[str, Any] | None:
        """Return what ``measured`` finds, where labels are known."""
        truth = self.truth
        return None if truth is None else measured(truth, self.all_surprises, self.threshold)

    def comparison(self) -> dict[str, dict[str, float | None]]:
        """Return the areas under both curves by detector, where labels are known."""
        truth = self.truth
        if truth is None:
            return {}
        scores = {"diabolo": self.all_surprises, **self.by_rivals}
        found = {name: measured(truth, score, np.inf) for name, score in scores.items()}
        return {
            name: {key: one[key] for key in ("auc_roc", "average_precision")} for name, one in found.items()
        }


def rivals_of(training: Array | Source) -> dict[str, Callable[[Array], Doubles]]:
    """Return PCA's and KNN's scores of rows (n, features), fitted on up to 4096 of the training rows."""
    from diabolo.applications.planted import rivals

    spread = np.unique(np.linspace(0, len(training) - 1, min(len(training), 4096)).astype(np.int64))
    rows = gather(training, spread)[0] if isinstance(training, Source) else training[spread]
    return rivals(rows.reshape(len(rows), -1))


def by_column(detector: Any, parts: Doubles) -> Doubles:
    """Return parts of surprises (n, values) as those of the columns that the values come from."""
    if detector.encoder_ is None:
        return parts
    return np.add.reduceat(parts, np.flatnonzero(np.diff(detector.encoder_.column_of_, prepend=-1)), axis=1)
