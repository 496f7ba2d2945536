"""What each choice of the default detector is worth: the same rows, with one thing changed at a time.

    python benchmarks/detection_ablations.py            # measures what is missing
    python benchmarks/detection_ablations.py --sets wine,glass

Both protocols of the tables, at most 4,000 training rows and 4,000 normal rows to score, and a seed that
benchmarks/detection.py does not use. Sets with more than ``WIDEST`` columns are left out: they would take an
hour. The members are trained once and combined in several ways; each result is appended to
``.detection-cache/ablations.jsonl``, from which detection.py writes its table.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import argparse
import json
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detection_tasks import PROTOCOLS, Task, split, table, table_names
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from diabolo.applications import ensemble
from diabolo.applications.ensemble import Member
from diabolo.applications.memory import Memory

CACHE = Path(__file__).resolve().parents[1] / ".detection-cache" / "ablations.jsonl"
MOST, MOST_ANOMALIES = 4000, 2000
WIDEST = 40
SEED = 100
_SET_APART = 0.2

Errors = tuple[np.ndarray, float, float]  # of the rows to score, what is typical, and the weight


class Bench:
    """Members trained on one split, each when it is first asked for, and their errors."""

    def __init__(self, task: Task) -> None:
        rows = split(task)
        chance = np.random.default_rng(task.seed)
        self.X = rows.X[chance.permutation(len(rows.X))[:MOST]].astype(np.float32)
        drawn = [
            chance.permutation(np.flatnonzero(rows.y_test == kind))[:most]
            for kind, most in ((0, MOST), (1, MOST_ANOMALIES))
        ]
        self.test = rows.X_test[np.concatenate(drawn)].astype(np.float32)
        self.y = rows.y_test[np.concatenate(drawn)]
        self.seed = task.seed
        self.forest = IsolationForest(random_state=task.seed).fit(self.X)
        strangeness = -self.forest.score_samples(self.X)
        strange = strangeness > np.quantile(strangeness, 1 - _SET_APART)
        if not np.ptp(self.X[~strange], axis=0).any():
            strange[:] = False
        self.rest, self.apart = self.X[~strange], self.X[strange]
        self._fitted: dict[Any, Any] = {}

    def members(
        self, of: str, trimmed: bool, changes: tuple[tuple[str, Any], ...] = (), copy: int = 0
    ) -> list[Any]:
        """Return the default's fitted members that mask ("masks"), or the others ("noise")."""
        key = (of, trimmed, changes, copy)
        if key not in self._fitted:
            rows = self.rest if trimmed else self.X
            some = ensemble.default_members(len(rows), rows.shape[1], self.seed + 1000 * copy)
            chosen = some[3:] if of == "masks" else some[:3]
            for one in chosen:
                one.set_params(**dict(changes))
            self._fitted[key] = [(one.fit(rows), rows) for one in chosen]
        return self._fitted[key]

    def errors(self, members: list[Any], whitening: str | None = "feature") -> list[Errors]:
        """Return the errors of members on the rows to score."""
        out = []
        for one, rows in members:
            member = Member.of(one, rows, whitening)
            out.append((member.terms(self.test).sum(1), member.typical, member.weight))
        return out

    def remembered(self, which: str = "both", weight: float = Memory.weight) -> list[Errors]:
        """Return the same of the default's memory, or of one of all rows, or without those set apart."""
        scaler = self.members("noise", False)[0][0]._scaler
        memory = {
            "both": lambda: Memory.of(
                np.concatenate([self.rest, self.apart]), scaler, n_apart=len(self.apart)
            ),
            "all": lambda: Memory.of(self.X, scaler),
            "rest": lambda: Memory.of(self.rest, scaler),
        }[which]()
        return [(memory.terms(self.test).sum(1), memory.typical, weight)]

    def nearest(self, members: list[Any]) -> np.ndarray:
        """Return the mean logarithm of the distance to the fifth neighbour in the members' codes."""
        distances = []
        for one, rows in members:
            index = NearestNeighbors(n_neighbors=5).fit(one.transform(rows))
            distances.append(np.log(index.kneighbors(one.transform(self.test))[0][:, -1] + 1e-9))
        return np.mean(distances, axis=0)


def combined(errors: list[Errors]) -> np.ndarray:
    """Return the logarithm of the surprise."""
    weights = [weight for *_, weight in errors]
    with np.errstate(divide="ignore"):
        logs = [np.logaddexp(0, ensemble._ORDER * np.log(e / m)) / ensemble._ORDER for e, m, _ in errors]
    return np.average(logs, axis=0, weights=weights)


def with_credit(errors: list[Errors]) -> np.ndarray:
    """Return the mean logarithm of errors beside the typical one, where restoring well is worth something."""
    return np.mean([np.log((e + m) / (2 * m)) for e, m, _ in errors], axis=0)


