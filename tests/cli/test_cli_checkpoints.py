"""``train --checkpoint``: what is said of a checkpoint that is there already."""

from __future__ import annotations

from pathlib import Path

from conftest import SMALL, Run


def test_a_finished_training_s_checkpoint_is_not_replaced_in_silence(
    run: Run, images: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    words = ("train", images, "-o", tmp_path / "m.safetensors", "--checkpoint", kept, *SMALL)
    assert "replaced" not in run(*words).err
    said = run(*words, "--latent-dim", "3")
    assert said.code == 0
    assert f"the checkpoint of a finished training in {kept} will be replaced" in said.err
    assert said.err.index("replaced") < said.err.index("training on")
    assert "replaced" not in run(*words, "--latent-dim", "3", "--resume").err
