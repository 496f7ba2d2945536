"""The sixth axis: in which order the weights are trained. What carries it out is ``diabolo.training``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diabolo.parts.base import Part, check_flag, check_range


@dataclass
class Training(Part):
    """Base of the training plans. Abstract."""


@dataclass
class EndToEnd(Training):
    """All weights at once."""

    name: ClassVar[str] = "end_to_end"


@dataclass
class LayerWise(Training):
    """Greedy pretraining of pairs of layers from the bottom up, then all weights at once.

    Pair i is the i-th layer of the encoder and the layer that mirrors it in the decoder. It is
    trained to reconstruct the *clean* code of the layers below (Vincent et al. 2010); its codes
    then train the pair above.

    Parameters
    ----------
    epochs : int >= 1 or None, default=None
        Passes over the rows for each pair. None: half as many as the fine-tuning gets, at least one.
    corrupt : bool, default=True
        Whether the corruption acts on the input of each pair (otherwise while fine-tuning only).
    penalize : bool, default=True
        Whether the penalties act on the code of each pair; one that does not fit a hidden layer's
        codes (the posterior's divergence) acts on the top pair only.
    """

    name: ClassVar[str] = "layerwise"
    epochs: int | None = None
    corrupt: bool = True
    penalize: bool = True

    def validate(self) -> None:
        """Check the settings."""
        if self.epochs is not None:
            check_range("epochs of LayerWise", self.epochs, low=1, integer=True)
        check_flag("corrupt of LayerWise", self.corrupt)
        check_flag("penalize of LayerWise", self.penalize)
