"""Whether a promised rate of false alarms is kept on fresh normal rows; a part of benchmarks/detection.py.

For every seed new training rows and new fresh rows, all normal, one fit at the detector's defaults, and
the alarms among the fresh rows at each promised rate. Given the threshold their number is binomial; the
threshold has its own chance, that of the n held-out rows it is set with: the rate it gives is distributed
as Beta(k, n + 1 - k) with k = floor(rate (n + 1)).
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
        record["held_out"] = len(detector.calibration_.scores)
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{data}, seed {seed}: {alarms} of {FRESH}, {time.process_time() - start:.1f} s", flush=True)


def promised(rate: float, held_out: int, seeds: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean rate over seeds, threshold and fresh rows drawn anew each time."""
    rng = np.random.default_rng(0)
    k = int(rate * (held_out + 1) + 1e-9)
    rates = rng.beta(k, held_out + 1 - k, size=(10_000, seeds))
    low, high = np.percentile(rng.binomial(FRESH, rates).mean(1) / FRESH, [2.5, 97.5])
    return float(low), float(high)


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
        "`set_threshold(false_alarm_rate=...)` after one fit at the defaults. 'binomial' holds 95 % of what "
        "the promised rate gives on so many fresh rows in all; 'with the threshold's chance' also counts "
        "that each "
        "threshold comes from a limited number of held-out rows. "
        f"Code: {records[-1]['version']}; made by `python benchmarks/detection.py --coverage`.",
        "",
        "| rows | seeds | promised, % | realised, % | binomial | with the threshold's chance | within |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    numbers: list[dict[str, Any]] = []
    for data in DRAW:
        chosen = [r for r in records if r["data"] == data]
        for rate in RATES if chosen else ():
            n = len(chosen)
            mean = float(np.mean([r["alarms"][str(rate)] for r in chosen]) / FRESH)
            binomial = [float(q) / (n * FRESH) for q in stats.binom.interval(0.95, n * FRESH, rate)]
            low, high = promised(rate, chosen[0]["held_out"], n)
            inside = [a <= mean <= b for a, b in (binomial, (low, high))]
            verdict = "both" if all(inside) else "the second" if inside[1] else "none"
            entry = {"data": data, "seeds": n, "promised": rate, "realised": mean, "binomial": binomial}
            numbers.append(entry | {"with_threshold": [low, high]})
            shown = [f"{100 * a:.2f} to {100 * b:.2f}" for a, b in (binomial, (low, high))]
            lines.append(
                f"| {data} | {n} | {100 * rate:g} | {100 * mean:.2f} | {' | '.join(shown)} | {verdict} |"
            )
    return [*lines, ""], numbers
