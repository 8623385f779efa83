"""Plain state dicts, as the original libraries save them: which model they are, by names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, Preprocessing
from seg_export.families.maskrcnn.network import COCO_V1_SHA256, coco_names, current_names, maskrcnn_arguments
from seg_export.families.sam.network import sam_arguments
from seg_export.families.sam2.network import is_sam2, sam2_arguments
from seg_export.families.semantic.transunet import transunet_arguments
from seg_export.families.semantic.unet import unet_arguments
from seg_export.families.semantic.unetpp import unetpp_arguments
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.hashing import file_sha256

__all__ = ["describe_sam2", "first_three", "plain_state_dict", "recognise"]


def plain_state_dict(document: Mapping[str, Any]) -> Any:
    """The state dict in a file that is no checkpoint of ours, which may have it under a name."""
    wrapped = (document[name] for name in ("state_dict", "model") if isinstance(document.get(name), Mapping))
    return next(wrapped, document.get("state_dict", document))


def recognise(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint:
    """What model a state dict belongs to, as its names and shapes tell.

    Args:
        tensors: names and float32 values.
        path: the file they are from.

    Raises:
        CheckpointError: none that is known, or one of which the weights alone do not tell enough.
    """
    if (arguments := sam_arguments(tensors)) is not None:
        size_hw = (arguments["image_size"], arguments["image_size"])
        return Checkpoint(
            "sam",
            arguments,
            tensors,
            Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, size_hw),
            sha256=file_sha256(path),
            described=False,
        )
    if is_sam2(tensors):
        return describe_sam2(tensors, sam2_arguments(tensors), path)
    if "roi_heads.box_predictor.cls_score.weight" in tensors:
        return _torchvision_maskrcnn(current_names(tensors), path)
    for family, read_arguments in _SEMANTIC.items():
        if (arguments := read_arguments(tensors)) is not None:
            return _semantic(family, arguments, tensors, path)
    raise CheckpointError(
        f"checkpoint {path} is a plain state dict but no SAM's, SAM2's, U-Net's, U-Net++'s, TransUNet's or "
        f"Mask R-CNN's: {first_three(list(tensors))}; expected inc.double_conv.0.weight, down1..., up1..., "
        "out.weight or conv0_0.conv1.weight, conv0_1..., final... or transformer..., decoder..., "
        "segmentation_head... or image_encoder..., prompt_encoder..., mask_decoder... or backbone..., "
        "rpn..., roi_heads..."
    )


_SEMANTIC: dict[str, Callable[[Mapping[str, torch.Tensor]], dict[str, Any] | None]] = {
    "unet": unet_arguments,
    "unetpp": unetpp_arguments,
    "transunet": transunet_arguments,
}


def _semantic(
    family: str, arguments: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path
) -> Checkpoint:
    """A network of one output per class, of whose data the weights tell nothing."""
    classes = arguments["num_classes"]
    names = ("foreground",) if classes == 1 else tuple(f"class_{index}" for index in range(classes))
    channels = arguments["in_channels"]
    side = arguments.get("image_size", Preprocessing.input_size_hw[0])
    preprocessing = Preprocessing(
        Preprocessing.mean * channels, Preprocessing.std * channels, None, (side, side)
    )
    return Checkpoint(
        family, arguments, tensors, preprocessing, names, sha256=file_sha256(path), described=False
    )


def describe_sam2(
    tensors: dict[str, torch.Tensor], arguments: dict[str, Any] | None, path: Path
) -> Checkpoint:
    """A SAM2 of these arguments of `build_sam2`. Raises CheckpointError where they are not known."""
    if arguments is None:
        raise CheckpointError(
            f"checkpoint {path} is a SAM2 of no official size, whose windows and heads leave no trace in its "
            "weights: describe it with seg-export sam2 --variant-config FILE.json"
        )
    side = arguments.get("image_size", 1024)
    preprocessing = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, (side, side))
    return Checkpoint("sam2", arguments, tensors, preprocessing, sha256=file_sha256(path), described=False)


def _torchvision_maskrcnn(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint:
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
    preprocessing = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, (800, 1333))
    return Checkpoint("maskrcnn", arguments, tensors, preprocessing, names, sha256=sha256, described=False)


def first_three(items: list[str]) -> str:
    """The first three, and how many more there are."""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(items[:3]) + more
