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
    fixed,
    input_size,
    stated,
    statistics,
    text,
)
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["LEFT_OPEN", "maskrcnn_assumptions"]

LEFT_OPEN = ("mean", "std", "class_names", "anchor_sizes", "size_hw")
"""What must be said of one, by the names of `Claims`."""


def maskrcnn_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Images, classes, anchors and thresholds."""
    from seg_export.families.maskrcnn.network import build_maskrcnn

    claim = stated(checkpoint)
    yield fixed("pixel scale", "pixels / 255")
    yield from statistics(checkpoint)
    yield channels(spec)
    yield fixed("channel order", "RGB")
    yield from classes(checkpoint, " and the background")
    # torchvision's min_size and max_size: the client scales to the graph's one size instead.
    yield input_size(spec, size_given)
    yield claim("resize", "resize", spec.resize, "--resize")
    argument = arguments_of(build_maskrcnn, checkpoint)
    anchors = checkpoint.arguments.get("anchor_sizes", [32, 64, 128, 256, 512])
    yield claim("anchor_sizes", "anchor sizes", text(anchors), "--anchors")
    yield fixed("anchor aspect ratios", "0.5, 1, 2")
    yield argument("proposals", "proposals", BUILT)
    yield argument("max_detections", "detections at most", "--max-detections")
    yield argument("score_threshold", "lowest score", BUILT)
    yield argument("nms_threshold", "NMS threshold", BUILT)
    if "norm" in checkpoint.arguments:
        yield argument("norm_eps", "epsilon of the norms", "--norm-eps")
    yield fixed("mask threshold", f"{spec.threshold:g}")
    yield fixed("score threshold", f"{spec.score_threshold:g}")
