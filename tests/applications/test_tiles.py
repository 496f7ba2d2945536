"""Tiles put together again are the image, and no seam shows."""

from __future__ import annotations

import numpy as np
import pytest

from diabolo.applications.tiles import Tiling, enlarged, reduced


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (16, 16), (37, 50), (9, 10, 7)])
@pytest.mark.parametrize("stride", [1, 3, 4, 8])
def test_tiles_as_they_are_give_the_image(shape, stride):
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    tiling = Tiling(8 if len(shape) == 2 else 4, min(stride, 8 if len(shape) == 2 else 4))
    assert np.allclose(tiling.mapped(image, lambda tiles: tiles[:, 1]), image[1], atol=1e-5)


def test_a_function_of_the_position_in_the_tile_leaves_no_seam():
    """Errors that grow towards a tile's rim, as an autoencoder's do, are even in the map."""
    tile = 16
    ramp = np.hypot(*np.meshgrid(np.linspace(-1, 1, tile), np.linspace(-1, 1, tile))).astype(np.float32)
    image = np.zeros((1, 100, 100), dtype=np.float32)
    blended = Tiling(tile, 4).mapped(image, lambda tiles: np.broadcast_to(ramp, (len(tiles), tile, tile)))
    plain = Tiling(tile, 16).mapped(image, lambda tiles: np.broadcast_to(ramp, (len(tiles), tile, tile)))
    jump = np.abs(np.diff(blended[12:-12, 12:-12], axis=0)).max()
    assert jump < 0.02 < 0.05 < np.abs(np.diff(plain, axis=0)).max()
    assert np.ptp(blended[12:-12, 12:-12]) < 0.05 * np.ptp(ramp)


def test_a_part_has_the_map_of_the_whole():
    image = np.random.default_rng(1).normal(size=(1, 90, 110)).astype(np.float32)
    tiling = Tiling(8, 2)

    def function(tiles):
        return np.abs(tiles[:, 0] - tiles[:, 0].mean((1, 2), keepdims=True))

    whole, part = tiling.mapped(image, function), tiling.mapped(image[:, 20:80, 30:100], function)
    assert np.allclose(whole[28:72, 38:92], part[8:-8, 8:-8], atol=1e-6)


def test_few_tiles_are_in_memory(monkeypatch):
    monkeypatch.setattr("diabolo.applications.tiles._AT_ONCE", 100)
    counts = []

    def function(tiles):
        counts.append(len(tiles))
        return tiles[:, 0]

    image = np.random.default_rng(2).normal(size=(1, 200, 120)).astype(np.float32)
    assert np.allclose(Tiling(8, 4).mapped(image, function), image[0], atol=1e-5)
    assert max(counts) <= 100
    assert len(counts) > 10


def test_samples_are_tiles_of_the_image():
    image = np.arange(20 * 30, dtype=np.float32).reshape(1, 20, 30)
    tiles = Tiling(6, 3).sample(image, 50, np.random.RandomState(0))
    assert tiles.shape[1:] == (1, 6, 6)
    assert 40 < len(tiles) <= 50
    assert len(np.unique(tiles[:, 0], axis=0)) == len(tiles)
    assert (np.diff(tiles[:, 0], axis=2) == 1).all()
    assert (np.diff(tiles[:, 0], axis=1) == 30).all()
    assert len(Tiling(6, 6).sample(image, 10**6, np.random.RandomState(0))) == 15 * 25


@pytest.mark.parametrize("shape", [(12, 8), (13, 7), (1, 5), (6, 9, 5)])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_reduced_and_enlarged(shape, factor):
    image = np.full((3, *shape), 5, dtype=np.float32)
    small = reduced(image, factor)
    assert small.shape == (3, *(-(-n // factor) for n in shape))
    assert np.array_equal(enlarged(small[0], factor, shape), image[0])


def test_a_ramp_stays_a_ramp():
    ramp = np.arange(32, dtype=np.float32)[None, None].repeat(4, 1)
    back = enlarged(reduced(ramp, 4)[0], 4, (4, 32))
    assert np.allclose(back[0, 2:-2], ramp[0, 0, 2:-2], atol=1e-5)
