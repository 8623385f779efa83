"""The row of modules that users bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from seg_export.families.family import Family
from seg_export.families.module.assumptions import module_assumptions
from seg_export.families.semantic.engine import semantic_engine_check
from seg_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

    from seg_export.checkpoints.types import Checkpoint, Preprocessing, WeightsFile
    from seg_export.tracing.traceable import TraceableModel
    from seg_runtime.spec import ModelSpec

__all__ = ["MODULE"]


def _build(**arguments: Any) -> nn.Module:
    raise CheckpointError(
        "a network of one's own cannot be built from its weights alone: name what makes it with  "
        "seg-export module PACKAGE.MODULE:FACTORY"
    )


def _models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> tuple[TraceableModel, ...]:
    from seg_export.families.module.graph import module_model

    return (module_model(checkpoint, name, size_hw, max_batch_size),)


def _preprocessing(network: Any, arguments: Mapping[str, Any]) -> Preprocessing:
    from seg_export.checkpoints.types import usual_preprocessing

    return usual_preprocessing(int(arguments.get("in_channels", 3)))


def _of_module(
    spec: ModelSpec, module: nn.Module, weights: WeightsFile | None, activation: Any, output: str | int | None
) -> Checkpoint:
    from seg_export.families.module.published import published_checkpoint

    return published_checkpoint(spec, module, weights, activation, output)


def _left_open(checkpoint: Checkpoint) -> Iterable[str]:
    channels, classes = checkpoint.arguments["in_channels"], checkpoint.arguments["num_classes"]
    yield from ("mean", "std", "scale", "class_names", "size_hw")
    if channels == 3:
        yield "channel_order"
    if channels in (1, 3):
        yield "clahe"
    if classes == 1:
        yield "threshold"


def _command() -> Callable[..., None]:
    from seg_export.families.module.command import module

    return module


MODULE = Family(
    name="module",
    title="PyTorch module",
    build=_build,
    models=_models,
    engine_check=semantic_engine_check,
    preprocessing=_preprocessing,
    assumptions=module_assumptions,
    left_open=_left_open,
    command=_command,
    of_module=_of_module,
)
