"""The adapter keeps PyOD's contract: beside PyOD's own detector where it is installed, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import erf
from scipy.stats import binom
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.metrics import precision_score, roc_auc_score
from sklearn.utils.estimator_checks import check_estimator

from diabolo import Autoencoder
from diabolo.applications import AnomalyDetector
from diabolo.applications.pyod import PyodDetector
from diabolo.errors import InvalidDataError, InvalidParameterError

pytestmark = pytest.mark.filterwarnings("ignore::diabolo.errors.DiaboloWarning")


def small(**settings: Any) -> AnomalyDetector:
    quick = Autoencoder(hidden_dims=(8,), latent_dim=2, epochs=4, batch_size=32)
    return AnomalyDetector(**({"estimator": quick, "trim": 0, "random_state": 0} | settings))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """600 rows near a plane, of which the last 30 are not."""
    chance = np.random.default_rng(0)
    X = chance.normal(size=(600, 2)) @ chance.normal(size=(2, 6)) + 0.1 * chance.normal(size=(600, 6))
    X[-30:] += 2.0 * chance.normal(size=(30, 6))
    return X


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.repeat([0, 1], [570, 30])


@pytest.fixture(scope="module")
def fitted(rows: np.ndarray) -> PyodDetector:
    return small().as_pyod(contamination=0.05).fit(rows)


# ------------------------------------------------------------------ by hand
def test_training_rows(fitted: PyodDetector, rows: np.ndarray, truth: np.ndarray) -> None:
    scores = fitted.decision_scores_
    assert np.array_equal(scores, -fitted.detector_.score_samples(rows))
    assert np.array_equal(scores, fitted.decision_function(rows))
    assert fitted.threshold_ == np.percentile(scores, 95)
    assert fitted.labels_.dtype == np.int64
    assert np.array_equal(fitted.labels_, scores > fitted.threshold_)
    assert fitted.labels_.sum() == 30
    assert np.array_equal(fitted.labels_, fitted.predict(rows))
    assert roc_auc_score(truth, scores) > 0.9
    assert (fitted.threshold_, fitted.n_features_in_) != (fitted.detector_.threshold_, 600)


def scored(scores: list[float], known: list[float], contamination: float) -> PyodDetector:
    """Return an adapter whose training rows scored ``known``, of a detector that gives these scores."""

    class Given(AnomalyDetector):
        def score_samples(self, X: Any) -> np.ndarray:
            return -np.array(scores)

    return PyodDetector(contamination)._take(Given(), np.array(known))


def test_probabilities_by_hand() -> None:
    one = scored([0.0, 1.0, 3.0, 5.0, 9.0], [1.0, 2.0, 2.0, 5.0], 0.25)
    linear = one.predict_proba(None)
    assert linear[:, 1] == pytest.approx([0, 0, 0.5, 1, 1])
    assert linear.sum(1) == pytest.approx(np.ones(5))
    z = (np.array([0.0, 1, 3, 5, 9]) - 2.5) / np.sqrt(2.25) / np.sqrt(2)  # mean 2.5, variance 9/4
    assert one.predict_proba(None, method="unify")[:, 1] == pytest.approx(np.maximum(erf(z), 0))
    level = scored([0.0, 1.0, 3.0], [1.0, 1.0], 0.25)
    assert level.predict_proba(None)[:, 1] == pytest.approx([0, 0, 1])
    assert level.predict_proba(None, method="unify")[:, 1] == pytest.approx([0, 0, 1])


def test_confidence_by_hand() -> None:
    one = scored([0.0, 2.0, 9.0], [1.0, 2.0, 2.0, 5.0], 0.25)
    assert one.threshold_ == 2.75
    # 0, 3 and 4 of the 4 scores are no higher: p = 1/6, 4/6, 5/6. An anomaly is above more than 3 of 4 rows
    expected = [1 - (1 / 6) ** 4, 1 - (4 / 6) ** 4, (5 / 6) ** 4]
    assert one.predict_confidence(None) == pytest.approx(expected)
    labels, confidence = one.predict(None, return_confidence=True)
    assert labels.tolist() == [0, 0, 1]
    assert confidence == pytest.approx(expected)
    assert one.predict_proba(None, return_confidence=True)[1] == pytest.approx(expected)


def test_rejection_by_hand() -> None:
    one = scored([0.0, 2.0, 9.0], [1.0, 2.0, 2.0, 5.0], 0.25)
    # |2c - 1| = 0.998, 0.605, 0.035, beside 1 - 2 exp(-T)
    assert one.predict_with_rejection(None, T=2.0).tolist() == [0, -2, -2]
    assert one.rejection_threshold_ == pytest.approx(1 - 2 * np.exp(-2))
    assert one.predict_with_rejection(None, T=1.5).tolist() == [0, 0, -2]
    assert one.predict_with_rejection(None, T=0.1).tolist() == [0, 0, 1]
    assert one.predict_with_rejection(None).tolist() == [-2, -2, -2]


def test_rejection_s_statistics_solve_their_equations() -> None:
    n, share, T = 200, 0.1, 3.0
    one = scored([1.0], list(range(n)), share)
    rate, bound, cost = one.compute_rejection_stats(T, delta=0.1, c_fp=0, c_fn=0, c_r=1)
    assert cost == pytest.approx(rate)
    least = one.compute_rejection_stats(T, c_fp=1, c_fn=0, c_r=0)[2]
    assert least < share < least + rate
    assert binom.cdf(19, n, least) == pytest.approx(1 - np.exp(-T))  # 20 rows are anomalies
    assert binom.cdf(19, n, least + rate) == pytest.approx(np.exp(-T))
    assert one.compute_rejection_stats(T, c_fp=0, c_fn=2, c_r=0)[2] == 2 * share
    assert bound > rate
    assert one.compute_rejection_stats(T, delta=0.01)[1] > bound
    assert one.compute_rejection_stats(T, c_fp=0, c_fn=0)[2] == pytest.approx(share * rate)
    labels, stats = one.predict_with_rejection(None, T, return_stats=True, delta=0.01)
    assert labels.shape == (1,)
    assert stats == one.compute_rejection_stats(T, delta=0.01)
    with pytest.raises(InvalidDataError, match=r"rejection must have an anomaly .* got 9 rows"):
        scored([1.0], list(range(9)), share).compute_rejection_stats()


def test_scoring_by_labels(rows: np.ndarray, truth: np.ndarray, fitted: PyodDetector) -> None:
    one = clone(fitted)
    assert one.fit_predict_score(rows, truth) == roc_auc_score(truth, fitted.decision_scores_)
    top = np.argsort(fitted.decision_scores_)[-30:]
    assert one.fit_predict_score(rows, truth, scoring="prc_n_score") == pytest.approx(truth[top].mean())
    for labels in (0 * truth, 0 * truth + 1, truth + 1, np.where(truth, -1, 1)):
        with pytest.raises(InvalidDataError, match="y must hold 0 for normal rows and 1"):
            one.fit_predict_score(rows, labels)
    with pytest.raises(InvalidDataError, match="a label for each of the 600 rows"):
        one.fit_predict_score(rows, truth[1:])
    with pytest.raises(InvalidParameterError, match="roc_auc_score"):
        one.fit_predict_score(rows, truth, scoring="roc_auc")


def test_a_fitted_detector_serves_at_once(rows: np.ndarray) -> None:
    detector = small().fit(rows)
    one = detector.as_pyod(contamination=0.2)
    assert one.detector_ is detector
    assert np.array_equal(one.decision_scores_, detector.calibration_.scores)
    assert one.labels_.mean() == pytest.approx(0.2, abs=0.01)
    assert 0.1 < one.predict(rows).mean() < 0.3
    assert one.predict_proba(rows).shape == (600, 2)
    before = detector.threshold_
    assert one.fit(rows).detector_ is not detector  # a clone
    assert len(one.decision_scores_) == 600
    assert detector.threshold_ == before


def test_tables_of_mixed_columns(rows: np.ndarray) -> None:
    frame = pd.DataFrame(rows, columns=list("abcdef")).assign(g=np.where(rows[:, 0] > 0, "up", "down"))
    one = small().as_pyod(contamination=0.2).fit(frame)
    assert one.n_features_in_ == 7
    assert one.predict(frame).sum() == 120
    assert one.predict_proba(frame[:9], method="unify").shape == (9, 2)


def test_settings(rows: np.ndarray) -> None:
    one = small().as_pyod()
    assert one.contamination == 0.1
    with pytest.raises(NotFittedError):
        one.predict(rows)
    assert not hasattr(one, "n_features_in_")
    assert one.get_params()["detector__estimator__latent_dim"] == 2
    copy = clone(one.set_params(contamination=0.3, detector__estimator__latent_dim=3)).fit(rows)
    assert copy.detector_.members[0].estimator.latent_dim == 3
    assert copy.labels_.mean() == 0.3
    assert np.array_equal(copy.fit_predict(rows), copy.labels_)
    assert is_outlier_detector(one)
    for wrong in (0, 0.6, -1, "auto", None):
        with pytest.raises(InvalidParameterError, match=r"contamination must be a number > 0 and <= 0\.5"):
            PyodDetector(wrong).fit(rows)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="contamination"):
        copy.detector_.as_pyod(0.9)
    with pytest.raises(InvalidParameterError, match="contamination"):
        one.set_params(contamination=1.0).fit(rows)
    with pytest.raises(InvalidParameterError, match="detector must be an AnomalyDetector"):
        PyodDetector(detector=Autoencoder()).fit(rows)  # type: ignore[arg-type]
    for settings in ({"T": 0}, {"T": -1.0}, {"return_stats": True, "delta": 1.0}):
        with pytest.raises(InvalidParameterError, match="must be a number"):
            copy.predict_with_rejection(rows, **settings)
    with pytest.raises(InvalidParameterError, match="linear"):
        copy.predict_proba(rows, method="linnear")


def test_scikit_learn_s_checks_but_for_the_labels() -> None:
    why = "PyOD's labels are 0 and 1"
    expected = {"check_outliers_train": why, "check_outliers_fit_predict": why}
    quick = Autoencoder(latent_dim=1, epochs=1, batch_size=64, validation_fraction=0)
    results = check_estimator(
        AnomalyDetector(estimator=quick, trim=0, random_state=0).as_pyod(),
        on_skip=None,
        expected_failed_checks=expected,
    )
    assert {r["status"] for r in results} <= {"passed", "xfail", "skipped"}
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(expected)
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}


# ------------------------------------------------------------------ beside PyOD
@pytest.fixture(scope="module")
def pair(rows: np.ndarray) -> list[Any]:
    """PyOD's KNN and ours, fitted by the same call."""
    knn = pytest.importorskip("pyod.models.knn").KNN
    return [one.fit(rows) for one in (knn(contamination=0.1), small().as_pyod(contamination=0.1))]


