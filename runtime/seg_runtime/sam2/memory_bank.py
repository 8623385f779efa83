"""What is remembered of one object, and what of it a frame attends to.

The choices are those of `SAM2Base._prepare_memory_conditioned_features` in sam2 1.1.0 with the settings that
all official variants share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_POINTERS", "NUM_MEMORIES", "FrameOutput", "MemoryBank", "Selection", "pointer_range"]

NUM_MEMORIES = 7
"""sam2's `num_maskmem`: the slot of frames with prompts, and one for each of the 6 frames before."""

MAX_POINTERS = 16
"""sam2's `max_obj_ptrs_in_encoder`: pointers reach 15 frames back."""


@dataclass
class FrameOutput:
    """What was found of one object on one frame.

    Attributes:
        low_res: (1, 1, 4G, 4G) logits of the mask, -1024 where no object appears; float16 once the frame
            is far from the one at work.
        pointer: (1, C) float32 object pointer.
        score: (1, 1) float32 logit of whether the object appears.
        from_prompt: the mask was found with a prompt on this very frame.
        memory: (1, M, G, G) float32 from the memory encoder; None when it was not made yet, or forgotten:
            it can be made again from `low_res`.
    """

    low_res: NDArray[np.floating[Any]]
    pointer: NDArray[np.float32]
    score: NDArray[np.float32]
    from_prompt: bool
    memory: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Selection:
    """What a frame attends to.

    Attributes:
        memories: (frame, slot) of each spatial memory: slot 6 for frames with prompts, 0 for the frame
            just before, 1 for the one before that, up to 5.
        pointers: (frame, distance in frames) of each object pointer.
    """

    memories: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, int], ...]


@dataclass
class MemoryBank:
    """Outputs of one object by frame.

    Attributes:
        cond: of the frames with prompts ("conditioning" frames); every later frame attends to all of them.
        non_cond: of tracked frames, in the order in which they were tracked.
    """

    cond: dict[int, FrameOutput] = field(default_factory=dict)
    non_cond: dict[int, FrameOutput] = field(default_factory=dict)

    def get(self, frame: int) -> FrameOutput | None:
        """The output on a frame, of either kind."""
        return self.cond.get(frame) or self.non_cond.get(frame)

    def at(self, frame: int) -> FrameOutput:
        """The output on a frame that has one."""
        return self.cond[frame] if frame in self.cond else self.non_cond[frame]

    def select(self, frame: int, reverse: bool, frame_count: int | None) -> Selection:
        """What a frame attends to.

        Args:
            frame: its index.
            reverse: whether the video is tracked backwards: "before" then means later frames.
            frame_count: frames of the video, None when it has no known end.
        """
        step = -1 if reverse else 1
        memories = [(t, NUM_MEMORIES - 1) for t in self.cond]
        for before in range(NUM_MEMORIES - 1, 0, -1):
            if frame - step * before in self.non_cond:
                memories.append((frame - step * before, before - 1))
        # Pointers from prompts in the future would distract the tracking, says sam2; memories do not.
        pointers = [(t, (frame - t) * step) for t in self.cond if (frame - t) * step >= 0]
        for before in range(1, pointer_range(frame_count) + 1):
            if frame - step * before in self.non_cond:
                pointers.append((frame - step * before, before))
        return Selection(tuple(memories), tuple(pointers))

    def add_tracked(self, frame: int, output: FrameOutput) -> None:
        """Keep the output of a tracked frame as the newest one."""
        self.non_cond.pop(frame, None)
        self.non_cond[frame] = output

    def compact(self, frame: int) -> None:
        """Drop spatial memories that the frame at work cannot attend to; masks stay, in half the bytes."""
        for t, output in self.non_cond.items():
            if output.memory is not None and abs(t - frame) > NUM_MEMORIES:
                output.memory = None
                output.low_res = np.clip(output.low_res, -6e4, 6e4).astype(np.float16)

    def forget_oldest(self, limit: int) -> list[int]:
        """Drop all but the `limit` frames tracked last; gives the frames that are gone."""
        gone = list(self.non_cond)[: max(0, len(self.non_cond) - limit)]
        for frame in gone:
            del self.non_cond[frame]
        return gone

    def forget_around(self, frame: int) -> None:
        """Drop the tracked frames whose memories a prompt on `frame` may contradict."""
        for near in range(frame - NUM_MEMORIES, frame + NUM_MEMORIES + 1):
            self.non_cond.pop(near, None)


def pointer_range(frame_count: int | None) -> int:
    """How many frames pointers reach back: sam2's `t_diff_max`, by which it divides their distances."""
    count = MAX_POINTERS if frame_count is None else min(frame_count, MAX_POINTERS)
    # In a video of one frame sam2 divides by 0.
    return max(count - 1, 1)
