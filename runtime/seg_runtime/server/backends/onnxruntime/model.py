"""ONNX Runtime as a python-based Triton backend, for servers that lack the native one.

Triton's python backend starts this file in a process of its own, once per model instance, and finds
it by its folder's name: every model whose configuration says `backend: "onnxruntime"` lands here.
It imports nothing of edgeseg, so that the folder can be handed to a server as it is.

EDGESEG_SERVER_THREADS sets the threads of one model; by default its instances share the cores.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Only the server's own process has this module.
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

__all__ = ["TritonPythonModel"]

THREADS_VARIABLE = "EDGESEG_SERVER_THREADS"

Arrays = dict[str, NDArray[Any]]


class TritonPythonModel:
    """One instance of a model: the graph `<repository>/<version>/model.onnx` in an ONNX Runtime session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph.

        Args:
            args: Triton's own: `model_config` (JSON), `model_name`, `model_version`,
                `model_repository` (the model's folder), `model_instance_kind` and `..._device_id`.

        Raises:
            TritonModelException: the graph is missing or broken, or NumPy is too new; in one line.
        """
        config = json.loads(args["model_config"])
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._label = f"model '{args['model_name']}' version {args['model_version']}"
        if int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"{self._label}: the server's python backend corrupts tensors of NumPy {np.__version__}; "
                "run  pip install 'numpy<2'  in the environment that starts the server"
            )
        self._session = _open(graph, config, args, self._label)
        self._input_names = [tensor["name"] for tensor in config["input"]]
        self._max_batch_size = int(config.get("max_batch_size", 0))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests that Triton queued together, in their order.

        Requests of one shape run as one batch; a request that fails gets an error of its own.
        """
        inputs = [self._inputs(request) for request in requests]
        outputs = [list(request.requested_output_names()) for request in requests]
        responses: list[Any] = [None] * len(requests)
        for group in self._groups(inputs, outputs):
            for index, response in zip(group, self._answer(group, inputs, outputs[group[0]]), strict=True):
                responses[index] = response
        return responses

    def finalize(self) -> None:
        """Free the graph."""
        del self._session

    def _inputs(self, request: Any) -> Arrays:
        tensors = ((name, pb_utils.get_input_tensor_by_name(request, name)) for name in self._input_names)
        return {name: tensor.as_numpy() for name, tensor in tensors if tensor is not None}

    def _groups(self, inputs: list[Arrays], outputs: list[list[str]]) -> Iterator[list[int]]:
        """Indices of neighbouring requests that fit into one batch."""
        group: list[int] = []
        rows = 0
        for index, arrays in enumerate(inputs):
            batch = _batch_size(arrays)
            fits = (
                bool(group)
                and rows + batch <= self._max_batch_size
                and outputs[index] == outputs[group[0]]
                and _item_shapes(arrays) == _item_shapes(inputs[group[0]])
            )
            if group and not fits:
                yield group
                group, rows = [], 0
            group.append(index)
            rows += batch
        if group:
            yield group

    def _answer(self, group: list[int], inputs: list[Arrays], outputs: list[str]) -> list[Any]:
        """One response per request of the group; after a failed batch each request runs alone."""
        batch = [inputs[index] for index in group]
        try:
            results = self._run(batch, outputs)
        except Exception as error:  # noqa: BLE001 - the server must outlive whatever a graph raises
            if len(group) > 1:
                return [response for index in group for response in self._answer([index], inputs, outputs)]
            failure = pb_utils.TritonError(f"{self._label} failed: {_one_line(error)}")
            return [pb_utils.InferenceResponse(output_tensors=[], error=failure)]
        return [_response(result) for result in results]

    def _run(self, batch: list[Arrays], outputs: list[str]) -> list[Arrays]:
        """Outputs by name for each request."""
        if len(batch) == 1:
            return [dict(zip(outputs, self._session.run(outputs, batch[0]), strict=True))]
        joined = {name: np.concatenate([arrays[name] for arrays in batch]) for name in batch[0]}
        ends = np.cumsum([_batch_size(arrays) for arrays in batch])[:-1]
        parts = [np.split(array, ends) for array in self._session.run(outputs, joined)]
        return [dict(zip(outputs, row, strict=True)) for row in zip(*parts, strict=True)]


def _open(graph: Path, config: dict[str, Any], args: dict[str, str], label: str) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # It is read when the library is loaded.
    import onnxruntime

    # CUDA libraries that are not there are a warning, not a reason to print three screens.
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads(config)
    options.inter_op_num_threads = 1
    providers: list[Any] = ["CPUExecutionProvider"]
    on_gpu = args["model_instance_kind"] == "GPU"
    if on_gpu and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
            onnxruntime.preload_dlls()  # The CUDA and cuDNN that pip installed.
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]}))
    try:
        return _exact_session(onnxruntime, str(graph), options, providers)
    except Exception as error:
        raise pb_utils.TritonModelException(
            f"{label} cannot be loaded from {graph.name}: {_one_line(error)}"
        ) from error


def _exact_session(onnxruntime: Any, graph: str, options: Any, providers: list[Any]) -> Any:
    """Int8 without sums that overflow, as `exact_session` of seg_runtime, which says why."""
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=providers)
    except Exception as error:
        if "Attempt to replace the existing tensor" not in str(error):
            raise
    options.add_session_config_entry("session.x64quantprecision", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(graph, options, providers=providers)


def _threads(config: dict[str, Any]) -> int:
    wanted = os.environ.get(THREADS_VARIABLE, "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1
    return max(1, len(os.sched_getaffinity(0)) // instances)


def _batch_size(arrays: Arrays) -> int:
    return next((len(array) for array in arrays.values() if array.ndim), 0)


def _item_shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in arrays.items()}


def _response(outputs: Arrays) -> Any:
    tensors = [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
