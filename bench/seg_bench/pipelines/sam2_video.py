"""A published SAM2 that tracks: one frame of a video with a given number of memories, one mask out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.find import ShownSample
from seg_bench.pipelines import Outcome
from seg_bench.pipelines.sam import TimedSession
from seg_bench.pipelines.sam2 import sam2_outcome
from seg_bench.sam2_stages import stages_ms
from seg_bench.tracked import split_name
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.sam2 import InferenceState, Sam2VideoPredictor
from seg_runtime.session import Session

__all__ = ["FRAMES", "OBJECT", "Sam2VideoPipeline", "StillVideo", "load_still_video"]

FRAMES = 32
"""Pointers reach back 15 frames, and a shorter video would scale their distances differently."""

OBJECT = 1
"""Id of the tracked object."""


@dataclass(frozen=True)
class StillVideo:
    """A video whose frames are all one image, as `seg_runtime.sam2.frames.FrameSource` describes it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, the object on every frame.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    @property
    def frame_count(self) -> int | None:
        return FRAMES

    def frame(self, index: int) -> NDArray[np.uint8]:
        return self.image

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return iter([self.image] * FRAMES)

    def close(self) -> None:
        """There is nothing to free."""


class Sam2VideoPipeline:
    """Tracks the same frame in every call, and encodes it every time; close it, or use `with`.

    `load` prompts the object on frame 0 and tracks it until the bank has as many memories as the timed frame
    attends to: none of that is timed. After each call the frame is forgotten, so that the next call finds the
    same bank.

    Args:
        session: runs the five models.
        name: of the tracked frame, as `seg_bench.tracked.tracked_name` gives it.

    Raises:
        ModelNotFoundError, BadInputError: as `Sam2VideoPredictor`.
    """

    def __init__(self, session: Session, name: str) -> None:
        published, self._memories = split_name(name)
        self._session = TimedSession(session)
        self._predictor = Sam2VideoPredictor(self._session, published)
        self.where = session.where
        self.engine = self._predictor.engine

    def load(self, sample: ShownSample) -> InferenceState:
        """The state of a still video just before the timed frame."""
        video = load_still_video(sample)
        state = self._predictor.init_state(video)
        self._predictor.add_new_mask(state, 0, OBJECT, video.mask)
        for _ in self._predictor.propagate_in_video(state, 0, self._memories - 1):
            pass
        state.release_features()
        return state

    def run(self, inputs: Sequence[InferenceState]) -> Outcome:
        """Track one frame; resizing its mask to the image is part of it."""
        (state,) = inputs
        self._session.clear()
        start = time.perf_counter()
        _, _, logits = next(self._predictor.propagate_in_video(state, self._memories, 0))
        mask = logits[0, 0] > 0
        outcome = sam2_outcome(mask, start, self._session.first_s, stages_ms(self._session.spent_ms))
        self._forget_frame(state)
        return outcome

    def close(self) -> None:
        """Free the states; the session stays open."""
        self._predictor.close()

    def __enter__(self) -> Sam2VideoPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _forget_frame(self, state: InferenceState) -> None:
        tracked = state.objects[OBJECT]
        del tracked.bank.non_cond[self._memories], tracked.tracked[self._memories]
        state.release_features()


def load_still_video(sample: ShownSample) -> StillVideo:
    """Read an image and its ground truth.

    Raises:
        BadInputError: the ground truth is empty or of another size than the image.
        BadImageError: a file cannot be read.
    """
    image, mask = read_image(sample.image_path, 3, gray=True), sample.load_mask()
    sample.check_size(image.shape[:2], mask.shape[:2])
    if not mask.any():
        raise BadInputError(f"the mask of '{sample.name}' is empty: it is the object that a SAM2 tracks")
    return StillVideo(image, mask > 0)
