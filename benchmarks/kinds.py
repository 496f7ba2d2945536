"""Every kind on MNIST and Fashion-MNIST, on their own test splits, beside PCA and the mean predictor.

    python benchmarks/kinds.py mnist fashion-mnist --epochs 5

writes ``benchmarks/results/kinds-<set>.md`` and ``.json``, with settings, hardware and versions. All
kinds get the same budget of epochs and code size (sparse kinds keep their over-complete code).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

import numpy as np
import torch

import diabolo
from diabolo.data import load
from diabolo.kinds import KINDS
from diabolo.report.compare import compare

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def run(name: str, epochs: int, latent_dim: int, kinds: list[str], rows: int | None) -> None:
    """Compare ``kinds`` on the data set ``name`` and write the two files."""
    data = load(name)
    if data.X_test is None:
        raise SystemExit(f"{name} has no test split of its own")
    X = (data.X[:rows] / np.float32(255)).astype(np.float32)
    X_test = (data.X_test / np.float32(255)).astype(np.float32)
    result = compare(
        kinds,
        X,
        X_test,
        y_test=data.y_test,
        latent_dim=latent_dim,
        params={"epochs": epochs},
        progress=lambda kind, row, total: print(
            kind, row["stage"], row["epoch"], f"{row['training_total']:.4g}", file=sys.stderr, flush=True
        ),
    )
    settings = {
        "data": f"{name}: {len(X)} training rows, {len(X_test)} test rows, pixels in [0, 1]",
        "budget": f"{epochs} epochs for every kind, all else at the kinds' defaults, seed 0, one run",
        "code": f"{latent_dim} units; sparse codes as their column says",
        "noise": "Gaussian, half of the pixels' typical standard deviation, on the test images only",
        "hardware": f"{processor()}, {os.cpu_count()} cores, no GPU; seconds on a shared machine, +-20 %",
        "versions": f"diabolo {diabolo.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "date": date.today().isoformat(),
    }
    command = f"python benchmarks/kinds.py {name} --epochs {epochs}" + (f" --rows {rows}" if rows else "")
    header = [
        f"# Every kind on {name}",
        "",
        f"Made by `{command}`.",
        "",
    ]
    header += [f"- {key}: {value}" for key, value in settings.items()]
    text = "\n".join(header) + "\n\n" + result.to_markdown()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"kinds-{name}.md").write_text(text)
    (RESULTS / f"kinds-{name}.json").write_text(
        json.dumps({"about": settings, **result.to_dict()}, indent=1) + "\n"
    )
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=["mnist", "fashion-mnist"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--latent-dim", type=int, default=30)
    parser.add_argument("--kinds", default=",".join(kind.name for kind in KINDS))
    parser.add_argument("--rows", type=int, default=None)
    chosen = parser.parse_args()
    for each in chosen.sets:
        run(each, chosen.epochs, chosen.latent_dim, chosen.kinds.split(","), chosen.rows)
