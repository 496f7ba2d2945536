"""The comparison: everybody on the same bench, honest baselines, numbers that survive JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.report import Comparison, compare
from diabolo.report.compare import used_units

QUICK = {"epochs": 2, "hidden_dims": (24,), "device": "cpu"}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X[:400], X[400:600], y[400:600]


@pytest.fixture(scope="module")
def seen() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def comparison(digits: Any, seen: list[tuple[str, int, int]]) -> Comparison:
    X_train, X_test, y_test = digits
    return compare(
        ["deep", "variational", "sparse"],
        X_train,
        X_test,
        y_test=y_test,
        latent_dim=6,
        params=QUICK,
        per_kind={"sparse": {"latent_dim": 80}},
        progress=lambda kind, row, total: seen.append((kind, row["epoch"], total)),
    )


def test_one_row_for_each_kind_then_pca_then_the_mean(comparison: Comparison) -> None:
    assert [row["kind"] for row in comparison.rows] == [
        "deep",
        "variational",
        "sparse",
        "pca",
        "pca 8",  # as many components as the tenth of 80 units that the sparse code uses
        "mean",
    ]
    assert [row["code_size"] for row in comparison.rows] == [6, 6, 80, 6, 8, 0]
    assert comparison.rows[2]["used_units"] == 8
    assert list(comparison.estimators) == ["deep", "variational", "sparse"]
    assert len({tuple(row) for row in comparison.rows}) == 1


def test_progress_is_told_for_each_kind(comparison: Comparison, seen: list[tuple[str, int, int]]) -> None:
    for kind in comparison.estimators:
        assert (kind, 2, 2) in seen


def test_rows_agree_with_the_estimators_themselves(comparison: Comparison, digits: Any) -> None:
    _, X_test, _ = digits
    for row in comparison.rows[:3]:
        estimator = comparison.estimators[row["kind"]]
        assert row["error"] == pytest.approx(estimator.reconstruction_error(X_test).mean(), rel=1e-4)
        assert row["n_parameters"] == estimator.n_parameters_
        assert row["fit_seconds"] > 0


def test_pca_and_mean_are_what_scikit_learn_and_numpy_say(comparison: Comparison, digits: Any) -> None:
    X_train, X_test, _ = digits
    pca = PCA(6).fit(X_train)
    expected = ((X_test - pca.inverse_transform(pca.transform(X_test))) ** 2).sum(axis=1).mean()
    *_, row, larger, mean = comparison.rows
    assert larger["error"] < row["error"]
    assert row["error"] == pytest.approx(expected, rel=1e-6)
    assert row["jacobian_norm"] == pytest.approx(6.0)
    assert mean["error"] == pytest.approx(((X_test - X_train.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert mean["r2"] == pytest.approx(0.0)
    assert mean["noisy_error"] == mean["error"]
    assert row["noisy_error"] > row["error"]


def test_the_dictionary_is_json_without_nan(comparison: Comparison) -> None:
    text = json.dumps(comparison.to_dict(), allow_nan=False)
    assert json.loads(text)["rows"][-1]["neighbour_accuracy"] is None


def test_the_table_has_every_kind_and_marks_the_best(comparison: Comparison) -> None:
    lines = comparison.to_markdown().splitlines()
    assert len(lines) == 2 + 6
    assert len({line.count("|") for line in lines}) == 1
    best = min(comparison.rows, key=lambda row: row["error"])["kind"]
    assert comparison.best("error") == {best}
    assert any(line.startswith(f"| {best} | **") for line in lines)


def test_everybody_sees_the_same_noise_again(digits: Any) -> None:
    X_train, X_test, _ = digits
    runs = [compare(["deep"], X_train, X_test, latent_dim=4, params=QUICK) for _ in range(2)]
    strip = [[{k: v for k, v in row.items() if k != "fit_seconds"} for row in run.rows] for run in runs]
    np.testing.assert_equal(strip[0], strip[1])


def test_sparse_kinds_keep_their_own_size_unless_they_are_alone(digits: Any) -> None:
    X_train, X_test, _ = digits
    quick = {"epochs": 1, "device": "cpu"}
    both = compare(["undercomplete", "sparse"], X_train, X_test, params=quick)
    assert [row["code_size"] for row in both.rows] == [32, 128, 32, 12, 0]
    assert both.settings["own_size"] == ["sparse"]
    alone = compare(["sparse"], X_train, X_test, params=quick, latent_dim=70)
    assert [row["code_size"] for row in alone.rows] == [70, 64, 7, 0]
    assert alone.rows[0]["used_units"] == 7


@pytest.mark.parametrize(
    ("codes", "share", "used"),
    [
        (np.eye(8), 0.9, 1),  # exact zeros are counted
        (np.ones((4, 8)), 0.26, 2),  # a squashed code has none: the diagnostics decide
        (np.ones((4, 8)), 0.8, None),
    ],
)
def test_units_used(codes: np.ndarray, share: float, used: int | None) -> None:
    assert used_units(codes, {"active_share": share}, n_values=7) == used


def test_a_narrow_code_with_units_that_rest_is_not_called_sparse() -> None:
    assert used_units(np.ones((4, 8)), {"active_share": 0.3}, n_values=64) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ["depe"]}, "a kind to compare must be a known name; got 'depe'. Did you mean 'deep'"),
        ({"kinds": []}, "the kinds to compare must be at least one"),
        ({"kinds": ["deep", "deep"]}, "each named once"),
        ({"latent_dim": 0}, "latent_dim must be an integer >= 1; got 0"),
        ({"noise": -1.0}, "noise must be a number >= 0; got -1.0"),
        ({"per_kind": {"sparse": {}}}, "a kind with parameters of its own must be a known name"),
    ],
)
def test_settings_out_of_range_are_refused(digits: Any, changes: dict[str, Any], message: str) -> None:
    X_train, X_test, _ = digits
    asked: dict[str, Any] = {"kinds": ["deep"], "latent_dim": 3} | changes
    with pytest.raises(InvalidParameterError, match=message):
        compare(asked.pop("kinds"), X_train, X_test, **asked)


def test_data_that_do_not_fit_are_refused(digits: Any) -> None:
    X_train, X_test, y_test = digits
    with pytest.raises(InvalidDataError, match="X_test must be samples of the same shape"):
        compare(["deep"], X_train, X_test[:, :3], latent_dim=3)
    with pytest.raises(
        InvalidDataError, match="y_test must be one label per test sample; got 3 labels for 200"
    ):
        compare(["deep"], X_train, X_test, y_test=y_test[:3], latent_dim=3)
