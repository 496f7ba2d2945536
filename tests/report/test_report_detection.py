"""A detector's report: what is measured by labels, which rows are shown, a page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from test_report_page import EVIL, Page, read

from diabolo import Autoencoder
from diabolo.applications import AnomalyDetector
from diabolo.data import ArraySource
from diabolo.report import detection_plots, plots, verdicts
from diabolo.report.detection import write_detection_report
from diabolo.report.verdicts import MOST_SHOWN, Judged, measured, one_sided, rivals_of

MEMBER: dict[str, Any] = {"hidden_dims": (8,), "latent_dim": 3, "epochs": 3, "device": "cpu"}


def fitted(X: np.ndarray, **settings: Any) -> AnomalyDetector:
    member = Autoencoder(corruption="gaussian:0.5", **MEMBER)
    chosen = {"trim": 0.0, "false_alarm_rate": 0.05, "random_state": 0, **settings}
    return AnomalyDetector(estimator=member, **chosen).fit(X)


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.standard_normal((600, 3)) @ generator.standard_normal((3, 5))


@pytest.fixture(scope="module")
def detector(table: np.ndarray) -> AnomalyDetector:
    return fitted(table)


def judged(
    detector: AnomalyDetector, rows: np.ndarray, truth: np.ndarray | None = None, **settings: Any
) -> Judged:
    seen = Judged(detector.threshold_, "rows of a test", **settings)
    seen.add(np.arange(len(rows)), rows, -detector.score_samples(rows), truth)
    return seen


def written(folder: Path, detector: AnomalyDetector, seen: Judged) -> tuple[str, Page]:
    return read(
        write_detection_report(folder, title="Test", detector=detector, judged=seen, command="diabolo")
    )


# ---------------------------------------------------------------------------------------------- measures
def test_measures_are_those_worked_by_hand() -> None:
    found = measured(np.array([False, False, True, True]), np.array([1.0, 3.0, 2.0, 4.0]), 2.5)
    assert (found["n_normal"], found["n_anomalies"]) == (2, 2)
    assert found["auc_roc"] == pytest.approx(3 / 4)
    assert found["average_precision"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert (found["recall"], found["false_alarm_rate"]) == (0.5, 0.5)
    assert one_sided(found) is None


@pytest.mark.parametrize(("truth", "word"), [(True, "anomalies"), (False, "normal")])
def test_labels_of_one_kind_have_no_curves(truth: bool, word: str) -> None:
    found = measured(np.full(4, truth), np.arange(4.0), 1.5)
    assert found["auc_roc"] is None
    assert found["recall" if truth else "false_alarm_rate"] == 0.5
    assert found["false_alarm_rate" if truth else "recall"] is None
    assert f"All 4 rows that are judged are labelled {word}" in str(one_sided(found))


def test_rows_judged_in_parts_are_rows_judged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    rows, surprise, truth = generator.random((100, 2)), generator.random(100), generator.random(100) < 0.3
    rivals = {"first": lambda rows: rows[:, 0]}
    whole, parts, few = Judged(0.8, rivals=rivals), Judged(0.8, rivals=rivals), Judged(0.8)
    whole.add(np.arange(100), rows, surprise, truth)
    monkeypatch.setattr(verdicts, "_MOST_KEPT", 10)
    for start in range(0, 100, 7):
        some = np.arange(start, min(start + 7, 100))
        for one in (parts, few):
            one.add(some, rows[some], surprise[some], truth[some] if one is parts else None)
    for one in (whole, parts, few):
        assert (one.n, one.flagged) == (100, (surprise > 0.8).sum())
        np.testing.assert_array_equal(one.numbers, np.argsort(-surprise)[:MOST_SHOWN])
        np.testing.assert_array_equal(one.rows, rows[one.numbers])
        np.testing.assert_array_equal(one.surprises, surprise[one.numbers])
    np.testing.assert_array_equal(parts.all_surprises, surprise)  # with labels every one is needed
    np.testing.assert_array_equal(parts.top_truth, truth[parts.numbers])
    assert parts.measures() == whole.measures()
    assert parts.comparison() == whole.comparison()
    np.testing.assert_array_equal(parts.by_rivals["first"], rows[:, 0])
    assert few.by_rivals == {}
    kept = few.all_surprises
    assert 10 <= len(kept) <= 20
    np.testing.assert_array_equal(kept, surprise[:: few._step][: len(kept)])


def test_rivals_find_what_is_far_off(table: np.ndarray) -> None:
    rows = np.concatenate([table[:50], 20 + table[:5]])
    rivals = rivals_of(table)
    assert set(rivals) == {"PCA", "KNN"}
    streamed = rivals_of(ArraySource(table))
    for name, score in rivals.items():
        assert score(rows)[50:].min() > score(rows)[:50].max()
        np.testing.assert_array_equal(score(rows), streamed[name](rows))


# -------------------------------------------------------------------------------------------------- page
def test_a_page_with_labels(tmp_path: Path, detector: AnomalyDetector, table: np.ndarray) -> None:
    rows = np.concatenate([table[:100], table[:20] + 6])
    truth = np.arange(120) >= 100
    seen = judged(detector, rows, truth=truth, rivals=rivals_of(table))
    text, page = written(tmp_path, detector, seen)
    assert page.sections == ["surprises", "labels", "rivals", "rows", "members"]
    areas = seen.comparison()
    for name in ("diabolo", "PCA", "KNN"):
        assert f"<td>{areas[name]['auc_roc']:.3f}</td>" in text.replace(' class="best"', "")
    assert f"row {seen.numbers[0]}: surprise" in text
    assert "labelled anomaly" in text
    assert "at the threshold" in text
    assert "20 labelled anomalies and 100 normal rows" in text


def test_a_page_without_labels_of_rows_with_names(tmp_path: Path, table: np.ndarray) -> None:
    import pandas as pd

    names = [EVIL, "b", "c", "d", "e"]
    detector = fitted(pd.DataFrame(table[:60], columns=names))
    seen = Judged(detector.threshold_, EVIL)
    seen.add(np.arange(60), table[:60], np.arange(1.0, 61.0))
    text, page = written(tmp_path, detector, seen)
    assert page.sections == ["surprises", "rivals", "rows", "members"]
    assert EVIL not in text
    assert "row 59: surprise 60" in text


def test_labels_of_one_kind_are_a_note(tmp_path: Path, detector: AnomalyDetector, table: np.ndarray) -> None:
    seen = judged(detector, table[:30], truth=np.full(30, True))
    text, page = written(tmp_path, detector, seen)
    assert "labels" in page.sections
    assert "All 30 rows that are judged are labelled" in text
    assert "ROC and precision-recall curves need both" in text


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 64)])
def test_images_and_signals_are_shown_as_such(tmp_path: Path, shape: tuple[int, ...]) -> None:
    X = (load_digits().data[:80] / 16).reshape(80, *shape)
    detector = fitted(X)
    text, _ = written(tmp_path, detector, judged(detector, X))
    if shape == (1, 64):
        assert "the most surprising signals" in text
    else:
        assert text.count('<img class="pixels"') == 2


def test_rows_that_come_flattened_are_seen_as_images(tmp_path: Path) -> None:
    X = load_digits().data[:80] / 16
    detector = fitted(X, input_shape=(8, 8))
    text, _ = written(tmp_path, detector, judged(detector, X))
    assert text.count('<img class="pixels"') == 2


def test_rows_that_are_all_alike_make_a_page(tmp_path: Path, detector: AnomalyDetector) -> None:
    seen = Judged(detector.threshold_, "one row")
    seen.add(np.arange(1), np.zeros((1, 5)), np.array([detector.threshold_]))
    text, _ = written(tmp_path, detector, seen)
    assert "of 1 rows, 0 %" in text


def test_numbers_in_a_drawing_are_as_they_were_written() -> None:
    with plots.canvas(200, 100, "test") as (drawing, out):
        drawing.add_subplot().set_title("a share of 0.00123456")
    assert "0.00123456" in out[0]


def test_legends_cover_no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    chance = np.random.default_rng(0)
    errors = chance.lognormal(size=(2, 50))
    rows = [{"training_total": 1.0 + k, "validation_total": 2.0 + k} for k in range(9)]
    plots.learning_curves(rows, 0)
    plots.against(*errors)
    detection_plots.curves(chance.random(50) < 0.5, {"ours": errors[0], "PCA": errors[1]}, (0.1, 0.2))
    for figure in figures:
        drawn = [axes.get_window_extent() for axes in figure.axes]
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
        assert legends
        for legend in legends:
            assert not any(legend.get_window_extent().overlaps(box) for box in drawn)
