"""Whole processes, cold: training on a table, and imports.

    python benchmarks/cold.py --rounds 5

needs the environment of benchmarks/rivals.txt, and writes benchmarks/results/cold.md. The table
(20,000 x 30), the two rivals' scripts and the models lie in a temporary folder. Every process is started
anew, in turns; its seconds are the wall's, its memory the peak that the system reports for it (wait4).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from kinds import processor

RESULTS = Path(__file__).parent / "results"
ROWS, COLUMNS, EPOCHS, BATCH = 20_000, 30, 20, 256

SKLEARN = f"""
import numpy as np
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
X = StandardScaler().fit_transform(np.loadtxt("table.csv", delimiter=",", skiprows=1))
MLPRegressor(hidden_layer_sizes=(20, 10, 20), batch_size={BATCH}, max_iter={EPOCHS}).fit(X, X)
"""
PYOD = f"""
import numpy as np
from pyod.models.auto_encoder import AutoEncoder
X = np.loadtxt("table.csv", delimiter=",", skiprows=1)
AutoEncoder(
    epoch_num={EPOCHS}, batch_size={BATCH}, hidden_neuron_list=[20, 10], batch_norm=False, dropout_rate=0.0,
    verbose=0,
).fit(X)
"""
DIABOLO = (
    "-m diabolo train table.csv --output model.safetensors --quiet --kind deep --hidden-dims 20 "
    f"--latent-dim 10 --batch-size {BATCH} --epochs {EPOCHS} --activation relu --random-state 0"
).split()
TRAINING = {
    "diabolo train": DIABOLO,
    "diabolo train, --optimizer adam": [*DIABOLO, "--optimizer", "adam"],
    "scikit-learn, MLPRegressor": ["-W", "ignore", "sklearn_script.py"],
    "PyOD, AutoEncoder": ["-W", "ignore", "pyod_script.py"],
}
IMPORTS = {
    "python, nothing": ["-c", "pass"],
    "import diabolo": ["-c", "import diabolo"],
    "diabolo --version": ["-m", "diabolo", "--version"],
    "diabolo --help": ["-m", "diabolo", "--help"],
    "from diabolo import Autoencoder": ["-c", "from diabolo import Autoencoder"],
    "import torch": ["-c", "import torch"],
    "import sklearn.neural_network": ["-c", "import sklearn.neural_network"],
    "import pyod.models.auto_encoder": ["-W", "ignore", "-c", "import pyod.models.auto_encoder"],
}


# a process begins with the peak of the one that started it; so a small one does
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
pid = os.fork()
if not pid:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
_, status, usage = os.wait4(pid, 0)
print(status, time.perf_counter() - start, usage.ru_maxrss)
"""


def cost(words: list[str], folder: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB of one process; raise where it failed."""
    command = [sys.executable, "-S", "-c", LAUNCHER, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    status, seconds, peak = done.stdout.split()
    if status != "0":
        raise SystemExit(f"{words} failed with status {status}")
    return float(seconds), float(peak) / (2**20 if platform.system() == "Darwin" else 2**10)


def measured(processes: dict[str, list[str]], folder: Path, rounds: int) -> list[str]:
    """Run all in turns, after one round that only warms the disk's cache; return the table's lines."""
    seconds, memory = defaultdict(list), defaultdict(list)
    for i in range(rounds + 1):
        for name, words in processes.items():
            took, peak = cost(words, folder)
            if i:
                seconds[name].append(took)
                memory[name].append(peak)
        print(f"round {i} of {rounds}", flush=True)
    return [
        "| | seconds | peak memory, MB |",
        "|---|---:|---:|",
        *(
            f"| {name} | {statistics.median(seconds[name]):.2f} | {statistics.median(memory[name]):.0f} |"
            for name in processes
        ),
        "",
    ]


def main() -> None:
    """Run all and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    X = np.tanh(rng.normal(size=(ROWS, 10)) @ rng.normal(size=(10, COLUMNS)))
    X += 0.1 * rng.normal(size=X.shape)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        header = ",".join(f"f{i}" for i in range(COLUMNS))
        np.savetxt(folder / "table.csv", X, fmt="%.6f", delimiter=",", header=header, comments="")
        (folder / "sklearn_script.py").write_text(SKLEARN)
        (folder / "pyod_script.py").write_text(PYOD)
        training = measured(TRAINING, folder, options.rounds)
        imports = measured(IMPORTS, folder, options.rounds)
    found = ", ".join(f"{name} {version(name)}" for name in ("diabolo", "torch", "scikit-learn", "pyod"))
    page = [
        "# Cold starts",
        "",
        f"Made by `python benchmarks/cold.py --rounds {options.rounds}`: whole processes in turns, medians.",
        "",
        f"- hardware: {processor()}, {os.cpu_count()} cores, no GPU; a shared machine, files in its cache",
        f"- versions: {found}, Python {platform.python_version()}",
        f"- date: {date.today().isoformat()}",
        "",
        f"## Training on a CSV, {ROWS:,} x {COLUMNS}, {EPOCHS} epochs",
        "",
        f"30-20-10-20-30, ReLU, batches of {BATCH}, from reading the file to leaving the process. The "
        "rivals' scripts read with numpy.loadtxt, scale and fit; scikit-learn on its own input, PyOD scores "
        "its training rows in fit. `diabolo train` fits on four fifths of the rows (a tenth of which chooses "
        "the best epoch) and then does what the scripts do not: it measures error, R^2 and use of the code "
        "on the fifth held out, fits PCA with as many components and the mean predictor to compare with, "
        "fits the density that `sample` draws codes from, and writes the model file. Its other settings are "
        "the defaults; Muon is its optimizer unless told otherwise. No report is asked for.",
        "",
        *training,
        "## Imports and help",
        "",
        *imports,
    ]
    (RESULTS / "cold.md").write_text("\n".join(page).rstrip() + "\n")
    print("\n".join(page))


if __name__ == "__main__":
    main()
