"""Time per row and peak memory as the rows grow from 10,000 to 10 million, in memory and from files.

    python benchmarks/growth.py

writes ``benchmarks/results/growth.md``. Each measurement is a process of its own that trains for one epoch
on 30 columns of float32; what it reads was written before. ``--rows`` and ``--places`` choose some of them,
and ``--again`` keeps, of those measured before (``growth.json``) and now, the faster: for a machine on which
other work comes and goes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
COLUMNS = 30
FACTORS = 8
ROW_GROUP = 100_000
REPEATS = 3  # up to a million rows: other work on the machine disturbs short runs most
SETTINGS = {
    "epochs": 1,
    "batch_size": 1024,
    "optimizer": "adam",
    "latent_dim": FACTORS,
    "schedule": "constant",
    "random_state": 0,
}


def blocks(n: int) -> Any:
    """Yield n rows of 8 factors with noise, in blocks that are row groups."""
    mixing = np.random.default_rng(0).normal(size=(FACTORS, COLUMNS)).astype(np.float32)
    for start in range(0, n, ROW_GROUP):
        chance = np.random.default_rng(start + 1)
        size = min(ROW_GROUP, n - start)
        factors = chance.standard_normal((size, FACTORS), dtype=np.float32)
        yield factors @ mixing + 0.1 * chance.standard_normal((size, COLUMNS), dtype=np.float32)


def write(folder: Path, n: int) -> None:
    """Write n rows as x.npy and x.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"x{i}" for i in range(COLUMNS)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    X = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (n, COLUMNS))
    with pq.ParquetWriter(folder / "x.parquet", schema) as writer:
        at = 0
        for block in blocks(n):
            X[at : at + len(block)] = block
            at += len(block)
            writer.write_table(pa.table(list(block.T), schema=schema))
    X.flush()


def peak() -> float:
    """Return this process's peak memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(place: str, folder: Path) -> dict[str, Any]:
    """Train, and encode from file to file or in memory; called in a process of its own."""
    import torch

    from diabolo import Autoencoder
    from diabolo.cli.console import Output
    from diabolo.cli.streams import write_parts
    from diabolo.data import NpySource, ParquetSource

    torch.set_num_threads(1)
    Autoencoder(**SETTINGS).fit(np.random.default_rng(0).normal(size=(20_000, COLUMNS)))
    ready = peak()
    start, busy = time.perf_counter(), time.process_time()
    if place == "memory":
        X: Any = np.load(folder / "x.npy")
    else:
        X = NpySource(folder / "x.npy") if place == "npy" else ParquetSource(folder / "x.parquet")
    model = Autoencoder(**SETTINGS).fit(X)
    fit, cpu = time.perf_counter() - start, time.process_time() - busy
    fit_peak = peak()
    start = time.perf_counter()
    if place == "memory":
        np.save(folder / "codes.npy", model.transform(X))
    else:
        write_parts(Output(quiet=True), folder / "codes.npy", model.transform_batches(X), len(X), None, "")
    return {
        "n": len(X),
        "epoch": model.history_.rows[0]["seconds"],
        "fit": fit,
        "cpu": cpu,
        "encode": time.perf_counter() - start,
        "ready": ready,
        "fit_peak": fit_peak,
        "peak": peak(),
        "loss": model.history_.rows[0]["validation_total"],
    }


def run(n: int, places: list[str], scratch: str | None) -> list[dict[str, Any]]:
    """Measure each place on n rows."""
    found = []
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--write", str(n), "--folder", name], check=True)
        for place in places:
            command = [sys.executable, __file__, "--measure", place, "--folder", str(folder)]
            tries = []
            for _ in range(REPEATS if n <= 1_000_000 else 1):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(n, place, "failed:", done.stderr.strip()[-500:], done.returncode, file=sys.stderr)
                    tries.append({"n": n, "failed": done.returncode, "fit": float("inf")})
                else:
                    tries.append(json.loads(done.stdout.splitlines()[-1]))
            found.append({"place": place, **min(tries, key=lambda one: one["fit"])})
            print(found[-1], file=sys.stderr, flush=True)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the measurements as a table."""
    lines = [
        "| rows | from | training, µs per row | whole fit, s | its processor time, s | "
        "encoding, µs per row | peak of the fit, MB | more than an idle process, MB | validation loss |",
        "| ---: | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['n']:,} | {row['place']} | did not fit | | | | | | |")
            continue
        n = row["n"]
        cells = [
            f"{n:,}",
            {"memory": "memory", "npy": ".npy", "parquet": "Parquet"}[row["place"]],
            f"{1e6 * row['epoch'] / n:.2f}",
            f"{row['fit']:.2f}",
            f"{row['cpu']:.2f}",
            f"{1e6 * row['encode'] / n:.2f}",
            f"{row['fit_peak']:.0f}",
            f"{max(row['fit_peak'] - row['ready'], 0):.0f}",
            f"{row['loss']:.4g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--places", nargs="+", default=["memory", "npy", "parquet"])
    parser.add_argument("--again", action="store_true", help="keep the faster of then and now")
    parser.add_argument("--scratch", help="a folder with room for the data, 2.6 GB at 10 million rows")
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        return write(options.folder, options.write)
    if options.measure:
        return print(json.dumps(measure(options.measure, options.folder)))
    rows = [found for n in options.rows for found in run(n, options.places, options.scratch)]
    stored = RESULTS / "growth.json"
    if options.again:
        rows += json.loads(stored.read_text())
        best = {(one["n"], one["place"]): one for one in sorted(rows, key=lambda one: -one["fit"])}
        order = ("memory", "npy", "parquet")
        rows = sorted(best.values(), key=lambda one: (one["n"], order.index(one["place"])))
    stored.write_text(json.dumps(rows, indent=1) + "\n")

    import pyarrow
    import torch
    from kinds import processor

    import diabolo

    about = {
        "data": f"{COLUMNS} columns of float32, {FACTORS} factors and noise; "
        f"Parquet: row groups of {ROW_GROUP:,}",
        "model": "Autoencoder(" + ", ".join(f"{k}={v!r}" for k, v in SETTINGS.items()) + ")",
        "training": "seconds of the one epoch, its validation included; the whole fit also loads the file "
        "(memory) or reads it once for its statistics (.npy, Parquet)",
        "encoding": "transform and np.save in memory; from file to .npy file otherwise",
        "repeats": f"the fastest fit of {REPEATS} up to 1,000,000 rows, of two beyond (--again)",
        "memory": "peak resident size of a process that imported all and trained a small model before",
        "hardware": f"{processor()}, {os.cpu_count()} cores, one thread for torch, one that reads; "
        "other work ran on the machine, which lengthens times, not processor time",
        "versions": f"diabolo {diabolo.__version__}, torch {torch.__version__}, numpy {np.__version__}, "
        f"pyarrow {pyarrow.__version__}, Python {platform.python_version()}",
        "date": date.today().isoformat(),
    }
    text = "# Growth\n\nMade by `python benchmarks/growth.py`.\n\n"
    text += "".join(f"- {key}: {value}\n" for key, value in about.items())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "growth.md").write_text(f"{text}\n{table(rows)}")
    return None


if __name__ == "__main__":
    main()
