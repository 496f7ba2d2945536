"""Whether a promised rate of false alarms is kept on fresh normal rows; a part of benchmarks/detection.py.

For every seed new training rows and new fresh rows, all normal, one fit at the detector's defaults, and
the alarms among the fresh rows at each promised rate. Over all seeds their number is binomial, but for the
chance in the held-out rows that the threshold was set with: the mean's own spread over seeds shows both.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detection_tasks import table
from scipy import stats

RATES = (0.01, 0.05)
TRAIN, FRESH = 1000, 200
REAL = "magic.gamma"


def synthetic(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return rows on a bent sheet in ten dimensions, with heavy-tailed noise that depends on the place."""
    t = rng.normal(size=(n, 3))
    waves = np.concatenate([t, np.sin(2 * t), t[:, :1] * t[:, 1:], t[:, :2] ** 2], axis=1)
    return waves + 0.1 * (1 + np.abs(t[:, :1])) * rng.standard_t(4, size=(n, waves.shape[1]))


def real(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return different normal rows of a real set."""
    X, y = table(REAL)
    return rng.choice(X[y == 0], n, replace=False)


DRAW: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "a bent sheet in 10 dimensions": synthetic,
    f"{REAL}, normal rows": real,
}


def kept(path: Path) -> list[dict[str, Any]]:
    """Return the results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(path: Path, seeds: int, code: str, version: str) -> None:
    """Measure what is missing."""
    from diabolo.applications import AnomalyDetector

    have = {(r["data"], r["seed"]) for r in kept(path) if r["code"] == code}
    work = [(data, seed) for seed in range(seeds) for data in DRAW if (data, seed) not in have]
    for data, seed in work:
        X = DRAW[data](np.random.default_rng(seed), TRAIN + FRESH)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what rows or score may lack; here only the promise counts
            detector = AnomalyDetector(random_state=seed).fit(X[:TRAIN])
        alarms = {}
        for rate in RATES:
            detector.set_threshold(false_alarm_rate=rate)
            alarms[str(rate)] = int((detector.predict(X[TRAIN:]) == -1).sum())
        record = {"data": data, "seed": seed, "alarms": alarms, "code": code, "version": version}
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{data}, seed {seed}: {alarms} of {FRESH}, {time.process_time() - start:.1f} s", flush=True)


def section(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the page's lines and the numbers, of the newest code that has results."""
    records = kept(path)
    if not records:
        return [], []
    records = [r for r in records if r["code"] == records[-1]["code"]]
    lines = [
        "## The promise of a false-alarm rate",
        "",
        f"Per seed {TRAIN:,} normal rows to fit, {FRESH} fresh normal rows to judge, "
        f"`set_threshold(false_alarm_rate=...)` "
        "after one fit at the defaults. The binomial interval holds 95 % of what the promised rate gives on "
        "so many rows in all; single seeds: how many of them lie within the binomial interval of their own "
        "rows. "
        "A threshold that promises at most this rate may stay below it. "
        f"Code: {records[-1]['version']}; made by `python benchmarks/detection.py --coverage`.",
        "",
        "| rows | seeds | promised, % | realised, % | 95 % interval of the mean over seeds | binomial "
        "interval | "
        "within | single seeds within theirs |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    numbers = []
    for data in DRAW:
        for rate in RATES:
            alarms = np.array([r["alarms"][str(rate)] for r in records if r["data"] == data])
            n = len(alarms)
            if n < 2:
                continue
            mean = float(alarms.mean() / FRESH)
            half = float(stats.t.ppf(0.975, n - 1) * alarms.std(ddof=1) / FRESH / np.sqrt(n))
            low, high = (float(q) / (n * FRESH) for q in stats.binom.interval(0.95, n * FRESH, rate))
            least, most = stats.binom.interval(0.95, FRESH, rate)
            single = int(((alarms >= least) & (alarms <= most)).sum())
            verdict = "yes" if low <= mean <= high else "below" if mean < low else "ABOVE"
            numbers.append(
                {"data": data, "promised": rate, "realised": mean, "binomial": [low, high], "seeds": n}
            )
            lines.append(
                f"| {data} | {n} | {100 * rate:g} | {100 * mean:.2f} | {100 * (mean - half):.2f} to "
                f"{100 * (mean + half):.2f} | {100 * low:.2f} to {100 * high:.2f} | {verdict} | {single} |"
            )
    return [*lines, ""], numbers
