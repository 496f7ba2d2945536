"""Groups held out count as one each, and few images give a threshold that good ones seldom reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diabolo.applications.calibration import Calibration
from diabolo.applications.grouped import GroupedCalibration, beyond_promise
from diabolo.errors import InvalidDataError


def test_values_worked_by_hand() -> None:
    c = GroupedCalibration(np.array([4.0, 1.0, 2.0, 3.0]), np.array([1, 0, 0, 0]))
    assert c.p_value(np.array([0.0, 2.0, 2.5, 4.0, 9.0])) == pytest.approx([1, 8 / 9, 7 / 9, 2 / 3, 1 / 3])
    assert c.threshold(1 / 3) == 4.0
    assert c.threshold(0.7) == 3.0
    assert c.threshold(0.3) == float("inf")
    assert c.least_rate == 1 / 3


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=40),
    st.integers(-6, 6),
    st.floats(0.001, 0.999),
)
def test_p_value_and_threshold_agree(pairs: list[tuple[int, int]], score: int, rate: float) -> None:
    scores, labels = np.array(pairs, dtype=float).T
    c = GroupedCalibration(scores, np.unique(labels, return_inverse=True)[1])
    p = float(c.p_value(np.array([score]))[0])
    if abs(p - rate) > 1e-6:
        assert (p <= rate) == (score > c.threshold(rate))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.integers(-6, 6), st.floats(0.001, 0.999))
def test_groups_of_one_are_samples(scores: list[int], score: int, rate: float) -> None:
    plain = Calibration(np.array(scores, dtype=float))
    alone = GroupedCalibration(plain.scores, np.arange(len(scores)))
    assert alone.p_value(np.array([score])) == pytest.approx(plain.p_value(np.array([score])))
    assert alone.threshold(rate) == plain.threshold(rate)
    assert alone.least_rate == plain.least_rate
    assert beyond_promise(alone, 0.01) == pytest.approx(beyond_promise(plain, 0.01))


def patients(chance: np.random.Generator, n: int, slices: int) -> np.ndarray:
    """Scores (n, slices) where a patient's slices resemble each other."""
    return np.asarray(chance.normal(size=(n, 1)) + 0.5 * chance.normal(size=(n, slices)))


@pytest.mark.parametrize(("n", "rate"), [(5, 0.01), (9, 0.1), (24, 0.1), (24, 0.01)])
def test_patients_not_seen_are_left_alone(n: int, rate: float) -> None:
    chance = np.random.default_rng(0)
    rates, plain = [], []
    for _ in range(600):
        scores = patients(chance, n, 20)
        c = GroupedCalibration(scores.ravel(), np.repeat(np.arange(n), 20))
        threshold = c.threshold(rate)
        if not np.isfinite(threshold):
            threshold = beyond_promise(c, rate)
        fresh = patients(chance, 40, 5)
        rates.append(np.mean(fresh > threshold))
        plain.append(np.mean(fresh > Calibration(scores.ravel()).threshold(rate)))
    error = 3 * float(np.std(rates)) / np.sqrt(len(rates))
    assert np.mean(rates) < rate + error
    assert np.mean(rates) > rate / 8
    if n < 10:
        assert np.mean(plain) > 1.2 * rate  # slices of few patients, taken for independent


@pytest.mark.parametrize("n", [3, 5, 20])
def test_few_images_are_left_alone(n: int) -> None:
    chance = np.random.default_rng(1)
    thresholds = [beyond_promise(Calibration(chance.normal(size=n)), 0.01) for _ in range(4000)]
    realised = np.mean(chance.normal(size=(4000, 100)) > np.array(thresholds)[:, None])
    assert realised == pytest.approx(0.01, abs=0.002)


def test_one_image_or_group_says_what_is_highest() -> None:
    assert beyond_promise(Calibration(np.array([2.0])), 0.01) == 2
    assert beyond_promise(GroupedCalibration(np.array([2.0, 3.0]), np.zeros(2)), 0.01) == 3


@pytest.mark.parametrize("groups", [[0, 2, 2], [1, 1, 1], [-1, 0, 1], [0, 1], [0, 1, 10**15]])
def test_groups_that_are_not_numbered_are_refused(groups: list[int]) -> None:
    with pytest.raises(InvalidDataError, match="groups must number every score's group from 0"):
        GroupedCalibration(np.zeros(3), np.array(groups))
