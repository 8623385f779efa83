"""A published SAM: an image and a box around each object into `SamPredictor`, one mask of all out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.find import ShownSample
from seg_bench.data.objects import object_boxes
from seg_bench.pipelines import Outcome
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.sam import SamPredictor
from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec

__all__ = ["BoxPrompts", "SamPipeline", "TimedSession", "load_box_prompts", "sam_outcome"]


@dataclass(frozen=True)
class BoxPrompts:
    """One image and what to look for in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes_xyxy: (N, 4) float64 in pixels of the image, N at least 1.
    """

    image: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float64]

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


class TimedSession(Session):
    """Hands everything on to another session and adds up how long its models take, by their task.

    Attributes:
        behind: that session.
        spent_ms: milliseconds by task since it was last cleared, travel included.
        first_s: when the first model began since then, of `time.perf_counter`.
    """

    def __init__(self, session: Session) -> None:
        self.behind = session
        self.where = session.where
        self.spent_ms: dict[str, float] = {}
        self.first_s = 0.0

    def clear(self) -> None:
        """Begin again to add up."""
        self.spent_ms.clear()

    def models(self) -> tuple[str, ...]:
        return self.behind.models()

    def spec(self, model: str) -> ModelSpec:
        return self.behind.spec(model)

    def engine(self, model: str) -> str:
        return self.behind.engine(model)

    def answers_from_cache(self, model: str) -> bool | None:
        return self.behind.answers_from_cache(model)

    def close(self) -> None:
        self.behind.close()

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        start = time.perf_counter()
        if not self.spent_ms:
            self.first_s = start
        outputs = self.behind._infer(spec, inputs, keep)
        spent = 1000 * (time.perf_counter() - start)
        self.spent_ms[spec.task] = self.spent_ms.get(spec.task, 0.0) + spent
        return outputs


class SamPipeline:
    """Sets an image and asks for the masks of all its boxes in one call; close it, or use `with`.

    Args:
        session: runs encoder and decoder.
        name: the SAM's; its models are `<name>_encoder` and `<name>_decoder`.

    Raises:
        ModelNotFoundError, BadInputError: as `SamPredictor`.
    """

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = TimedSession(session), name
        self._predictor = SamPredictor(self._session, name)
        self.where = session.where
        self.engine = self._predictor.engine

    def load(self, sample: ShownSample) -> BoxPrompts:
        return load_box_prompts(sample)

    def run(self, inputs: Sequence[BoxPrompts]) -> Outcome:
        """Segment one image, its encoding included."""
        (case,) = inputs
        predictor, spent = self._predictor, self._session.spent_ms
        spent.clear()
        start = time.perf_counter()
        predictor.set_image(case.image)
        encoded = time.perf_counter()
        boxes = predictor.transform.apply_boxes(case.boxes_xyxy, case.size_hw)
        masks, _, _ = predictor.predict_batch(None, None, boxes, multimask_output=False)
        mask = masks[:, 0].any(axis=0)
        end = time.perf_counter()
        return sam_outcome(
            mask,
            before_decoder_ms=1000 * (encoded - start),
            total_ms=1000 * (end - start),
            encode_ms=spent["sam-encoder"],
            decode_ms=spent["sam-decoder"],
        )

    def sibling(self) -> SamPipeline:
        """Another on the same session, with an image of its own."""
        return SamPipeline(self._session.behind, self._name)

    def close(self) -> None:
        """Free the embedding; the session stays open."""
        self._predictor.close()

    def __enter__(self) -> SamPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_box_prompts(sample: ShownSample) -> BoxPrompts:
    """Read an image and the boxes of its ground truth.

    Raises:
        BadInputError: the ground truth is empty or of another size than the image.
        BadImageError: a file cannot be read.
    """
    image, mask = read_image(sample.image_path, 3, gray=True), sample.load_mask()
    sample.check_size(image.shape[:2], mask.shape[:2])
    boxes = object_boxes(mask)
    if not len(boxes):
        raise BadInputError(
            f"the mask of '{sample.name}' is empty: a SAM is measured with a box around each object"
        )
    return BoxPrompts(image, boxes)


def sam_outcome(
    mask: NDArray[np.bool_],
    *,
    before_decoder_ms: float,
    total_ms: float,
    encode_ms: float,
    decode_ms: float,
) -> Outcome:
    """The result of one image, its time split into stages.

    Args:
        mask: (H, W) bool.
        before_decoder_ms: from the beginning to the first decoder call; what the encoder did not take
            of it was preprocessing.
        total_ms: the whole call; what is left of it was postprocessing.
        encode_ms: the encoder alone.
        decode_ms: the decoder alone.
    """
    spent = {
        "preprocess": before_decoder_ms - encode_ms,
        "infer": encode_ms + decode_ms,
        "encode": encode_ms,
        "decode": decode_ms,
        "postprocess": total_ms - before_decoder_ms - decode_ms,
        "total": total_ms,
    }
    return Outcome([mask], spent)
