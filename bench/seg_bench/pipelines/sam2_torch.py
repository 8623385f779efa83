"""A SAM2 checkpoint as its users run it without this toolkit: sam2's own two predictors."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from seg_bench.candidate import Candidate
from seg_bench.data.find import ShownSample
from seg_bench.pipelines import Outcome
from seg_bench.pipelines.sam import BoxPrompts, load_box_prompts
from seg_bench.pipelines.sam2 import sam2_outcome
from seg_bench.pipelines.sam2_video import FRAMES, OBJECT, load_still_video
from seg_bench.sam2_stages import StageClock
from seg_bench.sam2_trackers import as_image_predictor, as_video_predictor
from seg_bench.torch_place import TorchPlace
from seg_bench.tracked import split_name
from seg_runtime.errors import MissingExtraError

__all__ = ["TorchSam2Pipeline", "TorchSam2VideoPipeline"]


class TorchSam2Pipeline:
    """`SAM2ImagePredictor`: all boxes of an image go in one call; of a compiled one the encoder is compiled.

    Args:
        candidate: a PyTorch baseline.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        MissingExtraError: PyTorch or sam2 is not installed.
    """

    where = "in-process"

    def __init__(self, candidate: Candidate) -> None:
        self._place, model = _placed_model(candidate)
        self._predictor = as_image_predictor(model)
        self._clock = StageClock(self._place.wait)
        self._clock.watch(model, "forward_image", "encode")
        for part in (model.sam_prompt_encoder, model.sam_mask_decoder):
            self._clock.watch(part, "forward", "decode")
        self.engine = self._place.engine

    def load(self, sample: ShownSample) -> BoxPrompts:
        return load_box_prompts(sample)

    def run(self, inputs: Sequence[BoxPrompts]) -> Outcome:
        """`set_image`, then `predict`."""
        (case,) = inputs
        self._clock.clear()
        start = time.perf_counter()
        with self._place.computing():
            self._predictor.set_image(case.image)
            masks, _, _ = self._predictor.predict(box=case.boxes_xyxy, multimask_output=False)
        mask = (masks > 0).reshape(-1, *case.size_hw).any(axis=0)
        return sam2_outcome(mask, start, self._clock.first_s, self._clock.spent_ms)


class TorchSam2VideoPipeline:
    """`SAM2VideoPredictor` on the same frames, and with the same bank, as `Sam2VideoPipeline`.

    Args:
        candidate: a PyTorch baseline, called as `seg_bench.tracked.tracked_name` does.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        MissingExtraError: PyTorch or sam2 is not installed.
    """

    where = "in-process"

    def __init__(self, candidate: Candidate) -> None:
        self._place, model = _placed_model(candidate)
        self._memories = split_name(candidate.model)[1]
        self._predictor = as_video_predictor(model)
        self._clock = StageClock(self._place.wait)
        self._clock.watch_tracker(self._predictor)
        self.engine = self._place.engine

    def load(self, sample: ShownSample) -> dict[str, Any]:
        """sam2's state of a still video just before the timed frame."""
        video, predictor = load_still_video(sample), self._predictor
        with TemporaryDirectory() as folder, self._place.computing(), redirect_stderr(io.StringIO()):
            # sam2 reads files that are called .jpg only, and Pillow goes by what is in them: nothing is lost.
            Image.fromarray(video.image).save(Path(folder) / "00000.jpg", format="PNG")
            state: dict[str, Any] = predictor.init_state(folder)
            state["images"] = state["images"].expand(FRAMES, -1, -1, -1)
            state["num_frames"] = FRAMES
            predictor.add_new_mask(state, 0, OBJECT, video.mask)
            for _ in predictor.propagate_in_video(state, 0, self._memories - 1):
                pass
        state["cached_features"] = {}
        return state

    def run(self, inputs: Sequence[dict[str, Any]]) -> Outcome:
        """Track one frame; resizing its mask to the image is part of it."""
        (state,) = inputs
        self._clock.clear()
        # Its progress bar would break through ours.
        with redirect_stderr(io.StringIO()):
            start = time.perf_counter()
            with self._place.computing():
                frames = self._predictor.propagate_in_video(state, self._memories, 0)
                _, _, logits = next(frames)
                mask = np.asarray((logits[0, 0] > 0).cpu().numpy(), dtype=np.bool_)
            outcome = sam2_outcome(mask, start, self._clock.first_s, self._clock.spent_ms)
            frames.close()
        self._forget_frame(state)
        return outcome

    def _forget_frame(self, state: dict[str, Any]) -> None:
        del state["output_dict_per_obj"][0]["non_cond_frame_outputs"][self._memories]
        state["frames_tracked_per_obj"][0].pop(self._memories, None)
        state["cached_features"] = {}


def _placed_model(candidate: Candidate) -> tuple[TorchPlace, Any]:
    """Where PyTorch computes, and sam2's model there."""
    place = TorchPlace(candidate)
    try:
        from seg_export.checkpoints.checkpoint import build_model
        from seg_export.families.sam2.checkpoints import load_sam2_checkpoint
    except ImportError as error:
        raise MissingExtraError("PyTorch", "export") from error
    model = place.place(build_model(load_sam2_checkpoint(Path(candidate.checkpoint or ""))))
    place.compile(model.image_encoder)
    return place, model
