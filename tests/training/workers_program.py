"""What each of two workers runs, and the test by itself: small nets of the whole family, trained.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python workers_program.py FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file

from diabolo import Autoencoder
from diabolo.data.sources import ArraySource
from diabolo.errors import InvalidParameterError
from diabolo.parameters import Parameters
from diabolo.recipe import resolve
from diabolo.training import Progress, sparse, train
from diabolo.training.workers import torchrun_group

SHAPE = (3, 4)
CASES: dict[str, dict[str, Any]] = {
    "deep, muon": {"hidden_dims": (9, 7), "optimizer": "muon"},
    "deep, adam": {"hidden_dims": (9, 7), "optimizer": "adam", "clip_norm": 0.5, "dropout": 0.2},
    "deep, autograd": {"hidden_dims": (9, 7), "engine": "autograd", "clip_norm": 0.5, "dropout": 0.2},
    "denoising": {"corruption": "masking:0.2+gaussian:0.1+salt_and_pepper:0.1,0,1"},
    "contractive": {"tied_weights": True, "penalty": "contractive:0.3"},
    "contractive, estimated": {"penalty": "contractive:0.3,method=estimate"},
    "variational": {"loss": "gaussian", "latent": "gaussian", "penalty": "posterior_kl:1,warmup=6"},
    "topk": {"latent": "topk:k=2,revive_after=20", "latent_dim": 24, "hidden_dims": ()},
    "topk, sparse products": {"latent": "topk:k=2,revive_after=20", "latent_dim": 24, "clip_norm": 0.5},
    "topk, autograd": {"latent": "topk:k=2,revive_after=20", "latent_dim": 24, "engine": "autograd"},
    "jumprelu": {"latent": "jumprelu", "penalty": "l0:0.01"},
    "stacked": {"hidden_dims": (9, 7), "training": "layerwise", "corruption": "gaussian:0.1"},
    "conv": {"architecture": "conv", "channels": (4,), "dropout": 0.2, "norm": "layer"},
}
REFUSED: dict[str, dict[str, Any]] = {
    "latent must act on each row alone where 2 workers share a batch; got 'noisy'": {"latent": "noisy"},
    "got 'batch_topk'": {"latent": "batch_topk", "latent_dim": 20},
    "got 'kl_sparsity'": {"penalty": "kl_sparsity", "latent_activation": "sigmoid"},
    "got 'posterior_kl' with free_bits=0.1": {"latent": "gaussian", "penalty": "posterior_kl:1,0.1"},
    "Set its low and high, or train with one worker": {"corruption": "salt_and_pepper"},
    "norm must act on each row alone": {"norm": "batch"},
    "a batch must have a row for each of 2 workers; got 1 row(s)": {"batch_size": 1},
}


def rows() -> np.ndarray:
    return np.random.default_rng(0).random((120, 12)).astype(np.float32)


def trained(case: str, progress: Progress | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Train in double precision, batches being of an odd number; return weights and history."""
    recipe = resolve(
        Parameters(
            **{"latent_dim": 4, "epochs": 3, "batch_size": 13, "learning_rate": 0.01, "patience": 2}
            | {"hidden_dims": None if "channels" in CASES[case] else (9,)} | CASES[case]
        ),
        shape=SHAPE, n_rows=100, scaling=None, bounded=False, seed=0, default_depth=1,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    module = recipe.build(generator).double()
    data = torch.from_numpy(rows()).double().reshape(-1, *SHAPE)
    least = 1 if "sparse" in case else 10**9
    with patch.multiple(sparse, _LEAST_WORK=least, _LEAST_ROWS=1):
        history, _ = train(module, recipe, data[:100], data[100:], generator, progress)
    return module.state_dict(), history.to_dict()


def streamed() -> dict[str, torch.Tensor]:
    """Train on a source in single precision, with rows held out."""
    estimator = Autoencoder(latent_dim=4, epochs=2, batch_size=13, validation_fraction=0.2, random_state=0)
    return estimator.fit(ArraySource(rows())).module_.state_dict()


def stop(number: int, epoch: int) -> None:
    """Tell one of the workers to stop."""
    if (number, epoch) == (1, 2):
        os.kill(os.getpid(), signal.SIGTERM)


def said(data: np.ndarray, **choices: Any) -> str:
    try:
        Autoencoder(**{"epochs": 1, "latent_dim": 4, "random_state": 0} | choices).fit(data)
    except InvalidParameterError as error:
        return str(error)
    return "nothing"


def main(folder: Path, number: int) -> None:
    with torchrun_group("cpu"):
        told: dict[str, Any] = {"histories": {}}
        tensors = {f"streamed/{key}": value.clone() for key, value in streamed().items()}
        for case in CASES:
            weights, told["histories"][case] = trained(case)
            tensors |= {f"{case}/{key}": value.clone() for key, value in weights.items()}
        weights, told["stopped"] = trained("deep, adam", lambda row, _: stop(number, row["epoch"]))
        tensors |= {f"stopped/{key}": value.clone() for key, value in weights.items()}
        told["refused"] = {words: said(rows(), **choices) for words, choices in REFUSED.items()}
        told["other rows"] = said(rows() ** (1 + number), scaling=None)
        told["fewer rows"] = said(rows()[20 * number :], scaling=None)
        told["settings"] = said(rows(), learning_rate=0.01 * (1 + number))
        told["seed"] = Autoencoder(epochs=1, latent_dim=4).fit(rows()).recipe_.seed
        save_file(tensors, folder / f"{number}.safetensors")
        (folder / f"{number}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(os.environ["RANK"]))
