"""AnomalyDetector: the laws of the estimators, the promise of its threshold, and what it says of a row."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from altered import altered, examples
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import sparse
from scipy.stats import betabinom
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

import diabolo
from diabolo import Autoencoder, ConvolutionalAutoencoder, persistence
from diabolo.applications import AnomalyDetector, ensemble
from diabolo.data import ArraySource, NpySource, ParquetSource
from diabolo.errors import (
    CalibrationWarning,
    DetectionWarning,
    InvalidDataError,
    InvalidParameterError,
    ModelFileError,
)
from diabolo.parts import GaussianNoise, MaskingNoise

PLANE = np.array([[1.0, 0.5, -1.0, 0.0, 2.0], [0.0, 1.0, 1.0, -1.0, 0.5]])


def quick(**settings: Any) -> Autoencoder:
    small = {"hidden_dims": (), "latent_dim": 2, "epochs": 3, "batch_size": 64, "validation_fraction": 0}
    return Autoencoder(**(small | settings))


def detector(**settings: Any) -> AnomalyDetector:
    return AnomalyDetector(**({"estimator": quick(), "trim": 0, "random_state": 0} | settings))


def near_plane(n: int, chance: np.random.Generator) -> np.ndarray:
    """Return rows (n, 5) with two directions and some noise."""
    return chance.normal(size=(n, 2)) @ PLANE + 0.3 * chance.normal(size=(n, 5))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return near_plane(600, np.random.default_rng(0))


@pytest.fixture(scope="module")
def fitted(rows: np.ndarray) -> AnomalyDetector:
    return detector().fit(rows)


# ------------------------------------------------------------------ scikit-learn
def run_checks(one: AnomalyDetector) -> None:
    results = check_estimator(one, on_skip=None)
    assert {r["status"] for r in results} <= {"passed", "skipped"}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(results) > 40


@pytest.mark.filterwarnings("ignore::diabolo.errors.DiaboloWarning")
def test_checks_with_small_members() -> None:
    run_checks(AnomalyDetector(estimator=quick(latent_dim=1, epochs=1), trim=0))


def test_settings_of_members_are_reached(rows: np.ndarray) -> None:
    one = detector(estimator=quick(corruption=MaskingNoise(0.2)))
    assert one.get_params()["estimator__corruption__fraction"] == 0.2
    copy = clone(one)
    assert copy.estimator is not one.estimator
    assert copy.get_params(deep=False).keys() == one.get_params(deep=False).keys()
    chance = np.random.default_rng(1)
    truth = chance.choice([1, 1, 1, 1, -1], size=600)
    X = rows + 2 * chance.normal(size=rows.shape) * (truth < 0)[:, None]

    def area(judged: AnomalyDetector, X: np.ndarray, y: np.ndarray) -> float:
        return float(roc_auc_score(y, judged.score_samples(X)))

    search = GridSearchCV(
        detector(false_alarm_rate=0.1),
        {"estimator__latent_dim": [2, 5], "trim": [0, 0.2]},
        cv=2,
        scoring=area,
    )
    search.fit(X, truth)
    found = search.best_estimator_
    assert found.members[0].estimator.recipe_.latent_dim == search.best_params_["estimator__latent_dim"]
    assert search.best_score_ > 0.6
    assert one.estimator.latent_dim == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"false_alarm_rate": 0},
        {"false_alarm_rate": 1.0},
        {"calibration_fraction": 0},
        {"calibration_fraction": "x"},
        {"trim": 0.5},
        {"trim": -0.1},
        {"n_copies": 0},
        {"n_copies": 1.5},
        {"whitening": "joined"},
        {"estimator": []},
        {"estimator": "dense"},
        {"estimator": [None]},
        {"random_state": -1},
        {"input_shape": (2, 2)},
    ],
)
def test_wrong_settings_are_named(rows: np.ndarray, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        detector(**wrong).fit(rows)


def test_what_to_give_instead_follows_the_value(rows: np.ndarray) -> None:
    for wrong in ({"trim": 0.9}, {"remember": -1}):
        with pytest.raises(InvalidParameterError, match=r"got \S+\. Or give 'auto'\.$"):
            detector(**wrong).fit(rows)


def test_no_setting_is_without_effect(rows: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="device must be left out where estimator is given"):
        detector(device="cpu").fit(rows)
    with pytest.raises(
        InvalidParameterError, match=r"input_shape must be that of the .*, \(1, 5\); got \(5,"
    ):
        detector(estimator=[quick(input_shape=(1, 5)), quick()], input_shape=(5, 1)).fit(rows)
    both = detector(estimator=[quick(), quick(input_shape=(5, 1))], input_shape=[5, 1]).fit(rows)
    assert {tuple(member.estimator.input_shape) for member in both.members} == {(5, 1)}
    table = pd.DataFrame(rows, columns=list("abcde"))
    for settings, X in (({"kinds": {}}, table), ({}, table.assign(f=["x", "y"] * (len(rows) // 2)))):
        with pytest.raises(InvalidParameterError, match="input_shape must be left out for a table of mixed"):
            detector(input_shape=(X.shape[1], 1), **settings).fit(X)
    with pytest.raises(InvalidParameterError, match="kinds must be left out for a Source"):
        detector(kinds={"a": "categorical"}).fit(ArraySource(rows))
    fitted = detector(kinds={}).fit(table).set_params(input_shape=(5, 1))
    with pytest.raises(InvalidParameterError, match="input_shape must be left out"):
        fitted.save(tmp_path / "d.safetensors")


# ------------------------------------------------------------------ chance
def outputs(one: AnomalyDetector, X: Any) -> list[bytes]:
    methods = ("score_samples", "decision_function", "predict", "p_value", "explain")
    return [getattr(one, name)(X).tobytes() for name in methods]


def test_same_seed_same_bytes(rows: np.ndarray) -> None:
    settings = {"estimator": [quick(), quick(corruption="masking")], "trim": 0.1, "n_copies": 2}
    one, other = (detector(**settings).fit(rows) for _ in range(2))
    assert outputs(one, rows) == outputs(other, rows)
    assert (one.threshold_, one.comparison_) == (other.threshold_, other.comparison_)
    third = detector(**settings, random_state=1).fit(rows)
    assert outputs(one, rows)[0] != outputs(third, rows)[0]


def test_no_global_random_state_is_touched(rows: np.ndarray) -> None:
    def state() -> list[Any]:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the state that must stay
        return [kind, keys.tobytes(), rest, torch.get_rng_state().numpy().tobytes(), random.getstate()]

    before = state()
    outputs(detector(estimator=quick(corruption="gaussian"), trim=0.1).fit(rows), rows)
    assert state() == before


def test_copies_differ_in_their_seeds(rows: np.ndarray) -> None:
    one = detector(n_copies=3).fit(rows)
    assert len(one.members) == 3
    weights = [next(m.estimator.module_.parameters()).detach().numpy().tobytes() for m in one.members]
    assert len(set(weights)) == 3


# ------------------------------------------------------------------ the promise
def test_the_promised_rate_is_kept_where_rows_are_held_out() -> None:
    """Over 100 seeds, beside the distribution of the rate: the threshold is an order statistic's."""
    rates, n, fresh = (0.01, 0.05, 0.2), 1000, 400
    flagged = np.zeros(len(rates))
    for seed in range(100):
        chance = np.random.default_rng(seed)
        one = detector(estimator=quick(epochs=1, batch_size=256), random_state=seed)
        one.fit(near_plane(n, chance))
        X = near_plane(fresh, chance)
        scores = one.score_samples(X)
        for k, rate in enumerate(rates):
            one.set_threshold(false_alarm_rate=rate)
            flagged[k] += np.sum(scores < one.offset_)
    for rate, found in zip(rates, flagged, strict=True):
        above = int(np.floor((n // 5 + 1) * rate + 1e-9))  # of the 200 held-out rows and the fresh one
        one_seed = betabinom(fresh, above, n // 5 + 1 - above)
        assert one_seed.mean() / fresh <= rate
        deviation = 2.576 * np.sqrt(100 * one_seed.var())  # two-sided, 1 %
        assert abs(found - 100 * one_seed.mean()) < deviation, (rate, found / 100 / fresh)


@pytest.mark.filterwarnings("ignore::diabolo.errors.DetectionWarning")  # its members hardly train
def test_the_promised_rate_is_kept_where_rows_are_few() -> None:
    rate, n, fresh, seeds = 0.05, 150, 400, 30
    found = []
    for seed in range(seeds):
        chance = np.random.default_rng(seed)
        one = detector(estimator=quick(epochs=1), random_state=seed, false_alarm_rate=rate)
        one.fit(near_plane(n, chance))
        assert len(one.members_) == 5
        assert len(one.calibration_.scores) == n  # every row held out once
        found.append(np.mean(one.predict(near_plane(fresh, chance)) < 0))
    assert 0.005 < np.mean(found) < rate + 2.576 * np.std(found) / np.sqrt(seeds)


def test_rows_to_hold_out_can_be_given(rows: np.ndarray) -> None:
    patients = np.repeat(np.arange(60), 10)
    held_out = np.flatnonzero(patients >= 50)
    one = detector().fit(rows, held_out=held_out[::-1])
    assert np.array_equal(np.sort(-one.score_samples(rows[held_out])), one.calibration_.scores)
    np.testing.assert_allclose(one.members[0].estimator._mean, rows[patients < 50].mean(0), rtol=1e-9)
    ragged = ([[0, 1]], [[1], [1, 2]], [None, 1], 5)
    for wrong in ([], [600], [-1], [3, 3], [0.5], np.arange(599), rows[:, 0] > 0, "all", *ragged):
        with pytest.raises(
            InvalidParameterError, match=r"held_out must be an array of numbers of rows from 0"
        ):
            detector().fit(rows, held_out=wrong)


@pytest.mark.filterwarnings("ignore::diabolo.errors.DetectionWarning")  # two rows tell next to nothing
@pytest.mark.parametrize("trim", [0, "auto"])
def test_two_rows_are_left_to_learn_from(rows: np.ndarray, trim: Any) -> None:
    one = detector(calibration_fraction=0.9999, trim=trim).fit(rows[:200])
    assert len(one.calibration_.scores) == 198
    same = np.repeat(rows[:1], 200, axis=0)
    same[:4] = rows[:4]
    with pytest.raises(InvalidDataError, match=r"got 200 rows, 197 of them equal.*\(calibration_fraction\)"):
        detector(calibration_fraction=0.99, trim=trim, random_state=1).fit(same)


def test_p_values_and_verdicts_agree(fitted: AnomalyDetector, rows: np.ndarray) -> None:
    fresh = near_plane(500, np.random.default_rng(5)) * 1.5
    one = clone(fitted).fit(rows)
    for rate in (0.01, 0.1, 0.5):
        one.set_threshold(false_alarm_rate=rate)
        assert np.array_equal(one.predict(fresh) < 0, one.p_value(fresh) <= rate)
        assert np.array_equal(one.predict(fresh) < 0, one.decision_function(fresh) < 0)
    assert one.p_value(fresh).min() >= 1 / 121


def test_set_threshold_takes_exactly_one(fitted: AnomalyDetector, rows: np.ndarray, tmp_path: Path) -> None:
    one = clone(fitted).fit(rows)
    with pytest.raises(InvalidParameterError, match=r"must be given one of .* got 0 of them"):
        one.set_threshold()
    with pytest.raises(InvalidParameterError, match=r"must be given one of .* got 2 of them"):
        one.set_threshold(value=1.0, contamination=0.1)
    for wrong in (0, 1, -0.1, True, "x", np.nan):
        with pytest.raises(InvalidParameterError, match="between 0 and 1"):
            one.set_threshold(contamination=wrong)
        with pytest.raises(InvalidParameterError, match="between 0 and 1"):
            one.set_threshold(false_alarm_rate=wrong)
    for wrong in (np.nan, np.inf, "x"):
        with pytest.raises(InvalidParameterError, match="value must be a number"):
            one.set_threshold(value=wrong)
    assert one.threshold_ == fitted.threshold_
    one.set_threshold(value=3.5)
    assert (one.threshold_, one.offset_) == (3.5, -3.5)
    one.set_threshold(contamination=0.25)
    assert np.mean(one.calibration_.scores > one.threshold_) == pytest.approx(0.25, abs=0.01)
    assert AnomalyDetector.load(one.save(tmp_path / "d.safetensors")).threshold_ == one.threshold_
    one.set_threshold(false_alarm_rate=fitted.false_alarm_rate)
    assert one.threshold_ == fitted.threshold_
    with pytest.raises(NotFittedError):
        detector().set_threshold(value=1.0)


def test_a_rate_that_cannot_be_promised_is_said(fitted: AnomalyDetector, rows: np.ndarray) -> None:
    one = clone(fitted).fit(rows)
    with pytest.warns(CalibrationWarning, match=r"1 / 121 = 0.0083 .* got 0.001"):
        one.set_threshold(false_alarm_rate=0.001)
    assert one.threshold_ == one.calibration_.scores[-1]
    with pytest.warns(CalibrationWarning, match="got 0.01"):
        detector(false_alarm_rate=0.01).fit(rows[:50])
    with pytest.warns(CalibrationWarning, match="1 / 2 = 0.5 to be promised by 1 held-out row; got 0.05"):
        one.fit(rows, held_out=[7])


# ------------------------------------------------------------------ explanations
MEMBERS: dict[str, dict[str, Any]] = {
    "bottleneck": {"estimator": quick(epochs=30)},
    "denoising": {
        "estimator": quick(
            epochs=40, latent_dim=5, hidden_dims=(32,), corruption=GaussianNoise(0.3), optimizer="adam"
        )
    },
    "masking": {"estimator": quick(epochs=30, latent_dim=5, hidden_dims=(32,), corruption=MaskingNoise(0.2))},
    "joint": {"estimator": quick(epochs=30), "whitening": "joint"},
    "plain": {"estimator": quick(epochs=30), "whitening": None},
    "several": {"estimator": [quick(epochs=30), quick(epochs=30, corruption=MaskingNoise(0.2))]},
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_a_row_s_shares_sum_to_its_surprise(rows: np.ndarray, kind: str) -> None:
    one = detector(**MEMBERS[kind], false_alarm_rate=0.05).fit(rows)
    shares = one.explain(rows)
    assert shares.shape == rows.shape
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(1), -one.score_samples(rows), rtol=1e-10)


@pytest.mark.parametrize("kind", ["bottleneck", "denoising", "masking"])
def test_the_feature_that_was_shifted_is_named(kind: str) -> None:
    chance = np.random.default_rng(3)
    one = detector(**MEMBERS[kind]).fit(near_plane(2000, chance))
    strange, feature = near_plane(500, chance), chance.integers(0, 5, size=500)
    strange[np.arange(500), feature] += chance.choice([-6.0, 6.0], size=500) * strange.std(0)[feature]
    assert np.mean(one.explain(strange).argmax(1) == feature) > 0.9
    assert np.mean(one.predict(strange) < 0) > 0.95


def test_joint_whitening_finds_a_broken_correlation() -> None:
    """Residuals of two features are large and equal; only their covariance tells that they differ now."""
    chance = np.random.default_rng(0)

    def some(n: int, sign: float) -> np.ndarray:
        z, a = chance.normal(size=(2, n, 1))
        return np.hstack([10 * z, 10 * z, -10 * z, a, sign * a]) + 0.1 * chance.normal(size=(n, 5))

    X, fresh = some(1000, 1.0), np.concatenate([some(300, 1.0), some(300, -1.0)])
    areas = {}
    for whitening in ("feature", "joint"):
        one = detector(estimator=quick(latent_dim=1, scaling=None, epochs=10), whitening=whitening).fit(X)
        areas[whitening] = roc_auc_score(np.repeat([0, 1], 300), -one.score_samples(fresh))
    assert areas["feature"] < 0.6
    assert areas["joint"] > 0.8


# ------------------------------------------------------------------ what training does
def test_trimming_keeps_anomalies_from_being_learned() -> None:
    areas = {0: [], 0.15: []}
    for seed in range(2):
        chance = np.random.default_rng(seed)

        def strange(n: int, chance: np.random.Generator = chance) -> np.ndarray:
            return np.array([4.0, -4.0, -4.0, 4.0, 0.0]) + 0.6 * chance.normal(size=(n, 5))

        X = chance.permutation(np.concatenate([near_plane(720, chance), strange(80)]))
        fresh = np.concatenate([near_plane(300, chance), strange(300)])
        member = quick(
            hidden_dims=(64,), latent_dim=5, epochs=40, batch_size=32, optimizer="adam", learning_rate=0.003,
            corruption=GaussianNoise(0.3),
        )  # fmt: skip
        for trim, found in areas.items():
            one = detector(estimator=member, trim=trim, random_state=seed).fit(X)
            found.append(roc_auc_score(np.repeat([0, 1], 300), -one.score_samples(fresh)))
    assert np.mean(areas[0.15]) > np.mean(areas[0]) + 0.05, areas


def test_the_members_that_mask_do_not_learn_the_fifth_that_is_set_apart(
    rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: dict[str, int] = {}

    class Noted(Autoencoder):
        def fit(self, X: Any, *args: Any, **options: Any) -> Any:
            learned[str(self.corruption)] = len(X)
            return super().fit(X, *args, **options)

    def two(n_rows: int, n_features: int, seed: int, loss: Any) -> list[Autoencoder]:
        return [
            Noted(latent_dim=2, epochs=1, corruption=noise, random_state=seed)
            for noise in (GaussianNoise(0.3), MaskingNoise(0.2))
        ]

    monkeypatch.setattr(ensemble, "default_members", two)
    X = rows[:500]
    for trim, of_masking in (("auto", 320), (0.0, 400), (0.1, 360)):
        one = AnomalyDetector(trim=trim, random_state=0).fit(X)
        assert len(one.set_apart_) == 400 - of_masking
        assert learned == {
            "gaussian(std=0.3)": 400 if trim == "auto" else of_masking,
            "masking(fraction=0.2)": of_masking,
        }


class Copying(Autoencoder):
    """What an over-complete autoencoder without noise becomes in the end: the identity."""

    def reconstruct(self, X: Any) -> Any:
        return X


def test_a_member_that_restores_anomalies_too_is_said(rows: np.ndarray) -> None:
    member = Copying(latent_dim=2, epochs=1, batch_size=64)
    with pytest.warns(
        DetectionWarning, match=r"restores anomalies as well as normal rows.* of 0\.50 at best"
    ):
        one = detector(estimator=member).fit(rows)
    assert one.comparison_["diabolo"] == {"shuffled": 0.5, "shifted": 0.5}
    assert (one.explain(rows) >= 0).all()
    np.testing.assert_allclose(one.explain(rows).sum(1), -one.score_samples(rows))


class Bounding(Autoencoder):
    """Restores whatever lies within bounds."""

    def reconstruct(self, X: Any) -> Any:
        return np.clip(X, -4, 4)


def test_a_member_that_restores_one_kind_of_anomalies_is_said() -> None:
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(600, 2)) @ PLANE + 0.02 * chance.normal(size=(600, 5))
    with pytest.warns(DetectionWarning, match=r"planted ones with shuffled values .* 0\.\d\d \((PCA|KNN): "):
        one = detector(estimator=Bounding(latent_dim=2, epochs=1, batch_size=64)).fit(rows)
    assert one.comparison_["diabolo"]["shifted"] > 0.6 > one.comparison_["diabolo"]["shuffled"]


def test_the_comparison_is_there(fitted: AnomalyDetector) -> None:
    assert set(fitted.comparison_) == {"diabolo", "PCA", "KNN"}
    for areas in fitted.comparison_.values():
        assert set(areas) == {"shuffled", "shifted"}
        assert all(0.5 < area <= 1 for area in areas.values())


@pytest.mark.parametrize("where", ["first member", "second member", "comparison"])
def test_ctrl_c_leaves_an_unfitted_detector(
    rows: np.ndarray, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = detector(estimator=[quick(), quick()]).fit(rows)

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    def progress(share: float, what: str) -> None:
        if share > {"first member": 0.1, "second member": 0.6}.get(where, 2):
            raise KeyboardInterrupt

    if where == "comparison":
        monkeypatch.setattr("diabolo.applications.anomaly.compare", stop)
    with pytest.raises(KeyboardInterrupt):
        one.fit(rows, progress=progress)
    with pytest.raises(NotFittedError):
        one.score_samples(rows)
    with pytest.raises(NotFittedError):
        one.predict(rows)


@pytest.mark.filterwarnings("ignore::diabolo.errors.DetectionWarning")  # its members hardly train
def test_progress_goes_up_to_one(rows: np.ndarray) -> None:
    seen: list[tuple[float, str]] = []
    with pytest.warns(CalibrationWarning):
        detector(trim=0.1, false_alarm_rate=0.01).fit(
            rows[:80], progress=lambda share, what: seen.append((share, what))
        )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert seen[-1] == (1.0, "done")


# ------------------------------------------------------------------ what comes in
def test_frames_of_either_library_and_sparse_rows(rows: np.ndarray) -> None:
    columns = list("abcde")
    expected = outputs(detector().fit(rows), rows)
    for frame in (pd.DataFrame(rows, columns=columns), pl.DataFrame(rows, schema=columns)):
        one = detector().fit(frame)
        assert list(one.feature_names_in_) == columns
        assert outputs(one, frame) == expected
    for matrix in (sparse.csr_matrix(rows), sparse.csc_array(rows), rows.tolist()):
        assert outputs(detector().fit(matrix), matrix) == expected
    frame = pd.DataFrame(rows, columns=columns)
    with pytest.raises(ValueError, match="feature names should match"):
        detector().fit(frame).predict(frame[list("bacde")])


def test_a_mixed_table_without_names_is_told_in_the_detectors_name(rows: np.ndarray) -> None:
    table = pd.DataFrame(rows, columns=list("abcde")).assign(f=["x", "y"] * 300)
    one = detector().fit(table)
    with pytest.warns(UserWarning, match="names") as said:
        found = one.score_samples(table.to_numpy())
    assert ["AnomalyDetector was fitted with feature names" in str(each.message) for each in said] == [True]
    assert np.array_equal(found, one.score_samples(table))


def test_values_that_are_no_numbers_are_placed(fitted: AnomalyDetector, rows: np.ndarray) -> None:
    for value in (np.nan, np.inf):
        wrong = rows.copy()
        wrong[7, 3] = value
        for call in (detector().fit, fitted.predict, fitted.explain):
            with pytest.raises(InvalidDataError, match=r"row 7, column 3"):
                call(wrong)
    with pytest.raises(ValueError, match="4 features"):
        fitted.predict(rows[:, :4])


def test_values_far_down_are_placed_among_all_rows(rows: np.ndarray) -> None:
    rows = rows * [1e-3, 1, 1, 1, 1]
    masking = quick(latent_dim=5, corruption=MaskingNoise(0.3))
    for one in (detector().fit(rows), detector(estimator=masking).fit(rows)):
        many = np.tile(rows, (10, 1))
        many[[4500, 5000], 3] = np.nan
        for call in (one.predict, one.explain, one.p_value):
            for X in (many, many.astype(np.float32), many.tolist()):
                with pytest.raises(
                    InvalidDataError, match=r"NaN at row 4500, column 3 \(2 such values in all"
                ):
                    call(X)
        many[4500:, 3] = 0
        many[4501, 0] = 1e38  # a number of single precision; in standard deviations it is none
        with pytest.raises(InvalidDataError, match=r"beyond single precision in row 4501"):
            one.score_samples(many)


def test_a_source_is_refused_in_words_where_columns_are_mixed(rows: np.ndarray) -> None:
    one = detector(kinds={}).fit(pd.DataFrame(rows, columns=list("abcde")))
    coded = one.encoder_.transform(pd.DataFrame(rows, columns=list("abcde")))
    for source in (ArraySource(rows), ArraySource(coded)):
        for call in (one.predict, one.explain, one.p_value):
            with pytest.raises(InvalidDataError, match=r"X must be a frame .*; got a Source.*\. Give frames"):
                call(source)
    with pytest.raises(NotFittedError):
        detector().predict(ArraySource(rows))


NO_ROWS = {
    "Series": (pd.Series([1.0, 2.0]), "got Series. Call X.to_frame()"),
    "Series of text": (pd.Series(["a", "b"]), "got Series. Call X.to_frame()"),
    "Series of polars": (pl.Series([1.0, 2.0]), "got Series. Call X.to_frame()"),
    "LazyFrame": (pl.LazyFrame({"a": [1.0, 2.0]}), "got LazyFrame. Call X.collect()"),
    "dict": ({"a": [1, 2]}, "got dict. Call pandas.DataFrame(X)"),
    "dicts": ([{"a": 1}, {"a": 2}], "got a list of dicts. Call pandas.DataFrame(X)"),
    "strings": (["a", "b"], "got the shape (2,). Reshape your data"),
    "None": (None, "got None. Turn it into one of these"),
    "path": ("rows.csv", "got str. Read the file with diabolo.data.load"),
    "Path": (Path("rows.csv"), f"got {type(Path()).__name__}. Read the file with"),
    "number": (3.0, "got float. Turn it"),
    "generator": ((row for row in [[1.0, 2.0]]), "got generator. Turn it"),
    "column": (np.zeros(5), "got the shape (5,). Reshape your data"),
    "value": (np.array(3.0), "got the shape ()."),
    "matrix": (np.eye(5).view(np.matrix), "got matrix. Call numpy.asarray(X)"),
    "masked": (np.ma.masked_equal(np.eye(5), 1), "got an array with masked values. Call X.filled"),
    "complex": (np.eye(5) + 1j, "got the type complex128"),
    "empty frame": (pd.DataFrame(), "got (0, 0)"),
    "twins": (pd.DataFrame(np.eye(5), columns=list("abcda")), "must differ; got 'a' twice. Rename one"),
}


@pytest.mark.parametrize("case", NO_ROWS)
def test_what_holds_no_rows_is_refused_in_words(fitted: AnomalyDetector, rows: np.ndarray, case: str) -> None:
    X, message = NO_ROWS[case]
    calls: list[Any] = [detector().fit, fitted.predict, fitted.score_samples]
    for call in [*calls, detector(kinds={}).fit, Autoencoder(latent_dim=1).fit]:
        with pytest.raises(InvalidDataError, match=re.escape(message)) as caught:
            call(X)
        assert re.search(r"must .*; got .*\. [A-Z]", str(caught.value))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_rows(rows: np.ndarray, n: int) -> None:
    with pytest.raises(InvalidDataError, match=f"at least 4 rows.*; got {n} sample"):
        detector().fit(rows[:n])


@pytest.mark.filterwarnings("ignore::diabolo.errors.CalibrationWarning")
@pytest.mark.filterwarnings("ignore::diabolo.errors.DetectionWarning")
@pytest.mark.parametrize("trim", [0, 0.3])
@pytest.mark.parametrize("case", ["4 rows", "constant columns", "90 % equal", "one feature", "wide", "bytes"])
def test_odd_tables(case: str, trim: float) -> None:
    chance = np.random.default_rng(0)
    X = near_plane(200, chance)
    if case == "4 rows":
        X = X[:4]
    elif case == "constant columns":
        X[:, [0, 3]] = 5.0
    elif case == "90 % equal":
        X[:180] = X[0]
    elif case == "one feature":
        X = X[:, :1]
    elif case == "wide":
        X = chance.normal(size=(30, 80))
    else:
        X = chance.integers(0, 255, size=(200, 5), dtype=np.uint8)
    one = detector(estimator=[quick(), quick(corruption="masking")], trim=trim).fit(X)
    for name in ("score_samples", "decision_function", "p_value", "explain"):
        found = getattr(one, name)(X[:3])
        assert np.isfinite(found).all()
        assert len(found) == 3
    assert set(one.predict(X)) <= {-1, 1}
    far = X[:1].astype(float) + 100 * (1 + X.std())
    assert one.score_samples(far) < one.score_samples(X).min()
    assert np.isfinite(list(one.comparison_["diabolo"].values())).all()


def test_equal_rows_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(InvalidDataError, match="X must vary"):
        detector().fit(np.ones((50, 4)))
    X = np.full((52, 2), 5.0)
    X[0] = 1.0
    said = "must have several rows that differ from the others; got 52 rows, 51 of them equal"
    for table in (X, pd.DataFrame(X, columns=["a", "b"]).assign(c=["v"] + 51 * ["u"])):
        with pytest.raises(InvalidDataError, match=said):
            detector().fit(table)


def test_images_keep_their_shape() -> None:
    chance = np.random.default_rng(0)
    images = chance.normal(size=(200, 1, 1)) * np.outer(np.arange(6), np.ones(7)) + 0.1 * chance.normal(
        size=(200, 6, 7)
    )
    member = ConvolutionalAutoencoder(channels=(4,), latent_dim=2, epochs=3, batch_size=32)
    one = detector(estimator=member, false_alarm_rate=0.05, whitening="feature").fit(images)
    assert (one.sample_shape_, one.n_features_in_) == ((6, 7), 42)
    spoiled = images[:20].copy()
    spoiled[:, 2, 3] += 20.0
    parts = one.explain(spoiled)
    assert parts.shape == (20, 6, 7)
    assert np.mean(parts.reshape(20, -1).argmax(1) == 2 * 7 + 3) > 0.9
    assert (one.predict(spoiled) == -1).all()
    flat = detector(estimator=member, false_alarm_rate=0.05, whitening="feature", input_shape=(6, 7))
    flat.fit(images.reshape(200, -1))
    assert flat.explain(spoiled.reshape(20, -1)).shape == (20, 42)
    assert np.array_equal(flat.score_samples(spoiled.reshape(20, -1)), one.score_samples(spoiled))
    with pytest.raises(InvalidDataError, match=r"shape \(6, 7\)"):
        one.predict(images[:, :5])


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_source_serves_as_rows_in_memory_do(rows: np.ndarray, tmp_path: Path, kind: str) -> None:
    X = near_plane(2000, np.random.default_rng(0)).astype(np.float32)
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, X)
        source, fresh = NpySource(path), X[:300]
    else:
        frame = pd.DataFrame(X, columns=list("abcde"))
        frame.to_parquet(path)
        source, fresh = ParquetSource(path), frame[:300]
    one = detector(trim=0.1, estimator=[quick(epochs=10), quick(epochs=10, corruption="masking")]).fit(source)
    inside = clone(one).fit(X)
    assert len(one.calibration_.scores) == len(inside.calibration_.scores) == 400
    # the same rows are held out and left out; what differs is their order in training
    assert np.corrcoef(one.score_samples(source), inside.score_samples(X))[0, 1] > 0.9
    assert np.array_equal(one.score_samples(source)[:300], one.score_samples(fresh))
    assert np.array_equal(one.predict(source)[:300], one.predict(fresh))
    assert one.explain(source).shape == X.shape
    assert np.mean(one.predict(source) < 0) < 0.05


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file of 144 MB: the process must not grow by anything like the rows and their copies."""
    part = near_plane(2000, np.random.default_rng(0))
    part = np.tile(part, 6).astype(np.float32)  # 30 columns
    shape = (1_200_000, 30)
    with (tmp_path / "x.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for _ in range(600):
            part.tofile(stream)
    script = """
import resource, sys
import numpy as np
from diabolo import Autoencoder
from diabolo.applications import AnomalyDetector, ensemble
from diabolo.data import ArraySource, NpySource
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
member = Autoencoder(epochs=1, batch_size=16384, optimizer="adam", hidden_dims=(), latent_dim=2)
one = AnomalyDetector(estimator=member, trim=0, random_state=0)
one.fit(np.random.default_rng(0).normal(size=(20000, 30)))
before = peak()
source = NpySource(sys.argv[1])
scores = one.fit(source).score_samples(source)
assert scores.shape == (len(source),)
assert len(one.calibration_.scores) == 10_000
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(diabolo.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200, done.stdout  # the pools of a stream, and 13 MB of scores


# ------------------------------------------------------------------ files
FRESH = """
import json, sys, numpy as np, pandas, torch
from diabolo.applications import AnomalyDetector, ensemble
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    one = AnomalyDetector.load(folder + "/d.safetensors")
    X = np.load(folder + "/X.npy")
    if hasattr(one, "feature_names_in_"):
        X = pandas.DataFrame(X, columns=one.feature_names_in_)
    names = ("score_samples", "decision_function", "predict", "p_value", "explain")
    found = [getattr(one, name)(X).tobytes().hex() for name in names]
    found += [one.threshold_, one.offset_, one.comparison_, one.n_features_in_, list(one.sample_shape_)]
    one.save(folder + "/again.safetensors")
    json.dump(found, open(folder + "/fresh.json", "w"))
"""


@pytest.mark.filterwarnings("ignore::diabolo.errors.CalibrationWarning")
def test_a_file_gives_the_same_bytes_in_a_fresh_process(rows: np.ndarray, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(150, 6, 5))
    conv = ConvolutionalAutoencoder(channels=(2,), latent_dim=2, epochs=1, batch_size=32)
    noise = quick(corruption=GaussianNoise(0.3), latent_dim=5)
    cases: dict[str, tuple[dict[str, Any], Any]] = {
        "plain": ({}, rows),
        "several": ({"estimator": [quick(), quick(corruption=MaskingNoise(0.3))], "n_copies": 2}, rows),
        "joint": ({"whitening": "joint", "estimator": noise}, rows),
        "unwhitened": ({"whitening": None, "trim": 0.1}, rows),
        "folds": ({}, rows[:60]),
        "frame": ({}, pd.DataFrame(rows, columns=list("abcde"))),
        "images": ({"estimator": conv}, images),
        "flat images": ({"estimator": conv, "input_shape": (6, 5)}, images.reshape(150, -1)),
        "generator": ({"random_state": np.random.RandomState(0)}, rows),
    }
    expected = {}
    for name, (changed, X) in cases.items():
        (tmp_path / name).mkdir()
        one = detector(**changed).fit(X).set_threshold(false_alarm_rate=0.07)
        one.save(tmp_path / name / "d.safetensors")
        np.save(tmp_path / name / "X.npy", np.asarray(X))
        texts = [one.threshold_, one.offset_, one.comparison_, one.n_features_in_, list(one.sample_shape_)]
        expected[name] = [value.hex() for value in outputs(one, X)] + texts
        back = AnomalyDetector.load(tmp_path / name / "d.safetensors")
        for key in {*one.get_params(deep=False)} - {"random_state", "input_shape"}:
            assert str(getattr(one, key)) == str(getattr(back, key))
        assert [len(fold) for fold in back.members_] == [len(fold) for fold in one.members_]
        assert back.set_apart_.dtype == one.set_apart_.dtype
        assert np.array_equal(back.set_apart_, one.set_apart_)
    subprocess.run(
        [sys.executable, "-c", FRESH, *[str(tmp_path / name) for name in cases]],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for name in cases:
        assert json.loads((tmp_path / name / "fresh.json").read_text()) == expected[name], name
        written = [(tmp_path / name / f"{f}.safetensors").read_bytes() for f in ("d", "again")]
        assert written[0] == written[1], name


@pytest.fixture(scope="module")
def stored(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any, bytes]:
    """Header, tensors and bytes of a detector's file; of a frame, with two members, one that masks."""
    path = tmp_path_factory.mktemp("stored") / "d.safetensors"
    members = [quick(), quick(corruption=MaskingNoise(0.2))]
    detector(estimator=members).fit(pd.DataFrame(rows, columns=list("abcde"))).save(path)
    return *persistence.read_model(path, persistence.DETECTOR), path.read_bytes()


def refused(path: Path, match: str = "must") -> None:
    with pytest.raises(ModelFileError, match=match) as caught:
        AnomalyDetector.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def write(path: Path, header: Any, tensors: Any) -> Path:
    save_file(tensors, path, metadata={"diabolo": persistence.sealed(json.dumps(header), tensors)})
    return path


def test_truncated_and_foreign_files(stored: Any, rows: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    refused(path, "must exist")
    for share in np.linspace(0, 0.999, 12):
        path.write_bytes(stored[2][: int(share * len(stored[2]))])
        refused(path, "must be a whole diabolo detector file")
    path.write_bytes(np.random.default_rng(0).bytes(3000))
    refused(path, "must be a whole diabolo detector file")
    save_file({"weight": torch.zeros(3)}, path)
    refused(path, "safetensors file of another program")
    quick().fit(rows).save(path)
    refused(path, "must hold the header of a diabolo detector file")
    path.write_bytes(stored[2])
    with pytest.raises(ModelFileError, match="must hold the header of a diabolo model file"):
        diabolo.load(path)
    for version in (0, 1, 3, "2", None):
        way_out = "Write the file anew" if version in (0, 1) else "Update diabolo"
        said = f"format {version!r}, written by diabolo {diabolo.__version__}. {way_out}"
        refused(write(path, stored[0] | {"version": version}, stored[1]), said)
    assert AnomalyDetector.load(write(path, stored[0], stored[1])).n_features_in_ == 5


HOSTILE: dict[str, list[Any]] = {
    "params": [None, 3, [1], {}, {"nonsense": 1}],
    "members": [None, 3, [], {}, [1, 2], [{}, {}]],
    "folds": [None, 3, [], [1], [3], [-1, 3], ["2"], [2.5], [10**30], [1, 1, 1]],
    "several": [None, 1, "x"],
    "threshold": [None, "x", [1], True, float("nan"), float("inf")],
    "comparison": [
        None,
        3,
        [1],
        *({"a": x} for x in (3, {"b": "x"}, {"b": "0.5"}, {"b": float("nan")}, {"b": 2.0})),
    ],
    "sample_shape": [None, [], [7], [-5], 5, ["x"], [10**30], [float("inf")]],
    "row_shape": [None, [7], 3, ["x"], [-5], [5, 1]],
    "feature_names": [["a"], 3, list("abcdef")],
    "table": [3, [], {}, {"nonsense": 1}],
}
PARAMS: dict[str, list[Any]] = {
    "estimator": [3, "dense", [], [None], [{}], [{"estimator": "os", "params": {}, "tuples": []}]],
    "n_copies": [0, "x", None, 1.5, 10**9],
    "false_alarm_rate": [0, 2, "x", None],
    "calibration_fraction": [0, 1, "x", None],
    "trim": [-1, 0.5, "x", None],
    "whitening": ["nonsense", 3],
    "kinds": [3, ["a"], [["a", "nominal"]]],
    "device": [None, 3, "tpu"],
    "scaling": ["nonsense", 3],
    "random_state": [-1, 2**70, 1.5, "x", True],
    "input_shape": [3, "x", [], [7], [2, 3], [-5], [2.5, 2], [None]],
}
MEMBER: dict[str, list[Any]] = {
    "autoencoder": [None, {}, 3, "x"],
    "hides": [None, 1, "x"],
    "typical": [None, 0, -1, "x", float("nan"), True, "1", 0.0, -1.0, float("inf")],
}


def test_every_field_of_the_header_is_altered(stored: Any, tmp_path: Path) -> None:
    header, tensors, _ = stored
    path = tmp_path / "d.safetensors"
    for key in {*header} - {"format", "version", "versions"}:
        refused(write(path, {k: v for k, v in header.items() if k != key}, tensors), "do not fit together")
    for key, values in HOSTILE.items():
        for value in values:
            refused(write(path, header | {key: value}, tensors), "do not fit together")
    for key, values in PARAMS.items():
        for value in values:
            params = header["params"] | {key: value}
            refused(write(path, header | {"params": params}, tensors), "do not fit together")
    for key, values in MEMBER.items():
        for value in values:
            members = [header["members"][0] | {key: value}, header["members"][1]]
            refused(write(path, header | {"members": members}, tensors), "do not fit together")
    for device in (None, "tpu"):
        estimator = header["params"]["estimator"]
        other = [estimator[0], {**estimator[1], "params": estimator[1]["params"] | {"device": device}}]
        params = header["params"] | {"estimator": other}
        refused(write(path, header | {"params": params}, tensors), "device must be")


def test_hostile_tensors(stored: Any, tmp_path: Path) -> None:
    header, tensors, _ = stored
    path = tmp_path / "d.safetensors"
    for key, value in tensors.items():
        refused(write(path, header, {k: v for k, v in tensors.items() if k != key}))
        refused(write(path, header, tensors | {key: torch.zeros(2, 3, 5, dtype=value.dtype)}))
        refused(write(path, header, tensors | {key: value.to(torch.float16)}))
        if value.is_floating_point():
            spoiled = value.clone()
            spoiled.view(-1)[0] = float("nan")
            refused(write(path, header, tensors | {key: spoiled}))
    for key in ("extra", "0.extra", "7.whitener", "x.whitener", "-1.whitener"):
        refused(write(path, header, tensors | {key: torch.zeros(5, dtype=torch.float64)}))
    whitener = tensors["0.whitener"]
    one_negative = torch.where(torch.arange(5) == 3, -whitener, whitener)
    crooked = torch.eye(5, dtype=torch.float64) + torch.ones(5, 5, dtype=torch.float64).triu(1)
    for wrong in (0 * whitener, -whitener, one_negative, -torch.eye(5, dtype=torch.float64), crooked):
        refused(write(path, header, tensors | {"0.whitener": wrong}), "whitener")
    for numbers in ([-1, 2], [2, 1], [1, 1], [-(2**63), 2**63 - 1, 5]):
        refused(write(path, header, tensors | {"set_apart": torch.tensor(numbers)}), "numbers of rows that")
    hiding = tensors | {"1.whitener": torch.eye(5, dtype=torch.float64)}
    refused(write(path, header, hiding), "a whitener of all features together that is none")
    calibration = tensors["calibration"]
    for wrong in (
        calibration - 100,
        0 * calibration,
        calibration[:0],
        torch.full_like(calibration, torch.inf),
    ):
        refused(write(path, header, tensors | {"calibration": wrong}), "held-out")


def test_what_a_header_may_say_and_does_no_harm(stored: Any, rows: np.ndarray, tmp_path: Path) -> None:
    """The order of held-out scores means nothing; settings of members count when these are trained anew."""
    header, tensors, content = stored
    path = tmp_path / "d.safetensors"
    path.write_bytes(content)
    frame = pd.DataFrame(rows, columns=list("abcde"))
    expected = outputs(AnomalyDetector.load(path), frame)
    shuffled = tensors | {"calibration": tensors["calibration"].flip(0).contiguous()}
    assert outputs(AnomalyDetector.load(write(path, header, shuffled)), frame) == expected
    for key, value in {"epochs": "x", "latent_dim": -2, "random_state": -4, "batch_size": 0}.items():
        first, second = header["params"]["estimator"]
        params = header["params"] | {
            "estimator": [first | {"params": first["params"] | {key: value}}, second]
        }
        one = AnomalyDetector.load(write(path, header | {"params": params}, tensors))
        assert outputs(one, frame) == expected
        if key != "random_state":  # which the detector sets
            with pytest.raises(InvalidParameterError, match=key):
                one.fit(frame)


@pytest.mark.parametrize(
    "wrong",
    [{"device": "tpu"}, {"random_state": "x"}, {"input_shape": (2, 2)}, {"trim": 2}, {"kinds": {0: "x"}}],
)
def test_a_file_never_holds_what_would_not_be_read(rows: np.ndarray, tmp_path: Path, wrong: Any) -> None:
    one = detector().fit(rows).set_params(**wrong)
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        one.save(tmp_path / "d.safetensors")
    assert not list(tmp_path.iterdir())
    one.set_params(**{name: getattr(detector(), name) for name in wrong})
    assert AnomalyDetector.load(one.save(tmp_path / "d.safetensors")).n_features_in_ == 5


@examples(50)
@given(data=st.data())
def test_mutated_headers_raise_nothing_else(stored: Any, tmp_path: Path, data: Any) -> None:
    path = write(tmp_path / "d.safetensors", altered(stored[0], data), stored[1])
    try:
        one = AnomalyDetector.load(path)
    except ModelFileError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that were altered
        X = np.zeros((3, one.n_features_in_))
        assert np.isfinite(one.score_samples(pd.DataFrame(X, columns=one.feature_names_in_))).all()


def test_a_kind_of_one_s_own_is_not_stored(rows: np.ndarray, tmp_path: Path) -> None:
    class Mine(Autoencoder):
        pass

    one = detector(estimator=Mine(latent_dim=2, epochs=1)).fit(rows)
    with pytest.raises(ModelFileError, match="one of diabolo's own kinds"):
        one.save(tmp_path / "d.safetensors")
    with pytest.raises(NotFittedError):
        detector().save(tmp_path / "d.safetensors")
    assert not list(tmp_path.iterdir())


def test_scaling_is_that_of_the_default_s_members(rows: np.ndarray) -> None:
    with pytest.raises(InvalidParameterError, match=r"scaling must be left out where estimator is given"):
        AnomalyDetector(estimator=quick(), scaling="center").fit(rows)
    one = AnomalyDetector(scaling="center", trim=0, random_state=0).fit(rows)
    assert {member.estimator.recipe_.scaling for member in one.members} == {"center"}
