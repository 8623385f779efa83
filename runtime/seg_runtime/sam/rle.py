"""Run-length encoding of masks, uncompressed and as COCO's compressed strings, without pycocotools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.sam.boxes import mask_to_box

__all__ = ["coco_annotation", "coco_rle", "decode_counts", "encode_counts", "rle_to_mask", "uncompressed_rle"]


def encode_counts(
    mask: NDArray[Any], origin_xy: tuple[int, int] = (0, 0), size_hw: tuple[int, int] | None = None
) -> NDArray[np.int64]:
    """Lengths of the runs of a mask, column by column, the first of zeros (of length 0 if need be).

    Args:
        mask: (h, w) bool or uint8 of 0 and 1: the mask, or a part of it outside which it is empty.
        origin_xy: where the part's top left is in the mask.
        size_hw: (H, W) of the whole mask; None when it is no part.

    Returns:
        (R,) int64; the lengths add up to H * W.
    """
    height, width = size_hw or mask.shape
    # Where a pixel differs from the one above it; above and below the part the mask is empty.
    edges = np.empty((mask.shape[0] + 1, mask.shape[1]), np.bool_)
    edges[0], edges[-1] = mask[:1].any(axis=0), mask[-1:].any(axis=0)
    np.not_equal(mask[1:], mask[:-1], out=edges[1:-1])
    y, x = np.divmod(np.flatnonzero(edges), max(mask.shape[1], 1))
    changes = np.sort((x + origin_xy[0]) * height + y + origin_xy[1])
    # A run that ends at the bottom of a column and goes on at the top of the next is one.
    joined = np.flatnonzero(changes[1:] == changes[:-1])
    changes = np.delete(changes, [joined, joined + 1])
    lengths = np.diff(changes, prepend=0, append=height * width)
    return lengths if lengths[-1] else lengths[:-1]


def decode_counts(counts: NDArray[np.int64] | list[int], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The (H, W) bool mask of lengths from `encode_counts`."""
    height, width = size_hw
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def uncompressed_rle(counts: NDArray[np.int64], size_hw: tuple[int, int]) -> dict[str, Any]:
    """{"size": [H, W], "counts": [...]}, as segment_anything's `mask_to_rle_pytorch` gives it."""
    return {"size": list(size_hw), "counts": counts.tolist()}


def coco_rle(counts: NDArray[np.int64], size_hw: tuple[int, int]) -> dict[str, Any]:
    """{"size": [H, W], "counts": "..."}: COCO's compressed form, fit for JSON and pycocotools.

    Every length from the fourth on is written as its difference to the length two before it. A number
    takes 5 bits per character, the lowest first; bit 5 says that more follow, and 48 is added.
    """
    return {"size": list(size_hw), "counts": "".join(_characters(_differences(counts.tolist())))}


def coco_annotation(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's "segmentation", "area" and "bbox" (x, y, width, height) of an (H, W) mask."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    x0, y0, x1, y1 = mask_to_box(pixels)
    size_hw = (mask.shape[0], mask.shape[1])
    area = int(np.count_nonzero(pixels))
    return {
        "segmentation": coco_rle(encode_counts(pixels[y0 : y1 + 1, x0 : x1 + 1], (x0, y0), size_hw), size_hw),
        "area": area,
        "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1] if area else [0, 0, 0, 0],
    }


def rle_to_mask(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """The (H, W) bool mask of a dictionary from `uncompressed_rle`, `coco_rle` or pycocotools.

    Raises:
        BadInputError: it is none, or its lengths do not add up to its size.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        lengths = _parse(counts) if isinstance(counts, str) else [int(count) for count in counts]
        return decode_counts(lengths, (height, width))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInputError(f"not a run-length encoded mask ({error}): wanted size and counts") from error


def _differences(counts: list[int]) -> Iterable[int]:
    return (count - counts[index - 2] if index > 2 else count for index, count in enumerate(counts))


def _characters(numbers: Iterable[int]) -> Iterable[str]:
    for number in numbers:
        rest, more = number, True
        while more:
            bits = rest & 0x1F
            rest >>= 5
            # The sign is that of bit 4 of the last character.
            more = rest != (-1 if bits & 0x10 else 0)
            yield chr(bits + 48 + (0x20 if more else 0))


def _parse(text: str) -> list[int]:
    counts: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[position]) - 48
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            position, shift = position + 1, shift + 5
            if not more and bits & 0x10:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
