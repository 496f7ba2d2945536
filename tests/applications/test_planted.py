"""Planted anomalies, and PCA and KNN on them: whatever the units of the columns, without a warning."""

from __future__ import annotations

import re

import numpy as np
import pytest

from diabolo.applications import planted

UNITS = np.array([1.0, 2.0**-660, 2.0**-900, 2.0**-660, 2.0**100])  # about 1e-199 and 1e-271


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    chance = np.random.default_rng(0)
    return chance.normal(size=(300, 3)) @ chance.normal(size=(3, 5)) + 0.1 * chance.normal(size=(300, 5))


@pytest.mark.parametrize("units", [UNITS, np.full(5, 2.0**-660)])
def test_units_change_no_figure(rows: np.ndarray, units: np.ndarray) -> None:
    for name, score in planted.rivals(rows).items():
        assert np.array_equal(planted.rivals(rows * units)[name](rows[:9] * units), score(rows[:9])), name
    plain, tiny = (planted.plant(x, x, np.random.default_rng(1)) for x in (rows, rows * units))
    for kind in ("shuffled", "shifted"):
        np.testing.assert_allclose(tiny[kind] / units, plain[kind], rtol=1e-13)
    found = [
        planted.compare(lambda x: np.square(x).sum(1), x, x, np.random.default_rng(1))
        for x in (rows, rows * units)
    ]
    for name in ("PCA", "KNN"):
        assert found[0][name] == found[1][name]


def test_a_value_far_beyond_those_of_training_is_far_and_finite(rows: np.ndarray) -> None:
    fresh = rows[:2] * UNITS
    fresh[1] = 3.0
    for score in planted.rivals(rows * UNITS).values():
        usual, far = score(fresh)
        assert 1e6 * usual < far < np.inf


@pytest.mark.parametrize(
    ("found", "knn", "said"),
    [
        ((0.53, 0.98), (0.9, 1.0), None),  # others hardly tell them apart either
        ((0.53, 0.98), (0.97, 0.9), r"one kind .* with shuffled values .* of 0\.53 \(KNN: 0\.97\)\. Give"),
        ((0.9, 0.55), (0.6, 0.96), r"one kind .* with shifted values .* of 0\.55 \(KNN: 0\.96\)\. Give"),
        ((0.53, 0.58), (1.0, 1.0), r"of 0\.58 at best\."),
        ((0.53, 0.58), (0.5, 0.5), r"of 0\.58 at best\."),
        ((0.6, 0.6), (1.0, 1.0), None),
    ],
)
def test_what_is_restored_too_well_is_said(
    found: tuple[float, float], knn: tuple[float, float], said: str | None
) -> None:
    kinds = ("shuffled", "shifted")
    areas = {"diabolo": found, "PCA": (0.5, 0.5), "KNN": knn}
    told = planted.unseen({name: dict(zip(kinds, each, strict=True)) for name, each in areas.items()})
    assert told is None if said is None else re.search(said, told or "")


def test_without_planted_anomalies_nothing_is_said() -> None:
    assert planted.unseen({"diabolo": {}, "PCA": {}, "KNN": {}}) is None
    assert planted.unseen({name: {"shifted": 0.65} for name in ("diabolo", "PCA", "KNN")}) is None


def test_equal_rows_and_numbers_of_any_type() -> None:
    for dtype in (np.float64, np.float32, np.uint8, bool):
        same = np.ones((20, 3), dtype=dtype)
        for score in planted.rivals(same).values():
            assert score(same[:2]).tolist() == [0.0, 0.0]
        assert np.array_equal(planted.plant(same, same, np.random.default_rng(0))["shifted"], same)
