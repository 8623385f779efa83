"""What every model family hands to the steps that follow loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from seg_export.verification.cases import VerificationCase, semantic_cases
from seg_export.verification.comparison import Align, Labels
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["Cases", "ImageCase", "TraceableModel"]

Cases = Callable[[ModelSpec, Path | None], tuple[VerificationCase, ...]]
"""Inputs to verify a graph with: synthetic ones, or of the images in a folder."""

ImageCase = Callable[[ModelSpec, Path], VerificationCase]
"""The inputs that a file of an image becomes."""


@dataclass(frozen=True)
class TraceableModel:
    """A loaded model with fixed inputs and outputs.

    Attributes:
        spec: the contract; version and parity are not known yet.
        module: in eval mode on the CPU; takes the tensors of `spec.inputs` in their order, with a
            leading batch axis when the model batches, and returns those of `spec.outputs`.
        labels: the masks that the outputs lead to, for comparing what users see.
        reference: what the graph is verified against, called like `module`; None for `module` itself.
        cases: what it is verified with.
        image_case: of one image, to calibrate int8 with; None for a model that takes no images, which
            stays in fp32.
        align: for outputs that are lists, of which both sides may have another order; else None.
        tolerance: row of `verification.tolerances.TOLERANCES` in fp32; "" for its family's.
        dynamic_batch: whether the graph takes batches of any size, where the model batches.
    """

    spec: ModelSpec
    module: nn.Module
    labels: Labels
    reference: nn.Module | None = None
    cases: Cases = semantic_cases
    image_case: ImageCase | None = None
    align: Align | None = None
    tolerance: str = ""
    dynamic_batch: bool = True

    def graph_shape(self, tensor: TensorSpec) -> tuple[int | str, ...]:
        """The full shape of an input or output of the graph: lengths, and names of dynamic axes."""
        names = iter(tensor.axes)
        shape = [next(names) if length < 0 else length for length in tensor.shape]
        if not self.spec.max_batch_size:
            return tuple(shape)
        return ("batch" if self.dynamic_batch else 1, *shape)
