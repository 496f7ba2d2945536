"""Two workers against one: the same weights, the speed, and runs whose workers were killed on the way.

    python benchmarks/workers.py --kills 10 --data-home /path/to/data

writes ``benchmarks/results/workers.md``. Workers are started by torchrun on this machine (gloo), which is the
worst place for them: they share the processors that one alone would have. A killed one gets SIGKILL after a
random time; torchrun, or Ray, starts all anew, and they go on from the checkpoint. The model must have the
bytes of a run of as many workers that nobody disturbed. Without the extra "ray" that part is left out;
without MNIST, A2. The exit code is 1 where a model differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kills import contents
from kinds import RESULTS, processor
from safetensors.torch import load_file, save_file

import diabolo
from diabolo.data import load
from diabolo.persistence import CHECKPOINT, read_model
from diabolo.training import train
from diabolo.training.checkpoint import NAME
from diabolo.training.workers import is_first, torchrun_group

TASKS: dict[str, dict[str, Any]] = {
    "A1: 200,000 x 30, 30-20-10, batch 256": {"hidden_dims": (20,), "latent_dim": 10, "batch_size": 256},
    "A1, batch 1024": {"hidden_dims": (20,), "latent_dim": 10, "batch_size": 1024},
    "A2: MNIST, 15,000 rows, 784-512-256-32, batch 128": {
        "hidden_dims": (512, 256),
        "latent_dim": 32,
        "batch_size": 128,
    },
    "A2, batch 1024": {"hidden_dims": (512, 256), "latent_dim": 32, "batch_size": 1024},
}
CASES = {
    "deep": "--kind deep --epochs 60",
    "stacked": "--kind stacked --epochs 20 --schedule plateau --every 3",
    "variational": "--kind variational --epochs 60",
    "sparse, autograd": "--kind sparse --epochs 30 --engine autograd --batch-size 64",
}
EPOCHS = 3
DOUBLE = 5_000  # rows that are trained on in double precision too
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def work(task: str, place: Path, data_home: str | None) -> None:
    """Train as one of the workers; the first one writes the model and the seconds of an epoch."""
    if task.startswith("A1"):
        rng = np.random.default_rng(0)  # as in speed.py: pure noise has no best code to agree on
        X = np.tanh(rng.normal(size=(200_000, 10)) @ rng.normal(size=(10, 30)))
        X = (X + 0.1 * rng.normal(size=X.shape)).astype(np.float32)
    else:
        X = (load("mnist", data_home=data_home).X[:15_000].reshape(-1, 784) / 255).astype(np.float32)
    settings = {**TASKS[task], "epochs": EPOCHS, "validation_fraction": 0.0, "activation": "relu"}
    model = diabolo.Autoencoder(**settings, optimizer="adam", random_state=0)
    with torchrun_group("cpu"):
        model.fit(X)
        muon = replace(model.recipe_, optimizer="muon")
        generator = torch.Generator().manual_seed(0)
        double = muon.build(generator).double()
        rows = torch.from_numpy(X[:DOUBLE]).double()
        double.reach(rows.amin(0), rows.amax(0))
        train(double, muon, rows, None, generator)
        first = is_first()
    if first:
        ends = model.history_.column("seconds")
        model.save(place)
        save_file({key: w.clone() for key, w in double.state_dict().items()}, place.with_suffix(".double"))
        rates = [len(X) / (b - a) for a, b in pairwise(ends)]
        place.with_suffix(".json").write_text(json.dumps(statistics.median(rates)))


def difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """Return the greatest difference of a weight, as a share of the greatest in its tensor."""
    return max(
        float((two[key] - w).abs().max() / w.abs().max().clamp(min=1e-12))
        for key, w in one.items()
        if w.is_floating_point()
    )


def speed(rounds: int, data_home: str | None, folder: Path) -> list[str]:
    """Train with one and two workers in turns; return the rows of the table."""
    cores = os.cpu_count() or 1
    lines = []
    for task in TASKS:
        if task.startswith("A2") and data_home is None:
            continue
        rates: dict[str, list[float]] = {"one": [], "all": [], "two": []}
        for _ in range(rounds):
            for name in rates:
                words = [str(Path(__file__)), "--work", task, "--place", str(folder / f"{name}.safetensors")]
                words += [] if data_home is None else ["--data-home", data_home]
                start = [sys.executable, *(TORCHRUN if name == "two" else ()), *words]
                threads = str(cores if name == "all" else 1)
                subprocess.run(start, env={**os.environ, "OMP_NUM_THREADS": threads}, check=True)
                rates[name].append(json.loads((folder / f"{name}.json").read_text()))
        one, two = (read_model(folder / f"{name}.safetensors") for name in ("one", "two"))
        doubles = [load_file(folder / f"{name}.double") for name in ("one", "two")]
        far = [difference(*doubles), difference(one[1], two[1])]
        losses = [header["history"]["rows"][-1]["training_total"] for header, _ in (one, two)]
        ratios = [
            statistics.median(t / o for t, o in zip(rates["two"], rates[other], strict=True))
            for other in ("one", "all")
        ]
        lines.append(
            f"| {task} | {far[0]:.0e} | {far[1]:.0e} | {abs(losses[1] / losses[0] - 1):.0e} | "
            + " | ".join(f"{statistics.median(rates[name]):,.0f}" for name in ("one", "all", "two"))
            + f" | {ratios[0]:.2f} | {ratios[1]:.2f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def processes(parent: int | None, word: str) -> list[int]:
    """Return the processes below ``parent`` whose command begins with, or holds, ``word``."""
    above: dict[int, int] = {}
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            number = int(entry.name)
            above[number] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if word in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                found.append(number)

    def below(number: int) -> bool:
        while number and number != parent:
            number = above.get(number, 0)
        return bool(number)

    return [number for number in found if number != parent and below(number)]


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start the command in ``folder``, in a session of its own."""
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def finish(run: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the end, and raise where it is a bad one."""
    if run.wait(timeout=600) != 0:
        raise SystemExit((folder / "log.txt").read_text())


def torchrun_kills(case: str, seed: int, most: int, chance: random.Random, folder: Path) -> tuple[int, bool]:
    """Kill a worker up to ``most`` times; return how often, and whether the model came out the same."""
    words = [*TORCHRUN, "--max-restarts", str(most), "-m", "diabolo", "train", "digits"]
    words += ["--random-state", str(seed), *CASES[case].split()]
    begun = time.monotonic()
    finish(start([*words, "-o", "never.safetensors", "--checkpoint", "undisturbed"], folder), folder)
    seconds = time.monotonic() - begun
    run = start([*words, "-o", "killed.safetensors", "--checkpoint", "kept"], folder)
    killed: set[int] = set()
    while len(killed) < most and run.poll() is None:
        time.sleep(chance.uniform(0.1, 0.6) * seconds)
        workers = [pid for pid in processes(run.pid, "diabolo train") if pid not in killed]
        if workers and run.poll() is None:
            victim = chance.choice(workers)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
    finish(run, folder)
    return len(killed), contents(folder / "killed.safetensors") == contents(folder / "never.safetensors")


def ray_kill(folder: Path) -> tuple[float, float, bool]:
    """Kill a worker of Ray once; return the seconds without and with it, and whether the models are equal."""
    words = ["-m", "diabolo", "train", "digits", "--random-state", "0", "--epochs", "150", "--ray", "local"]
    seconds = []
    for name in ("never", "killed"):
        begun = time.monotonic()
        run = start([*words, "-o", f"{name}.safetensors", "--checkpoint", name], folder)
        while name == "killed" and not (folder / name / NAME).exists():
            time.sleep(0.1)
            if run.poll() is not None:
                break
        if name == "killed":
            time.sleep(0.5)
            victims = processes(run.pid, "ray::RayTrainWorker")
            if not victims:
                raise RuntimeError(
                    "the run under Ray ended before a worker could be killed; give it more epochs"
                )
            os.kill(victims[0], signal.SIGKILL)
            at = read_model(folder / name / NAME, CHECKPOINT)[0]["history"]["rows"]
            print(f"Ray: killed after {len(at)} epochs", file=sys.stderr)
        finish(run, folder)
        seconds.append(time.monotonic() - begun)
    equal = contents(folder / "killed.safetensors") == contents(folder / "never.safetensors")
    return seconds[0], seconds[1], equal


def run(kills: int, seed: int, rounds: int, data_home: str | None) -> bool:
    """Do all three; write the page; return whether all was equal."""
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="diabolo-workers-"))
    chance = random.Random(seed)
    good, counted = True, []
    try:
        table = speed(rounds, data_home, folder)
        done = number = 0
        while done < kills:
            case = list(CASES)[number % len(CASES)]
            inside = folder / str(number)
            inside.mkdir()
            times, equal = torchrun_kills(case, number, min(3, kills - done), chance, inside)
            counted.append(f"| {case} | `{CASES[case]}` | {times} | {'yes' if equal else 'NO'} |")
            print(counted[-1], file=sys.stderr, flush=True)
            done, number, good = done + times, number + 1, good and equal
        told = "- Ray is not installed here: not measured"
        if find_spec("ray") is not None:
            inside = folder / "ray"
            inside.mkdir()
            never, killed, equal = ray_kill(inside)
            good = good and equal
            told = (
                "- a worker killed with SIGKILL under `--ray local --checkpoint DIR`: the run ended by "
                f"itself, with {'the' if equal else 'OTHER'} bytes of the run that nobody disturbed "
                f"({killed:.0f} s against {never:.0f} s, start of the cluster included)"
            )
    finally:
        shutil.rmtree(folder)
    try:
        ray = f", Ray {version('ray')}"
    except PackageNotFoundError:
        ray = ""
    text = "\n".join(
        [
            "# Two workers against one",
            "",
            f"Made by `python benchmarks/workers.py --kills {kills} --seed {seed} --rounds {rounds}"
            f"{'' if data_home is None else ' --data-home DIR'}`.",
            "",
            f"- hardware: {processor()}, {os.cpu_count()} cores, no GPU; both workers on it, talking by gloo",
            f"- versions: diabolo {diabolo.__version__}, torch {torch.__version__}{ray}, "
            f"Python {platform.python_version()}",
            f"- date: {date.today().isoformat()}; {time.monotonic() - begun:.0f} s",
            "",
            "## The same weights, and the speed",
            "",
            f"{EPOCHS} epochs. Weights: the greatest difference of a value as a share of the greatest in its "
            f"tensor; with Muon in double precision (on {DOUBLE:,} rows), with Adam in single precision, of "
            "which the loss of the last epoch and the rates are too. Muon in single precision is no measure "
            "of rounding: it makes every direction of a gradient equally long, also one of which nothing but "
            "rounding is left. Training amplifies rounding too, so that weights in single precision drift "
            "apart by more than it with the number of steps; those in double precision do not, which is what "
            "shows that both compute the same. Rates are rows per second, medians over rounds; ratios are "
            "medians of ratios within a round. Below 1 two workers lose: every step waits for a message, "
            "which costs more than half of it, and where one worker has all threads they share its "
            "processors. They are for several machines, wide nets and large batches.",
            "",
            "| task | weights, Muon, double | weights, Adam, single | loss "
            "| one worker, 1 thread | one worker, all threads "
            "| two workers, 1 thread each | two / one with 1 | two / one with all |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
            *table,
            "",
            "## Killed workers",
            "",
            "`torchrun --nproc-per-node 2 --max-restarts N -m diabolo train digits ... --checkpoint DIR`, "
            "one of the two killed with SIGKILL at random times, compared with a run of two workers that "
            "nobody disturbed: every tensor's bytes, and the header but for the seconds.",
            "",
            "| case | settings | kills | equal |",
            "|---|---|---:|---|",
            *counted,
            "",
            told,
            "",
            "Not claimed: the same bytes with another number of workers, on other machines or with nccl.",
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "workers.md").write_text(text + "\n")
    print(text)
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data-home", default=os.environ.get("DIABOLO_DATA"))
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work is not None:
        work(chosen.work, chosen.place, chosen.data_home)
        sys.exit()
    sys.exit(0 if run(chosen.kills, chosen.seed, chosen.rounds, chosen.data_home) else 1)
