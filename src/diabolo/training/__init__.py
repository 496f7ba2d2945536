"""Carries out a recipe: the fast step, the loop around it, the plans, the history."""

from diabolo.training.engine import Progress
from diabolo.training.history import History
from diabolo.training.plans import train

__all__ = ["History", "Progress", "train"]
