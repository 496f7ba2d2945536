"""Checkpoints: what is kept and when, what is refused, a full disk, signals; the law is in tests/family."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import diabolo
from diabolo import Autoencoder, StackedAutoencoder, interruption, persistence
from diabolo.errors import CheckpointError, CheckpointWarning, InvalidParameterError
from diabolo.interruption import stoppable
from diabolo.parts import LayerWise
from diabolo.training.checkpoint import NAME, Checkpoint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals differ")
KIND: dict[str, Any] = {"latent_dim": 3, "epochs": 6, "random_state": 0}


class KilledError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 12))).astype(np.float32)


def dying_in(epoch: int, by: type[BaseException] = KilledError) -> Callable[[dict[str, Any], int], None]:
    def progress(row: dict[str, Any], total: int) -> None:
        if row["epoch"] == epoch:
            raise by

    return progress


def stopped(rows: np.ndarray, folder: Path, epoch: int = 3, **settings: Any) -> None:
    with pytest.raises(KilledError):
        Autoencoder(**KIND | settings).fit(rows, checkpoint=folder, progress=dying_in(epoch))


def header_of(folder: Path) -> dict[str, Any]:
    return persistence.read_model(folder / NAME, persistence.CHECKPOINT)[0]


def weights(model: Autoencoder) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.module_.state_dict().values())


# -------------------------------------------------------------------------------------- when and what
def test_a_checkpoint_every_so_many_epochs_and_at_the_end_of_a_stage(
    rows: np.ndarray, tmp_path: Path
) -> None:
    kept: list[tuple[int, int, bool]] = []

    def look(row: dict[str, Any], total: int) -> None:
        if (tmp_path / NAME).exists():
            header = header_of(tmp_path)
            kept.append((header["stage"], header["course"]["epoch"], header["finished"]))
        else:
            kept.append((-1, 0, False))

    StackedAutoencoder(hidden_dims=(8,), training=LayerWise(epochs=3), **KIND | {"epochs": 5}).fit(
        rows, checkpoint=tmp_path, every=2, progress=look
    )
    assert kept == [
        *[(-1, 0, False), (0, 2, False), (0, 3, False)],
        *[(0, 3, False), (1, 2, False), (1, 3, False)],
        *[(1, 3, False), (2, 2, False), (2, 2, False), (2, 4, False), (2, 5, True)],
    ]


def test_only_one_file_is_in_the_folder(rows: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    leftover = folder / f".{NAME}.of-a-run-killed-while-it-wrote"
    leftover.mkdir(parents=True)
    (leftover / "new").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    Autoencoder(**KIND).fit(rows, checkpoint=folder)
    assert sorted(path.name for path in folder.iterdir()) == [NAME, "notes.txt"]


def test_resume_without_a_checkpoint_begins(rows: np.ndarray, tmp_path: Path) -> None:
    first = Autoencoder(**KIND).fit(rows, checkpoint=tmp_path / "new", resume=True)
    plain = Autoencoder(**KIND).fit(rows)
    assert weights(first) == weights(plain)
    assert first.history_.events == plain.history_.events == []


def test_seconds_go_on_where_they_stopped(
    rows: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(rows, tmp_path)
    before = header_of(tmp_path)["history"]["rows"][-1]["seconds"]
    model = Autoencoder(verbose=1, **KIND).fit(rows, checkpoint=tmp_path, resume=True)
    assert capsys.readouterr().out.startswith("3 epochs lie behind, by the checkpoint in ")
    assert model.history_.column("seconds") == sorted(model.history_.column("seconds"))
    assert before < model.history_.rows[3]["seconds"] < before + 60


def test_an_interruption_in_the_first_epoch_keeps_nothing(rows: np.ndarray, tmp_path: Path) -> None:
    from diabolo.training.engine import Stage

    def pressed(self: Stage, *_: object) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "_epoch", pressed)
        with pytest.raises(KeyboardInterrupt):
            Autoencoder(**KIND).fit(rows, checkpoint=tmp_path)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        ({"learning_rate": 0.01}, {"learning_rate": 0.02}, r"learning_rate \(0.01 there, 0.02 here\)"),
        ({}, {"random_state": 1}, r"random_state\. Give"),
        ({}, {"epochs": 9}, r"epochs \(6 there, 9 here\)"),
        ({}, {"clip_norm": 1.0}, r"clip_norm \(None there, 1.0 here\)"),
        ({}, {"engine": "autograd"}, r"engine \('auto' there, 'autograd' here\)"),
        ({}, {"latent": "gaussian", "penalty": "posterior_kl"}, r"latent \(.*, penalty \("),
    ],
)
def test_another_run_is_refused_and_told_apart(
    rows: np.ndarray, tmp_path: Path, there: dict[str, Any], here: dict[str, Any], told: str
) -> None:
    stopped(rows, tmp_path, **there)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(CheckpointError, match=rf"must be of this very run .* got another .*{told}"):
        Autoencoder(**KIND | here).fit(rows, checkpoint=tmp_path, resume=True)
    assert (tmp_path / NAME).read_bytes() == before


def test_other_rows_are_refused(rows: np.ndarray, tmp_path: Path) -> None:
    stopped(rows, tmp_path)
    other = rows.copy()
    other[17, 3] += 1e-3
    for X, told in ((other, "values in the rows"), (rows[:190], r"number of rows \(200 there, 190 here\)")):
        with pytest.raises(CheckpointError, match=f"got another {told}"):
            Autoencoder(**KIND).fit(X, checkpoint=tmp_path, resume=True)


def test_an_unfinished_run_is_not_overwritten_and_a_finished_one_is(rows: np.ndarray, tmp_path: Path) -> None:
    stopped(rows, tmp_path)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(CheckpointError, match=r"stopped after 3 epoch\(s\)\. Resume it"):
        Autoencoder(**KIND).fit(rows, checkpoint=tmp_path)
    assert (tmp_path / NAME).read_bytes() == before
    Autoencoder(**KIND).fit(rows, checkpoint=tmp_path, resume=True)
    Autoencoder(**KIND | {"random_state": 5}).fit(rows, checkpoint=tmp_path)
    assert header_of(tmp_path)["finished"] is True


def test_options_without_effect_are_refused(rows: np.ndarray, tmp_path: Path) -> None:
    for options in ({"resume": True}, {"every": 2}):
        with pytest.raises(InvalidParameterError, match="must be left out without a checkpoint"):
            Autoencoder(**KIND).fit(rows, **options)
    for every in (0, -1, 1.5, "2"):
        with pytest.raises(InvalidParameterError, match="every must be an integer >= 1"):
            Autoencoder(**KIND).fit(rows, checkpoint=tmp_path / "x", every=every)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(rows: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(CheckpointError, match=r"the folder of checkpoints must be one that can be made"):
            Autoencoder(**KIND).fit(rows, checkpoint=place)


def test_a_damaged_or_foreign_checkpoint_is_refused(rows: np.ndarray, tmp_path: Path) -> None:
    stopped(rows, tmp_path)
    path = tmp_path / NAME
    whole, tensors, header = path.read_bytes(), load_file(path), header_of(tmp_path)

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            Autoencoder(**KIND).fit(rows, checkpoint=tmp_path, resume=True)

    for cut in (0, 7, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused("must be a whole diabolo checkpoint")
    save_file(tensors, path)
    refused("must be a diabolo checkpoint; got a safetensors file of another program")
    model = Autoencoder(**KIND).fit(rows)
    model.save(path)
    refused("must hold the header of a diabolo checkpoint")

    def write(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, path, metadata={"diabolo": persistence.sealed(json.dumps(header), tensors)})

    for key in ("stage", "finished", "history", "recipe", "data", "course", "n_optimizers"):
        write({k: v for k, v in header.items() if k != key}, tensors)
        refused("must hold a consistent checkpoint")
    write(header | {"course": {}}, tensors)
    refused("must hold a consistent checkpoint")
    write(header | {"history": header["history"] | {"rows": []}}, tensors)
    refused("must hold a consistent checkpoint")
    for key in tensors:
        if key.startswith(("module.", "generator")):
            write(header, {k: v for k, v in tensors.items() if k != key})
            refused("must hold a consistent checkpoint")
    write(header | {"history": header["history"] | {"engine": "other"}}, tensors)
    refused("must be of the engine 'dense'; got 'other'")
    write(header, tensors)
    Autoencoder(**KIND).fit(rows, checkpoint=tmp_path, resume=True)


# ------------------------------------------------------------------------------------------ a full disk
def test_a_full_disk_costs_neither_the_training_nor_the_last_checkpoint(
    rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = persistence.save_file, 0

    def full(tensors: Any, place: Any, metadata: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (3, 4, 5):
            Path(place).write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        original(tensors, place, metadata)

    def look(row: dict[str, Any], total: int) -> None:
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
        seen.append(header_of(tmp_path)["course"]["epoch"])

    seen: list[int] = []
    monkeypatch.setattr(persistence, "save_file", full)
    with pytest.warns(CheckpointWarning) as caught:
        model = Autoencoder(**KIND).fit(rows, checkpoint=tmp_path, progress=look)
    assert seen == [1, 2, 2, 2, 2, 6]
    (said,) = [str(warning.message) for warning in caught]
    assert "No space left on device" in said
    assert said.endswith("Training goes on, and the last one is still there.")
    assert weights(model) == weights(Autoencoder(**KIND).fit(rows))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_really_full(rows: np.ndarray, tmp_path: Path) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        with pytest.warns(CheckpointWarning, match=r"No space left.*Training goes on, and there is none yet"):
            model = Autoencoder(**KIND).fit(rows, checkpoint=tmp_path)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert weights(model) == weights(Autoencoder(**KIND).fit(rows))


# ---------------------------------------------------------------------------------------------- signals
def test_sigterm_checkpoints_and_stops(rows: np.ndarray, tmp_path: Path) -> None:
    def terminate(row: dict[str, Any], total: int) -> None:
        if row["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    model = Autoencoder(**KIND)
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows, checkpoint=tmp_path, every=50, progress=terminate)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert model.history_.stopped_by == "interrupt"
    assert header_of(tmp_path)["course"]["epoch"] == 3
    model.fit(rows, checkpoint=tmp_path, resume=True)
    assert weights(model) == weights(Autoencoder(**KIND).fit(rows))


@pytest.fixture
def usual_ctrl_c() -> Iterator[None]:
    """Handle Ctrl-C as usual: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("patience", [2.0, 0.0])
