"""Training and encoding speed beside other libraries, from the public estimators, in interleaved rounds.

    python benchmarks/speed.py --rounds 5

needs the environment of benchmarks/rivals.txt and MNIST (``--data-home`` or DIABOLO_DATA), and writes
benchmarks/results/speed.md. Each round runs every contestant once on each task, one after the other,
so that a machine that slows down slows all; ratios are medians over rounds of ratios within a round.
diabolo's figure counts rows trained on over the whole ``fit``: reading statistics, scaling, validation,
history and best weights included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kinds import processor
from rivals import RIVALS, Work, silenced

import diabolo
from diabolo.data import load
from diabolo.recipe import resolve

RESULTS = Path(__file__).parent / "results"
SHARE = 0.9  # of the rows are trained on, the others validate


def works(data_home: str | None) -> list[Work]:
    """Return the tasks."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(200_000, 10)).astype(np.float32)
    table = np.tanh(codes @ rng.normal(size=(10, 30)).astype(np.float32))
    table = (table + 0.1 * rng.normal(size=table.shape)).astype(np.float32)
    digits = (load("mnist", data_home=data_home).X[:30_000].reshape(-1, 784) / 255).astype(np.float32)
    return [
        Work("A1: table 200,000 x 30, 30-20-10, batch 256", table, (20,), 10, 256),
        Work("A1, batch 32", table[:50_000], (20,), 10, 32),
        Work("A1, batch 1024", table, (20,), 10, 1024),
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
    epochs = 1 if work.kind == "conv" else 5 if work.X.shape[1] < 100 else 2
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


def training(rounds: int, tasks: list[Work]) -> list[str]:
    """Time the training against the rivals."""
    out = []
    for work in tasks:
        contestants: dict[str, Callable[[Work], float]] = {
            name: (lambda w, f=function: silenced(f, w))
            for name, (function, kinds) in RIVALS.items()
            if work.kind in kinds
        }
        contestants["diabolo"] = ours
        contestants["diabolo, muon"] = lambda w: ours(w, optimizer="muon", learning_rate=None)
        seconds = interleaved(rounds, contestants, work)
        out += ["", f"### {work.name}", "", "| | samples/s | against the plain loop |", "|---|---:|---:|"]
        for name, each in seconds.items():
            ratio = statistics.median(b / a for a, b in zip(each, seconds["plain loop"], strict=True))
            out.append(f"| {name} | {len(work.X) / statistics.median(each):,.0f} | {ratio:.2f} |")
    return out


def variants(rounds: int, tasks: list[Work]) -> list[str]:
    """Time the kinds against the plain autoencoder of the same size."""
    out = []
    for work in tasks:
        contestants = {name: (lambda w, m=more: ours(w, **m)) for name, more in VARIANTS.items()}
        seconds = interleaved(rounds, contestants, work)
        out += ["", f"### {work.name}", "", "| kind | time against plain |", "|---|---:|"]
        for name, each in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(each, seconds["plain"], strict=True))
            passes = 1 + (len(work.hidden) + 1) / 2 if "stacked" in name else 1
            note = f" ({ratio / passes:.2f} per pass over the rows)" if passes > 1 else ""
            out.append(f"| {name} | {ratio:.2f}{note} |")
    return out


def contractive(rounds: int) -> list[str]:
    """Time one step with and without the penalty, on 256 rows."""
    out = ["", "| encoder | step, ms | without the penalty, ms | ratio |", "|---|---:|---:|---:|"]
    x = torch.rand(256, 784, generator=torch.Generator().manual_seed(0))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("784-1000, sigmoid", {"hidden_dims": (), "latent_dim": 1000, "latent_activation": "sigmoid"}),
        ("784-512-30, linear code", {"hidden_dims": (512,), "latent_dim": 30}),
        ("784-256-64, sigmoid code",
         {"hidden_dims": (256,), "latent_dim": 64, "latent_activation": "sigmoid"}),
        ("784-512-256-32, linear code", {"hidden_dims": (512, 256), "latent_dim": 32}),
        ("conv 1-8-16, code 16", {"architecture": "conv", "channels": (8, 16), "latent_dim": 16,
                                  "input_shape": (28, 28)}),
    ]  # fmt: skip
    for name, choices in cases:

        def step(penalty: str | None, choices: dict[str, Any] = choices) -> Callable[[Work], float]:
            from diabolo.parameters import Parameters
            from diabolo.training.engine import choose_step
            from diabolo.training.settings import Settings

            shape = choices.get("input_shape", (784,))
            p = Parameters(**{"depth": 1} | choices | {"penalty": penalty, "optimizer": "adam"})
            recipe = resolve(
                p, shape=shape, n_rows=256, scaling=None, bounded=False, seed=0, default_depth=p.depth
            )
            generator = torch.Generator().manual_seed(0)
            module = recipe.build(generator).train()
            settings = Settings(1e-3, "adam", 256, 1, "constant", 0.0, None, None)
            one = choose_step(module, recipe.objective(), settings, generator)
            data, rows = x.reshape(256, *shape), torch.arange(256)
            one(data, rows, 0)

            def run(_: Work) -> float:
                start = time.perf_counter()
                for _i in range(5):
                    one(data, rows, 1)
                return (time.perf_counter() - start) / 5

            return run

        contestants = {"with": step("contractive:0.1"), "without": step(None)}
        seconds = interleaved(rounds, contestants, None)  # type: ignore[arg-type]
        a, b = (statistics.median(seconds[k]) * 1e3 for k in ("with", "without"))
        ratio = statistics.median(p / q for p, q in zip(seconds["with"], seconds["without"], strict=True))
        out.append(f"| {name} | {a:.1f} | {b:.1f} | {ratio:.2f} |")
    return out


def interleaved(
    rounds: int, contestants: dict[str, Callable[[Work], float]], work: Work
) -> dict[str, list[float]]:
    """Run every contestant once per round, after one round that does not count."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for i in range(rounds + 1):
        for name, run in contestants.items():
            took = run(work)
            if i:
                seconds[name].append(took)
        print(work.name if work else "step", f"round {i} of {rounds}", flush=True)
    return seconds


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
    parser.add_argument("--only", nargs="*", default=["training", "variants", "contractive"])
    options = parser.parse_args()
    tasks = works(options.data_home)
    page = [
        "# Speed",
        "",
        f"Made by `python benchmarks/speed.py --rounds {options.rounds}`: medians of interleaved rounds.",
        "",
        f"- hardware: {processor()}, {torch.get_num_threads()} threads, no GPU; a shared machine",
        "- allocator: diabolo's first fit tells glibc to keep large blocks, which holds for the whole "
        "process: the rivals profit from it here too, above all on A2 to A4",
        f"- versions: diabolo {diabolo.__version__}, {versions()}",
        f"- date: {date.today().isoformat()}",
    ]
    if "training" in options.only:
        page += ["", "## Training", *training(options.rounds, tasks)]
    if "variants" in options.only:
        page += [
            "",
            "## Kinds against the plain one",
            *variants(options.rounds, [tasks[0], replace(tasks[3], X=tasks[3].X[:6000])]),
        ]
    if "contractive" in options.only:
        page += ["", "## The contractive penalty, one step of 256 rows", *contractive(options.rounds)]
    (RESULTS / "speed.md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
