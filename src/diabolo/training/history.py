"""What happened during a fit: one row per epoch, and the events in between."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class History:
    """The course of a training.

    Attributes
    ----------
    rows : list of dict
        One per epoch: "stage", "epoch" (from 1, within the stage), "seconds" (since the start),
        "learning_rate", and every term of the objective as "training_<term>" and, where rows were
        held out, "validation_<term>"; the terms are means over samples and add up to the "total".
    best_epoch : int
        The epoch of the last stage whose weights were kept.
    stopped_by : {"epochs", "patience", "interrupt"}
        Why training ended.
    engine : str
        Which step did the work.
    events : list of str
        What else a reader should know: rates lowered after a divergence, stages cut short.
    """

    rows: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    stopped_by: str = "epochs"
    engine: str = ""
    events: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[Any]:
        """Return one entry of every row; None where a row has none."""
        return [row.get(name) for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> History:
        """Build the history that ``to_dict`` wrote down."""
        return cls(**data)

    def __len__(self) -> int:
        return len(self.rows)
