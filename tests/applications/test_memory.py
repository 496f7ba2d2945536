"""What a detector remembers: how far a row is from the nearest remembered ones, and what that mends."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from diabolo import Autoencoder, persistence
from diabolo.applications import AnomalyDetector, ensemble
from diabolo.applications.ensemble import surprise
from diabolo.applications.memory import Memory
from diabolo.applications.portions import by_portions, portions
from diabolo.errors import InvalidParameterError, ModelFileError
from diabolo.estimators.scaling import Scaler

RESOLUTION = 1e-3


def some(n: int = 400, d: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) + 7


def scaler(rows: np.ndarray) -> Scaler:
    return Autoencoder(latent_dim=2, epochs=1, scaling="standard").fit(rows)._scaler


def memory(rows: np.ndarray) -> Memory:
    return Memory.of(rows, scaler(rows))


def member(**settings: object) -> Autoencoder:
    return Autoencoder(**({"hidden_dims": (), "latent_dim": 2, "epochs": 3, "batch_size": 64} | settings))


def distances(rows: np.ndarray, new: np.ndarray, k: int) -> np.ndarray:
    """Return the mean square of the distances to the k nearest, of rows in standard deviations."""
    mean, std = rows.mean(0), rows.std(0)
    nearest = NearestNeighbors(n_neighbors=k).fit((rows - mean) / std)
    return np.square(nearest.kneighbors((new - mean) / std)[0])


def test_the_error_is_the_mean_square_of_the_distances_to_the_five_nearest() -> None:
    rows, new = some(), some(50, seed=1)
    terms = memory(rows).terms(new)
    assert terms.shape == new.shape
    expected = distances(rows, new, 5).mean(1) + 4 * RESOLUTION
    np.testing.assert_allclose(terms.sum(1), expected, rtol=1e-4)


def test_a_remembered_row_is_judged_by_the_others() -> None:
    rows = some()
    kept = memory(rows)
    errors = kept.terms(rows).sum(1)
    np.testing.assert_allclose(errors, distances(rows, rows, 6)[:, 1:].mean(1) + 4 * RESOLUTION, rtol=1e-4)
    assert kept.typical == pytest.approx(np.median(errors))


def test_of_equal_rows_one_does_not_count() -> None:
    rows = np.concatenate([np.repeat(some(1), 3, axis=0), some(100, seed=1)])
    expected = distances(rows, rows[:1], 6)[:, 1:].mean(1) + 4 * RESOLUTION
    np.testing.assert_allclose(memory(rows).terms(rows[:1]).sum(1), expected, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_few_rows_are_all_there_is(n: int) -> None:
    rows, new = some(n), some(9, seed=1)
    kept = Memory.of(rows, scaler(some()))
    alone = kept.terms(rows).sum(1)
    assert np.isfinite(alone).all()
    assert (kept.terms(new).sum(1) > 0).all()
    if n > 1:
        assert (alone > 5 * RESOLUTION).all()  # itself does not count


def test_beside_rows_set_apart_the_error_is_the_geometric_mean_of_both() -> None:
    rows, apart, new = some(), some(80, seed=2) + 5, some(50, seed=1)
    kept = Memory.of(np.concatenate([rows, apart]), scaler(rows), n_apart=80)
    beside_all = Memory.of(np.concatenate([rows, apart]), scaler(rows)).terms(new)
    beside_rest = memory(rows).terms(new)
    terms = kept.terms(new)
    errors = np.sqrt(beside_all.sum(1) * beside_rest.sum(1))
    np.testing.assert_allclose(terms.sum(1), errors, rtol=1e-9)
    shares = (beside_all.T / beside_all.sum(1) + beside_rest.T / beside_rest.sum(1)).T / 2
    np.testing.assert_allclose(terms, shares * errors[:, None], rtol=1e-9)
    judged = kept.terms(np.concatenate([rows, apart])).sum(1)
    assert kept.typical == pytest.approx(np.median(judged))


def test_rows_set_apart_vouch_for_their_like_by_half() -> None:
    """A cluster far out that was set apart: beside all rows its like are at home, beside the others not."""
    chance = np.random.default_rng(0)
    rows, far = chance.normal(size=(400, 4)), 6 + 0.1 * chance.normal(size=(40, 4))
    like, scale = 6 + 0.1 * chance.normal(size=(50, 4)), scaler(rows)
    every = np.concatenate([rows, far])
    forgotten, half, equal = (
        Memory.of(*args, n_apart=n).terms(like).sum(1)
        for args, n in (((rows, scale), 0), ((every, scale), 40), ((every, scale), 0))
    )
    assert equal.max() < 0.1
    assert forgotten.min() > 20
    assert np.all((10 * equal < half) & (10 * half < forgotten))


def test_what_lies_beyond_single_precision_is_far_and_finite() -> None:
    terms = memory(some()).terms(np.full((2, 4), [[1e300], [-1e40]]))
    assert np.isfinite(terms).all()
    assert terms.min() > 1e20


def test_small_units_that_nothing_scales_are_told_apart_as_well() -> None:
    chance = np.random.default_rng(0)
    X = 1e-5 * (chance.normal(size=(300, 3)) + 10 * chance.integers(0, 2, size=(300, 1)))
    settings = {"scaling": None, "epochs": 1}
    one = AnomalyDetector(estimator=member(**settings), trim=0, remember=300, random_state=0).fit(X)
    kept = one.memories_[0]
    between = kept.terms(np.full((1, 3), 5e-5)).sum() / kept.typical
    assert between > 20


def ball_and_shell(n: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return rows on a thick shell, and rows in the empty middle of it."""
    shell = chance.normal(size=(n, 4))
    shell *= 4 / np.linalg.norm(shell, axis=1, keepdims=True)
    return shell + 0.3 * chance.normal(size=shell.shape), 0.5 * chance.normal(size=(n, 4))


