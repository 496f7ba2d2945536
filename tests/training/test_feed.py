"""Feeds: the same rows in memory and as a stream, each once per epoch, none that was held out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diabolo
from diabolo import Autoencoder, StackedAutoencoder, VariationalAutoencoder, load
from diabolo.data import ArraySource, ImageFolderSource, NpySource, ParquetSource
from diabolo.errors import DataFileError, InvalidDataError, InvalidParameterError, SkippedWarning
from diabolo.training import feed as feeds
from diabolo.training.feed import MemoryFeed, StreamFeed


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(3000, 3)) @ rng.normal(size=(3, 8)) + 5).astype(np.float32)


@pytest.fixture(autouse=True)
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a few thousand rows fill several."""
    monkeypatch.setattr(feeds, "_POOL_BYTES", 1 << 14)
    monkeypatch.setattr("diabolo.data.sources._BLOCK_BYTES", 1 << 11)


def stream(X: np.ndarray, held_out: Any = ()) -> StreamFeed:
    return StreamFeed(
        ArraySource(X),
        len(X) - len(held_out),
        lambda part, _: torch.from_numpy(part),
        np.array(held_out, dtype=np.int64),
        torch.from_numpy(X[:100]),
        torch.device("cpu"),
    )


def seen(feed: Any, batch_size: int, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    batches = [chunk[rows].numpy() for chunk, rows in feed.batches(batch_size, generator)]
    assert {len(batch) for batch in batches} == {batch_size}
    return np.concatenate(batches)


def numbered(n: int) -> np.ndarray:
    return np.stack([np.arange(n, dtype=np.float32)] * 4, 1)


def test_memory_draws_one_permutation() -> None:
    X = torch.from_numpy(numbered(103))
    order = torch.randperm(103, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(seen(MemoryFeed(X), 10), X[order[:100]])


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000, 5000])
def test_a_stream_hands_out_each_row_once(batch_size: int) -> None:
    X = numbered(5000)
    got = seen(stream(X), batch_size)[:, 0]
    assert len(got) == 5000 // batch_size * batch_size
    assert len(np.unique(got)) == len(got)
    assert abs(np.corrcoef(got, np.arange(len(got)))[0, 1]) < 0.1


def test_a_stream_is_the_same_for_a_seed_and_another_for_the_next_epoch() -> None:
    feed = stream(numbered(3000))
    np.testing.assert_array_equal(seen(feed, 100, 1), seen(feed, 100, 1))
    assert not np.array_equal(seen(feed, 100, 1), seen(feed, 100, 2))


def test_rows_held_out_never_come() -> None:
    held_out = np.sort(np.random.default_rng(0).choice(3000, 500, replace=False))
    feed = stream(numbered(3000), held_out)
    assert len(feed) == 2500
    for seed in range(3):
        assert not np.isin(seen(feed, 100, seed)[:, 0], held_out).any()


def test_a_mapped_stream_gives_what_the_function_makes() -> None:
    feed = stream(numbered(500)).mapped(lambda x: x[:, :2] * 2).mapped(lambda x: x + 1)
    assert feed.sample_shape == (2,)
    got = seen(feed, 50)
    np.testing.assert_array_equal(np.sort(got[:, 0]), np.arange(500) * 2 + 1)


def test_leaving_in_the_middle_ends_the_thread() -> None:
    before = threading.active_count()
    batches = stream(numbered(3000)).batches(10, torch.Generator())
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_errors_of_the_reader_reach_the_trainer() -> None:
    feed = stream(numbered(3000))

    def fail(rows: Any, numbers: Any) -> Any:
        raise InvalidDataError("the disk")

    feed._prepare = fail
    with pytest.raises(InvalidDataError, match="the disk"):
        seen(feed, 10)


