"""What one does with autoencoders: find anomalies, and where they are.

Names load when they are first touched, as those of the package do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diabolo.loading import touched

if TYPE_CHECKING:
    from diabolo.applications.anomaly import AnomalyDetector
    from diabolo.applications.localization import AnomalyMap
    from diabolo.applications.signals import SignalDetector
    from diabolo.applications.tables import TableEncoder

__all__ = ["AnomalyDetector", "AnomalyMap", "SignalDetector", "TableEncoder"]

_PLACES = {
    "AnomalyDetector": "anomaly",
    "AnomalyMap": "localization",
    "SignalDetector": "signals",
    "TableEncoder": "tables",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return touched(f"diabolo.applications.{_PLACES[name]}", name)
    raise AttributeError(f"module 'diabolo.applications' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