def test_the_empty_middle_is_seen_by_those_who_remember() -> None:
    """A row in the middle is pulled to no side: all denoising members restore it better than normal rows."""
    chance = np.random.default_rng(0)
    X, _ = ball_and_shell(1000, chance)
    normal, strange = ball_and_shell(200, chance)
    rows, areas = np.concatenate([normal, strange]), {}
    for remember in (0, 500):
        one = AnomalyDetector(
            estimator=member(hidden_dims=(64,), latent_dim=4, epochs=30, corruption="gaussian:0.5"),
            trim=0, remember=remember, random_state=0,
        ).fit(X)  # fmt: skip
        areas[remember] = roc_auc_score(np.repeat([0, 1], 200), -one.score_samples(rows))
    assert areas[0] < 0.3
    assert areas[500] > 0.9


def test_restoring_better_than_typical_earns_next_to_nothing() -> None:
    class Fixed:
        weight, typical = 1.0, 1.0

        def __init__(self, error: float) -> None:
            self.error = error

        def terms(self, rows: np.ndarray) -> np.ndarray:
            return np.full(rows.shape, self.error / rows.shape[1])

    rows = some(3)
    well, typical, badly = (surprise([Fixed(error)], rows)[0] for error in (0.0, 1.0, 5.0))  # type: ignore[list-item]
    assert typical == pytest.approx(1.0)
    assert 0.9 < well < 1.0
    assert badly == pytest.approx(5.0 * 2 ** (-1 / 8), rel=1e-3)


def test_how_many_rows_are_remembered() -> None:
    X = some(600)
    by_default = AnomalyDetector(estimator=member(), trim=0, random_state=0).fit(X)
    assert by_default.memories_ == []  # beside members of one's own
    asked = AnomalyDetector(estimator=member(), trim=0, remember=100, random_state=0).fit(X)
    assert [len(one.rows) for one in asked.memories_] == [100]
    trimmed = AnomalyDetector(estimator=member(), trim=0.25, remember=1000, random_state=0).fit(X)
    assert [len(one.rows) for one in trimmed.memories_] == [360]  # neither those held out nor those set apart
    assert trimmed.memories_[0].n_apart == 0
    few = AnomalyDetector(estimator=member(), trim=0, remember=1000, random_state=0).fit(X[:100])
    assert [len(one.rows) for one in few.memories_] == [80] * 5


def test_the_default_remembers_what_it_sets_apart_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ensemble, "default_members", lambda *_: [member(epochs=1)])
    X = some(600)
    for remember, expected in ((1000, (480, 96)), (100, (100, 20)), (3, (3, 0))):
        one = AnomalyDetector(remember=remember, random_state=0).fit(X)
        (kept,) = one.memories_
        assert (len(kept.rows), kept.n_apart) == expected
        if kept.n_apart == 96:
            apart = X[one.set_apart_].astype(np.float64)
            np.testing.assert_allclose(
                kept.rows[-96:], (apart - kept.offset) / kept.scale, rtol=1e-5, atol=1e-5
            )
        one.save(tmp_path / "d.safetensors")
        back = AnomalyDetector.load(tmp_path / "d.safetensors")
        assert back.score_samples(X).tobytes() == one.score_samples(X).tobytes()
    for trim in (0, 0.2):
        assert AnomalyDetector(trim=trim, random_state=0).fit(X).memories_[0].n_apart == 0


