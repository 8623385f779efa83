"""The sliding window: where tiles lie, that weights sum to one, and what blending gives."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.tiling import segment_tiles, tile_grid


def brightness(tiles: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.stack(tiles)[:, None].astype(np.float32) / 255


@pytest.mark.parametrize("size_hw", [(64, 64), (65, 64), (200, 333), (64, 1000)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_weights_sum_to_one_at_every_pixel(size_hw: tuple[int, int], overlap: float) -> None:
    grid = tile_grid(size_hw, (64, 48), overlap)
    total = np.zeros(size_hw)
    for row in range(len(grid.tops)):
        for column in range(len(grid.lefts)):
            total[grid.region(row, column)] += grid.row_weights[row][:, None] * grid.column_weights[column]
    assert np.abs(total - 1).max() < 1e-6


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.75])
def test_tiles_reach_both_borders_and_overlap_at_least_as_asked(overlap: float) -> None:
    grid = tile_grid((1000, 777), (100, 100), overlap)
    for starts, size in ((grid.tops, 1000), (grid.lefts, 777)):
        assert starts[0] == 0
        assert starts[-1] == size - 100
        assert np.diff(starts).max() <= np.ceil(100 * (1 - overlap))
    assert len(grid) == len(grid.tops) * len(grid.lefts)


def test_an_image_of_one_tile_gives_exactly_what_the_model_gave() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    output = np.random.default_rng(1).random((1, 3, 64, 64), dtype=np.float32)
    blended = segment_tiles(image, lambda tiles: output, (64, 64), 0.5, 8)
    assert np.array_equal(blended, output[0])


@pytest.mark.parametrize("size_hw", [(200, 333), (64, 100), (130, 64)])
def test_a_model_that_looks_at_single_pixels_is_not_changed_by_tiling(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, size_hw, dtype=np.uint8)
    blended = segment_tiles(image, brightness, (64, 64), 0.25, 3)
    assert blended.shape == (1, *size_hw)
    assert np.abs(blended[0] - image.astype(np.float32) / 255).max() < 1e-6


@pytest.mark.parametrize("size_hw", [(20, 200), (200, 20), (3, 64)])
def test_an_image_narrower_than_a_tile_is_mirrored_to_fill_it(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, size_hw, dtype=np.uint8)
    seen: list[NDArray[np.uint8]] = []

    def run(tiles: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        seen.extend(tiles)
        return brightness(tiles)

    blended = segment_tiles(image, run, (64, 64), 0.25, 3)
    assert {tile.shape for tile in seen} == {(64, 64)}
    assert np.abs(blended[0] - image.astype(np.float32) / 255).max() < 1e-6
    padding = [(0, max(0, 64 - side)) for side in size_hw]
    assert np.array_equal(seen[0], np.pad(image, padding, mode="reflect")[:64, :64])


def test_neighbouring_tiles_fade_into_each_other() -> None:
    tile_values = iter((0.0, 1.0))

    def run(tiles: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.stack([np.full((1, 64, 64), next(tile_values), np.float32) for _ in tiles])

    row = segment_tiles(np.zeros((64, 96), np.uint8), run, (64, 64), 0.5, 1)[0, 10]
    assert np.abs(row[:32]).max() < 1e-6
    assert np.abs(row[64:] - 1).max() < 1e-6
    assert (np.diff(row[31:65]) > 0).all()
    assert np.diff(row).max() < 0.1


def test_batches_are_never_larger_than_allowed_and_colour_tiles_work() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    sizes: list[int] = []

    def run(tiles: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        sizes.append(len(tiles))
        return np.moveaxis(np.stack(tiles).astype(np.float32), -1, 1)

    blended = segment_tiles(image, run, (64, 64), 0.25, 4)
    assert sizes[:-1] == [4] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= 4
    assert np.abs(np.moveaxis(blended, 0, -1) - image).max() < 1e-3


def test_memory_beyond_the_output_does_not_grow_with_the_image() -> None:
    def peak_beyond_output(side: int) -> int:
        image = np.zeros((side, side), np.uint8)
        tracemalloc.start()
        try:
            output = segment_tiles(image, brightness, (64, 64), 0.25, 4)
            return tracemalloc.get_traced_memory()[1] - output.nbytes
        finally:
            tracemalloc.stop()

    assert peak_beyond_output(2048) < peak_beyond_output(256) + 300_000


@pytest.mark.parametrize("overlap", [-0.1, 0.95, 1.0, float("nan")])
def test_an_overlap_out_of_range_is_refused(overlap: float) -> None:
    with pytest.raises(BadInputError, match=r"must lie between 0 and 0\.9"):
        tile_grid((100, 100), (64, 64), overlap)
