"""A SAM checkpoint as its users run it without this toolkit: `segment_anything.SamPredictor`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seg_bench.data.find import AnySample
from seg_bench.pipelines import Outcome
from seg_bench.pipelines.sam import BoxPrompts, load_box_prompts, sam_outcome
from seg_runtime.errors import MissingExtraError

__all__ = ["TorchSamPipeline"]


class TorchSamPipeline:
    """Eager PyTorch on the CPU; all boxes of an image go in one call of `predict_torch`.

    Args:
        checkpoint: a SAM's.
        threads: intra-op threads, or None for PyTorch's own choice.
        channels_last: NHWC memory order of the convolutions.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        MissingExtraError: PyTorch or segment_anything is not installed.
    """

    where = "in-process"

    def __init__(self, checkpoint: Path, threads: int | None = None, channels_last: bool = False) -> None:
        try:
            import torch
            from segment_anything import SamPredictor

            from seg_export.checkpoint import build_model, load_checkpoint
        except ImportError as error:
            raise MissingExtraError("PyTorch with segment-anything", "export") from error
        if threads is not None:
            torch.set_num_threads(threads)
        sam: Any = build_model(load_checkpoint(checkpoint))
        if channels_last:
            sam = sam.to(memory_format=torch.channels_last)
        sam.mask_decoder.register_forward_hook(self._note_decoded)
        self.engine = f"PyTorch {torch.__version__}, CPU"
        self._torch = torch
        self._predictor = SamPredictor(sam)
        self._decoded = 0.0

    def load(self, sample: AnySample) -> BoxPrompts:
        return load_box_prompts(sample)

    def run(self, inputs: Sequence[BoxPrompts]) -> Outcome:
        """`SamPredictor.set_image` in its two steps, then `predict_torch`."""
        (case,) = inputs
        torch, predictor = self._torch, self._predictor
        start = time.perf_counter()
        resized = torch.as_tensor(predictor.transform.apply_image(case.image))
        pixels = resized.permute(2, 0, 1).contiguous()[None]
        prepared = time.perf_counter()
        predictor.set_torch_image(pixels, case.size_hw)
        encoded = time.perf_counter()
        boxes = predictor.transform.apply_boxes_torch(torch.as_tensor(case.boxes_xyxy), case.size_hw)
        masks, _, _ = predictor.predict_torch(None, None, boxes, multimask_output=False)
        mask = masks[:, 0].any(dim=0).numpy()
        end = time.perf_counter()
        return sam_outcome(
            np.asarray(mask, dtype=np.bool_),
            before_decoder_ms=1000 * (encoded - start),
            total_ms=1000 * (end - start),
            encode_ms=1000 * (encoded - prepared),
            decode_ms=1000 * (self._decoded - encoded),
        )

    def _note_decoded(self, *_: object) -> None:
        self._decoded = time.perf_counter()
