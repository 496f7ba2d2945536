"""The numbers against values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from diabolo import metrics


def test_squared_error_sums_over_the_sample() -> None:
    X = np.zeros((2, 2, 2), dtype=np.uint8)
    Y = np.array([[[1, 2], [0, 0]], [[0, 0], [0, 3]]], dtype=np.float32)
    np.testing.assert_array_equal(metrics.squared_error(X, Y), [5.0, 9.0])
    np.testing.assert_array_equal(metrics.squared_error_per_feature(X, Y), [0.5, 2.0, 0.0, 4.5])


def test_r2_of_the_mean_is_zero_and_of_the_truth_one() -> None:
    X = np.array([[1.0, 2.0], [3.0, 6.0]])
    mean = X.mean(axis=0)
    assert metrics.r2(X, np.broadcast_to(mean, X.shape), mean) == 0.0
    assert metrics.r2(X, X, mean) == 1.0
    assert np.isnan(metrics.r2(X[:1], X[:1], X[0]))


def test_feature_r2_counts_every_feature_alike() -> None:
    X = np.array([[1.0, 1000.0, 5.0], [3.0, 3000.0, 5.0]])
    mean = X.mean(axis=0)
    Y = X.copy()
    Y[:, 0] = mean[0]
    assert metrics.feature_r2(X, Y, mean) == pytest.approx(0.5)  # 0, 1, and the constant left out
    Y[:, 0] = 1e6
    assert metrics.feature_r2(X, Y, mean) == pytest.approx(0.0)  # -1 at the least, and 1
    assert np.isnan(metrics.feature_r2(X[:, 2:], X[:, 2:], mean[2:]))


def test_psnr_of_a_tenth_of_the_range_is_20_decibels() -> None:
    X = np.zeros((3, 4))
    assert metrics.psnr(X, X + 0.1, data_range=1.0) == pytest.approx(20.0)
    assert metrics.psnr(X, X, data_range=1.0) == float("inf")


def test_code_activity_counts_each_unit() -> None:
    Z = np.array([[1.0, 0.0, -2.0], [0.0, 0.0, 1e-9]])
    np.testing.assert_array_equal(metrics.code_activity(Z), [0.5, 0.0, 0.5])


def test_typical_std_ignores_where_the_values_lie() -> None:
    X = np.random.default_rng(0).normal([0.0, 1000.0], [1.0, 1.0], (20000, 2))
    assert metrics.typical_std(X) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("shape", [(40, 6), (5, 12), (30, 2, 3)])
def test_pca_with_all_components_is_exact_on_the_training_set(shape: tuple[int, ...]) -> None:
    X = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(metrics.pca_reconstruction(X, X, 99), X, atol=1e-9)


def test_pca_matches_the_leading_singular_vectors() -> None:
    X = np.random.default_rng(0).normal(size=(50, 8)) * np.arange(1, 9)
    centred = X - X.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    expected = (left[:, :3] * singular[:3]) @ right[:3] + X.mean(axis=0)
    np.testing.assert_allclose(metrics.pca_reconstruction(X, X, 3), expected, atol=1e-8)


def test_neighbours_of_separate_classes_agree_and_of_noise_do_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b"]).repeat(60)
    Z = rng.normal(size=(120, 3))
    apart = Z + 50.0 * (labels == "b")[:, None]
    assert metrics.neighbour_accuracy(apart, labels) == 1.0
    assert metrics.neighbour_accuracy(Z, labels) < 0.75
    assert metrics.neighbour_accuracy(np.zeros((120, 3)), labels) < 0.75
    assert np.isnan(metrics.neighbour_accuracy(Z[:3], labels[:3]))
