"""A user's module with the contract of a model that was made of it."""

from __future__ import annotations

from torch import nn

from seg_export.checkpoints.claims import published_preprocessing
from seg_export.checkpoints.types import Checkpoint, WeightsFile
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
    """As `verification.published.module_as_published`, of a contract that says how images are prepared."""
    return module_checkpoint(
        module, published_preprocessing(spec), weights=weights, activation=activation, output=output
    )
