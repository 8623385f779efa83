"""What the weights of a Mask R-CNN leave open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from seg_export.checkpoints.assumption import (
    BUILT,
    Assumption,
    arguments_of,
    channels,
    classes,
    fixed_scale,
    input_size,
)
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["maskrcnn_assumptions"]


def maskrcnn_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Images, classes, anchors and thresholds."""
    from seg_export.families.maskrcnn.network import build_maskrcnn

    yield from fixed_scale(checkpoint)
    yield from channels(spec)
    yield from classes(len(spec.class_names), spec.class_names, " and the background")
    # torchvision's min_size and max_size: the client scales to the graph's one size instead.
    yield input_size(spec, size_given)
    yield Assumption("resize", spec.resize, "assumed")
    argument = arguments_of(build_maskrcnn, checkpoint)
    yield argument("anchor_sizes", "anchor sizes", BUILT, (32, 64, 128, 256, 512))
    yield Assumption("anchor aspect ratios", "0.5, 1, 2", "assumed")
    yield argument("proposals", "proposals", BUILT)
    yield argument("max_detections", "detections at most", "--max-detections")
    yield argument("score_threshold", "score threshold", BUILT)
    yield argument("nms_threshold", "NMS threshold", BUILT)
    if "norm" in checkpoint.arguments:
        yield argument("norm_eps", "epsilon of the norms", "--norm-eps")
    yield Assumption("mask threshold", f"{spec.threshold:g}", "assumed")
