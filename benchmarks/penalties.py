"""What a contractive penalty and a TopK code cost per step, beside torch alone, in interleaved rounds.

    python benchmarks/penalties.py --rounds 7

writes benchmarks/results/penalties.md. Each round runs every contestant once, one after the other, so that
a machine that slows down slows all; ratios are medians over rounds of ratios within a round. A step is all
of it: gathering the rows (the same in each), forward, loss, penalty, gradients, Adam. Torch's alone share
the net's layers and loss; they take the rows in pieces that fit the memory, and take part in few rounds, or
in none where one step outlasts the limit.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kinds import processor
from torch import Tensor, nn

import diabolo
from diabolo.autoencoder import AutoencoderModule
from diabolo.parameters import Parameters
from diabolo.recipe import Recipe, resolve
from diabolo.training.dense import DenseStep
from diabolo.training.engine import choose_step
from diabolo.training.machine import keep_memory
from diabolo.training.settings import Settings

RESULTS = Path(__file__).parent / "results"
WEIGHT = 0.1
ROWS = 256
PIECE = 2**25  # values of the Jacobian that torch alone may hold at a time
Step = Callable[[], None]
Norms = Callable[[AutoencoderModule, Tensor], None]

ENCODERS: dict[str, dict[str, Any]] = {
    "784-1000, sigmoid": {"hidden_dims": (), "latent_dim": 1000, "latent_activation": "sigmoid"},
    "784-512-30, linear code": {"hidden_dims": (512,), "latent_dim": 30},
    "784-256-64, sigmoid code": {
        "hidden_dims": (256,),
        "latent_dim": 64,
        "latent_activation": "sigmoid",
    },
    "784-512-256-32, linear code": {"hidden_dims": (512, 256), "latent_dim": 32},
    "conv 1-8-16, code 16": {
        "architecture": "conv",
        "channels": (8, 16),
        "latent_dim": 16,
        "input_shape": (28, 28),
    },
    "30-20-10, linear code": {"hidden_dims": (20,), "latent_dim": 10, "shape": (30,)},
    "30-20-10, sigmoid code": {
        "hidden_dims": (20,),
        "latent_dim": 10,
        "latent_activation": "sigmoid",
        "shape": (30,),
    },
}


def prepared(choices: dict[str, Any], n: int) -> tuple[Recipe, AutoencoderModule, Tensor]:
    """Return the recipe, its module and n rows."""
    choices = {"depth": 1, "activation": "relu", "optimizer": "adam"} | choices
    shape = choices.pop("shape", choices.get("input_shape", (784,)))
    parameters = Parameters(**choices)
    recipe = resolve(
        parameters, shape=shape, n_rows=n, scaling=None, bounded=False, seed=0, default_depth=parameters.depth
    )
    module = recipe.build(torch.Generator().manual_seed(0)).train()
    return recipe, module, torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


def ours(choices: dict[str, Any], n: int = ROWS, kind: Any = choose_step) -> Step:
    """Return one step of diabolo's."""
    recipe, module, data = prepared(choices, n)
    settings = Settings(1e-3, "adam", n, 1, "constant", 0.0, None, None)
    step = kind(module, recipe.objective(), settings, torch.Generator().manual_seed(0))
    rows = torch.arange(n)
    return lambda: step(data, rows, 1) and None


def torch_alone(choices: dict[str, Any], norms: Norms | None = None, n: int = ROWS) -> Step:
    """Return one step as one writes it with torch: zero, forward, loss, backward, step."""
    _, module, data = prepared(choices, n)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    rows = torch.arange(n)

    def step() -> None:
        optimizer.zero_grad()
        x = data[rows]
        loss = module.loss(module(x).raw, x).mean()
        loss.backward()
        if norms is not None:
            norms(module, x)
        optimizer.step()

    return step


