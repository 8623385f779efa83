"""The shape of a network's maps next to that of its input."""

from __future__ import annotations

__all__ = ["is_proportional"]


def is_proportional(maps_hw: tuple[int, int], size_hw: tuple[int, int]) -> bool:
    """Whether maps have the proportions of the input, but for a network's strides, which round.

    Example:
        >>> is_proportional((3, 5), (20, 30)), is_proportional((32, 2), (32, 32))
        (True, False)
    """
    (height, width), (input_height, input_width) = maps_hw, size_hw
    return abs(height / input_height - width / input_width) <= max(1 / input_height, 1 / input_width)
