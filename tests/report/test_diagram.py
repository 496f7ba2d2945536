"""The hourglass picture: well-formed, honest about sizes, never overlapping, saved whole or not at all."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest

from diabolo.diagram import Diagram, Text, bar_widths, text_width
from diabolo.errors import InvalidParameterError
from diabolo.parts.architectures import Level


def make(widths: list[int], **changes: object) -> Diagram:
    middle = len(widths) // 2
    levels = []
    for i, width in enumerate(widths):
        role = {0: "input", middle: "code", len(widths) - 1: "output"}.get(i, "hidden")
        operation = "transposed conv 3x3, batch norm" if i else ""
        levels.append(Level(role, (width,), operation, "leaky_relu" if role == "hidden" else ""))  # type: ignore[arg-type]
    settings: dict[str, object] = {
        "title": "A picture",
        "levels": tuple(levels),
        "corruption": None,
        "latent": "deterministic",
        "penalties": (),
        "loss": "squared_error",
    }
    return Diagram(**(settings | changes))  # type: ignore[arg-type]


SHAPES = [
    [4, 2, 4],
    [784, 1000, 500, 250, 30, 250, 500, 1000, 784],
    [10, 1024, 10],
    [64, 64, 64],
    [4096, 2048, 1024, 512, 256, 128, 64, 1, 64, 128, 256, 512, 1024, 2048, 4096],
]


@pytest.mark.parametrize("widths", SHAPES, ids=lambda w: str(len(w)))
@pytest.mark.parametrize("corruption", [None, "gaussian(std=0.2) + masking(fraction=0.25)"])
@pytest.mark.parametrize("penalties", [(), ("l1", "contractive(weight=0.1)", "kl_sparsity(target=0.05)")])
def test_no_two_texts_meet_and_all_stay_on_the_card(
    widths: list[int], corruption: str | None, penalties: tuple[str, ...]
) -> None:
    picture = make(widths, corruption=corruption, penalties=penalties, title="A long title " * 6).picture()
    boxes = []
    for item in picture.items:
        if isinstance(item, Text) and item.upright:
            length = text_width(item.content, item.size, item.bold)
            start = item.x - {"start": 0.0, "middle": length / 2, "end": length}[item.anchor]
            boxes.append(
                (start, item.y - item.size / 2, start + length, item.y + item.size / 2, item.content)
            )
    for x0, y0, x1, y1, _ in boxes:
        assert x0 >= 0
        assert x1 <= picture.width
        assert y0 >= 0
        assert y1 <= picture.height
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], f"{a[4]!r} meets {b[4]!r}"


def test_bars_follow_the_logarithm_of_the_size() -> None:
    narrow, middle, wide = bar_widths([10, 100, 1000])
    assert middle == pytest.approx((narrow + wide) / 2)
    near = bar_widths([64, 60])
    assert near[1] > 0.9 * near[0]


def test_everything_is_told_and_nothing_is_markup() -> None:
    svg = make(
        [8, 3, 8],
        title="<script>alert(1)</script> & more",
        corruption="masking(fraction=0.3)",
        penalties=("l1(weight=0.01)",),
        latent="topk(k=2)",
        loss="huber",
    ).to_svg()
    root = ElementTree.fromstring(svg)
    told = " ".join(root.itertext())
    for part in (
        "<script>alert(1)</script> & more",
        "masking(fraction=0.3)",
        "l1(weight=0.01)",
        "topk(k=2)",
        "huber",
    ):
        assert part in told
    assert "<script" not in svg
    assert not any(name in svg for name in ("href", "url("))


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_save_writes_the_picture_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    diagram = make([8, 3, 8], title="costs $5 and $6")
    path = diagram.save(tmp_path / f"model{suffix}")
    start = path.read_bytes()[:8]
    assert start.startswith(b"<svg") if suffix == ".svg" else start.startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert diagram._repr_svg_() == diagram.to_svg()


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidParameterError, match=r"must be one that ends in \.svg or \.png; got .*model\.gif"
    ):
        make([8, 3, 8]).save(tmp_path / "model.gif")
    assert list(tmp_path.iterdir()) == []