# ------------------------------------------------------------------------------------------ estimators
def test_fit_on_a_source_learns_what_fit_on_rows_learns(rows: np.ndarray) -> None:
    settings = {"latent_dim": 3, "epochs": 10, "batch_size": 64, "random_state": 0}
    in_memory = Autoencoder(**settings).fit(rows)
    streamed = Autoencoder(**settings).fit(ArraySource(rows))
    assert streamed.history_.column("training_total")[-1] == pytest.approx(
        in_memory.history_.column("training_total")[-1], rel=0.5, abs=0.01
    )
    assert streamed.score(rows) > 0.99
    np.testing.assert_allclose(streamed._scaler.offset, in_memory._scaler.offset, rtol=1e-12)
    assert streamed.n_features_in_ == 8
    assert streamed.recipe_.batch_size == 64
    assert streamed.sample(3, random_state=0).shape == (3, 8)


def test_statistics_do_not_depend_on_the_pieces(rows: np.ndarray) -> None:
    from diabolo.estimators.survey import Survey

    survey = Survey(ArraySource(rows), None, 300, 0)
    for ours, wanted in (
        (survey.statistics.low, rows.min(0)),
        (survey.statistics.high, rows.max(0)),
        (survey.statistics.mean, rows.astype(float).mean(0)),
        (survey.statistics.variance, rows.astype(float).var(0)),
    ):
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)
    np.testing.assert_array_equal(survey.held_out, rows[survey.held_out_numbers])
    assert len(survey.held_out) == 300
    assert len(survey.sample) == 2700
    assert not (survey.sample[:, None, 0] == survey.held_out[None, :, 0]).any()


def test_the_same_seed_gives_the_same_bytes(rows: np.ndarray, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Autoencoder(epochs=3, random_state=1).fit(ArraySource(rows)).save(tmp_path / name)
    a, b = (load(tmp_path / name) for name in ("a", "b"))
    for key, value in a.module_.state_dict().items():
        assert torch.equal(value, b.module_.state_dict()[key])


def test_what_comes_out_of_a_source_is_what_comes_out_of_its_rows(rows: np.ndarray) -> None:
    X = np.tile(rows, (7, 1))
    estimator = Autoencoder(epochs=2, random_state=0).fit(rows)
    for method in ("transform", "reconstruct", "reconstruction_error", "score_samples"):
        on = getattr(estimator, method)
        np.testing.assert_array_equal(on(ArraySource(X)), on(X))
    parts = list(estimator.transform_batches(ArraySource(X)))
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), estimator.transform(X))
    images = ArraySource(X.reshape(-1, 2, 4))
    assert next(Autoencoder(epochs=1).fit(images).reconstruct_batches(images)).shape[1:] == (2, 4)


def test_pairs_of_layers_first(rows: np.ndarray) -> None:
    estimator = StackedAutoencoder(epochs=10, latent_dim=3, random_state=0).fit(ArraySource(rows))
    assert {"pair 1", "pair 2", "fine-tuning"} <= set(estimator.history_.column("stage"))
    assert estimator.score(rows) > 0.9


def test_names_of_a_table_stay_with_the_model(rows: np.ndarray, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    names = list("abcdefgh")
    table = pa.table(dict(zip(names, rows.T, strict=True)))
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=500)
    source = ParquetSource(tmp_path / "x.parquet")
    estimator = VariationalAutoencoder(epochs=2, random_state=0).fit(source)
    assert list(estimator.feature_names_in_) == names
    np.testing.assert_array_equal(estimator.transform(source), estimator._transformed(rows))
    with pytest.raises(InvalidDataError, match="columns of the source must be those of fit"):
        estimator.transform(ParquetSource(tmp_path / "x.parquet", columns=names[::-1]))
    assert not hasattr(estimator.fit(ArraySource(rows)), "feature_names_in_")


