"""All that one video's tracking remembers. Nothing of it is in the predictor or the session."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.sam2.frames import FrameReader, no_such_frame
from seg_runtime.sam2.graphs import Features, Sam2Graphs
from seg_runtime.sam2.memory_bank import MAX_POINTERS, FrameOutput, MemoryBank
from seg_runtime.sam2.prompts import Points

__all__ = ["MAX_OBJECTS", "InferenceState", "TrackedObject"]

MAX_OBJECTS = 64
"""Objects of one video: each takes about 15 MB besides the masks of past frames."""


@dataclass
class TrackedObject:
    """One object of a video.

    Attributes:
        points: its points by frame.
        mask_frames: frames on which the user gave a mask.
        bank: outputs that later frames attend to.
        new_cond: outputs of prompts since the last propagation, which makes their memories, on frames
            that were not tracked before.
        new_non_cond: the same on frames that were.
        tracked: frames that a propagation has passed, each with whether it went backwards.
    """

    points: dict[int, Points] = field(default_factory=dict)
    mask_frames: set[int] = field(default_factory=set)
    bank: MemoryBank = field(default_factory=MemoryBank)
    new_cond: dict[int, FrameOutput] = field(default_factory=dict)
    new_non_cond: dict[int, FrameOutput] = field(default_factory=dict)
    tracked: dict[int, bool] = field(default_factory=dict)

    def output(self, frame: int, cond: bool) -> FrameOutput | None:
        """The newest output on a frame: of a new prompt of this kind, else of the bank."""
        return (self.new_cond if cond else self.new_non_cond).get(frame) or self.bank.get(frame)

    def prompt_frames(self) -> set[int]:
        """Frames with points or a mask."""
        return self.mask_frames | set(self.points)

    def new_frames(self) -> set[int]:
        """Frames with prompts since the last propagation."""
        return {*self.new_cond, *self.new_non_cond}

    def clear_prompts(self, frame: int) -> None:
        """Forget the prompts on a frame; what was found with them then counts as tracked."""
        self.points.pop(frame, None)
        self.mask_frames.discard(frame)
        self.new_cond.pop(frame, None)
        self.new_non_cond.pop(frame, None)
        output = self.bank.cond.pop(frame, None)
        if output is not None:
            self.bank.add_tracked(frame, output)
            self.tracked.pop(frame, None)


class InferenceState:
    """The state of one video, made by `Sam2VideoPredictor.init_state`; for one thread at a time.

    Attributes:
        frames: where frames come from.
        objects: by the user's own id, in the order of their first prompts.
    """

    def __init__(self, graphs: Sam2Graphs, frames: FrameReader) -> None:
        self.frames = frames
        self.objects: dict[Hashable, TrackedObject] = {}
        self._graphs = graphs
        self._features: tuple[int, Features] | None = None
        self._closed = False

    @property
    def obj_ids(self) -> list[Hashable]:
        """Ids of the objects, in the order of their first prompts."""
        return list(self.objects)

    @property
    def num_frames(self) -> int | None:
        """Frames of the video; None when the end is not known."""
        return self.frames.count

    @property
    def video_size_hw(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.frames.size_hw

    @contextmanager
    def prompting(self, obj_id: Hashable) -> Iterator[TrackedObject]:
        """An object that is about to be prompted; a new one is forgotten again when that fails.

        Raises:
            BadInputError: it would be one too many.
        """
        new = obj_id not in self.objects
        if new and len(self.objects) >= MAX_OBJECTS:
            raise BadInputError(
                f"object {obj_id!r} would be one more than the {MAX_OBJECTS} that a video can have: "
                "remove one with remove_object, or track the rest in a second state"
            )
        tracked = self.objects.setdefault(obj_id, TrackedObject())
        try:
            yield tracked
        except BaseException:
            if new:
                self.objects.pop(obj_id, None)
            raise

    def known(self, obj_id: Hashable) -> TrackedObject:
        """An object that there is. Raises BadInputError."""
        if obj_id not in self.objects:
            there = ", ".join(map(repr, self.objects)) or "none"
            raise BadInputError(f"there is no object {obj_id!r}: the objects are {there}")
        return self.objects[obj_id]

    def check_prompted(self, obj_id: Hashable) -> None:
        """Raises BadInputError when an object has no frame with prompts to be tracked from."""
        if not self.objects[obj_id].bank.cond:
            raise BadInputError(
                f"object {obj_id!r} has no prompt: add points, a box or a mask on a frame that was not "
                "tracked, or remove it with remove_object"
            )

    def check_open(self) -> None:
        """Raises BadInputError when the state is closed."""
        if self._closed:
            raise BadInputError("the state of this video is closed: call init_state again")

    def check_frame(self, index: int) -> None:
        """Raises BadInputError when the video has no such frame, or the state is closed."""
        self.check_open()
        if not self.frames.has(index):
            raise BadInputError(no_such_frame(index, self.frames.count, self.frames.newest))

    def order(self, start: int | None, most: int | None, reverse: bool) -> Iterable[int]:
        """The frames to track, in order; arguments as of `Sam2VideoPredictor.propagate_in_video`."""
        frame_count = self.num_frames
        if frame_count is None:
            if reverse:
                raise BadInputError(
                    "a video without a known end cannot be tracked backwards: record it first"
                )
            start = self.frames.newest if start is None else start
            return count(start) if most is None else range(start, start + most + 1)
        if start is None:
            start = min(frame for tracked in self.objects.values() for frame in tracked.bank.cond)
        self.check_frame(start)
        most = frame_count if most is None else most
        if reverse:
            return range(start, max(start - most, 0) - 1, -1) if start > 0 else ()
        return range(start, min(start + most, frame_count - 1) + 1)

    def features(self, index: int) -> Features:
        """Features of a frame; those of the frame before are freed. Raises as `check_frame`, `infer`."""
        self.check_frame(index)
        if self._features is not None and self._features[0] == index:
            return self._features[1]
        square: NDArray[np.uint8] = self.frames.square(index, self._graphs.side)
        self.release_features()
        self._features = (index, self._graphs.encode(square, ahead=False))
        return self._features[1]

    def release_features(self) -> None:
        """Free the features of the frame at work, which is encoded again when they are needed."""
        features, self._features = self._features, None
        if features is not None:
            features[1].release()

    def forget_beyond(self, history_bytes: int) -> None:
        """Drop the oldest tracked frames of each object when all together take more than this."""
        # Half-precision logits, and a pointer of 256 channels.
        per_frame = 2 * self._graphs.low_res_side**2 + 1024
        limit = history_bytes // (per_frame * max(1, len(self.objects)))
        if self.frames.count is None:
            # A camera never comes back to a frame.
            limit = 0
        for tracked in self.objects.values():
            for frame in tracked.bank.forget_oldest(max(limit, 2 * MAX_POINTERS)):
                tracked.tracked.pop(frame, None)

    def close(self) -> None:
        """Free the features and, when it was opened here, the video; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self.objects.clear()
        self.release_features()
        self.frames.close()

    def __enter__(self) -> InferenceState:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
