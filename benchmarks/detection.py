"""Anomaly detection beside PyOD: tables, card fraud, heart beats, images of one class.

    python benchmarks/detection.py                     # measures what is missing, writes the page
    python benchmarks/detection.py --only diabolo      # only our detector
    python benchmarks/detection.py --page              # measures nothing, writes the page

needs the environment of benchmarks/rivals.txt and the data of ``DIABOLO_DATA`` (or ../shared/data), and
writes benchmarks/results/detection.md and .json. All detectors get the same rows in the same process, on one
thread. Every result is kept in ``.detection-cache/results.jsonl`` as soon as it is there, so that a
run can be stopped and goes on where it was; one that came from other code is measured anew. Results of
PyOD's detectors in detection.json count too, as long as PyOD's version is the same.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import detection_coverage
import detection_page
import numpy as np
import torch
from detection_tasks import IMAGES, PUBLISHED_BY, SECTIONS, Task, rows_of, split, tasks
from detectors import CLEAN, DEEP, NAMES, OURS, build, code
from sklearn.metrics import average_precision_score, roc_auc_score

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".detection-cache"
LARGE = 20_000  # rows; from here on the deep rivals get fewer seeds
SEEDS_OF_DEEP_ON_LARGE = 1
Key = tuple[str, str, str, int, str]


def recall_at(y: np.ndarray, score: np.ndarray, rate: float) -> float:
    """Return the share of anomalies above the lowest score that at most ``rate`` of the normal exceed."""
    normal = np.sort(score[y == 0])[::-1]
    return float(np.mean(score[y == 1] > normal[int(rate * len(normal))]))


@cache
def warm_up(name: str) -> None:
    """Fit once in this process, so that no clock counts what is imported or compiled at first use."""
    X = np.random.default_rng(0).normal(size=(100, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build(name, 0).fit(X).anomaly(X)


def measure(task: Task, name: str) -> dict[str, Any]:
    """Fit and score once; seconds are the process's, on one thread."""
    torch.set_num_threads(1)
    warm_up(name)
    rows = split(task)
    said: dict[str, int] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = build(name, task.seed)
        wall, start = time.perf_counter(), time.process_time()
        detector.fit(rows.X)
        fitted = time.process_time()
        score = detector.anomaly(rows.X_test)
        scored = time.process_time()
        wall = time.perf_counter() - wall
    for warning in caught:
        key = f"{warning.category.__name__}: {str(warning.message)[:160]}"
        said[key] = said.get(key, 0) + 1
    return {
        **asdict(task),
        "detector": name,
        "code": code(name),
        "version": describe() if name in (OURS, CLEAN) else code(name),
        "auc": float(roc_auc_score(rows.y_test, score)),
        "ap": float(average_precision_score(rows.y_test, score)),
        "recall": recall_at(rows.y_test, score, 0.001),
        "fit_seconds": round(fitted - start, 4),
        "score_seconds": round(scored - fitted, 4),
        "wall_seconds": round(wall, 4),
        "rows": [len(rows.X), len(rows.X_test)],
        "features": rows.X.shape[1],
        "anomalies": int(rows.y_test.sum()),
        "warnings": said if name in (OURS, CLEAN) else {},
    }


def describe() -> str:
    """Return the code's version as git tells it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def key_of(record: dict[str, Any]) -> Key:
    """Return what a result is the result of."""
    return (record["section"], record["name"], record["protocol"], record["seed"], record["detector"])


def kept() -> dict[Key, dict[str, Any]]:
    """Return all results: those of the page's numbers, and of the cache, which is newer; the last of each."""
    path = CACHE / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    # A run that was killed while it wrote leaves half a line.
    records = (json.loads(line) for line in lines if line.endswith("}"))
    return {key_of(record): record for record in (*detection_page.read(), *records)}


def wanted(task: Task, name: str) -> bool:
    """Tell whether a detector is measured on a split; the page says which are not, and why."""
    if name in DEEP and task.section == "tables" and rows_of(task.name) >= LARGE:
        return task.seed < SEEDS_OF_DEEP_ON_LARGE
    if name == CLEAN:
        return task.section == "tables" and task.protocol == "SEMI"
    if task.protocol == "PUBLISHED":
        return name in (OURS, *PUBLISHED_BY)
    if task.section in (*IMAGES, "ecg"):
        return name not in ("ECOD", "VAE", "DeepSVDD")
    return True


def cost(task: Task, name: str) -> tuple[bool, bool, int]:
    """Return what work is ordered by: what is quick comes first, and a stopped run has whole seeds."""
    large = task.section == "tables" and rows_of(task.name) >= LARGE
    return (name in DEEP, large, task.seed)


def outcomes(work: list[tuple[Task, str]], jobs: int) -> Iterator[dict[str, Any]]:
    """Yield results as they come; a detector that fails is told of and left out."""

    def failed(task: Task, name: str) -> None:
        print(f"{name} failed on {task}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)

    if jobs == 1:
        for item in work:
            try:
                yield measure(*item)
            except Exception:
                failed(*item)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(measure, *item): item for item in work}
        for done in as_completed(waiting):
            try:
                yield done.result()
            except Exception:
                failed(*waiting[done])


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--sections", type=lambda text: text.split(","), default=list(SECTIONS))
    parser.add_argument(
        "--sets", type=lambda text: text.split(","), help="names of tables, classes of images"
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 on")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="processes")
    parser.add_argument("--page", action="store_true", help="write the page of the results that are there")
    parser.add_argument("--coverage", action="store_true", help="only how well promised rates are kept")
    parser.add_argument("--coverage-seeds", type=int, default=100)
    options = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    if options.coverage:
        detection_coverage.run(CACHE / "coverage.jsonl", options.coverage_seeds, code(OURS), describe())
    elif not options.page:
        have = kept()
        work = [
            (task, name)
            for name in options.only or NAMES
            for task in tasks(options.sections, options.sets)
            if task.seed < options.seeds and wanted(task, name)
            if have.get((*asdict(task).values(), name), {}).get("code") != code(name)
        ]
        work.sort(key=lambda item: cost(*item))
        with (CACHE / "results.jsonl").open("a") as file:
            for i, record in enumerate(outcomes(work, options.jobs), 1):
                file.write(json.dumps(record) + "\n")
                file.flush()
                print(
                    f"{i}/{len(work)} {' '.join(map(str, key_of(record)))}: AUC {100 * record['auc']:.1f}, "
                    f"AP {100 * record['ap']:.1f}, {record['fit_seconds']:.1f} + "
                    f"{record['score_seconds']:.1f} s",
                    flush=True,
                )
    detection_page.write(list(kept().values()), CACHE)


if __name__ == "__main__":
    main()
