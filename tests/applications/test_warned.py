"""Warnings of the detectors point at the line that called diabolo, whatever lies between."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from diabolo import Autoencoder
from diabolo.applications import AnomalyDetector, AnomalyMap, SignalDetector
from diabolo.errors import CalibrationWarning, DetectionWarning


class Copying(Autoencoder):
    """Restores whatever it gets."""

    def reconstruct(self, X: Any) -> Any:
        return X


MEMBER = Autoencoder(hidden_dims=(), latent_dim=2, epochs=1, validation_fraction=0)
COPYING = Copying(hidden_dims=(), latent_dim=2, epochs=1, validation_fraction=0)
CHANCE = np.random.default_rng(0)
ROWS, SERIES, IMAGES = (CHANCE.normal(size=size) for size in ((200, 5), (1000,), (9, 12, 12)))
NAMED = [f"c{k}" for k in range(5)]


def detector(**settings: Any) -> AnomalyDetector:
    return AnomalyDetector(**{"estimator": MEMBER, "trim": 0, "random_state": 0} | settings)


def of_columns() -> Any:
    from pandas import DataFrame

    return detector(kinds={}).fit(DataFrame(ROWS, columns=NAMED)).predict(ROWS)


RARE = {"false_alarm_rate": 1e-4}
CALLS: dict[str, tuple[type[Warning], Callable[[], Any]]] = {
    "a detector's rate": (CalibrationWarning, lambda: detector(**RARE).fit(ROWS)),
    "set_threshold": (CalibrationWarning, lambda: detector().fit(ROWS).set_threshold(**RARE)),
    "of a series": (
        CalibrationWarning,
        lambda: SignalDetector(window=10, detector=detector(**RARE)).fit(SERIES),
    ),
    "a map's rate": (CalibrationWarning, lambda: AnomalyMap(estimator=MEMBER, scales=(1,)).fit(IMAGES)),
    "of an aligned map": (
        CalibrationWarning,
        lambda: AnomalyMap(layout="aligned", estimator=MEMBER).fit(IMAGES),
    ),
    "for PyOD": (CalibrationWarning, lambda: detector(**RARE).as_pyod().fit(ROWS)),
    "restored anomalies": (DetectionWarning, lambda: detector(estimator=COPYING).fit(ROWS)),
    "in a series": (
        DetectionWarning,
        lambda: SignalDetector(window=10, detector=detector(estimator=COPYING)).fit(SERIES),
    ),
    "names": (UserWarning, of_columns),
}


@pytest.mark.parametrize("case", CALLS)
def test_who_called_is_told(case: str) -> None:
    torch.set_num_threads(1)
    kind, call = CALLS[case]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    assert [one.filename for one in said if one.category is kind] == [__file__]
