"""Images and slices are read one by one, as a map asks for them."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from diabolo.cli.detect_frames import Frames
from diabolo.cli.pictures import Images


class _Scan:
    axes = "RAS"

    def __init__(self, voxels: np.ndarray) -> None:
        self.voxels = voxels


@pytest.mark.parametrize("scans", [False, True])
def test_one_image_or_scan_is_in_memory(scans: bool) -> None:
    seen: list[weakref.ref[np.ndarray]] = []
    most = 0

    def read(i: int) -> object:
        nonlocal most
        image = np.full((3, 4, 5), i, dtype=np.float32)
        seen.append(weakref.ref(image))
        most = max(most, sum(one() is not None for one in seen))
        return _Scan(image) if scans else image

    images = Images("x", list("abcdef"), read, scans=scans)
    frames = Frames(images, [0, 2, 5], 2)
    assert len(frames) == (9 if scans else 3)
    assert frames.places[-1] == ((5, 2) if scans else (5, 0))
    assert [float(frame.mean()) for frame in frames] == [
        i for i in (0, 2, 5) for _ in range(3 if scans else 1)
    ]
    assert most <= 2  # the one that the loop still holds, and the next
    assert len(seen) == (6 if scans else 3)
