"""What a run calls a tracked frame of a SAM2: by the SAM2's name and how many memories it attends to."""

from __future__ import annotations

import re

__all__ = ["MEMORIES", "TRACKED_PROMPT", "split_name", "tracked_name"]

MEMORIES = (1, 7)
"""Of the second frame of a video, and the most that a frame attends to: the prompt and six frames before."""

TRACKED_PROMPT = (
    "a video whose frames are all the image; the foreground of the ground truth is given as the mask of one "
    "object on the first frame, and one later frame is tracked per call"
)
"""How a tracked frame is prompted, for the record."""

_NAME = re.compile(rf"(.+)_track({'|'.join(map(str, MEMORIES))})")


def tracked_name(model: str, memories: int) -> str:
    """What the tracked frame of a SAM2 is called.

    Example:
        >>> tracked_name("sam2.1_tiny", 7)
        'sam2.1_tiny_track7'
    """
    return f"{model}_track{memories}"


def split_name(name: str) -> tuple[str, int]:
    """The model and the number of memories; 0 for what is no tracked frame.

    Example:
        >>> split_name("sam2.1_tiny_track7"), split_name("unet_lung")
        (('sam2.1_tiny', 7), ('unet_lung', 0))
    """
    found = _NAME.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 0)
