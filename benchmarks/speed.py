"""Training and encoding speed beside other libraries, from the public estimators, in interleaved rounds.

    python benchmarks/speed.py --rounds 5

needs the environment of benchmarks/rivals.txt and MNIST (``--data-home`` or DIABOLO_DATA), and writes
benchmarks/results/speed.md. Each round runs every contestant once on each task, one after the other, each in
a process of its own, so that a machine that slows down slows all and no library's settings reach another;
ratios are medians over rounds of ratios within a round. diabolo's figure counts rows trained on over the
whole ``fit`` (of 5 epochs; 3 of the convolutional net): statistics, scaling, validation, history and best
weights included. Rivals make one pass, without any of these.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cores import apart
from kinds import processor
from rivals import NETS, RIVALS, Variational, Work, kernels, plain_loop, silenced

import diabolo
from diabolo.data import load

RESULTS = Path(__file__).parent / "results"
NARROW = (20,)  # the hidden layer of A1, whose net has no layer wide enough for bf16
LEAST_RUNS = 2  # with the cores near, or apart, from which their median is shown
SHARE = 0.9  # of the rows are trained on, the others validate


def works(data_home: str | None) -> list[Work]:
    """Return the tasks."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(200_000, 10)).astype(np.float32)
    table = np.tanh(codes @ rng.normal(size=(10, 30)).astype(np.float32))
    table = (table + 0.1 * rng.normal(size=table.shape)).astype(np.float32)
    digits = (load("mnist", data_home=data_home).X[:30_000].reshape(-1, 784) / 255).astype(np.float32)
    return [
        Work("A1: table 200,000 x 30, 30-20-10, batch 256", table, NARROW, 10, 256),
        Work("A1, batch 32", table[:50_000], NARROW, 10, 32),
        Work("A1, batch 1024", table, NARROW, 10, 1024),
        Work("A2: MNIST 784-512-256-32, batch 128", digits, (512, 256), 32, 128),
        Work(
            "A3: MNIST convolutional 1-16-32, code 32, batch 128", digits[:15_000], (16, 32), 32, 128, "conv"
        ),
        Work("A4: MNIST variational 784-512-32, batch 128", digits, (512,), 32, 128, "variational"),
    ]


def estimator(work: Work, epochs: int, **more: Any) -> Any:
    """Return diabolo's estimator for the task: Adam, ReLU and a linear output as the others have."""
    common: dict[str, Any] = {
        "latent_dim": work.code, "batch_size": work.batch, "epochs": epochs, "activation": "relu",
        "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "output_activation": "linear",
        "validation_fraction": 1 - SHARE, "random_state": 0,
    }  # fmt: skip
    if work.kind == "conv":
        return diabolo.ConvolutionalAutoencoder(channels=work.hidden, input_shape=(28, 28), **common | more)
    if work.kind == "variational":
        return diabolo.VariationalAutoencoder(hidden_dims=work.hidden, loss="gaussian:0.5", **common | more)
    return diabolo.Autoencoder(hidden_dims=work.hidden, **common | more)


def ours(work: Work, **more: Any) -> float:
    """Return the seconds per pass over all rows, from a fit of several."""
    epochs = 3 if work.kind == "conv" else 5
    model = estimator(work, epochs, **more)
    start = time.perf_counter()
    model.fit(work.X)
    return (time.perf_counter() - start) / (epochs * SHARE)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "denoising": {"corruption": "gaussian:0.3"},
    "sparse (L1)": {"penalty": "l1:0.01"},
    "sparse (TopK)": {"latent": "topk:k=4"},
    "contractive": {"penalty": "contractive:0.1"},
    "stochastic": {"latent": "noisy"},
    "stacked, fine-tuning and pairs": {"training": "layerwise"},
}


# each with the kinds of net that it has
CONTESTANTS: dict[str, tuple[Callable[[Work], float], tuple[str, ...]]] = {
    **{name: (partial(silenced, function), kinds) for name, (function, kinds) in RIVALS.items()},
    "diabolo": (ours, ("dense", "conv", "variational")),
    "diabolo, bf16": (partial(ours, precision="bf16"), ("dense", "conv", "variational")),
    "diabolo, muon": (partial(ours, optimizer="muon", learning_rate=None), ("dense", "conv", "variational")),
    "(products alone)": (kernels, ("dense", "conv", "variational")),
}


