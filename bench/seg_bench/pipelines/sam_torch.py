"""A SAM checkpoint as its users run it without this toolkit: `segment_anything.SamPredictor`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seg_bench.candidate import Candidate
from seg_bench.data.find import ShownSample
from seg_bench.pipelines import Outcome
from seg_bench.pipelines.sam import BoxPrompts, load_box_prompts, sam_outcome
from seg_bench.torch_place import TorchPlace
from seg_runtime.errors import MissingExtraError

__all__ = ["TorchSamPipeline"]


class TorchSamPipeline:
    """All boxes of an image go in one call of `predict_torch`; of a compiled one the encoder is compiled.

    Args:
        candidate: a PyTorch baseline.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        MissingExtraError: PyTorch or segment_anything is not installed.
    """

    where = "in-process"

    def __init__(self, candidate: Candidate) -> None:
        try:
            import torch
            from segment_anything import SamPredictor

            from seg_export.checkpoints.checkpoint import build_model, load_checkpoint
        except ImportError as error:
            raise MissingExtraError("PyTorch with segment-anything", "export") from error
        self._place = TorchPlace(candidate)
        sam: Any = self._place.place(build_model(load_checkpoint(Path(candidate.checkpoint or ""))))
        self._place.compile(sam.image_encoder)
        sam.mask_decoder.register_forward_hook(self._note_decoded)
        self.engine = self._place.engine
        self._torch = torch
        self._predictor = SamPredictor(sam)
        self._decoded = 0.0

    def load(self, sample: ShownSample) -> BoxPrompts:
        return load_box_prompts(sample)

    def run(self, inputs: Sequence[BoxPrompts]) -> Outcome:
        """`SamPredictor.set_image` in its two steps, then `predict_torch`."""
        (case,) = inputs
        torch, predictor, place = self._torch, self._predictor, self._place
        start = time.perf_counter()
        with place.computing():
            resized = torch.as_tensor(predictor.transform.apply_image(case.image), device=place.device)
            pixels = resized.permute(2, 0, 1).contiguous()[None]
            prepared = time.perf_counter()
            predictor.set_torch_image(pixels, case.size_hw)
            place.wait()
            encoded = time.perf_counter()
            boxes_xyxy = torch.as_tensor(case.boxes_xyxy, device=place.device)
            boxes = predictor.transform.apply_boxes_torch(boxes_xyxy, case.size_hw)
            masks, _, _ = predictor.predict_torch(None, None, boxes, multimask_output=False)
            mask = masks[:, 0].any(dim=0).cpu().numpy()
        end = time.perf_counter()
        return sam_outcome(
            np.asarray(mask, dtype=np.bool_),
            before_decoder_ms=1000 * (encoded - start),
            total_ms=1000 * (end - start),
            encode_ms=1000 * (encoded - prepared),
            decode_ms=1000 * (self._decoded - encoded),
        )

    def _note_decoded(self, *_: object) -> None:
        self._place.wait()
        self._decoded = time.perf_counter()
