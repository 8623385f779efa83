"""The row of Mask R-CNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_export.families.family import EngineCheck, Family, Partner
from seg_export.families.maskrcnn.assumptions import LEFT_OPEN, maskrcnn_assumptions
from seg_export.precision.kept import KeptInFp32
from seg_runtime.errors import BadInputError, CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seg_export.checkpoints.types import Checkpoint, Preprocessing
    from seg_export.tracing.traceable import TraceableModel
    from seg_runtime.spec import ModelSpec

__all__ = ["MASKRCNN"]

_SIZE_HW = (800, 1333)
"""What torchvision scales images to fit into."""


def _build(**arguments: Any) -> nn.Module:
    from seg_export.families.maskrcnn.network import build_maskrcnn

    return build_maskrcnn(**arguments)


def _models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> tuple[TraceableModel, ...]:
    from seg_export.families.maskrcnn.model import maskrcnn_model

    return (maskrcnn_model(checkpoint, name, size_hw, max_batch_size),)


def _engine_check(spec: ModelSpec, partner: Partner | None) -> EngineCheck:
    from seg_export.families.maskrcnn.cases import detection_cases
    from seg_export.families.maskrcnn.detections import align_detections, detection_masks

    return EngineCheck(detection_cases(spec, None), detection_masks, align_detections)


def _preprocessing(model: Any, arguments: Mapping[str, Any]) -> Preprocessing:
    from seg_export.checkpoints.types import Preprocessing

    return Preprocessing(tuple(model.transform.image_mean), tuple(model.transform.image_std), None, _SIZE_HW)


def _spread(model: Any) -> None:
    """Let it find many objects: torchvision begins with scores that are all alike and below its threshold."""
    from seg_export.families.maskrcnn.random import scale_outputs

    head, predictor = model.rpn.head, model.roi_heads.box_predictor
    scale_outputs(model, {head.cls_logits: 3.0, head.bbox_pred: 0.3})
    scale_outputs(model, {predictor.cls_score: 3.0, predictor.bbox_pred: 1.0})
    scale_outputs(model, {model.roi_heads.mask_predictor.mask_fcn_logits: 3.0})


def _recognise(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint | None:
    from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, Preprocessing
    from seg_export.families.maskrcnn.network import (
        COCO_V1_SHA256,
        coco_names,
        current_names,
        maskrcnn_arguments,
    )
    from seg_runtime.hashing import file_sha256

    if "roi_heads.box_predictor.cls_score.weight" not in tensors:
        return None
    tensors = current_names(tensors)
    sha256 = file_sha256(path)
    try:
        arguments = maskrcnn_arguments(tensors)
    except BadInputError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from error
    if arguments is None:
        raise CheckpointError(f"checkpoint {path} is a detector without masks: a Mask R-CNN is expected")
    if sha256.startswith(COCO_V1_SHA256):
        arguments["norm_eps"] = 0.0
    classes = arguments["num_classes"]
    names = coco_names()
    if classes != len(names) + 1:
        names = ("object",) if classes == 2 else tuple(f"class_{label}" for label in range(1, classes))
    preprocessing = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, _SIZE_HW)
    return Checkpoint("maskrcnn", arguments, tensors, preprocessing, names, sha256=sha256, described=False)


def _official() -> Mapping[str, tuple[str, str]]:
    from seg_export.families.maskrcnn.checkpoints import OFFICIAL

    return OFFICIAL


def _command() -> Callable[..., None]:
    from seg_export.families.maskrcnn.command import maskrcnn

    return maskrcnn


MASKRCNN = Family(
    name="maskrcnn",
    title="Mask R-CNN",
    build=_build,
    models=_models,
    engine_check=_engine_check,
    preprocessing=_preprocessing,
    spread=_spread,
    recognise=_recognise,
    tensors="backbone..., rpn..., roi_heads...",
    assumptions=maskrcnn_assumptions,
    left_open=lambda checkpoint: LEFT_OPEN,
    choices=("resize",),
    official=_official,
    command=_command,
    tolerances={"instances": "fp32, detections"},
    # Layers with weights are in half precision; boxes, scores and where to sample never are. Suppression
    # counts up to 1000 overlaps in products, which half precision holds exactly.
    kept={
        "instances": KeptInFp32(
            frozenset(),
            only=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
            between=frozenset({"Add", "MaxPool", "Relu", "Resize"}),
        )
    },
)
