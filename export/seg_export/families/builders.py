"""The model families that can be exported: one builder each, of the one model or the several they publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from seg_export.checkpoints.checkpoint import Checkpoint
from seg_export.families.maskrcnn.model import maskrcnn_model
from seg_export.families.sam.graphs import sam_models
from seg_export.families.sam2.graphs import sam2_models
from seg_export.families.semantic.graph import semantic_model
from seg_export.tracing.traceable import TraceableModel
from seg_runtime.errors import BadInputError, CheckpointError

__all__ = ["FAMILIES", "traceable_model", "traceable_models"]

Models = tuple[TraceableModel, ...]
Builder = Callable[[Checkpoint, str, tuple[int, int], int], Models]


def _unet(checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int) -> Models:
    # U-Net and U-Net++ have five levels unless told otherwise.
    levels = len(checkpoint.arguments.get("features", range(5))) - 1
    min_side = max(2**levels, 8)
    return (semantic_model(checkpoint, name, size_hw, min_side, max_batch_size),)


def _transunet(checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int) -> Models:
    side = int(checkpoint.arguments.get("image_size", 224))
    if size_hw != (side, side):
        raise BadInputError(
            f"input size {size_hw[0]}x{size_hw[1]}: this TransUNet has learned positions for {side}x{side} "
            "alone; leave --size out"
        )
    return (semantic_model(checkpoint, name, size_hw, side, max_batch_size),)


def _sam(checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int) -> Models:
    return sam_models(checkpoint, name, size_hw)


def _sam2(checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int) -> Models:
    return sam2_models(checkpoint, name, size_hw)


def _maskrcnn(checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int) -> Models:
    return (maskrcnn_model(checkpoint, name, size_hw, max_batch_size),)


FAMILIES: dict[str, Builder] = {
    "maskrcnn": _maskrcnn,
    "sam": _sam,
    "sam2": _sam2,
    "transunet": _transunet,
    "unet": _unet,
    "unetpp": _unet,
}


def traceable_models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> tuple[TraceableModel, ...]:
    """Build what the following steps trace, verify and publish.

    Args:
        checkpoint: loaded weights.
        name: the model's name in the repository, or what the names of several begin with.
        size_hw: (height, width) in pixels of the graph's image input.
        max_batch_size: largest batch that is served.

    Raises:
        CheckpointError: an unknown family, or weights that do not fit it.
        BadInputError: a size or batch that the model cannot take.
    """
    builder = FAMILIES.get(checkpoint.family)
    if builder is None:
        raise CheckpointError(
            f"cannot export the model family '{checkpoint.family}': known are {', '.join(sorted(FAMILIES))}"
        )
    return builder(checkpoint, name, size_hw, max_batch_size)


def traceable_model(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> TraceableModel:
    """The model of that name among those that a checkpoint publishes; else like `traceable_models`.

    Args:
        checkpoint: loaded weights.
        name: the model's full name; "sam_encoder" is the encoder of the family that begins with "sam".
        size_hw: (height, width) in pixels of the graph's image input.
        max_batch_size: largest batch that is served.

    Raises:
        CheckpointError: also when the checkpoint publishes several models and none of that name.
    """
    models = traceable_models(checkpoint, name, size_hw, max_batch_size)
    if len(models) == 1:
        return models[0]
    for model in models:
        part = model.spec.name.removeprefix(name)
        if name.endswith(part):
            return replace(model, spec=replace(model.spec, name=name))
    ends = " and ".join(model.spec.name.removeprefix(name) for model in models)
    raise CheckpointError(
        f"a checkpoint of the family '{checkpoint.family}' becomes models named ...{ends}, not '{name}'"
    )
