"""Planted anomalies, and PCA and KNN on them: whatever the units of the columns, without a warning."""

from __future__ import annotations

import re

import numpy as np
import pytest

from diabolo.applications import planted
from diabolo.parts import Mixed

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


def table(n: int, gone: float) -> tuple[Mixed, np.ndarray]:
    """A layout of three columns of numbers and a flag, and rows; values are missing with that chance."""
    chance = np.random.default_rng(2)
    rows = np.zeros((n, 8))
    rows[:, 0:6:2] = chance.normal(size=(n, 3))
    rows[:, 1:6:2] = chance.random((n, 3)) < gone
    rows[:, 0:6:2][rows[:, 1:6:2] > 0] = 0.0
    rows[:, 6] = chance.random(n) < 0.5
    return Mixed("numeric? numeric? numeric? binary?"), rows


def test_only_values_that_are_there_are_shifted() -> None:
    layout, rows = table(400, 0.6)
    shifted = planted.plant(rows, rows, np.random.default_rng(1), layout)["shifted"]
    some = (rows[:, 1:6:2] == 0).any(1)
    assert 300 < some.sum() < 400
    assert len(shifted) == some.sum()  # rows without a number are not among them
    moved = shifted != rows[some]
    assert moved.sum(1).tolist() == [1] * len(moved)
    assert not moved[:, 1:6:2].any()
    assert not (moved[:, 0:6:2] & (rows[some][:, 1:6:2] > 0)).any()
    # each of a row's values is as likely: of those with all three, a third of the time the first
    whole = (rows[some][:, 1:6:2] == 0).all(1)
    assert np.all(np.abs(moved[whole][:, 0:6:2].mean(0) - 1 / 3) < 0.3)

    def norm(x: np.ndarray) -> np.ndarray:
        return np.square(x[:, 0:6:2]).sum(1)

    assert planted.compare(norm, rows, rows, np.random.default_rng(1), layout)["diabolo"]["shifted"] > 0.8


def test_a_table_without_missing_values_is_shifted_as_plain_numbers_are() -> None:
    _, rows = table(50, 0.0)
    values, numbers = rows[:, :6], rows[:, 0:6:2]
    plain = planted.plant(numbers, numbers, np.random.default_rng(1))
    coded = planted.plant(values, values, np.random.default_rng(1), Mixed("numeric? numeric? numeric?"))
    for kind in ("shuffled", "shifted"):
        assert np.array_equal(coded[kind][:, 0:6:2], plain[kind])


def test_without_any_number_nothing_is_shifted() -> None:
    layout, rows = table(50, 1.1)
    assert set(planted.plant(rows, rows, np.random.default_rng(1), layout)) == {"shuffled"}


def test_what_stands_for_missing_values_does_not_widen_the_shifts() -> None:
    layout, rows = table(400, 0.6)
    there = rows[:, 1:6:2] == 0
    rows[:, 0:6:2] += 100.0 * there  # the others stay at 0, a hundred deviations away
    shifted = planted.plant(rows, rows, np.random.default_rng(1), layout)["shifted"]
    some = there.any(1)
    moves = np.abs(shifted - rows[some])[:, 0:6:2]
    spread = np.array(
        [column[is_there].std() for column, is_there in zip(rows.T[0:6:2], there.T, strict=True)]
    )
    shares = (moves / spread)[moves > 0]
    assert len(shares) == some.sum()
    assert shares.min() >= 2.0
    assert shares.max() <= 4.0
