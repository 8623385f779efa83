"""The model families that can be exported: one folder each, one row each in `FAMILIES`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seg_export.families.family import Family
from seg_export.families.maskrcnn import MASKRCNN
from seg_export.families.module import MODULE
from seg_export.families.onnx import ONNX, export_onnx
from seg_export.families.sam import SAM
from seg_export.families.sam2 import SAM2
from seg_export.families.semantic import TRANSUNET, UNET, UNETPP
from seg_runtime.errors import CheckpointError, EdgesegError

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint
    from seg_export.tracing.traceable import TraceableModel

__all__ = ["FAMILIES", "export_onnx", "family_named", "traceable_model", "traceable_models"]

FAMILIES = {family.name: family for family in (UNET, UNETPP, TRANSUNET, SAM, SAM2, MASKRCNN, MODULE, ONNX)}


def family_named(name: str) -> Family:
    """A row of `FAMILIES`. Raises CheckpointError, naming those that are known."""
    if name not in FAMILIES:
        raise CheckpointError(
            f"unknown model family '{name}': this version knows {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[name]


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
    family = family_named(checkpoint.family)
    try:
        return family.models(checkpoint, name, size_hw, max_batch_size)
    except EdgesegError:
        raise
    except Exception as error:
        # Arguments that a file names can be of any type.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CheckpointError(
            f"cannot make a {checkpoint.family} with the arguments {checkpoint.arguments} ({reason})"
        ) from error


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