def alike(one: Any, other: Any) -> None:
    """Assert the same types, and the same shapes, kinds of numbers and ranges of probabilities."""
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray)
        assert (one.shape, one.dtype.kind) == (other.shape, other.dtype.kind)
    elif isinstance(one, (tuple, list)):
        assert type(one) is type(other)
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            alike(a, b)
    else:
        assert isinstance(one, float)
        assert isinstance(other, float)


CALLS = {
    "decision_function": {},
    "predict": {},
    "predict with confidence": {"return_confidence": True},
    "predict_proba": {},
    "predict_proba linear": {"method": "linear", "return_confidence": True},
    "predict_proba unify": {"method": "unify", "return_confidence": True},
    "predict_proba plain unify": {"method": "unify"},
    "predict_confidence": {},
    "predict_with_rejection": {"c_r": 0.1},
    "predict_with_rejection few": {"T": 2, "c_r": 0.1},
    "predict_with_rejection stats": {"T": 5, "return_stats": True, "delta": 0.05, "c_fn": 3, "c_r": 0.2},
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_gives_what_pyod_s_gives(pair: list[Any], rows: np.ndarray, call: str) -> None:
    method, fresh = call.split(" ")[0], rows[::7]
    alike(*[getattr(one, method)(fresh, **CALLS[call]) for one in pair])


def test_attributes_are_those_of_pyod(pair: list[Any], rows: np.ndarray) -> None:
    for name in ("decision_scores_", "labels_", "threshold_"):
        alike(*[getattr(one, name) for one in pair])
    for one in pair:
        assert set(one.labels_) == set(one.predict(rows[::7])) == {0, 1}
        assert one.threshold_ == np.percentile(one.decision_scores_, 90)
        assert np.array_equal(one.labels_, one.decision_scores_ > one.threshold_)
        assert set(one.predict_with_rejection(rows, T=2, c_r=0.1)) == {-2, 0, 1}
        assert one.rejection_threshold_ == pytest.approx(1 - 2 * np.exp(-2))
        labels, confidence = one.predict(rows, return_confidence=True)
        assert ((confidence >= 0) & (confidence <= 1)).all()
        assert np.array_equal(labels, one.decision_function(rows) > one.threshold_)


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt:RuntimeWarning")  # PyOD's, for T=0.5
def test_the_arithmetic_is_that_of_pyod(pair: list[Any], rows: np.ndarray) -> None:
    """Give PyOD's detector our scores: it must come to the same numbers."""
    theirs, ours = pair

    class Given(type(theirs)):  # type: ignore[misc]
        def decision_function(self, X: np.ndarray) -> np.ndarray:
            return ours.decision_function(X)

    for contamination in (0.03, 0.1, 0.5):
        ours = PyodDetector(contamination)._take(ours.detector_, ours.decision_scores_)
        given = Given(contamination=contamination)
        given._classes, given.decision_scores_ = 2, ours.decision_scores_
        given._process_decision_scores()
        assert given.threshold_ == pytest.approx(ours.threshold_)
        assert np.array_equal(given.labels_, ours.labels_)
        for call, settings in CALLS.items():
            method = call.split(" ")[0]
            one, other = (getattr(x, method)(rows, **settings) for x in (given, ours))
            for a, b in zip(*[x if type(x) is tuple else (x,) for x in (one, other)], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=call)
        for T in (0.5, 1.0, 10.0, 32.0):
            np.testing.assert_allclose(
                ours.compute_rejection_stats(T, 0.2, 2, 3, 0.4),
                given.compute_rejection_stats(T, 0.2, 2, 3, 0.4),
                rtol=1e-4,  # theirs looks for 1 - exp(-32) among double numbers
            )


@pytest.mark.filterwarnings("ignore:Function fit_predict:FutureWarning")
@pytest.mark.parametrize("scoring", ["roc_auc_score", "prc_n_score"])
def test_scores_by_labels_are_those_of_pyod(
    pair: list[Any], rows: np.ndarray, truth: np.ndarray, scoring: str
) -> None:
    for one in pair:
        score = clone(one).fit_predict_score(rows, truth, scoring=scoring)
        if scoring == "roc_auc_score":
            assert score == roc_auc_score(truth, one.decision_scores_)
        else:
            flagged = one.decision_scores_ > np.percentile(one.decision_scores_, 95)
            assert score == pytest.approx(precision_score(truth, flagged))
        assert set(clone(one).fit_predict(rows)) == {0, 1}


def test_settings_as_pyod_takes_them(pair: list[Any], rows: np.ndarray) -> None:
    for one in pair:
        copy = clone(one)
        assert copy.get_params()["contamination"] == 0.1
        with pytest.raises(NotFittedError):
            copy.predict(rows)
        assert copy.set_params(contamination=0.2).fit(rows).labels_.mean() == pytest.approx(0.2)
        for wrong in (0.0, 0.7):
            with pytest.raises(ValueError, match=r"(?i)contamination"):
                type(one)(contamination=wrong).fit(rows)  # ours in fit, as scikit-learn's checks want it
        with pytest.raises(ValueError, match=r"nonsense|probability"):
            one.predict_proba(rows, method="nonsense")
        assert is_outlier_detector(one)
