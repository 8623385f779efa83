"""The rate of a video whose frames have times: containers announce averages, and phones vary the rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_steady", "rate_of"]

_FPS = 25.0
"""Where a file says nothing that can be true."""

_FPS_LIMITS = 1000.0, 240.0
"""Largest rate that is believed of frames that have times, and of those without: a stream that has no rate
announces that of its clock."""


def rate_of(times_s: NDArray[np.float64] | None, announced: float) -> float:
    """Frames per second: the announced ones where they fit the times, else the mean.

    Args:
        times_s: (frames,) float64, increasing, from 0; None when the file has none.
        announced: what the container says, which may be nonsense.

    Example:
        >>> rate_of(np.array([0.0, 0.04, 0.08]), 25.0)
        25.0
        >>> rate_of(np.array([0.0, 0.1, 0.5]), 90000.0)
        4.0
    """
    timed = times_s is not None and len(times_s) > 1
    believed = 0 < announced <= _FPS_LIMITS[0 if timed else 1]
    if times_s is None or not timed:
        return announced if believed else _FPS
    if believed and is_steady(times_s, announced):
        return announced
    mean = float((len(times_s) - 1) / times_s[-1])
    return mean if mean <= _FPS_LIMITS[0] else _FPS


def is_steady(times_s: NDArray[np.float64], fps: float) -> bool:
    """Whether frames shown at a constant rate appear within half a frame of their (frames,) float64 times.

    Example:
        >>> is_steady(np.array([0.0, 0.033, 0.067]), 30.0), is_steady(np.array([0.0, 0.1, 0.5]), 4.0)
        (True, False)
    """
    return bool(np.abs(times_s - np.arange(len(times_s)) / fps).max(initial=0.0) <= 0.5 / fps)
