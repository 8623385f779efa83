"""Runs graphs in ONNX Runtime on the CPU: to verify them, and to see what happens inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.engines.onnx_engine import exact_session
from seg_runtime.errors import MissingExtraError, ParityError

if TYPE_CHECKING:
    import onnx

__all__ = ["GraphRunner", "Tensors"]

Tensors = Mapping[str, NDArray[Any]]


class GraphRunner:
    """A loaded graph.

    Args:
        graph: its file, or the graph itself.
        what: names it in errors.
        folder: where a graph that is no file finds its external weights.
        in_order: run nodes in the order of the graph where nothing speaks against it; ONNX Runtime's own
            order leaves what only ends in an output to the end, and keeps its inputs until then.

    Raises:
        ParityError: ONNX Runtime cannot load the graph.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(
        self, graph: Path | onnx.ModelProto, what: str, folder: Path | None = None, *, in_order: bool = False
    ) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingExtraError("ONNX Runtime", "export") from error
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if in_order:
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        if folder is not None:
            entry = "session.model_external_initializers_file_folder_path"
            options.add_session_config_entry(entry, str(folder))
        source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
        self._what = what
        failures = _failures()
        self._failures: tuple[type[Exception], ...] = (ValueError, *failures)
        try:
            self._session = exact_session(source, options, ["CPUExecutionProvider"])
        except failures as error:
            raise ParityError(f"ONNX Runtime cannot load {what}: {error}") from error
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._half = {node.name for node in self._session.get_inputs() if node.type == "tensor(float16)"}

    def __call__(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run once; what travels in half precision is rounded to it first. Raises ParityError."""
        try:
            feed = {
                name: array.astype(np.float16) if name in self._half else array
                for name, array in inputs.items()
            }
            return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        except self._failures as error:
            raise ParityError(f"ONNX Runtime cannot run {self._what}: {error}") from error


def _failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )
