"""Two workers that share every batch end with the weights of one, over the family, or refuse in words."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diabolo import Autoencoder
from diabolo.errors import InvalidParameterError
from diabolo.interruption import Once
from diabolo.parts.shares import Shared, drawn
from diabolo.training.workers import Workers

from . import workers_program
from .workers_program import CASES, REFUSED, streamed, trained

Told = list[tuple[dict[str, torch.Tensor], dict[str, Any]]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What the two workers had in the end, and what they said."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.workers_program", str(folder)],
            env={**os.environ, **group, "RANK": str(number)},
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    return [
        (load_file(folder / f"{number}.safetensors"), json.loads((folder / f"{number}.json").read_text()))
        for number in (0, 1)
    ]


def of(case: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{case}/"): w for key, w in tensors.items() if key.startswith(f"{case}/")}


@pytest.mark.parametrize("case", CASES)
def test_two_workers_give_the_weights_of_one(case: str, told: Told) -> None:
    weights, history = trained(case)
    for tensors, said in told:
        found = of(case, tensors)
        assert found.keys() == weights.keys()
        for key, value in weights.items():
            torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10)
        theirs = said["histories"][case]
        engine = "autograd" if "autograd" in case or case == "conv" else "dense"
        assert theirs["engine"] == history["engine"] == engine
        for mine, row in zip(history["rows"], theirs["rows"], strict=True):
            assert row.pop("stage") == mine["stage"]
            assert row == {
                key: pytest.approx(value, rel=1e-9, abs=math.inf if key == "seconds" else 0.0)
                for key, value in mine.items()
                if key != "stage"
            }
    if "topk" in case:
        assert any(row["training_revival"] for row in history["rows"])  # units died, and the workers agreed


@pytest.mark.parametrize("case", [*CASES, "streamed", "stopped"])
def test_the_workers_end_with_the_same_bytes(case: str, told: Told) -> None:
    first, second = (of(case, tensors) for tensors, _ in told)
    assert first
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_source(told: Told) -> None:
    weights = streamed()
    for key, value in of("streamed", told[0][0]).items():
        torch.testing.assert_close(value, weights[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("words", REFUSED)
def test_what_needs_all_rows_is_refused(words: str, told: Told) -> None:
    assert all(words in said["refused"][words] for _, said in told)


def test_workers_that_were_given_different_things_are_told(told: Told) -> None:
    for _, said in told:
        assert "got another values in the rows on worker 1" in said["other rows"]
        assert "got another number of rows, values in the rows on worker 1" in said["fewer rows"]
        assert "got another settings on worker 1" in said["settings"], said["settings"]


def test_told_to_stop_one_stops_all_at_the_same_step(told: Told) -> None:
    for _, said in told:
        assert said["stopped"]["stopped_by"] == "interrupt"
        assert len(said["stopped"]["rows"]) == 2


def test_without_a_seed_they_agree_on_one(told: Told) -> None:
    assert told[0][1]["seed"] == told[1][1]["seed"]


def test_one_worker_refuses_nothing() -> None:
    rows = workers_program.rows()
    for choices in REFUSED.values():
        assert workers_program.said(rows, **choices) == "nothing"


class _Third(Shared):
    def any(self, flags: torch.Tensor) -> torch.Tensor:
        return flags


@pytest.mark.parametrize("law", [torch.Tensor.normal_, torch.Tensor.uniform_])
def test_a_worker_draws_what_its_rows_would_get(law: Any) -> None:
    one, third = torch.Generator().manual_seed(3), _Third()
    third.manual_seed(3)
    third.whole, third.own = 30, slice(10, 20)
    whole = drawn(law, torch.empty(30, 5), generator=one)
    assert torch.equal(drawn(law, torch.empty(10, 5), generator=third), whole[10:20])
    assert torch.equal(one.get_state(), third.get_state())


def test_a_source_that_skips_is_refused() -> None:
    model = Autoencoder(epochs=1, latent_dim=2).fit(torch.eye(6).numpy())
    workers = Workers()
    workers.count = 2
    with pytest.raises(InvalidParameterError, match="broken must be 'refuse' where 2 workers share a batch"):
        workers.check(model.module_, model.recipe_, SimpleNamespace(skips=True), 0)  # type: ignore[arg-type]


def test_a_signal_that_the_workers_note_counts_as_the_first() -> None:
    before, once = signal.getsignal(signal.SIGTERM), Once()
    signal.signal(signal.SIGTERM, once)
    try:
        workers = Workers()
        with workers.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert workers.stopped
        assert signal.getsignal(signal.SIGTERM) is once
        os.kill(os.getpid(), signal.SIGTERM)  # a second delivery of the same wish
    finally:
        signal.signal(signal.SIGTERM, before)
