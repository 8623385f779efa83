"""Models that are PyTorch modules: traced into a graph, and run to verify it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import nn

from seg_export.tracing.exportable import Cases, ExportableModel, ImageCase
from seg_export.tracing.external_weights import move_weights, weight_bytes
from seg_export.verification.comparison import Tensors
from seg_runtime.errors import CheckpointError, MissingExtraError
from seg_runtime.spec import TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["Cases", "ImageCase", "TraceableModel"]


@dataclass(frozen=True)
class TraceableModel(ExportableModel):
    """A loaded PyTorch model.

    Attributes:
        module: in eval mode on the CPU; takes the tensors of `spec.inputs` in their order, with a
            leading batch axis when the model batches, and returns those of `spec.outputs`.
        reference: what the graph is verified against, called like `module`; None for `module` itself.
    """

    reference_name = "PyTorch"
    simplify = True

    module: nn.Module
    reference: nn.Module | None = None

    def to_onnx(self, opset: int, weights_file: Path | None, external_data_above: int) -> onnx.ModelProto:
        """Trace the module; large weights are written straight from PyTorch's memory.

        Batch normalisation is folded into the convolutions by the exporter's own optimiser.
        """
        try:
            import onnx  # noqa: F401 - the exporter's own message would not name our extra
            import onnxscript  # noqa: F401 - likewise
        except ImportError as error:
            raise MissingExtraError("the ONNX exporter", "export") from error
        shapes = [self.graph_shape(tensor) for tensor in self.spec.inputs]
        pairs = zip(self.spec.inputs, shapes, strict=True)
        program = self._program(
            tuple(_example(tensor, shape) for tensor, shape in pairs),
            tuple(
                {index: torch.export.Dim.DYNAMIC for index, axis in enumerate(shape) if isinstance(axis, str)}
                for shape in shapes
            ),
            opset,
        )
        if weights_file is not None and weight_bytes(program.model) > external_data_above:
            move_weights(program.model, weights_file)
        graph: onnx.ModelProto = program.model_proto
        return graph

    def _program(
        self, example: tuple[torch.Tensor, ...], dynamic_shapes: tuple[dict[int, Any], ...], opset: int
    ) -> Any:
        try:
            with _unprinted():
                return torch.onnx.export(
                    self.module,
                    example,
                    input_names=[tensor.name for tensor in self.spec.inputs],
                    output_names=[tensor.name for tensor in self.spec.outputs],
                    dynamic_shapes=dynamic_shapes,
                    opset_version=opset,
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
        except torch.onnx.OnnxExporterError as error:
            raise CheckpointError(
                f"model '{self.spec.name}' cannot be traced: {_reason(error)}; a network may not branch on "
                "the values of its input, nor count on a batch of one size"
            ) from error

    def run_reference(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """What PyTorch computes."""
        tensors = [torch.from_numpy(inputs[tensor.name]) for tensor in self.spec.inputs]
        with torch.inference_mode():
            result = (self.reference or self.module)(*tensors)
        outputs = (result,) if isinstance(result, torch.Tensor) else result
        names = (tensor.name for tensor in self.spec.outputs)
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


@contextmanager
def _unprinted() -> Iterator[None]:
    """Drop what is printed while a module is traced.

    PyTorch shows whole graphs that it cannot follow, and the exporter every operator that it does not fold.
    """
    logs, dropped = [logging.getLogger(name) for name in ("torch", "onnxscript")], io.StringIO()
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(dropped), redirect_stderr(dropped):
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of the error that the exporter's own was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = next((line for line in str(error).splitlines() if line.strip()), "").strip()
    return f"{type(error).__name__}: {first}"


def _example(tensor: TensorSpec, shape: tuple[int | str, ...]) -> torch.Tensor:
    """Zeros; dynamic axes are longer than one, because tracers take such an axis for a constant."""
    # The modules are in fp32, whatever a tensor travels as.
    dtype: torch.dtype = getattr(torch, tensor.dtype.replace("float16", "float32"))
    return torch.zeros([2 if isinstance(axis, str) else axis for axis in shape], dtype=dtype)
