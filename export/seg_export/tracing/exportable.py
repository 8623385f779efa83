"""What every model family hands to the steps that follow loading; needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from seg_export.verification.cases import VerificationCase, semantic_cases
from seg_export.verification.comparison import Align, Labels, Tensors
from seg_runtime.spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["Cases", "ExportableModel", "ImageCase"]

Cases = Callable[[ModelSpec, Path | None], tuple[VerificationCase, ...]]
"""Inputs to verify a graph with: synthetic ones, or of the images in a folder."""

ImageCase = Callable[[ModelSpec, Path], VerificationCase]
"""The inputs that a file of an image becomes."""


@dataclass(frozen=True)
class ExportableModel(ABC):
    """A model with fixed inputs and outputs: a graph can be made of it, and compared with it.

    Attributes:
        spec: the contract; version and parity are not known yet.
        labels: the masks that the outputs lead to, for comparing what users see.
        cases: what it is verified with.
        image_case: of one image, to calibrate int8 with; None for a model that takes no images, which
            stays in fp32.
        align: for outputs that are lists, of which both sides may have another order; else None.
        dynamic_batch: whether the graph takes batches of any size, where the model batches.
        in_half: whether its graph is made in half precision, not in fp32.
        tolerance: row of `verification.tolerances.TOLERANCES` in fp32; "" for its family's.
        rounding: how much its outputs change with the rounding of its layers, where it was measured; else 0.
    """

    reference_name: ClassVar[str]
    """What graphs are verified against, for people."""
    simplify: ClassVar[bool]
    """Whether its graph is to be simplified."""

    spec: ModelSpec
    labels: Labels
    cases: Cases = field(default=semantic_cases, kw_only=True)
    image_case: ImageCase | None = field(default=None, kw_only=True)
    align: Align | None = field(default=None, kw_only=True)
    dynamic_batch: bool = field(default=True, kw_only=True)
    in_half: bool = field(default=False, kw_only=True)
    tolerance: str = field(default="", kw_only=True)
    rounding: float = field(default=0.0, kw_only=True)

    @abstractmethod
    def to_onnx(self, opset: int, weights_file: Path | None, external_data_above: int) -> onnx.ModelProto:
        """The graph, as `seg_export.tracing.trace.trace`, which checks the opset."""

    @abstractmethod
    def run_reference(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """What the graph's outputs should be, by name."""

    def graph_shape(self, tensor: TensorSpec) -> tuple[int | str, ...]:
        """The full shape of an input or output of the graph: lengths, and names of dynamic axes."""
        names = iter(tensor.axes)
        shape = [next(names) if length < 0 else length for length in tensor.shape]
        if not self.spec.max_batch_size:
            return tuple(shape)
        return ("batch" if self.dynamic_batch else 1, *shape)
