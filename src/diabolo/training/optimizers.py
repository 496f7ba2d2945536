"""The optimizers by name, each as a list of torch optimizers that step together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from diabolo.training.machine import multiplies_half

# orthogonalising costs the square of a matrix's smaller side times the other: beyond this side it
# would cost several times the rest of the step, and Adam gets further in the same time
_WIDEST = 256
# the quintic whose repetition drives all singular values of a matrix towards 1 (Jordan et al. 2024)
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 3
_NARROW = 128  # matrices up to this side share a stack whatever their shapes
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

    # lengths of the parts of one flat vector that are updated in turn, for speed; a copy does without
    portions: Sequence[int] = ()

    def update(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            weights: list[Tensor] = []
            gradients: list[Tensor] = []
            first: list[Tensor] = []
            second: list[Tensor] = []
            steps: list[Tensor] = []
            for w in group["params"]:
                if w.grad is not None:
                    state = self.state[w] or self._begin(w)
                    weights.append(w.detach())
                    gradients.append(w.grad)
                    first.append(state["exp_avg"])
                    second.append(state["exp_avg_sq"])
                    steps.append(state["step"])
            if weights:
                beta1, beta2 = group["betas"]
                if steps[0].device.type == "cpu":  # where the call for all costs more than one for each
                    for taken in steps:
                        taken += 1.0
                else:
                    torch._foreach_add_(steps, 1.0)
                if len(self.portions) > 1:
                    weights, gradients, first, second = (
                        list(torch.split(whole, [*self.portions]))
                        for (whole,) in (weights, gradients, first, second)
                    )
                    steps *= len(self.portions)
                torch._fused_adamw_(
                    weights, gradients, first, second, [], steps,
                    lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"],
                    eps=group["eps"], amsgrad=False, maximize=False,
                )  # fmt: skip

    def _begin(self, w: nn.Parameter) -> dict[str, Tensor]:
        """Return the state of a parameter before its first step, as torch lays it out."""
        state: dict[str, Tensor] = self.state[w]
        state["step"] = torch.zeros((), dtype=torch.float32, device=w.device)
        state["exp_avg"] = torch.zeros_like(w, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(w, memory_format=torch.preserve_format)
        return state


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

    _stacks: tuple[_Stack, ...] = ()  # made by the first step after the state has come from elsewhere

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None
        self.update()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over momentum and settings."""
        super().load_state_dict(state_dict)
        self._stacks = ()

    @torch.no_grad()
    def update(self) -> None:
        """Update every matrix that has a gradient, without the hooks that torch wraps around ``step``."""
        (group,) = self.param_groups
        matrices = [w for w in group["params"] if w.grad is not None]
        if sum(len(stack.matrices) for stack in self._stacks) != len(matrices):
            self._stacks = tuple(_Stack(members, self.state) for members in _stackable(matrices))
        for stack in self._stacks:
            stack.update(group["lr"], group["momentum"], group["weight_decay"])


def _stackable(matrices: list[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    """Group the matrices that are orthogonalised together: all narrow ones, others of equal shape."""
    groups: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
    for w in matrices:
        groups[(0, 0) if max(w.shape) <= _NARROW else (min(w.shape), max(w.shape))].append(w)
    return groups.values()


class _Stack:
    """Matrices with momentum and update in blocks (k, r, c), r <= c, the smaller ones bordered by zeros.

    Zeros stay zeros when a matrix is orthogonalised, and for small ones the number of calls is what costs.
    """

    def __init__(self, matrices: list[nn.Parameter], state: dict[Tensor, Any]) -> None:
        self.matrices = matrices
        r, c = (max(side(w.shape) for w in matrices) for side in (min, max))
        first = matrices[0].detach()
        self._gradient, self._momentum, self._step = (first.new_zeros(len(matrices), r, c) for _ in range(3))
        self._factors = first.new_tensor([max(w.shape) ** 0.5 for w in matrices]).view(-1, 1, 1)
        self._gradients, self._steps = self._own(self._gradient), self._own(self._step)
        for w, momentum in zip(matrices, self._own(self._momentum), strict=True):
            if state[w]:
                momentum.copy_(state[w]["momentum"])
            state[w]["momentum"] = momentum

    def _own(self, block: Tensor) -> list[Tensor]:
        """Return each matrix's part of a block, in its shape."""
        parts = [m[: min(w.shape), : max(w.shape)] for m, w in zip(block, self.matrices, strict=True)]
        return [p if w.shape[0] <= w.shape[1] else p.t() for p, w in zip(parts, self.matrices, strict=True)]

    def update(self, rate: float, momentum: float, weight_decay: float) -> None:
        """Make one step."""
        weights = [w.detach() for w in self.matrices]
        torch._foreach_copy_(self._gradients, [w.grad for w in self.matrices if w.grad is not None])
        self._momentum.lerp_(self._gradient, 1.0 - momentum)
        torch.lerp(self._momentum, self._gradient, 1.0 - momentum, out=self._step)
        torch.mul(_orthogonalised(self._step), self._factors, out=self._step)
        if weight_decay:
            torch._foreach_add_(weights, weights, alpha=-rate * weight_decay)
        torch._foreach_add_(weights, self._steps, alpha=-0.2 * rate)


def _orthogonalised(x: Tensor) -> Tensor:
    """Return roughly the nearest (semi-)orthogonal matrices of a stack (k, r, c) of wide ones, r <= c.

    By Newton's and Schulz's iteration; few rounds, as exactness buys nothing.
    """
    a, b, c = _QUINTIC
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-12)
    if x.dtype == torch.float32 and x[0].numel() >= _HALF_FROM and multiplies_half(x.device):
        x = x.bfloat16()
    for _ in range(_ROUNDS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


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
    matrices: list[nn.Parameter],
    others: list[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    portions: Sequence[int] = (),
) -> list[Adam | Muon]:
    """Return Muon for ``matrices`` and Adam for ``others``, each where there are any.

    ``others`` may be one flat vector, which is then updated in ``portions`` of these lengths.
    """
    optimizers: list[Adam | Muon] = []
    if matrices:
        optimizers.append(Muon(matrices, lr=learning_rate, weight_decay=weight_decay))
    if others:
        adam = Adam(others, lr=learning_rate, weight_decay=weight_decay, fused=True)
        adam.portions = portions
        optimizers.append(adam)
    return optimizers


def set_rate(optimizers: Iterable[Optimizer], learning_rate: float) -> None:
    """Set the rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
