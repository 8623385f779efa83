"""What every model family hands to the steps that follow loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from seg_runtime.spec import ModelSpec

__all__ = ["Labels", "TraceableModel"]

Labels = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.uint8]]
"""From a model's outputs to the masks they lead to, as uint8 class ids of any shape."""


@dataclass(frozen=True)
class TraceableModel:
    """A loaded model with fixed inputs and outputs.

    Attributes:
        spec: the contract; version and parity are not known yet.
        module: in eval mode on the CPU; takes the tensors of `spec.inputs` in their order, with a
            leading batch axis when the model batches, and returns those of `spec.outputs`.
        labels: the masks that the outputs lead to, for comparing what users see.
    """

    spec: ModelSpec
    module: nn.Module
    labels: Labels
