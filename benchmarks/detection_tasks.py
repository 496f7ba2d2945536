"""What benchmarks/detection.py measures on: data sets, and how their rows are split by seed.

Published protocols on tables: at most 50,000 rows, drawn at random, standardised by the training rows.

- SEMI (Livernoche et al. 2023): train on a random half of the normal rows, score the other half and all
  anomalies.
- UNSUP: train on a bootstrap sample of all rows, score all rows.
- PUBLISHED: the split that gives SEMI's published figures: the normal rows are halved in the file's order,
  and a set of fewer than 1,000 rows is drawn up to 1,000 with replacement, so that the halves share rows.

Beats and images have one protocol each: train on the training file's rows of one class, score the test file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler

from diabolo.data import load

MOST_ROWS = 50_000
SEEDS = range(5)
PROTOCOLS = ("SEMI", "UNSUP")
FEWEST_PUBLISHED = 1000
# AUC-ROC under SEMI as published (Livernoche et al. 2023): PCA, IForest, KNN, VAE, DTE-C.
PUBLISHED_BY = ("PCA", "IForest", "KNN", "VAE", "DTE-C")
PUBLISHED = {
    "annthyroid": (85.2, 90.3, 92.8, 85.4, 97.5),
    "cardio": (96.5, 93.3, 92.0, 96.6, 87.3),
    "glass": (73.4, 81.1, 92.0, 72.6, 92.4),
    "Ionosphere": (89.1, 91.2, 97.4, 89.8, 95.4),
    "letter": (30.3, 32.0, 35.4, 30.2, 36.7),
    "mnist": (90.2, 86.6, 93.9, 90.2, 87.4),
    "musk": (100, 90.6, 100, 100, 100),
    "optdigits": (58.2, 81.1, 93.7, 58.2, 82.4),
    "pendigits": (94.4, 97.2, 99.9, 94.5, 97.8),
    "Pima": (72.3, 74.3, 76.9, 73.2, 69.9),
    "shuttle": (99.4, 99.7, 99.9, 99.4, 99.8),
    "thyroid": (98.6, 99.0, 98.7, 98.6, 98.7),
    "vowels": (52.3, 61.8, 82.2, 52.1, 86.9),
    "wine": (93.8, 93.9, 99.2, 94.3, 100),
}
IMAGES = ("mnist", "fashion-mnist")
SECTIONS = ("tables", "fraud", "ecg", *IMAGES)


def home() -> Path:
    """Return the folder with the data: DIABOLO_DATA, or ../shared/data."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("DIABOLO_DATA", beside))


@dataclass(frozen=True)
class Task:
    """One split of one data set."""

    section: str
    name: str
    protocol: str
    seed: int


@dataclass(frozen=True)
class Split:
    """Rows to train on, rows to score, and which of these are anomalies (1)."""

    X: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def table_names() -> list[str]:
    """Return the names of the sets of tables, the smallest file first."""
    files = sorted((home() / "adbench").glob("*.npz"), key=lambda path: path.stat().st_size)
    if not files:
        raise SystemExit(f"DIABOLO_DATA must be a folder with adbench/*.npz; got {home()}. Set it.")
    return [path.stem.split("_", 1)[1] for path in files]


@lru_cache(maxsize=2)
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and labels (1: anomaly) of a table."""
    if name == "creditcard":
        with np.load(home() / "tabular" / "creditcard_subset.npz") as file:
            # "Time" counts seconds since the first payment of these two days. A later payment lies
            # beyond all times seen, whatever else it is: the column cannot be part of what is normal.
            keep = [i for i, column in enumerate(file["columns"]) if column != "Time"]
            return file["X"][:, keep].astype(np.float64), file["y"].astype(int)
    (path,) = (home() / "adbench").glob(f"*_{name}.npz")
    with np.load(path) as file:
        return file["X"].astype(np.float64), file["y"].astype(int)


@cache
def rows_of(name: str) -> int:
    """Return how many rows a table gives to a task."""
    return min(len(table(name)[0]), MOST_ROWS)


@lru_cache(maxsize=1)
def beats() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ECG5000: the normal beats of the training file, the test beats, and which are not normal."""
    train = np.loadtxt(home() / "timeseries" / "ECG5000_TRAIN.txt")
    with np.load(home() / "timeseries" / "ecg5000_test_part_binary.npz") as file:
        return train[train[:, 0] == 1, 1:], file["x"].astype(np.float64), file["y"].astype(int)


@lru_cache(maxsize=1)
def images(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the pixels in 0..1 and the classes of training and test images."""
    data = load(name, data_home=home())
    flat = [np.asarray(X, dtype=np.float32).reshape(len(X), -1) / 255 for X in (data.X, data.X_test)]
    return flat[0], np.asarray(data.y), flat[1], np.asarray(data.y_test)


def split(task: Task) -> Split:
    """Return the task's rows; the same seed gives the same ones."""
    if task.section == "ecg":
        X, X_test, y_test = beats()
        return Split(X, X_test, y_test)
    if task.section in IMAGES:
        X, y, X_test, classes = images(task.section)
        digit = int(task.name)
        return Split(X[y == digit], X_test, (classes != digit).astype(int))
    X, y = table(task.name)
    rng = np.random.default_rng(task.seed)
    if len(X) > MOST_ROWS:
        rows = rng.choice(len(X), MOST_ROWS, replace=False)
        X, y = X[rows], y[rows]
    if task.protocol == "PUBLISHED" and len(X) < FEWEST_PUBLISHED:
        rows = rng.integers(len(X), size=FEWEST_PUBLISHED)
        X, y = X[rows], y[rows]
    if task.protocol in ("SEMI", "PUBLISHED"):
        normal = np.flatnonzero(y == 0)
        if task.protocol == "SEMI":
            normal = rng.permutation(normal)
        half = len(normal) // 2
        train, test = normal[:half], np.concatenate([normal[half:], np.flatnonzero(y == 1)])
    else:
        train, test = rng.integers(len(X), size=len(X)), np.arange(len(X))
    scaler = StandardScaler().fit(X[train])
    return Split(scaler.transform(X[train]), scaler.transform(X[test]), y[test])


def tasks(sections: list[str], sets: list[str] | None = None) -> list[Task]:
    """Return the splits of some sections, perhaps of a few sets only."""
    found = []
    for section in sections:
        if section == "tables":
            found += [Task(section, n, p, s) for n in table_names() for p in PROTOCOLS for s in SEEDS]
            found += [Task(section, n, "PUBLISHED", s) for n in PUBLISHED for s in SEEDS]
        elif section == "fraud":
            found += [Task(section, "creditcard", p, s) for p in PROTOCOLS for s in SEEDS]
        elif section == "ecg":
            found += [Task(section, "ECG5000", "one class", s) for s in SEEDS]
        else:
            found += [Task(section, str(digit), "one class", 0) for digit in range(10)]
    return [task for task in found if sets is None or task.name in sets]