class Process:
    """A contestant on a task in a process of its own, which runs once for every line it is sent."""

    def __init__(self, name: str, task: int, data_home: str | None) -> None:
        command = [sys.executable, __file__, "--serve", name, str(task)]
        self.child = subprocess.Popen(
            command + (["--data-home", data_home] if data_home else []),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, work: Work) -> float:
        """Have it run; return the seconds it took."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write("run\n")
        self.child.stdin.flush()
        for line in self.child.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise RuntimeError(f"a contestant ended with {self.child.wait()}")

    def end(self) -> None:
        """End the process."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()


def serve(name: str, task: Work) -> None:
    """Be such a process."""
    run = CONTESTANTS[name][0]
    for _ in sys.stdin:
        print("\nseconds", run(task), flush=True)


def training(rounds: int, tasks: dict[int, Work], data_home: str | None) -> list[str]:
    """Time the training against the rivals, on tasks by their numbers."""
    out = []
    for i, work in tasks.items():
        contestants = {
            name: Process(name, i, data_home)
            for name, (_, kinds) in CONTESTANTS.items()
            if work.kind in kinds and not (name == "diabolo, bf16" and work.hidden == NARROW)
        }
        seconds, states = interleaved(rounds, contestants, work)
        for process in contestants.values():
            process.end()
        out += ["", f"### {work.name}", ""]
        out += ["| | samples/s | cores near | cores apart | against the plain loop | least to most |"]
        out += ["|---|---:|---:|---:|---:|---:|"]
        for name, each in seconds.items():
            ratios = [b / a for a, b in zip(each, seconds["plain loop"], strict=True)]
            pace = [f"{len(work.X) / statistics.median(each):,.0f}"]
            for state in (False, True):
                those = [s for s, found in zip(each, states[name], strict=True) if found is state]
                several = len(those) >= LEAST_RUNS
                pace.append(
                    f"{len(work.X) / statistics.median(those):,.0f} ({len(those)})" if several else "-"
                )
            least_to_most = f"{min(ratios):.2f} to {max(ratios):.2f}"
            out.append(f"| {name} | {' | '.join(pace)} | {statistics.median(ratios):.2f} | {least_to_most} |")
    return out


