"""The objective: the loss and the weighted penalties, by name, per sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diabolo.autoencoder import AutoencoderModule
from diabolo.parts import ForwardPass, Penalty
from diabolo.parts.jacobian import running_statistics
from diabolo.parts.losses import per_sample

TOTAL = "total"
LOSS = "loss"
REVIVAL = "revival"


class Objective:
    r"""Loss plus weighted penalties.

    .. math:: L(x, \hat x) + \sum_k w_k(\mathrm{step})\, P_k

    Parameters
    ----------
    penalties : sequence of Penalty
        Their terms go by their names.
    revival_weight : float >= 0
        Weight of the term by which dead units learn what the living ones leave over.
    """

    def __init__(self, penalties: Sequence[Penalty] = (), revival_weight: float = 0.0) -> None:
        self.penalties = tuple(penalties)
        self.revival_weight = revival_weight

    def __call__(
        self,
        module: AutoencoderModule,
        passed: ForwardPass,
        step: int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the terms of each sample, (n,) each, already weighted; "total" is their sum and last.

        ``step`` None means after training: every schedule has finished.
        """
        terms: dict[str, Tensor] = {LOSS: module.loss(passed.raw, passed.target)}
        terms |= self.at_the_code(module, passed, step, generator)
        total = terms[LOSS]
        for name, value in terms.items():
            if name != LOSS:
                total = total + value
        terms[TOTAL] = total
        return terms

    def at_the_code(
        self,
        module: AutoencoderModule,
        passed: ForwardPass,
        step: int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the terms besides the loss, (n,) each, already weighted."""
        terms: dict[str, Tensor] = {}
        for penalty in self.penalties:
            value = penalty(module.encoder, module.latent, passed, generator)
            terms[penalty.name] = penalty.weight_at(step) * value
        if passed.code.auxiliary is not None and self.revival_weight:
            terms[REVIVAL] = self.revival_weight * revival(module, passed, passed.code.auxiliary)
        return terms

    def settled(self, step: int) -> bool:
        """Whether all schedules have finished, so that totals can be compared with later ones."""
        return all(penalty.weight_at(step) == penalty.weight_at(None) for penalty in self.penalties)


def revival(
    module: AutoencoderModule,
    passed: ForwardPass,
    auxiliary: Tensor,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Squared error between what the living units leave over and what the dead ones add to the output.

    ``decode`` maps the auxiliary code where it is not the whole code, as the decoder would.
    """
    decode = decode or module.decoder
    left_over = (passed.target - module.loss.mean(passed.raw)).detach()
    with running_statistics(module.decoder):
        # beside the rows one of zeros, which tells what the decoder gives without any code
        decoded = decode(torch.cat([auxiliary, torch.zeros_like(auxiliary[:1])]))
    return per_sample((left_over - (decoded[:-1] - decoded[-1:])).square())
