"""Gives each frame of an MP4 its time: OpenCV writes a constant rate and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from seg_runtime.video.container import boxes

__all__ = ["set_times"]

_TICKS = 10_000
"""Per second: a frame is at most 0.05 ms off, and 32 bits hold 119 hours."""

_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def set_times(path: Path, times_s: NDArray[np.float64], last_s: float) -> None:
    """Rewrite the index of an MP4 whose frames are shown in the order in which they are stored.

    Args:
        path: one video track and nothing else, its index ("moov") last, as OpenCV writes it.
        times_s: (frames,) float64, increasing: the second in which each stored frame appears.
        last_s: how long the last one is shown.

    Raises:
        OSError: the disk is full.
    """
    ticks = np.rint(np.append(times_s, times_s[-1] + last_s) * _TICKS).astype(np.int64)
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        body = next(body for name, body, _ in boxes(file, 0, end) if name == b"moov")
        content = _rewritten(file, body, end, _changes(np.diff(ticks)))
        # The pictures lie before the index, so none of them moves.
        file.seek(body - 8)
        file.write(_box(b"moov", content))
        file.truncate()


def _changes(durations: NDArray[np.int64]) -> Mapping[bytes, Callable[[bytes], bytes]]:
    """By name of a box, how its body changes: the durations of frames, and their sum in three headers."""
    total = int(durations.sum())
    runs = np.stack([np.ones_like(durations), durations], axis=1).astype(">u4")

    def clock(body: bytes) -> bytes:
        # Version and flags, two dates; then ticks per second and the duration.
        return body[:12] + struct.pack(">II", _TICKS, total) + body[20:]

    return {
        b"mvhd": clock,
        b"mdhd": clock,
        b"tkhd": lambda body: body[:20] + struct.pack(">I", total) + body[24:],
        b"stts": lambda body: struct.pack(">II", 0, len(runs)) + runs.tobytes(),
    }


def _rewritten(
    file: BinaryIO, start: int, end: int, changes: Mapping[bytes, Callable[[bytes], bytes]]
) -> bytes:
    parts = []
    for name, body, stop in boxes(file, start, end):
        if name == b"edts":
            # It would cut the track to its old length.
            continue
        if name in _PARENTS:
            content = _rewritten(file, body, stop, changes)
        else:
            file.seek(body)
            content = changes.get(name, bytes)(file.read(stop - body))
        parts.append(_box(name, content))
    return b"".join(parts)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content
