"""The optimizers by name, each as a list of torch optimizers that step together."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Muon, Optimizer


def make_optimizers(
    name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> list[Optimizer]:
    """Return the optimizers for ``parameters``.

    "muon" (Jordan 2024) replaces the gradient of every matrix by the nearest orthogonal one, so that
    all directions of a layer learn at the same pace; its steps are scaled to the size of Adam's, and
    Adam takes what is no matrix. Convolution kernels and vectors always go to Adam.
    """
    every = list(parameters)
    matrices = [w for w in every if name == "muon" and w.ndim == 2]
    others = [w for w in every if name != "muon" or w.ndim != 2]
    optimizers: list[Optimizer] = []
    if matrices:
        optimizers.append(
            Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    if others:
        optimizers.append(AdamW(others, lr=learning_rate, weight_decay=weight_decay, fused=True))
    return optimizers


def set_rate(optimizers: Iterable[Optimizer], learning_rate: float) -> None:
    """Set the rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
