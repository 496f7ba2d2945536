"""A promised false-alarm rate is kept, whatever the scores' distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diabolo.applications.calibration import Calibration
from diabolo.errors import InvalidDataError, InvalidParameterError


def test_values_worked_by_hand() -> None:
    c = Calibration(np.array([3.0, 1.0, 2.0, 4.0]))
    assert c.p_value(np.array([0.0, 2.0, 2.5, 4.0, 9.0])) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert c.threshold(0.2) == 4.0
    assert c.threshold(0.4) == 3.0
    assert c.threshold(0.5) == 3.0  # between 2/5 and 3/5: the promise is "at most"
    assert c.threshold(0.1) == float("inf")
    assert c.least_rate == 0.2


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.integers(-6, 6), st.floats(0.001, 0.999))
def test_p_value_and_threshold_agree(scores: list[int], score: int, rate: float) -> None:
    c = Calibration(np.array(scores, dtype=float))
    p = float(c.p_value(np.array([score]))[0])
    if abs(p - rate) > 1e-6:
        assert (p <= rate) == (score > c.threshold(rate))


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_the_rate_is_the_promised_one(rate: float) -> None:
    chance = np.random.default_rng(0)
    flagged = [
        float(fresh > Calibration(scores).threshold(rate))
        for scores, fresh in ((chance.lognormal(size=199), chance.lognormal()) for _ in range(4000))
    ]
    assert abs(np.mean(flagged) - rate) < 3 * np.sqrt(rate * (1 - rate) / 4000)


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf]])
def test_scores_that_promise_nothing_are_refused(scores: list[float]) -> None:
    with pytest.raises(InvalidDataError, match="held-out samples must be finite"):
        Calibration(np.array(scores))


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, True, "much", None, float("nan")])
def test_rates_outside_are_refused(rate: object) -> None:
    with pytest.raises(InvalidParameterError, match="false_alarm_rate must be between 0 and 1"):
        Calibration(np.array([1.0])).threshold(rate)  # type: ignore[arg-type]
