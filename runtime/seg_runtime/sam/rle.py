"""Run-length encoding of masks, uncompressed and as COCO's compressed strings, without pycocotools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["coco_rle", "decode_counts", "encode_counts", "rle_to_mask", "uncompressed_rle"]


def encode_counts(mask: NDArray[Any], columns: slice = slice(None)) -> NDArray[np.int64]:
    """Lengths of the runs of a mask, column by column, the first of zeros (of length 0 if need be).

    Args:
        mask: (H, W) bool or uint8 of 0 and 1.
        columns: a range of columns outside which the mask is empty, if one is known: less to look at.

    Returns:
        (R,) int64; the lengths add up to H * W.
    """
    height, width = mask.shape
    start, stop, _ = columns.indices(width)
    # One empty column on either side, so that runs begin and end inside.
    start, stop = max(start - 1, 0), min(stop + 1, width)
    pixels = np.ascontiguousarray(mask[:, start:stop].T).ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1 + start * height
    if pixels.size and pixels[0]:
        # A first run of no zeros; the column before the range is empty, so this is the very first pixel.
        changes = np.insert(changes, 0, 0)
    return np.diff(changes, prepend=0, append=height * width)


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