def losses(tasks: list[Work]) -> list[str]:
    """Compare what is reached on held-out rows after equal steps."""
    names = ("plain loop", "the same from diabolo's first weights", "diabolo", "diabolo, muon")
    out = ["", f"| task | steps | {' | '.join(names)} |", "|---|---:|---:|---:|---:|---:|"]
    for work in tasks:
        rows = np.random.default_rng(1).permutation(len(work.X))
        test, train = work.X[rows[: len(rows) // 10]], work.X[rows[len(rows) // 10 :]]
        found: dict[str, list[float]] = {name: [] for name in names}
        epochs = 3
        for seed in range(3):
            more: dict[str, Any] = {"validation_fraction": 0.0, "random_state": seed, "scaling": None}
            first = estimator(work, 1, schedule="constant", **more | {"learning_rate": 1e-30}).fit(train)
            for name in names[:2]:
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    net = NETS[work.kind](work)
                    if name != names[0] and not begin_at(net, first.module_):
                        continue
                    plain_loop(replace(work, X=train), net, epochs)
                with torch.no_grad():
                    x = torch.from_numpy(test)
                    restored = net.restored(x) if isinstance(net, Variational) else net(x)
                    found[name].append(float((restored.view(x.shape) - x).square().mean()))
            more["schedule"] = "constant"
            for name, others in ((names[2], {}), (names[3], {"optimizer": "muon", "learning_rate": None})):
                model = estimator(work, epochs, **more | others).fit(train)
                found[name].append(float(np.square(model.reconstruct(test) - test).mean()))
        shown = [f"{min(v):.4f} to {max(v):.4f}" if v else "other kernels" for v in found.values()]
        out.append(f"| {work.name} | {len(train) // work.batch * epochs:,} | {' | '.join(shown)} |")
        print(out[-1], flush=True)
    return out


def begin_at(net: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Give ``net`` the weights of ``other``, where they have the same shapes in the same order."""
    mine, theirs = list(net.parameters()), list(other.parameters())
    if [w.shape for w in mine] != [w.shape for w in theirs]:
        return False
    with torch.no_grad():
        for w, v in zip(mine, theirs, strict=True):
            w.copy_(v)
    return True


def variants(rounds: int, tasks: list[Work]) -> list[str]:
    """Time the kinds against the plain autoencoder of the same size."""
    out = []
    for work in tasks:
        contestants = {name: (lambda w, m=more: ours(w, **m)) for name, more in VARIANTS.items()}
        seconds, _ = interleaved(rounds, contestants, work)
        out += ["", f"### {work.name}", "", "| kind | time against plain |", "|---|---:|"]
        for name, each in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(each, seconds["plain"], strict=True))
            passes = 1 + (len(work.hidden) + 1) / 2 if "stacked" in name else 1
            note = f" ({ratio / passes:.2f} per pass over the rows)" if passes > 1 else ""
            out.append(f"| {name} | {ratio:.2f}{note} |")
    return out


def interleaved(
    rounds: int, contestants: Mapping[str, Callable[[Work], float]], work: Work
) -> tuple[dict[str, list[float]], dict[str, list[bool | None]]]:
    """Run every contestant once per round, after one round that does not count.

    Returns the seconds each took, and whether the cores were apart before and after: None where that changed.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    states: dict[str, list[bool | None]] = defaultdict(list)
    for i in range(rounds + 1):
        before = apart()
        for name, run in contestants.items():
            took = run(work)
            after = apart()
            if i:
                seconds[name].append(took)
                states[name].append(before if before is after else None)
            before = after
        print(work.name, f"round {i} of {rounds}", flush=True)
    return seconds, states


def versions() -> str:
    """Return what ran."""
    names = ("torch", "numpy", "scikit-learn", "pyod", "lightning", "encdr", "pythae")
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)


def main() -> None:
    """Run all and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-home", default=None)
    parser.add_argument("--only", nargs="*", default=["training", "losses", "variants"])
    parser.add_argument(
        "--tasks", nargs="*", metavar="NAME", help="A1, A2, ...; not given: all", default=None
    )
    parser.add_argument("--serve", nargs=2, metavar=("CONTESTANT", "TASK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    tasks = works(options.data_home)
    if options.serve:
        serve(options.serve[0], tasks[int(options.serve[1])])
        return
    names = [re.split("[:,]", work.name)[0] for work in tasks]
    if unknown := set(options.tasks or ()) - set(names):
        parser.error(f"--tasks must be among {', '.join(dict.fromkeys(names))}; got {', '.join(unknown)}")
    chosen = {i: work for i, work in enumerate(tasks) if options.tasks is None or names[i] in options.tasks}
    some = "" if options.tasks is None else f" --tasks {' '.join(options.tasks)}"
    page = [
        "# Speed",
        "",
        f"Made by `python benchmarks/speed.py --rounds {options.rounds}{some}`: medians of rounds in turn.",
        "",
        f"- hardware: {processor()}, {torch.get_num_threads()} threads, no GPU; a shared machine",
        "- each contestant in a process of its own, with its library's defaults",
        "- diabolo's figure is that of a whole fit of 5 epochs (convolutional: 3), statistics, scaling, "
        "validation, history and best weights included: what is done once is spread over these epochs",
        "- the others' is that of one pass over the rows, with all they do once in it; PyOD also scores its "
        "training rows",
        "- (products alone): the plain net's matrix products and convolutions in single precision, one after "
        "the other as torch's libraries compute them, and nothing else of a step: the bound of whatever "
        "calls them (diabolo calls NumPy's for layers up to 128 wide, so that it can be ahead on A1)",
        "- cores near, cores apart: the median of the runs (how many) during which the cores had a cache in "
        "common, and of those during which they had not, as `cores.py` finds out before and after each; "
        "a dash for fewer than two",
        f"- versions: diabolo {diabolo.__version__}, {versions()}",
        f"- date: {date.today().isoformat()}",
    ]
    if "training" in options.only:
        page += ["", "## Training", *training(options.rounds, chosen, options.data_home)]
    if "losses" in options.only:
        page += [
            "",
            "## Mean squared error on held-out rows after equal steps, least and most of three seeds",
            *losses([chosen[i] for i in (0, 3, 4, 5) if i in chosen]),
        ]
    if "variants" in options.only:
        page += [
            "",
            "## Kinds against the plain one",
            *variants(
                options.rounds,
                [
                    replace(chosen[i], X=chosen[i].X[:most])
                    for i, most in ((0, None), (3, 6000))
                    if i in chosen
                ],
            ),
        ]
    (RESULTS / "speed.md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