@pytest.mark.parametrize("remember", [-1, 1.5, "all", None])
def test_remember_must_be_a_number_of_rows(remember: object) -> None:
    with pytest.raises(InvalidParameterError, match="remember must be"):
        AnomalyDetector(estimator=member(), remember=remember).fit(some())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "d.safetensors"
    AnomalyDetector(estimator=member(), trim=0, remember=50, random_state=0).fit(some(100)).save(path)
    return path


def test_a_file_holds_what_is_remembered(stored: Path) -> None:
    one = AnomalyDetector(estimator=member(), trim=0, remember=50, random_state=0).fit(some(100))
    back = AnomalyDetector.load(stored)
    assert [len(m.rows) for m in back.memories_] == [50] * 5
    assert back.score_samples(some(9, seed=1)).tobytes() == one.score_samples(some(9, seed=1)).tobytes()
    shares = back.explain(some(9, seed=1))
    np.testing.assert_allclose(shares.sum(1), -back.score_samples(some(9, seed=1)), rtol=1e-12)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory.0.rows", torch.zeros(50, 3)),
        ("memory.0.rows", torch.zeros(0, 4)),
        ("memory.0.rows", torch.zeros(50, 4, dtype=torch.float64)),
        ("memory.0.rows", torch.full((50, 4), torch.nan)),
        ("memory.0.scale", torch.zeros(4, dtype=torch.float64)),
        ("memory.0.offset", torch.zeros(3, dtype=torch.float64)),
        ("memory.7.rows", torch.zeros(50, 4)),
        ("memory.0.rows", None),
    ],
)
def test_a_file_with_an_odd_memory_is_refused(
    stored: Path, tmp_path: Path, key: str, value: torch.Tensor | None
) -> None:
    header, tensors = persistence.read_model(stored, persistence.DETECTOR)
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    persistence.write_model(tmp_path / "odd.safetensors", header, tensors, persistence.DETECTOR)
    with pytest.raises(ModelFileError):
        AnomalyDetector.load(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    ("which", "value"),
    [*((k, value) for k in (0, 1) for value in (0.0, -1.0, "1", None))]
    + [(2, value) for value in (-1, 50, 1.0, True, None)],
)
def test_a_file_with_an_odd_number_of_a_memory_is_refused(
    stored: Path, tmp_path: Path, which: int, value: object
) -> None:
    header, tensors = persistence.read_model(stored, persistence.DETECTOR)
    header["memories"][0][which] = value
    persistence.write_model(tmp_path / "odd.safetensors", header, tensors, persistence.DETECTOR)
    with pytest.raises(ModelFileError):
        AnomalyDetector.load(tmp_path / "odd.safetensors")


# ------------------------------------------------------------------ how much memory it takes
def peak(function: Callable[[], Any]) -> float:
    """Return the most memory that NumPy's arrays took meanwhile, in MB."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_wide_rows_take_little_memory() -> None:
    rows = np.random.default_rng(0).normal(size=(4096, 2000)).astype(np.float32)  # 33 MB
    one = AnomalyDetector(estimator=member(epochs=1), remember=300, trim=0, random_state=0).fit(rows[:400])
    one.score_samples(rows[:50])
    assert peak(lambda: one.score_samples(rows)) < 64
    assert peak(lambda: one.explain(rows)) < 66 + 64  # what it returns
    scale = one.members[0].estimator._scaler
    assert (
        peak(lambda: Memory.of(rows, scale, unit_variance=False)) < 66 + 64
    )  # scaled, and those that are judged


def test_parts_change_no_byte() -> None:
    rows = np.random.default_rng(0).normal(size=(1100, 900))
    kept = memory(rows[:300])
    assert [part.stop - part.start for part in portions(*rows.shape)] == [1024, 76]
    assert by_portions(rows, kept.terms).tobytes() == kept.terms(rows).tobytes()


@pytest.mark.parametrize("width", [1, 256, 257, 1000, 10**5, 10**9])
@pytest.mark.parametrize("n", [1, 2, 33, 513, 4096, 4097, 4098, 9001])
def test_parts_are_all_rows_in_order_and_none_alone(n: int, width: int) -> None:
    parts = list(portions(n, width))
    assert np.array_equal(np.concatenate([np.arange(n)[part] for part in parts]), np.arange(n))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) <= max(33, min(4096, 2**20 // width + 1))
    assert min(sizes[:-1], default=2) > 1
    assert (sizes[-1] == 1) == (n % 4096 == 1)
