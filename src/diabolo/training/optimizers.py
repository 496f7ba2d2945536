"""The optimizers by name, each as a list of torch optimizers that step together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

# orthogonalising costs the square of a matrix's smaller side times the other: beyond this side it
# would cost several times the rest of the step, and Adam gets further in the same time
_WIDEST = 256
# the quintic whose repetition drives all singular values of a matrix towards 1 (Jordan et al. 2024)
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 3
_HALF_FROM = 256 * 256  # values from which half precision pays, where the processor multiplies it natively


def _bare(method: Any) -> Any:
    return getattr(method, "__wrapped__", method)


class _Light:
    """An optimizer's methods without torch's wrapper, whose first call imports its compiler: a second."""

    add_param_group = _bare(Optimizer.add_param_group)
    load_state_dict = _bare(Optimizer.load_state_dict)
    state_dict = _bare(Optimizer.state_dict)


class Adam(_Light, AdamW):
    """Torch's AdamW, fused, with a way to step without the hooks that torch wraps around ``step``."""

    def update(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            weights: list[Tensor] = []
            gradients: list[Tensor] = []
            first: list[Tensor] = []
            second: list[Tensor] = []
            steps: list[Tensor] = []
            self._init_group(group, weights, gradients, first, second, [], steps)  # type: ignore[no-untyped-call]
            if weights:
                beta1, beta2 = group["betas"]
                torch._foreach_add_(steps, 1.0)
                torch._fused_adamw_(
                    weights, gradients, first, second, [], steps,
                    lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"],
                    eps=group["eps"], amsgrad=False, maximize=False,
                )  # fmt: skip


class Muon(_Light, Optimizer):
    r"""Momentum whose update is replaced by the nearest orthogonal matrix (Jordan et al. 2024).

    .. math:: B \leftarrow \mu B + (1-\mu) G, \qquad
              W \leftarrow W - 0.2\,\eta \sqrt{\max(r, c)}\; \mathrm{orth}(\mu B + (1-\mu) G)

    All directions of a layer learn at the same pace, which is what a deep autoencoder lacks under
    Adam. The factor gives the steps a root mean square of 0.2 eta (Liu et al. 2025), so rates carry
    over between sizes. Matrices of equal shape are orthogonalised in one batched product: encoder
    and decoder mirror each other, so this halves the overhead of small nets.

    Parameters
    ----------
    params : matrices (r, c)
    lr : float > 0
    momentum : float in [0, 1), default=0.95
    weight_decay : float >= 0, default=0.0
        Decoupled: W shrinks by lr * weight_decay per step.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None
        self.update()

    def update(self) -> None:
        """Update every matrix that has a gradient, without the hooks that torch wraps around ``step``."""
        for group in self.param_groups:
            matrices = [w for w in group["params"] if w.grad is not None]
            if not matrices:
                continue
            gradients = [w.grad for w in matrices]
            for w in matrices:
                if not self.state[w]:
                    self.state[w]["momentum"] = torch.zeros_like(w)
            buffers = [self.state[w]["momentum"] for w in matrices]
            share = 1.0 - group["momentum"]
            torch._foreach_lerp_(buffers, gradients, share)
            updates = torch._foreach_lerp(buffers, gradients, share)
            if group["weight_decay"]:
                torch._foreach_mul_(matrices, 1.0 - group["lr"] * group["weight_decay"])
            for w, direction in zip(matrices, _orthogonalised(list(updates)), strict=True):
                w.add_(direction, alpha=-0.2 * group["lr"] * max(w.shape) ** 0.5)


def _orthogonalised(matrices: list[Tensor]) -> list[Tensor]:
    """Return roughly the nearest (semi-)orthogonal matrices: few rounds, as exactness buys nothing."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, m in enumerate(matrices):
        groups[min(m.shape), max(m.shape)].append(i)
    out = list(matrices)
    for members in groups.values():
        wide = torch.stack([m if m.shape[0] <= m.shape[1] else m.T for m in (matrices[i] for i in members)])
        done = _newton_schulz(wide)
        for i, result in zip(members, done, strict=True):
            out[i] = result if matrices[i].shape[0] <= matrices[i].shape[1] else result.T
    return out


def _newton_schulz(x: Tensor) -> Tensor:
    """Orthogonalise a stack (k, r, c) of wide matrices, r <= c."""
    a, b, c = _QUINTIC
    dtype = x.dtype
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    if dtype == torch.float32 and x[0].numel() >= _HALF_FROM and _half_is_native(x.device):
        x = x.bfloat16()
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(dtype)


def _half_is_native(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def split(name: str, parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that Muon takes and those that Adam takes.

    With "muon" the matrices up to 256 wide go to Muon and all else (wider ones, biases, norms,
    convolution kernels) to Adam; with "adam" all goes to Adam.
    """
    every = list(parameters)
    chosen = [name == "muon" and w.ndim == 2 and min(w.shape) <= _WIDEST for w in every]
    matrices = [w for w, muon in zip(every, chosen, strict=True) if muon]
    return matrices, [w for w, muon in zip(every, chosen, strict=True) if not muon]


def make_optimizers(
    matrices: list[nn.Parameter], others: list[nn.Parameter], learning_rate: float, weight_decay: float
) -> list[Adam | Muon]:
    """Return Muon for ``matrices`` and Adam for ``others``, each where there are any."""
    optimizers: list[Adam | Muon] = []
    if matrices:
        optimizers.append(Muon(matrices, lr=learning_rate, weight_decay=weight_decay))
    if others:
        optimizers.append(Adam(others, lr=learning_rate, weight_decay=weight_decay, fused=True))
    return optimizers


def set_rate(optimizers: Iterable[Optimizer], learning_rate: float) -> None:
    """Set the rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
