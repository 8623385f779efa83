"""What tracking a video into files tells: frame by frame, and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Ended", "TrackResult", "TrackedFrame"]

Ended = Literal["complete", "broke off", "interrupted"]


@dataclass(frozen=True)
class TrackedFrame:
    """A frame that was tracked and written.

    Attributes:
        index: of the frame.
        time_s: seconds from the first frame of the video to this one; None for cameras and streams.
        areas_px: object id -> pixels of its mask; 0 where it is not seen.
        seconds: since the frame before it.
        frames_per_second: so far, over all frames.
    """

    index: int
    time_s: float | None
    areas_px: dict[int, int]
    seconds: float
    frames_per_second: float

    def to_json(self) -> dict[str, Any]:
        """A line for a stream of results."""
        areas = {str(number): area for number, area in self.areas_px.items()}
        return {
            "frame": self.index,
            "time_s": self.time_s,
            "area_px": areas,
            "seconds": round(self.seconds, 4),
        }


@dataclass(frozen=True)
class TrackResult:
    """What was written.

    Attributes:
        video: name of the source.
        out: the overlay video.
        masks: folder or file of the masks; None when none were asked for.
        frames: how many frames `out` has.
        tracked: how many of them were tracked: those from the first prompt on.
        object_ids: the objects.
        frames_per_second: tracked frames per second of work: decoding, tracking, drawing and writing.
        ended: "complete"; "broke off" when the source gave no more frames; "interrupted" by Ctrl-C.
        note: what a person should know, in one line; None when all is well.
    """

    video: str
    out: Path
    masks: Path | None
    frames: int
    tracked: int
    object_ids: tuple[int, ...]
    frames_per_second: float
    ended: Ended
    note: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "video": self.video,
            "out": str(self.out),
            "masks": str(self.masks) if self.masks else None,
            "frames": self.frames,
            "tracked": self.tracked,
            "objects": list(self.object_ids),
            "frames_per_second": round(self.frames_per_second, 3),
            "ended": self.ended,
            "note": self.note,
        }
