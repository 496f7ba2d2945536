"""What a stage of training is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How one stage is trained; the names are those of the estimators' parameters."""

    learning_rate: float
    optimizer: str
    batch_size: int
    epochs: int
    schedule: str
    weight_decay: float
    clip_norm: float | None
    patience: int | None
    engine: str = "auto"
    precision: str = "float32"
