"""Messages of the library speak of settings in Python; on the command line these are options."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import SMALL, Run

from diabolo.cli.outcomes import _in_options


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Set device='cpu'.", "Set --device cpu."),
        ("(image_size=(height, width) resizes)", "(--image-size height,width resizes)"),
        ("label='Sepal length' makes it so", "--label 'Sepal length' makes it so"),
        ("Set clip_norm=1.0, fill=-1 or volume=0.", "Set --clip-norm 1.0, --fill -1 or --volume 0."),
        ("tied_weights=True, or tied_weights=False", "--tied-weights, or --no-tied-weights"),
        ("got /data/label=3/x.npy; columns=... is no option", None),
        ("low=0 of a part stays", None),
        ("got depth=3.safetensors, no file", None),
        ("Column 'x' of label=cat.csv holds", None),
        ("got seed/label=cat/x.csv or label=cat/x.csv", None),
        ('Set label="it\'s" or label=cat.', """Set --label 'it'"'"'s' or --label cat."""),
        ("label='a;b' of label=cat-2/x.csv", "--label 'a;b' of label=cat-2/x.csv"),
    ],
)
def test_settings_are_options(text: str, told: str | None) -> None:
    assert _in_options(text) == (text if told is None else told)


def test_no_command_speaks_python(run: Run, table: Path, model: Path, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    assert "--label species makes it the labels" in run("train", table, "-o", output).err
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(model.read_bytes()[:3000])
    assert "written by 'diabolo train'" in run("encode", damaged, images, "-o", tmp_path / "z.npy").err
    words = ("detect", "score", damaged, images, "-o", tmp_path / "s.csv")
    assert "written by 'diabolo detect fit'" in run(*words).err
    if not torch.cuda.is_available():
        said = run("train", images, "-o", output, *SMALL, "--device", "cuda")
        assert "Set --device auto" in said.err
