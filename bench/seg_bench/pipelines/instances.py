"""A model that finds objects: an image into `InstanceSegmenter`, a mask for each object out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.find import ShownSample
from seg_bench.pipelines import SURE, Objects, Outcome
from seg_runtime.files.images import read_image
from seg_runtime.instances import InstanceSegmenter
from seg_runtime.session import Session

__all__ = ["InstancesPipeline", "objects_outcome"]

Image = NDArray[np.uint8]


class InstancesPipeline:
    """All objects above the model's own score threshold, their masks pasted into the image.

    Args:
        session: runs the model.
        model: its name.

    Raises:
        ModelNotFoundError, BadInputError: as `InstanceSegmenter`.
    """

    def __init__(self, session: Session, model: str) -> None:
        self._segmenter = InstanceSegmenter(session, model)
        self.where = session.where

    @property
    def engine(self) -> str:
        """As of `Pipeline`, at this moment."""
        return self._segmenter.engine

    def load(self, sample: ShownSample) -> Image:
        """(H, W, 3) uint8 RGB."""
        return read_image(sample.image_path, 3, gray=True)

    def run(self, inputs: Sequence[Image]) -> Outcome:
        """Find the objects of these images in one call; pasting their masks is part of it."""
        start = time.perf_counter()
        results = list(self._segmenter.stream(inputs, batch_size=len(inputs)))
        objects = [Objects(result.scores, result.labels, result.masks()) for result in results]
        total = 1000 * (time.perf_counter() - start)
        spent = {
            stage: sum(result.timings_ms[stage] for result in results) for stage in ("preprocess", "infer")
        }
        sure = self._segmenter.spec.score_threshold
        return objects_outcome(objects, spent["preprocess"], spent["infer"], total, sure)


def objects_outcome(
    objects: Sequence[Objects], preprocess_ms: float, infer_ms: float, total_ms: float, sure: float = SURE
) -> Outcome:
    """The result of one call; what is left of the total was postprocessing."""
    masks = [found.masks[found.scores >= sure].any(axis=0) for found in objects]
    spent = {
        "preprocess": preprocess_ms,
        "infer": infer_ms,
        "postprocess": total_ms - preprocess_ms - infer_ms,
        "total": total_ms,
    }
    return Outcome(masks, spent, objects, sure=sure)