@pytest.mark.usefixtures("usual_ctrl_c")
def test_ctrl_c_pressed_again_and_again_is_one_wish(
    rows: np.ndarray, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """While the result is put together further presses do no harm; later ones stop at once."""
    monkeypatch.setattr(interruption, "_ONE_WISH", patience)
    together = Autoencoder._some_codes

    def press(*_: Any) -> None:
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGINT)

    def pressed(self: Autoencoder, data: Any) -> Any:
        press()
        return together(self, data)

    monkeypatch.setattr(Autoencoder, "_some_codes", pressed)
    model = Autoencoder(epochs=50, latent_dim=2, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows, progress=press)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if patience:
        assert model.history_.stopped_by == "interrupt"
        assert np.isfinite(model.sample(3)).all()
    else:
        assert not hasattr(model, "module_")


def test_a_handler_of_the_users_own_is_left_alone() -> None:
    def own(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_threads_need_no_signals(rows: np.ndarray, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        model = pool.submit(lambda: Autoencoder(**KIND).fit(rows, checkpoint=tmp_path)).result()
    assert weights(model) == weights(Autoencoder(**KIND).fit(rows))


# ----------------------------------------------------------------------------------- the command line
TRAIN = ("train", "rows.npy", "--kind", "stacked", "--random-state", "0", "--epochs", "60", "--quiet")


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    source = str(Path(diabolo.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "diabolo", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def contents(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A model file's tensors and header, without seconds."""
    header, tensors = persistence.read_model(path)
    for row in header["history"]["rows"]:
        del row["seconds"]
    return {key: value.numpy().tobytes() for key, value in tensors.items()}, header


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)


def test_killed_three_times_at_random_and_resumed(rows: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows)
    assert finish(command(tmp_path, *TRAIN, "-o", "never.safetensors")) == (0, "")
    chance = random.Random(0)
    resuming = (*TRAIN, "-o", "resumed.safetensors", "--checkpoint", "kept", "--resume")
    for _ in range(3):
        process = command(tmp_path, *resuming)
        before = (tmp_path / "kept" / NAME).stat().st_mtime_ns if (tmp_path / "kept" / NAME).exists() else 0
        limit = time.monotonic() + 120
        while time.monotonic() < limit and process.poll() is None:  # until it writes checkpoints
            path = tmp_path / "kept" / NAME
            if path.exists() and path.stat().st_mtime_ns != before:
                break
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.15))
        process.kill()
        assert finish(process) == (-signal.SIGKILL, "")
    assert 0 < len(header_of(tmp_path / "kept")["history"]["rows"]) < 3 * 30 + 60
    assert not (tmp_path / "resumed.safetensors").exists()
    assert finish(command(tmp_path, *resuming)) == (0, "")
    assert contents(tmp_path / "resumed.safetensors") == contents(tmp_path / "never.safetensors")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [NAME]


def test_sigterm_saves_the_best_and_says_how_to_go_on(rows: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows)
    words = [
        "train",
        "rows.npy",
        "--random-state",
        "0",
        "--epochs",
        "100000",
        "--patience",
        "none",
        "--quiet",
    ]
    kept = ["-o", "m.safetensors", "--checkpoint", "kept folder", "--every", "20"]
    process = command(tmp_path, *words, *kept)
    wait_for(tmp_path / "kept folder" / NAME, process)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 1
    assert said.count("\n") == 1
    assert "the best weights so far are in m.safetensors. Go on with: diabolo train rows.npy" in said
    assert said.endswith("--checkpoint 'kept folder' --every 20 --resume\n")
    model = diabolo.load(tmp_path / "m.safetensors")
    assert model.history_.stopped_by == "interrupt"
    header = header_of(tmp_path / "kept folder")
    assert header["history"]["rows"] == model.history_.rows


def test_the_commands_words(
    rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diabolo.cli import main

    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", rows)
    stopped(rows[:1] + rows, tmp_path / "other")

    def call(*words: str) -> tuple[Any, str]:
        with pytest.raises(SystemExit) as left:
            main(["train", "rows.npy", "--random-state", "0", "--epochs", "2", *words])
        return left.value.code, capsys.readouterr().err

    assert call("--resume") == (
        2,
        "error: --resume must go with --checkpoint; got none. Add --checkpoint DIR.\n",
    )
    assert call("--every", "3")[1].startswith("error: --every must go with --checkpoint; got none.")
    assert call("--checkpoint", "k", "--every", "0") == (
        2,
        "error: --every must be an integer >= 1; got 0.\n",
    )
    assert call("--checkpoint", "rows.npy")[1].startswith(
        "error: --checkpoint must be a folder; got the file"
    )
    assert not (tmp_path / "k").exists()
    code, said = call("--checkpoint", "k", "--resume")
    assert code == 0
    assert "no checkpoint in k yet: training from the beginning\n" in said
    code, said = call("--checkpoint", "k", "--resume")
    assert code == 0
    assert "going on after 2 epochs, from the checkpoint in k\n" in said
    assert ": epoch " not in said
    code, said = call("--checkpoint", "other", "--resume")
    assert code == 1
    assert "error: the checkpoint in 'other' must be of this very run" in said
    code, said = call("--checkpoint", "other")
    assert code == 1
    assert "stopped after 3 epoch(s). Resume it (resume=True, --resume)" in said


def test_the_bar_goes_on_where_it_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    from diabolo.cli.console import Output
    from diabolo.cli.progress import Bars

    with Bars(Output(), before=7) as bars:
        bars("deep", {"training_total": 1.0}, 10)
    assert "deep: epoch 8/10" in capsys.readouterr().err


def test_what_a_checkpoint_knows_before_the_fit(rows: np.ndarray, tmp_path: Path) -> None:
    assert Checkpoint(tmp_path).seed is None
    stopped(rows, tmp_path)
    found = Checkpoint(tmp_path, resume=True)
    assert found.epochs_done == 3
    assert found.seed == header_of(tmp_path)["recipe"]["seed"]
    assert found.seconds > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Checkpoint(tmp_path / "none", resume=True).epochs_done == 0
