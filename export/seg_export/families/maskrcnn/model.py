"""Mask R-CNN's graph: a batch of uint8 images in, a fixed number of detections with masks out."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from seg_export.checkpoints.checkpoint import Checkpoint, build_model
from seg_export.families.maskrcnn.cases import detection_cases
from seg_export.families.maskrcnn.detections import align_detections, detection_masks
from seg_export.families.maskrcnn.graph import MaskRcnnGraph
from seg_export.families.maskrcnn.reference import MaskRcnnReference
from seg_export.tracing.traceable import TraceableModel
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["build_detector", "maskrcnn_model"]

_SIDES = (64, 4096)
_THRESHOLD = 0.5


def build_detector(checkpoint: Checkpoint) -> Any:
    """torchvision's `MaskRCNN` that normalises images as the checkpoint says. Raises CheckpointError."""
    model: Any = build_model(checkpoint)
    model.transform.image_mean = list(checkpoint.preprocessing.mean)
    model.transform.image_std = list(checkpoint.preprocessing.std)
    return model


def maskrcnn_model(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> TraceableModel:
    """Build the graph of a checkpoint.

    Args:
        checkpoint: of the family "maskrcnn".
        name: the model's name.
        size_hw: (height, width) in pixels of the graph's input; padded to multiples of 32 in the graph.
        max_batch_size: largest batch that is served.

    Raises:
        BadInputError: a size that the network cannot take, or no batch at all.
        CheckpointError: weights that do not fit their constructor arguments, or a model that is built in a
            way that has no fixed shapes.
    """
    shortest, longest = _SIDES
    if not all(shortest <= side <= longest for side in size_hw):
        raise BadInputError(
            f"input size {size_hw[0]}x{size_hw[1]}: each side must be {shortest} to {longest} pixels"
        )
    if max_batch_size < 1:
        raise BadInputError(f"largest batch {max_batch_size}: it must be at least 1")
    model = build_detector(checkpoint)
    if model.roi_heads.box_roi_pool.sampling_ratio <= 0 or model.roi_heads.mask_roi_pool.sampling_ratio <= 0:
        raise CheckpointError("this Mask R-CNN samples boxes of each size differently: set a sampling_ratio")
    classes = int(checkpoint.arguments["num_classes"]) - 1
    names = checkpoint.class_names or tuple(f"class_{label}" for label in range(1, classes + 1))
    if len(names) != classes:
        raise CheckpointError(
            f"the checkpoint names {len(names)} classes and its network has {classes} beside the "
            "background: save it with one name per class"
        )
    spec = ModelSpec(
        name=name,
        version=1,
        task="instances",
        family=checkpoint.family,
        inputs=(TensorSpec("image", "uint8", (*size_hw, 3)), TensorSpec("valid_hw", "int32", (2,))),
        outputs=_outputs(int(model.roi_heads.detections_per_img)),
        max_batch_size=max_batch_size,
        input_size_hw=size_hw,
        resize=checkpoint.preprocessing.resize or "longest-side",
        channels=3,
        mean=tuple(model.transform.image_mean),
        std=tuple(model.transform.image_std),
        class_names=names,
        threshold=_THRESHOLD,
        score_threshold=checkpoint.preprocessing.score_threshold,
        checkpoint_sha256=checkpoint.sha256,
        weights="random" if checkpoint.metadata.get("weights") == "random" else "trained",
        parameter_count=sum(parameter.numel() for parameter in model.parameters()),
        toolkit_version=version("edgeseg"),
    )
    return TraceableModel(
        spec,
        detection_masks,
        MaskRcnnGraph(model, size_hw).eval(),
        MaskRcnnReference(model, size_hw).eval(),
        cases=detection_cases,
        align=align_detections,
    )


def _outputs(detections: int) -> tuple[TensorSpec, ...]:
    return (
        TensorSpec("boxes", "float32", (detections, 4)),
        TensorSpec("scores", "float32", (detections,)),
        TensorSpec("labels", "int32", (detections,)),
        TensorSpec("mask_logits", "float32", (detections, 28, 28)),
        TensorSpec("count", "int32", (1,)),
    )