def variants(bench: Bench) -> dict[str, Callable[[], np.ndarray]]:
    """Return what computes each variant's score, higher = stranger; the default first."""
    width = bench.X.shape[1]
    narrow = (("latent_dim", max(1, width // 2)),)
    shallow = (("hidden_dims", (int(np.clip(4 * width, 64, 256)),)),)
    stopped = (("validation_fraction", 0.1),)  # the weights that restore these best are kept

    def noise(trimmed: bool = False, changes: Any = (), copy: int = 0) -> list[Any]:
        return bench.members("noise", trimmed, changes, copy)

    def masks(trimmed: bool = True, changes: Any = (), copy: int = 0) -> list[Any]:
        return bench.members("masks", trimmed, changes, copy)

    def score(members: list[Any], whitening: str | None = "feature") -> np.ndarray:
        return combined(bench.errors(members, whitening) + bench.remembered())

    def beside(memory: list[Errors]) -> np.ndarray:
        return combined(bench.errors(noise() + masks()) + memory)

    return {
        "default": lambda: score(noise() + masks()),
        "nothing remembered": lambda: beside([]),
        "nothing remembered, credit for restoring well": lambda: with_credit(bench.errors(noise() + masks())),
        "the fifth that is set apart is not remembered": lambda: beside(bench.remembered("rest")),
        "it is remembered like the others": lambda: beside(bench.remembered("all")),
        "the memory counts as one member": lambda: beside(bench.remembered(weight=1)),
        "the memory counts as six members": lambda: beside(bench.remembered(weight=6)),
        "remembered rows only": lambda: combined(bench.remembered()),
        "a fifth set apart for all members": lambda: score(noise(True) + masks()),
        "nothing set apart": lambda: combined(bench.errors(noise() + masks(False)) + bench.remembered("all")),
        "members with Gaussian noise, no others": lambda: score(noise()),
        "the same, a fifth set apart": lambda: score(noise(True)),
        "members that mask, no others": lambda: score(masks()),
        "one hidden layer in members that mask": lambda: score(noise() + masks(changes=shallow)),
        "codes of half the features": lambda: score(noise(changes=narrow) + masks(changes=narrow)),
        "early stopping by held-out rows": lambda: score(noise(changes=stopped) + masks(changes=stopped)),
        "two copies of each member": lambda: score(noise() + masks() + noise(copy=1) + masks(copy=1)),
        "no whitening": lambda: score(noise() + masks(), None),
        "whitening jointly (by feature where masked)": lambda: score(noise() + masks(), "joint"),
        "density of half-wide codes only (fifth neighbour)": lambda: bench.nearest(noise(changes=narrow)),
        "KNN": lambda: NearestNeighbors(n_neighbors=5).fit(bench.X).kneighbors(bench.test)[0][:, -1],
        "isolation forest": lambda: -bench.forest.score_samples(bench.test),
    }


def kept(path: Path = CACHE) -> list[dict[str, Any]]:
    """Return the results that are there."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def section(path: Path = CACHE) -> list[str]:
    """Return the page's lines: the means over the sets."""
    records = kept(path)
    if not records:
        return []
    by: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for name, (auc, ap) in record["found"].items():
            by[name][record["protocol"], "auc"].append(100 * auc)
            by[name][record["protocol"], "ap"].append(100 * ap)
    sets = sorted({record["name"] for record in records}, key=str.lower)
    out = [
        "## What each choice is worth",
        "",
        f"One thing changed at a time, on {len(sets)} sets of at most {WIDEST} columns ({', '.join(sets)}), "
        f"at most {MOST:,} rows, seed {SEED}, nothing held out. "
        "The choices were made on seeds 0 and 100 of these sets; whitening, the memory's weight and its two "
        "parts on 60 others (KEEL's, scikit-learn's and some of speech, text and x-rays) and 36 made ones, "
        "with seeds 0 and 1 of these beside them. Made by "
        "`python benchmarks/detection_ablations.py`; sources "
        f"{', '.join(sorted({record['code'] for record in records}))}.",
        "",
        "| | SEMI AUC-ROC | SEMI AP | UNSUP AUC-ROC | UNSUP AP |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in by.items():
        cells = [
            f"{statistics.fmean(found[protocol, what]):.1f}"
            for protocol in PROTOCOLS
            for what in ("auc", "ap")
        ]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*out, ""]


def main() -> None:
    """Measure what is missing."""
    from detectors import OURS, code

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=lambda text: text.split(","))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    CACHE.parent.mkdir(exist_ok=True)
    have = {(record["name"], record["protocol"]) for record in kept()}
    for name in options.sets or table_names():
        for protocol in PROTOCOLS:
            if (name, protocol) in have or table(name)[0].shape[1] > WIDEST:
                continue
            start = time.process_time()
            bench = Bench(Task("tables", name, protocol, SEED))
            found = {}
            for variant, compute in variants(bench).items():
                score = compute()
                found[variant] = (
                    float(roc_auc_score(bench.y, score)),
                    float(average_precision_score(bench.y, score)),
                )
            record = {"name": name, "protocol": protocol, "code": code(OURS), "found": found}
            with CACHE.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{name} {protocol}: {time.process_time() - start:.0f} s", flush=True)
    print("\n".join(section()))


if __name__ == "__main__":
    main()
