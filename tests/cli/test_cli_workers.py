"""Workers that torchrun or Ray starts: the files they write, what they say, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Run, environment

from diabolo.cli.options import SourceOptions, StreamOptions
from diabolo.cli.streams import by_pieces
from diabolo.cli.workers import RayOptions, check_skipping, everywhere, folder_for_ray
from diabolo.errors import InvalidParameterError
from diabolo.persistence import read_model


def torchrun(folder: Path, *words: object) -> subprocess.Popen[str]:
    """Start two workers of ``diabolo train`` in ``folder``."""
    launcher = "-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 2 -m diabolo train"
    return subprocess.Popen(
        [sys.executable, *launcher.split(), *map(str, words)],
        cwd=folder, env=environment() | {"OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def worker_of(launcher: int) -> int | None:
    """Return a worker's process, if one runs."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return int(children[-1]) if children else None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers through /proc")
def test_a_worker_is_killed_and_the_run_goes_on(images: Path, run: Run, tmp_path: Path) -> None:
    words = [images, *SMALL, "--epochs", "200", "-o", "two.safetensors", "--checkpoint", "kept"]
    launched = torchrun(tmp_path, *words)
    while not (tmp_path / "kept" / "checkpoint.safetensors").exists():
        assert launched.poll() is None, launched.communicate()
        time.sleep(0.02)
    worker = worker_of(launched.pid)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    said, noted = launched.communicate(timeout=200)
    assert launched.returncode == 0, noted
    assert "from the checkpoint in kept" in noted
    assert said.count("squared error per sample") == 1  # one of the two speaks
    assert run("train", images, *SMALL, "--epochs", "200", "-o", tmp_path / "one.safetensors").code == 0
    header, one = read_model(tmp_path / "one.safetensors")
    resumed, two = read_model(tmp_path / "two.safetensors")
    assert resumed["recipe"] == header["recipe"]
    for mine, theirs in zip(header["history"]["rows"], resumed["history"]["rows"], strict=True):
        assert theirs["validation_total"] == pytest.approx(mine["validation_total"], rel=1e-2)
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, rtol=0.0, atol=5e-3 * float(value.abs().max()) + 1e-6)


def test_options_without_effect_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParameterError, match="--workers must go with --ray; got 3 without it"):
        RayOptions(workers=3).check()
    with pytest.raises(InvalidParameterError, match="--workers must be an integer >= 1; got 0"):
        RayOptions(ray="local", workers=0).check()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidParameterError, match="--ray must not go with torchrun"):
        RayOptions(ray="local").check()


def test_without_ray_it_says_what_to_install(
    images: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = run("train", images, *SMALL, "-o", tmp_path / "m.safetensors", "--ray", "local")
    assert said.code == 1
    assert "Run: pip install 'diabolo[ray]'" in said.err
    assert not list(tmp_path.iterdir())


def test_paths_do_not_depend_on_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.npy").touch()
    source = SourceOptions(data_home=Path("home"))
    assert everywhere("x.npy", source) == (
        str(tmp_path / "x.npy"),
        SourceOptions(data_home=tmp_path / "home"),
    )
    assert everywhere("digits", SourceOptions()) == ("digits", SourceOptions())


def test_ray_trains_and_encodes_as_one_process(
    images: Path, model: Path, process: Run, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    trained = process("train", images, *SMALL, "-o", "two.safetensors", "--ray", "local")
    assert trained.code == 0, trained.err
    for key, value in read_model(model)[1].items():
        np.testing.assert_allclose(read_model(tmp_path / "two.safetensors")[1][key], value, rtol=0, atol=1e-4)
    assert process("encode", model, images, "-o", "one.npy").code == 0
    encoded = process("encode", model, images, "-o", "two.npy", "--ray", "local")
    assert encoded.code == 0, encoded.err
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"two.safetensors", "one.npy", "two.npy"}


def test_workers_leave_out_nothing_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    check_skipping("skip", RayOptions())
    check_skipping("refuse", RayOptions(ray="local"))
    with pytest.raises(InvalidParameterError, match="--broken must be refuse where several workers"):
        check_skipping("skip", RayOptions(ray="local"))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidParameterError, match="--broken must be refuse"):
        check_skipping("skip", RayOptions())


def test_the_folder_for_ray_is_a_new_one_that_goes_again(tmp_path: Path) -> None:
    own = tmp_path / "ray"
    own.mkdir()
    with folder_for_ray(None, tmp_path / "model.safetensors") as folder:
        assert folder.parent == tmp_path
        (folder / "state").write_text("x")
    assert list(tmp_path.iterdir()) == [own]


def test_how_data_are_read_is_decided_by_the_memory_or_the_options(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, expected in ((0, True), (1 << 40, False)):
        monkeypatch.setattr("diabolo.cli.streams.free_memory", lambda free=free: free)
        assert by_pieces(str(images), SourceOptions(), StreamOptions()) is expected
        for told in (True, False):
            assert by_pieces(str(images), SourceOptions(), StreamOptions(stream=told)) is told


def test_a_finished_run_is_not_handed_back_to_a_new_one(images: Path, tmp_path: Path) -> None:
    words = [images, *SMALL, "-o", "a.safetensors", "--checkpoint", "kept"]
    for _ in range(2):
        launched = torchrun(tmp_path, *words)
        _, noted = launched.communicate(timeout=100)
        assert launched.returncode == 0, noted
        assert "going on" not in noted
        assert "epoch 2/2" in noted  # trained, both times
