"""A semantic model: an image into `SemanticSegmenter`, its mask out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.find import ShownSample
from seg_bench.pipelines import Outcome
from seg_bench.records import STAGES
from seg_runtime.files.images import read_image
from seg_runtime.semantic import SemanticSegmenter
from seg_runtime.session import Session

__all__ = ["SemanticPipeline"]

Image = NDArray[np.uint8]


class SemanticPipeline:
    """Foreground against background; the mask holds every class but the first.

    Args:
        session: runs the model.
        model: its name.

    Raises:
        ModelNotFoundError, BadInputError: as `SemanticSegmenter`.
    """

    def __init__(self, session: Session, model: str) -> None:
        self._segmenter = SemanticSegmenter(session, model)
        self.where = session.where

    @property
    def engine(self) -> str:
        """As of `Pipeline`, at this moment."""
        return self._segmenter.engine

    def load(self, sample: ShownSample) -> Image:
        """(H, W) or (H, W, 3) uint8, as many channels as the model takes."""
        return read_image(sample.image_path, self._segmenter.spec.channels, gray=True)

    def run(self, inputs: Sequence[Image]) -> Outcome:
        """Segment these images in one call; copying the results into their frames is part of it."""
        start = time.perf_counter()
        results = list(self._segmenter.stream(inputs, batch_size=len(inputs)))
        total = 1000 * (time.perf_counter() - start)
        parts = [stage for stage in STAGES if stage != "total"]
        spent = {stage: sum(result.timings_ms[stage] for result in results) for stage in parts}
        masks = [result.mask > 0 for result in results]
        classes = [result.mask for result in results if len(result.probabilities) > 1]
        return Outcome(masks, {**spent, "total": total}, classes=classes)