def by_func(transform: Any) -> Norms:
    """Return the penalty by torch.func: every sample's Jacobian, in pieces."""

    def norms(module: AutoencoderModule, x: Tensor) -> None:
        jacobian = torch.func.vmap(transform(lambda row: module.encode(row[None])[0]))
        widest = max(w.numel() // w.shape[-1] for w in module.encoder.parameters() if w.ndim > 1)
        rows = max(1, PIECE // (x[0].numel() * max(widest, 1000)))
        for part in torch.split(x, rows):
            (jacobian(part).square().sum() * (WEIGHT / len(x))).backward()

    return norms


def by_loop(module: AutoencoderModule, x: Tensor) -> None:
    """Add the penalty's gradient by one call of autograd per unit of the code."""
    x = x.detach().requires_grad_()
    z = module.encode(x).flatten(1)
    for unit in z.unbind(1):
        (row,) = torch.autograd.grad(unit.sum(), x, create_graph=True)
        (row.square().sum() * (WEIGHT / len(x))).backward(retain_graph=True)


class PlainTopK(nn.Module):
    """A TopK autoencoder as one writes it with torch."""

    def __init__(self, d: int, m: int, k: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.k = nn.Linear(d, m), nn.Linear(m, d), k

    def forward(self, x: Tensor) -> Tensor:
        """Restore x (n, d)."""
        top = torch.relu(self.encoder(x)).topk(self.k, dim=1)
        restored: Tensor = self.decoder(torch.zeros(len(x), self.encoder.out_features).scatter(1, *top[::-1]))
        return restored


def plain_topk(d: int, m: int, k: int, n: int) -> Step:
    """Return one step of it."""
    net, data = PlainTopK(d, m, k), torch.randn(n, d)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    rows = torch.arange(n)

    def step() -> None:
        optimizer.zero_grad()
        x = data[rows]
        (net(x) - x).square().sum(1).mean().backward()
        optimizer.step()

    return step


def seconds_of(step: Step, limit: int, repeats: int = 1) -> float:
    """Return the seconds of one step, inf where it outlasts the limit."""

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return (time.perf_counter() - start) / repeats
    except TimeoutError:
        return float("inf")
    finally:
        signal.alarm(0)


def interleaved(
    contestants: dict[str, Step], rounds: int, slow_rounds: int, limit: int
) -> dict[str, list[float]]:
    """Run every contestant once per round, after a round that does not count; slow ones in few rounds."""
    found: dict[str, list[float]] = defaultdict(list)
    first = {name: seconds_of(step, limit) for name, step in contestants.items()}
    for i in range(rounds):
        for name, step in contestants.items():
            if first[name] == float("inf"):
                found[name] = [first[name]]
            elif first[name] < 1.0 or i < slow_rounds:
                found[name].append(seconds_of(step, limit, 50 if first[name] < 0.005 else 2))
    return found


def shown(found: dict[str, list[float]], base: str, limit: int) -> list[str]:
    """Return the rows of a table: median milliseconds, and ratio to ``base``."""
    out = []
    for name, each in found.items():
        if each == [float("inf")]:
            out.append(f"| {name} | over {limit * 1000:,} | |")
            continue
        ratio = statistics.median(a / b for a, b in zip(each, found[base], strict=False))
        out.append(f"| {name} | {statistics.median(each) * 1e3:,.2f} | {ratio:.2f} |")
        print(out[-1], flush=True)
    return out


def contractive(rounds: int, slow_rounds: int, limit: int) -> list[str]:
    """Time steps with and without the penalty."""
    out = []
    for name, choices in ENCODERS.items():
        print(name, flush=True)
        contestants = {
            "diabolo, without the penalty": ours(choices),
            "diabolo, contractive": ours(choices | {"penalty": f"contractive:{WEIGHT}"}),
            "torch, without the penalty": torch_alone(choices),
            "torch, vmap(jacrev)": torch_alone(choices, by_func(torch.func.jacrev)),
            "torch, vmap(jacfwd)": torch_alone(choices, by_func(torch.func.jacfwd)),
            "torch, one autograd.grad per unit": torch_alone(choices, by_loop),
        }
        found = interleaved(contestants, rounds, slow_rounds, limit)
        out += [
            "",
            f"### {name}",
            "",
            "| step of 256 rows | ms | against diabolo without |",
            "|---|---:|---:|",
        ]
        out += shown(found, "diabolo, without the penalty", limit)
    return out


def topk(rounds: int, limit: int) -> list[str]:
    """Time steps of a wide TopK code."""
    out = []
    for d, m, k, n in ((512, 8192, 32, 4096), (784, 1600, 100, 256)):
        print("topk", d, m, k, n, flush=True)
        # no unit counts as dead: what revives them is no part of the plain one
        latent = f"topk:k={k},revive_after={10**9}"
        choices = {"hidden_dims": (), "latent_dim": m, "latent": latent, "shape": (d,)}
        contestants = {
            "diabolo": ours(choices, n),
            "diabolo, dense products": ours(choices, n, DenseStep),
            "torch": plain_topk(d, m, k, n),
        }
        found = interleaved(contestants, rounds, rounds, limit)
        out += [
            "",
            f"### {d} -> {m}, k={k}, {n} rows",
            "",
            "| step | ms | against diabolo |",
            "|---|---:|---:|",
        ]
        out += shown(found, "diabolo", limit)
    return out


def main() -> None:
    """Run all and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slow-rounds", type=int, default=2, help="rounds of steps over a second")
    parser.add_argument("--limit", type=int, default=60, help="seconds after which a step is given up")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", nargs="*", default=["contractive", "topk"])
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    keep_memory()
    page = [
        "# Penalties and sparse codes",
        "",
        f"Made by `python benchmarks/penalties.py --rounds {options.rounds}`: medians of interleaved rounds.",
        "",
        f"- hardware: {processor()}, {torch.get_num_threads()} threads, no GPU; a shared machine",
        "- allocator: glibc keeps large blocks for all contestants, as diabolo's fits have it",
        f"- versions: diabolo {diabolo.__version__}, torch {torch.__version__}, numpy {np.__version__}",
        f"- date: {date.today().isoformat()}",
    ]
    if "contractive" in options.only:
        page += ["", "## The contractive penalty"]
        page += contractive(options.rounds, options.slow_rounds, options.limit)
    if "topk" in options.only:
        page += ["", "## TopK", *topk(options.rounds, options.limit)]
    (RESULTS / "penalties.md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
