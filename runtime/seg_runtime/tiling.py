"""Sliding window over images larger than the model's input, with overlapping tiles blended.

Tiles are cut at the image's own resolution. Each tile's probabilities are weighted by a Hann
window and the weights of all tiles sum to one at every pixel. A window is the product of a row and
a column weight and the tiles lie on a grid, so the sums are known beforehand per row and column:
the output is the only array as large as the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["TileGrid", "check_overlap", "segment_tiles", "tile_grid"]


@dataclass(frozen=True)
class TileGrid:
    """Where tiles lie on an image and how much each counts.

    Attributes:
        tile_hw: (height, width) of every tile in pixels.
        tops: first row of each row of tiles, ascending.
        lefts: first column of each column of tiles, ascending.
        row_weights: (len(tops), tile height) float32; at every image row they sum to one.
        column_weights: (len(lefts), tile width) float32; at every image column they sum to one.
    """

    tile_hw: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    row_weights: NDArray[np.float32]
    column_weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def region(self, row: int, column: int) -> tuple[slice, slice]:
        """The rows and columns of the image that a tile covers."""
        top, left = self.tops[row], self.lefts[column]
        return slice(top, top + self.tile_hw[0]), slice(left, left + self.tile_hw[1])


def tile_grid(size_hw: tuple[int, int], tile_hw: tuple[int, int], overlap: float) -> TileGrid:
    """Spread tiles evenly over an image at least as large as a tile.

    Args:
        size_hw: (height, width) of the image.
        tile_hw: (height, width) of a tile.
        overlap: least share of a tile that neighbours have in common (to a pixel), 0 up to 0.9.

    Raises:
        BadInputError: the overlap is out of range or the image smaller than a tile.
    """
    check_overlap(overlap)
    if size_hw[0] < tile_hw[0] or size_hw[1] < tile_hw[1]:
        raise BadInputError(
            f"an image of {size_hw} pixels (height, width) is smaller than a tile of {tile_hw}"
        )
    tops, lefts = (_starts(size, tile, overlap) for size, tile in zip(size_hw, tile_hw, strict=True))
    return TileGrid(
        tile_hw,
        tops,
        lefts,
        _weights(size_hw[0], tile_hw[0], tops),
        _weights(size_hw[1], tile_hw[1], lefts),
    )


def segment_tiles(
    image: NDArray[np.uint8],
    run: Callable[[list[NDArray[np.uint8]]], NDArray[np.float32]],
    tile_hw: tuple[int, int],
    overlap: float,
    batch_size: int,
) -> NDArray[np.float32]:
    """Run a model over all tiles of an image and blend what it returns.

    An image smaller than a tile on one side is mirrored at its border to fill the tile.

    Args:
        image: (H, W) or (H, W, C) uint8.
        run: takes up to `batch_size` tiles of tile_hw pixels, returns (N, C, h, w) float32.
        tile_hw: the model's input size.
        overlap: least share of a tile that neighbours have in common, 0 up to 0.9.
        batch_size: most tiles to run at once.

    Returns:
        (C, H, W) float32. With a single tile they are exactly what `run` returned.

    Raises:
        BadInputError: the overlap is out of range.
    """
    height, width = image.shape[:2]
    padded = _pad(image, tile_hw)
    grid = tile_grid((padded.shape[0], padded.shape[1]), tile_hw, overlap)
    blended: NDArray[np.float32] | None = None
    for cells in _batches(grid, batch_size):
        tiles = [padded[grid.region(row, column)] for row, column in cells]
        for (row, column), probabilities in zip(cells, run(tiles), strict=True):
            if blended is None:
                blended = np.zeros((len(probabilities), *padded.shape[:2]), dtype=np.float32)
            weights = grid.row_weights[row][:, None] * grid.column_weights[column]
            target = blended[(slice(None), *grid.region(row, column))]
            target += probabilities * weights
    if blended is None:
        raise BadInputError("an empty image: give at least one pixel")
    return np.ascontiguousarray(blended[:, :height, :width])


def check_overlap(overlap: float) -> None:
    """Refuse an overlap that leaves no room between tiles. Raises BadInputError."""
    if not 0.0 <= overlap <= 0.9:
        raise BadInputError(f"the overlap of tiles must lie between 0 and 0.9, not {overlap}")


def _starts(length: int, tile: int, overlap: float) -> tuple[int, ...]:
    stride = max(1, round(tile * (1.0 - overlap)))
    count = -(-(length - tile) // stride) + 1
    return tuple(round(start) for start in np.linspace(0, length - tile, count).tolist())


def _weights(length: int, tile: int, starts: tuple[int, ...]) -> NDArray[np.float32]:
    # Without its two zeros at the ends, so that a border pixel seen by one tile has a weight.
    window = np.hanning(tile + 2)[1:-1]
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += window
    return np.stack([window / total[start : start + tile] for start in starts]).astype(np.float32)


def _pad(image: NDArray[np.uint8], tile_hw: tuple[int, int]) -> NDArray[np.uint8]:
    import cv2

    below, right = (max(0, tile - size) for tile, size in zip(tile_hw, image.shape[:2], strict=True))
    if not (below or right):
        return image
    padded = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101)
    return np.asarray(padded, dtype=np.uint8)


def _batches(grid: TileGrid, batch_size: int) -> Iterator[list[tuple[int, int]]]:
    cells = product(range(len(grid.tops)), range(len(grid.lefts)))
    while batch := list(islice(cells, batch_size)):
        yield batch