def test_faults_are_worded(rows: np.ndarray, tmp_path: Path) -> None:
    bad = rows.copy()
    bad[2345, 6] = np.nan
    with pytest.raises(InvalidDataError, match="got NaN at row 2345, column 6 "):
        Autoencoder().fit(ArraySource(bad))
    estimator = Autoencoder(epochs=1).fit(rows)
    with pytest.raises(InvalidDataError, match="got NaN at row 2345, column 6 "):
        estimator.transform(ArraySource(bad))
    with pytest.raises(InvalidDataError, match=r"shape \(8,\) they had in fit; got \(7,\)"):
        estimator.transform(ArraySource(rows[:, :7]))
    with pytest.raises(InvalidDataError, match="must be rows in memory for this method; got a Source"):
        estimator.diagnostics(ArraySource(rows))
    with pytest.raises(InvalidDataError, match="at least 2 rows; got 1"):
        Autoencoder().fit(ArraySource(rows[:1]))
    with pytest.raises(InvalidParameterError, match="validation_fraction must be"):
        Autoencoder(validation_fraction=1.5).fit(ArraySource(rows))
    with pytest.raises(InvalidDataError, match="X must vary"):
        Autoencoder().fit(ArraySource(np.ones((10, 3))))


@pytest.mark.parametrize("fault", ["vanishes", "shrinks"])
@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_a_file_that_fails_while_training(rows: np.ndarray, tmp_path: Path, suffix: str, fault: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, rows)
    else:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table(dict(zip("abcdefgh", rows.T, strict=True))), path)

    def fail(*_: Any) -> None:
        path.unlink() if fault == "vanishes" else os.truncate(path, 1000)

    estimator = Autoencoder(epochs=5)
    with pytest.raises((InvalidDataError, DataFileError), match=rf"x\.{suffix} must"):
        estimator.fit(NpySource(path) if suffix == "npy" else ParquetSource(path), progress=fail)
    assert not hasattr(estimator, "module_")


def test_pictures_that_are_skipped_are_counted(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    chance = np.random.default_rng(0)
    for i in range(40):
        image.fromarray(chance.integers(0, 255, (4, 4), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "7.png").write_bytes(b"no picture")
    source = ImageFolderSource(tmp_path, broken="skip")
    with pytest.warns(SkippedWarning, match="1 of 40 samples could not be read"):
        estimator = Autoencoder(epochs=2).fit(source)
    assert len(estimator.transform(source)) == 39
    assert estimator.recipe_.scaling == "center"


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A sparse file of 300 MB: the process must not grow by anything like it."""
    shape = (2_500_000, 30)
    with (tmp_path / "x.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        np.random.default_rng(0).normal(size=(1000, 30)).astype(np.float32).tofile(stream)
        stream.truncate(stream.tell() + 4 * 30 * (shape[0] - 1000))
    script = """
import resource, sys
import numpy as np
from diabolo import Autoencoder
from diabolo.data import NpySource
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
Autoencoder(epochs=1, batch_size=4096).fit(np.random.default_rng(0).normal(size=(9000, 30)))
before = peak()
source = NpySource(sys.argv[1])
model = Autoencoder(epochs=1, batch_size=16384, optimizer="adam", hidden_dims=(8,), latent_dim=2).fit(source)
n = sum(len(codes) for codes in model.transform_batches(source))
assert n == len(source), n
print(peak() - before)
"""
    environment = {"PYTHONPATH": str(Path(diabolo.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 250, done.stdout  # pools: one trained on, one waiting, one being read


@pytest.mark.parametrize("training", ["end_to_end", "layerwise"])
def test_rows_that_the_gpu_has_no_room_for_give_the_same_bytes(
    training: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(330, 6)).astype(np.float32)
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 32, "hidden_dims": (5,), "latent_dim": 2}
    kept = Autoencoder(**settings, training=training, random_state=0).fit(rows)
    made = []
    monkeypatch.setattr("diabolo.training.feed._POOL_BYTES", 3000)  # pools of three batches
    monkeypatch.setattr("diabolo.estimators.autoencoder.has_room", lambda *_: made.append(1))
    moved = Autoencoder(**settings, training=training, random_state=0).fit(rows)
    assert made
    for mine, theirs in zip(moved.module_.parameters(), kept.module_.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert [r["training_total"] for r in moved.history_.rows] == [
        r["training_total"] for r in kept.history_.rows
    ]
