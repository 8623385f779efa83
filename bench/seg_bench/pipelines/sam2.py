"""A published SAM2: an image and a box around each object into `Sam2ImagePredictor`, one mask of all out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.find import ShownSample
from seg_bench.pipelines import Outcome
from seg_bench.pipelines.sam import BoxPrompts, TimedSession, load_box_prompts, sam_outcome
from seg_bench.sam2_stages import Spent, stages_ms
from seg_runtime.sam2 import Sam2ImagePredictor
from seg_runtime.session import Session

__all__ = ["Sam2Pipeline", "sam2_outcome"]


class Sam2Pipeline:
    """Sets an image and asks for the masks of all its boxes in one call; close it, or use `with`.

    Args:
        session: runs the encoder and the decoder.
        name: the SAM2's; its models are `<name>_image_encoder` and `<name>_mask_decoder`.

    Raises:
        ModelNotFoundError, BadInputError: as `Sam2ImagePredictor`.
    """

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = TimedSession(session), name
        self._predictor = Sam2ImagePredictor(self._session, name)
        self.where = session.where
        self.engine = self._predictor.engine

    def load(self, sample: ShownSample) -> BoxPrompts:
        return load_box_prompts(sample)

    def run(self, inputs: Sequence[BoxPrompts]) -> Outcome:
        """Segment one image, its encoding included."""
        (case,) = inputs
        self._session.clear()
        start = time.perf_counter()
        self._predictor.set_image(case.image)
        masks, _, _ = self._predictor.predict(box=case.boxes_xyxy, multimask_output=False)
        mask = masks.reshape(-1, *case.size_hw).any(axis=0)
        return sam2_outcome(mask, start, self._session.first_s, stages_ms(self._session.spent_ms))

    def sibling(self) -> Sam2Pipeline:
        """Another on the same session, for another thread."""
        return Sam2Pipeline(self._session.behind, self._name)

    def close(self) -> None:
        """Free the features; the session stays open."""
        self._predictor.close()

    def __enter__(self) -> Sam2Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sam2_outcome(mask: NDArray[np.bool_], start_s: float, first_s: float, spent_ms: Spent) -> Outcome:
    """The result of one image or frame, to be called when it is done.

    Args:
        mask: (H, W) bool.
        start_s: when the call began, of `time.perf_counter`.
        first_s: when the first of its models began.
        spent_ms: milliseconds by stage, as of `seg_bench.sam2_stages.STAGES`; all but "encode" counts as
            "decode".
    """
    prepared_ms, encode_ms = 1000 * (first_s - start_s), spent_ms["encode"]
    return sam_outcome(
        mask,
        before_decoder_ms=prepared_ms + encode_ms,
        total_ms=1000 * (time.perf_counter() - start_s),
        encode_ms=encode_ms,
        decode_ms=sum(spent_ms.values()) - encode_ms,
    )
