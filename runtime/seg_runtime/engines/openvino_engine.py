"""Graphs in OpenVINO, on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seg_runtime.engines.contract import check_tensors
from seg_runtime.errors import EngineError, InferenceError, MissingExtraError
from seg_runtime.repository import GRAPH_FILE, version_file
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["OpenVinoEngine"]


class OpenVinoEngine:
    """`model.onnx` of a version, compiled for this CPU.

    A graph in fp32 is computed in fp32, though OpenVINO would take bfloat16 on processors that have it:
    precision is a property of the graph. fp16 and int8 graphs were verified with rounding, and OpenVINO
    may choose for them.

    Args:
        spec: its contract.
        folder: its version folder.
        threads: threads of one call; None lets OpenVINO choose.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineError: the graph is broken, or has something that OpenVINO does not know.
        RepositoryError: it is missing or not what `spec` says.
    """

    kept_type = np.ndarray

    def __init__(self, spec: ModelSpec, folder: Path, threads: int | None = None) -> None:
        try:
            import openvino
            from openvino import frontend
        except ImportError as error:
            raise MissingExtraError("OpenVINO", "openvino") from error
        path = version_file(spec, folder, GRAPH_FILE)
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if spec.precision == "fp32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        failures = (
            RuntimeError,
            frontend.GeneralFailure,
            frontend.InitializationFailure,
            frontend.NotImplementedFailure,
            frontend.OpConversionFailure,
            frontend.OpValidationFailure,
        )
        try:
            # Core.read_model would offer a broken file to every other reader too, and they log about it.
            reader = frontend.FrontEndManager().load_by_framework("onnx")
            graph = reader.convert(reader.load(str(path)))
            # Compiling gives an output the names of what was fused into it too.
            inputs, outputs = _tensors(graph.inputs, spec.inputs), _tensors(graph.outputs, spec.outputs)
            self._compiled = _core().compile_model(graph, "CPU", options)
        except failures as error:
            raise EngineError(
                f"OpenVINO cannot load {path} ({_last_line(error)}): use the engine onnxruntime, or publish "
                f"'{spec.name}' again with seg-export"
            ) from error
        check_tensors(spec, path, inputs, outputs)
        self.about = f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"
        self._model = spec.name
        self._outputs = dict(zip(outputs, self._compiled.outputs, strict=True))
        self._idle: list[Any] = []

    def run(self, inputs: Mapping[str, Any], keep: frozenset[str] = frozenset()) -> dict[str, Any]:
        """As `Engine.run`; a kept output is an array, since its memory is the process's own."""
        try:
            # A request is for one call at a time; append and pop of a list are atomic.
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            answer = request.infer(inputs, share_inputs=True)
        except RuntimeError as error:
            raise InferenceError(f"model '{self._model}' failed: {_last_line(error)}") from error
        self._idle.append(request)
        return {name: answer[output] for name, output in self._outputs.items()}


@functools.cache
def _core() -> Any:
    """The one of this process, which is never unloaded.

    OpenVINO lends the thread that loads it a stack for signal handlers. Unloaded by another thread, it takes
    that memory away and leaves the pointer, and the next signal, a Ctrl-C, ends in a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _tensors(ports: list[Any], wanted: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    """What the graph has, in its order; a tensor may go by several names, of which ours counts."""
    tensors = {}
    for port in ports:
        name = next((tensor.name for tensor in wanted if tensor.name in port.names), port.any_name)
        shape = tuple(axis.get_length() if axis.is_static else -1 for axis in port.partial_shape)
        tensors[name] = TensorSpec(name, port.element_type.to_dtype().name, shape)
    return tensors


def _last_line(error: Exception) -> str:
    """OpenVINO tells where it failed in the first lines and why in the last."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
