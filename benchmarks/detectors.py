"""The detectors that benchmarks/detection.py compares: ours, and PyOD's with their defaults.

All have ``fit(X)``, and ``anomaly(X)`` that is higher the stranger a row is. Only the seed is passed to
them, and ``verbose=0``.
"""

from __future__ import annotations

import hashlib
import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import diabolo

OURS = "diabolo"
CLEAN = "diabolo trim=0"  # for training rows that are known to be normal
# class, its module in PyOD, whether it takes a seed; the fast ones first
PYOD = {
    "PCA": ("pca", True),
    "ECOD": ("ecod", False),
    "IForest": ("iforest", True),
    "KNN": ("knn", False),
    "AutoEncoder": ("auto_encoder", True),
    "VAE": ("vae", True),
    "DeepSVDD": ("deep_svdd", True),
}
DEEP = ("AutoEncoder", "VAE", "DeepSVDD")
NAMES = (OURS, CLEAN, *PYOD)


class Rival:
    """A detector of PyOD with its defaults."""

    def __init__(self, name: str, seed: int) -> None:
        module, seeded = PYOD[name]
        self.type = getattr(importlib.import_module(f"pyod.models.{module}"), name)
        self.settings: dict[str, Any] = {"random_state": seed} if seeded else {}
        if name in DEEP:
            self.settings["verbose"] = 0
        self.name = name

    def fit(self, X: np.ndarray) -> Rival:
        """Fit to rows."""
        if self.name == "DeepSVDD":
            self.settings["n_features"] = X.shape[1]
        with np.errstate(divide="ignore"):
            self.model = self.type(**self.settings).fit(X)
        if self.name == "PCA" and not np.isfinite(self.model.decision_scores_).all():
            # PyOD's divides by the share of variance of each component, and some have none here.
            self.model = self.type(n_components=int(np.linalg.matrix_rank(X)), **self.settings).fit(X)
        return self

    def anomaly(self, X: np.ndarray) -> np.ndarray:
        """Return how strange each row is."""
        return np.asarray(self.model.decision_function(X))


class Ours:
    """``AnomalyDetector`` with its defaults, or without rows set apart."""

    def __init__(self, seed: int, name: str = OURS) -> None:
        from diabolo.applications import AnomalyDetector

        self.model = AnomalyDetector(random_state=seed)
        if name == CLEAN:
            self.model.set_params(trim=0.0)

    def fit(self, X: np.ndarray) -> Ours:
        """Fit to rows."""
        self.model.fit(X)
        return self

    def anomaly(self, X: np.ndarray) -> np.ndarray:
        """Return how strange each row is."""
        return -np.asarray(self.model.score_samples(X))


def build(name: str, seed: int) -> Rival | Ours:
    """Return a detector by its name."""
    return Ours(seed, name) if name in (OURS, CLEAN) else Rival(name, seed)


def code(name: str) -> str:
    """Return what a detector's results depend on: a release, or a hash of our sources."""
    if name not in (OURS, CLEAN):
        return f"pyod {version('pyod')}"
    root = Path(diabolo.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
