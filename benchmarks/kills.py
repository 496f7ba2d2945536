"""Trainings killed with SIGKILL at random moments and resumed, compared with one that was never stopped.

    python benchmarks/kills.py --kills 80

writes ``benchmarks/results/kills.md``. Every training is ``diabolo train ... --checkpoint --resume`` in
a process of its own, forked from one that has the libraries loaded: a kill then falls into reading the
data, training, writing a checkpoint or writing the model, and not into the import of torch. The model
that comes out in the end must have the same bytes in every tensor and the same header (parameters,
recipe, history) but for the seconds. The exit code is 1 where one does not.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: what has threads cannot be forked

import sklearn
import torch
from kinds import RESULTS, processor

import diabolo
from diabolo.cli import main
from diabolo.persistence import CHECKPOINT, read_model
from diabolo.training import largest
from diabolo.training.checkpoint import NAME

CASES = {
    "deep": "--kind deep --epochs 12",
    "stacked": "--kind stacked --epochs 4",
    "stacked, every 3": "--kind stacked --epochs 4 --schedule plateau --learning-rate 0.1 --every 3",
    "variational": "--kind variational --epochs 40 --every 2",
    "sparse, autograd": "--kind sparse --epochs 10 --engine autograd --batch-size 64",
    "sparse, many units": "--kind sparse --latent topk:k=8 --latent-dim 2048 --batch-size 256 --epochs 60",
    "convolutional": "--kind convolutional --epochs 3 --channels 4,8",
    "patience": "--kind denoising --epochs 40 --schedule constant --learning-rate 0.1 --patience 2",
}
MOST = 10  # kills of one training
SHARE = 0.3  # of a command's duration, up to which it is killed: seldom after it has trained
# what a training imports when it needs it: the fork has it already
LOADED = (
    "torch._dynamo", "sklearn.datasets", "sklearn.decomposition", "pooch", "typer._adapters",
    "diabolo.estimators", "diabolo.data", "diabolo.cli.numbers", "diabolo.report.compare",
)  # fmt: skip


def start(words: list[str], folder: Path) -> int:
    """Run the command in a process of its own; return its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        main(words)
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        os._exit(code)


def wait(child: int, seconds: float | None = None) -> int | None:
    """Return the exit code, or None where the time is over."""
    end = time.monotonic() + (3600 if seconds is None else seconds)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    return None


def contents(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a model file's tensors and header, without the seconds."""
    header, tensors = read_model(path)
    for row in header["history"]["rows"]:
        del row["seconds"]
    return {key: value.numpy().tobytes() for key, value in tensors.items()}, header


def killed(case: str, seed: int, chance: random.Random, most: int, folder: Path) -> Counter[str]:
    """Kill one training up to ``most`` times, resume it to its end, compare; return what was counted."""
    words = ["train", "digits", "--random-state", str(seed), *CASES[case].split()]
    plain = words[: words.index("--every")] if "--every" in words else words
    begun = time.monotonic()
    if wait(start([*plain, "-o", "never.safetensors"], folder)) != 0:
        raise SystemExit((folder / "log.txt").read_text())
    seconds = time.monotonic() - begun
    resuming = [*words, "-o", "resumed.safetensors", "--checkpoint", "kept", "--resume"]
    counted: Counter[str] = Counter(trainings=1)
    while True:
        child = start(resuming, folder)
        # once after training is enough: what is killed then has little left to lose
        left = counted["kills"] < most and not counted["after training"]
        limit = SHARE * seconds * (1 + counted["before a checkpoint"])
        code = wait(child, chance.uniform(0.0, limit) if left else None)
        if code is None:
            os.kill(child, signal.SIGKILL)
            code = wait(child)
        if code == 0:
            break
        if code != -signal.SIGKILL:
            raise SystemExit((folder / "log.txt").read_text())
        counted["kills"] += 1
        counted["before a checkpoint"] += not (folder / "kept" / NAME).exists()
        counted["while one was written"] += any((folder / "kept").glob(f".{NAME}.*"))
        if (folder / "kept" / NAME).exists():
            header, _ = read_model(folder / "kept" / NAME, CHECKPOINT)
            counted["after training"] += header["finished"]
    assert [path.name for path in (folder / "kept").iterdir()] == [NAME]
    counted["equal"] += contents(folder / "resumed.safetensors") == contents(folder / "never.safetensors")
    return counted


def run(kills: int, seed: int) -> bool:
    """Go through the cases until there were so many kills; write the page; return whether all was equal."""
    for module in LOADED:
        import_module(module)
    largest._LEAST_WORK = 2**24  # so that the net with many units makes shortlists, too
    chance = random.Random(seed)
    counts: dict[str, Counter[str]] = {case: Counter() for case in CASES}
    begun = time.monotonic()
    number = 0
    while (done := sum(count["kills"] for count in counts.values())) < kills:
        case = list(CASES)[number % len(CASES)]
        folder = Path(tempfile.mkdtemp(prefix="diabolo-kills-"))
        try:
            found = killed(case, number, chance, min(kills - done, MOST), folder)
        finally:
            shutil.rmtree(folder)
        counts[case] += found
        number += 1
        print(f"{case}: {dict(found)}", file=sys.stderr, flush=True)
    total = sum(counts.values(), Counter())
    columns = [
        "trainings",
        "kills",
        "before a checkpoint",
        "while one was written",
        "after training",
        "equal",
    ]
    lines = [
        "# Trainings killed and resumed",
        "",
        f"Made by `python benchmarks/kills.py --kills {kills} --seed {seed}`.",
        "",
        f"- result: {total['equal']} of {total['trainings']} trainings, killed {total['kills']} times in "
        "all, gave the model of one that was never stopped: the same bytes in every tensor, the same header "
        "but for the seconds",
        f"- killed: SIGKILL after a time uniform between 0 and {SHARE:.0%} of the duration of the whole "
        "command (more after a kill that left no checkpoint), again and again, "
        f"up to {MOST} times or until a training has come to its end",
        "- data: digits, 1,438 training rows; `diabolo train ... --checkpoint --resume`, one thread",
        f"- hardware: {processor()}, {os.cpu_count()} cores, no GPU",
        f"- versions: diabolo {diabolo.__version__}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}, Python {platform.python_version()}",
        f"- date: {date.today().isoformat()}; {time.monotonic() - begun:.0f} s",
        "",
        "| case | settings | " + " | ".join(columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for case, count in counts.items():
        lines.append(
            f"| {case} | `{CASES[case]}` | " + " | ".join(str(count[column]) for column in columns) + " |"
        )
    lines.append("| all | | " + " | ".join(str(total[column]) for column in columns) + " |")
    lines += [
        "",
        "Not claimed: the same bytes on another machine, with other versions or another number of threads.",
    ]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "kills.md").write_text(text)
    print(text)
    return total["equal"] == total["trainings"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    sys.exit(0 if run(chosen.kills, chosen.seed) else 1)
