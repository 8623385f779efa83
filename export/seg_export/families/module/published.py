"""A user's module with the contract of a model that was made of it."""

from __future__ import annotations

from torch import nn

from seg_export.checkpoints.types import Checkpoint, Preprocessing, WeightsFile
from seg_export.families.module.network import Activation, module_checkpoint
from seg_runtime.spec import ModelSpec

__all__ = ["published_checkpoint"]


def published_checkpoint(
    spec: ModelSpec,
    module: nn.Module,
    weights: WeightsFile | None,
    activation: Activation | None,
    output: str | int | None,
) -> Checkpoint:
    """As `seg_export.export.module_as_published`, of a contract that says how images are prepared."""
    preprocessing = Preprocessing(
        spec.mean, spec.std, spec.clahe, spec.input_size_hw, spec.scale, spec.channel_order, spec.threshold
    )
    return module_checkpoint(module, preprocessing, weights=weights, activation=activation, output=output)
