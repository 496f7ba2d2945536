"""Encoding beside torch, ONNX Runtime and NumPy: latency of one row, and rows per second.

    python benchmarks/inference.py --rounds 7

needs the environment of benchmarks/rivals.txt, and writes benchmarks/results/inference.md. All have the
same weights: those of a diabolo estimator that was fitted for one epoch on noise. diabolo's is the public
``transform``, which checks and scales the rows; the others get rows that are scaled already and look at
nothing. They get all rows in one call, but for one that takes them in batches, as ``transform`` does.
All take turns in short bursts, so that a machine that slows down slows all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from kinds import processor
from onnx import TensorProto, helper, numpy_helper

import diabolo

RESULTS = Path(__file__).parent / "results"
BATCH = 4096  # rows at a time of the contestant that takes them so
BURST = 50  # calls in a row while latency is measured
Encode = Callable[[np.ndarray], np.ndarray]
TASKS = (((30, 20, 10), 1_000_000), ((784, 512, 256, 32), 60_000))


def fitted(widths: tuple[int, ...], X: np.ndarray) -> diabolo.Autoencoder:
    """Return an estimator of these widths."""
    return diabolo.Autoencoder(
        hidden_dims=widths[1:-1], latent_dim=widths[-1], activation="relu", epochs=1, random_state=0
    ).fit(X[:2000])


def onnx_model(layers: list[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Return the encoder as an ONNX file: Gemm and Relu."""
    nodes, weights, value = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        weights += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        last = i == len(layers) - 1
        out = "z" if last else f"a{i}"
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [out], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"h{i}"]))
        value = f"h{i}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("x", layers[0][0].shape[1]), ("z", layers[-1][0].shape[0]))
    ]
    graph = helper.make_graph(nodes, "encoder", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def contestants(model: diabolo.Autoencoder) -> dict[str, Encode]:
    """Return what encodes rows, by name; all but diabolo's take rows in scaled units."""
    linear = [m for m in model.module_.encoder.modules() if isinstance(m, torch.nn.Linear)]
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in linear]
    parts: list[torch.nn.Module] = []
    for m in linear:
        parts += [m, torch.nn.ReLU()]
    net = torch.nn.Sequential(*parts[:-1]).eval()
    session = onnxruntime.InferenceSession(onnx_model(layers), providers=["CPUExecutionProvider"])

    def by_torch(X: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(X)).numpy()

    def by_torch_in_batches(X: np.ndarray) -> np.ndarray:
        out = torch.empty(len(X), layers[-1][0].shape[0])
        with torch.inference_mode():
            for x, z in zip(torch.from_numpy(X).split(BATCH), out.split(BATCH), strict=True):
                z.copy_(net(x))
        return out.numpy()

    def by_torch_plainly(X: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(X)).detach().numpy()

    def by_onnx(X: np.ndarray) -> np.ndarray:
        return session.run(None, {"x": X})[0]

    def by_numpy(X: np.ndarray) -> np.ndarray:
        for weight, bias in layers[:-1]:
            X = X @ weight.T + bias
            np.maximum(X, 0, out=X)
        return X @ layers[-1][0].T + layers[-1][1]

    return {
        "diabolo, transform": model.transform,
        "torch, inference_mode": by_torch,
        "torch, in batches": by_torch_in_batches,
        "torch, model(x)": by_torch_plainly,
        "ONNX Runtime": by_onnx,
        "NumPy": by_numpy,
    }


def latency(encoders: dict[str, Encode], X: dict[str, np.ndarray], rounds: int) -> dict[str, list[float]]:
    """Return seconds per call on one row."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for i in range(10 * rounds + 1):
        for name, encode in encoders.items():
            for j in range(BURST):
                row = X[name][j : j + 1]
                start = time.perf_counter()
                encode(row)
                took = time.perf_counter() - start
                if i and j >= 5:  # the first calls of a burst find the caches of the one before
                    seconds[name].append(took)
    return seconds


def throughput(encoders: dict[str, Encode], X: dict[str, np.ndarray], rounds: int) -> dict[str, list[float]]:
    """Return seconds per call on all rows."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for i in range(rounds + 1):
        for name, encode in encoders.items():
            start = time.perf_counter()
            encode(X[name])
            took = time.perf_counter() - start
            if i:
                seconds[name].append(took)
    return seconds


def table(widths: tuple[int, ...], n: int, rounds: int) -> list[str]:
    """Measure one net; return the page's lines."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(n, widths[0])).astype(np.float32)
    model = fitted(widths, raw)
    encoders = contestants(model)
    others = {
        "diabolo, reconstruct": model.reconstruct,
        "diabolo, score_samples": model.score_samples,
        "diabolo, reconstruction_error": model.reconstruction_error,
    }
    scaled: Any = model._tensor(raw).numpy()
    X = {name: raw if encode == model.transform else scaled for name, encode in encoders.items()}
    expected = encoders["NumPy"](scaled[:100])
    for name, encode in encoders.items():
        np.testing.assert_allclose(encode(X[name][:100]), expected, rtol=1e-3, atol=1e-4, err_msg=name)
    X |= dict.fromkeys(others, raw)
    one = latency(encoders | others, X, rounds)
    all_ = throughput(encoders | others, X, rounds)
    name = "-".join(map(str, widths))
    out = [
        f"## {name}",
        "",
        f"| | one row: p50, us | p99, us | {n:,} x {widths[0]}: rows/s | against torch, inference_mode |",
        "|---|---:|---:|---:|---:|",
    ]
    base = all_["torch, inference_mode"]
    for who in X:
        p50, p99 = (float(q) * 1e6 for q in np.percentile(one[who], [50, 99]))
        rate = n / statistics.median(all_[who])
        ratio = statistics.median(b / a for a, b in zip(all_[who], base, strict=True))
        shown = "" if who in others else f"{ratio:.2f}"  # they do more than encode
        out.append(f"| {who} | {p50:.1f} | {p99:.1f} | {rate:,.0f} | {shown} |")
    print("\n".join(out), flush=True)
    return [*out, ""]


def main() -> None:
    """Run all and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "numpy", "scikit-learn"))
    page = [
        "# Inference",
        "",
        f"Made by `python benchmarks/inference.py --rounds {options.rounds}`: contestants take turns, "
        "medians. diabolo's figures are those of the public methods on rows as they come, which they check "
        "(NaN, inf, width) and scale; the others get rows that are scaled already and check nothing. All get "
        "a float32 array and return one. Where all rows are encoded, diabolo takes them in batches that "
        f"fit the cache, 'torch, in batches' {BATCH:,} at a time into one array, and the others in one call, "
        "whose intermediate values leave the cache.",
        "",
        f"- hardware: {processor()}, {torch.get_num_threads()} threads, no GPU; a shared machine",
        f"- versions: diabolo {diabolo.__version__}, {found}",
        f"- date: {date.today().isoformat()}",
        "",
    ]
    for widths, n in TASKS:
        page += table(widths, n, options.rounds)
    (RESULTS / "inference.md").write_text("\n".join(page).rstrip() + "\n")


if __name__ == "__main__":
    main()
