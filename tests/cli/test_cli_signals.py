"""Ctrl-C and SIGTERM: one line, whatever the command does, and whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import environment

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals differ")


def test_sigterm_ends_a_fit_of_a_detector_as_ctrl_c_does(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5000, 8)))
    words = ["detect", "fit", "x.npy", "--kind", "denoising", "--epochs", "100000", "--patience", "none"]
    with subprocess.Popen(
        [sys.executable, "-m", "diabolo", *words],
        cwd=tmp_path,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "first look" in line:
                break
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "error: interrupted."
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_commands_are_imported(tmp_path: Path, number: signal.Signals) -> None:
    """A module that is imported with the commands sends it."""
    script = (
        "import os, sys\n"
        "class Sender:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Sender())\n"
        "sys.argv = ['diabolo', 'kinds']\n"
        "from diabolo.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: interrupted.\n")
