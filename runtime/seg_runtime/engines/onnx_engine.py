"""Graphs in ONNX Runtime: on the CPU, or with its CUDA or TensorRT execution provider."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seg_runtime.engines.contract import check_tensors
from seg_runtime.engines.onnx_graphs import (
    CapturedRuns,
    WrongReplayError,
    call_on_gpu_thread,
    can_be_captured,
    device_value,
    without_capture,
)
from seg_runtime.errors import EngineError, InferenceError, MissingExtraError, RepositoryError
from seg_runtime.repository import GRAPH_FILE, version_file
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["OnnxEngine", "OrtKept", "exact_session", "preload_cuda"]

PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
}
"""ONNX Runtime's execution providers, by what `Engine.about` calls them."""

_FATAL_ONLY = 4
"""ONNX Runtime's log level: its errors reach the caller as exceptions, not on stderr as well."""

_CAPTURING = (PROVIDERS["CUDA"], {"enable_cuda_graph": "1"})
_WITH_GRAPHS = " with CUDA graphs, CUDA"
_EXACT_INT8 = "session.x64quantprecision"
_INT8_AS_FLOAT = "session.disable_quant_qdq"
_SHARED_WEIGHT = "Attempt to replace the existing tensor"

Result = TypeVar("Result")


def exact_session(source: Any, options: Any, providers: list[Any]) -> Any:
    """An `onnxruntime.InferenceSession` whose sums in int8 do not overflow.

    On x86 processors without VNNI, ONNX Runtime's faster int8 products add in 16 bits, and masks are wrong.
    The exact ones do not load where two layers share a weight; such a graph computes in floating point
    between its roundings, which gives the same. Other processors and graphs are not concerned.
    Source: `kOrtSessionOptionsAvx2PrecisionMode` in onnxruntime_session_options_config_keys.h.

    Args:
        source: path of the graph, or its bytes.
        options: `onnxruntime.SessionOptions`, which is changed.
        providers: as of `InferenceSession`.

    Raises:
        Exception: as `InferenceSession`.
    """
    import onnxruntime as ort

    options.add_session_config_entry(_EXACT_INT8, "1")
    try:
        return ort.InferenceSession(source, options, providers=providers)
    except _onnxruntime_errors() as error:
        if _SHARED_WEIGHT not in str(error):
            raise
    options.add_session_config_entry(_EXACT_INT8, "0")
    options.add_session_config_entry(_INT8_AS_FLOAT, "1")
    return ort.InferenceSession(source, options, providers=providers)


class OrtKept:
    """A kept output: an OrtValue on the device that computed it."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.shape: tuple[int, ...] = tuple(value.shape())

    def numpy(self) -> NDArray[Any]:
        if self.value.device_name() != "cpu":
            return call_on_gpu_thread(self.value.numpy)
        # OrtValue.numpy() of a value on the CPU is a view of its memory.
        return np.array(self.value.numpy())


class OnnxEngine:
    """`model.onnx` of a version, loaded.

    Args:
        spec: its contract.
        folder: its version folder.
        threads: threads inside one operator; None lets ONNX Runtime use all cores.
        device: a key of `PROVIDERS`. Operators that the provider does not have run on CUDA and the CPU.

    Raises:
        MissingExtraError: ONNX Runtime, or one with this provider, is not installed.
        EngineError: the provider is there and does not start.
        RepositoryError: the graph is missing, broken or not what `spec` says.
    """

    kept_type = OrtKept

    def __init__(
        self, spec: ModelSpec, folder: Path, threads: int | None = None, device: str = "CPU"
    ) -> None:
        ort = _import_onnxruntime(device)
        path = version_file(spec, folder, GRAPH_FILE)
        self._settings = ort.SessionOptions()
        self._settings.log_severity_level = _FATAL_ONLY
        if threads is not None:
            self._settings.intra_op_num_threads = threads
        self._spec, self._path, self._device = spec, path, device
        self._outputs = [tensor.name for tensor in spec.outputs]
        self._captured: CapturedRuns | None = None
        self._options: Any = None
        self.about = f"ONNX Runtime {ort.__version__}, {device}"
        self._call = _call_here if device == "CPU" else call_on_gpu_thread
        try:
            self._runner = self._call(self._load)
        except _onnxruntime_errors() as error:
            raise RepositoryError(
                f"{path} cannot be loaded ({_first_line(error)}): publish '{spec.name}' again with seg-export"
            ) from error
        if self._runner.get_providers()[0] != PROVIDERS[device]:
            # ONNX Runtime goes on without a provider whose libraries or device are missing.
            raise EngineError(
                f"ONNX Runtime could not start {device} on this machine: run  seg-bench doctor  or choose "
                "another engine"
            )
        check_tensors(spec, path, _tensors(self._runner.get_inputs()), _tensors(self._runner.get_outputs()))

    def run(self, inputs: Mapping[str, Any], keep: frozenset[str] = frozenset()) -> dict[str, Any]:
        """As `Engine.run`; on a GPU one call at a time."""
        try:
            return self._call(self._run, inputs, keep)
        except _onnxruntime_errors() as error:
            raise InferenceError(f"model '{self._spec.name}' failed: {_first_line(error)}") from error

    def _load(self) -> Any:
        """A session, on CUDA one that captures CUDA graphs where the model may be captured."""
        if self._device != "CUDA" or not can_be_captured(self._spec, self._path):
            return self._load_plain()
        try:
            session = exact_session(self._path, self._settings, [_CAPTURING, PROVIDERS["CPU"]])
        except _onnxruntime_errors():
            # It has operators that run on the CPU, or it is broken and the next line fails as well.
            session = self._load_plain()
            self._note_fault("ONNX Runtime refused them")
        else:
            self._captured, self._options = CapturedRuns(session), without_capture()
        return session

    def _load_plain(self) -> Any:
        return exact_session(self._path, self._settings, _providers(self._device))

    def _run(self, inputs: Mapping[str, Any], keep: frozenset[str]) -> dict[str, Any]:
        if self._runner is None:
            self._runner = self._load_plain()
        if keep or OrtKept in map(type, inputs.values()):
            return self._run_bound(inputs, keep)
        replayed = None if self._captured is None else self._captured.replay(inputs)
        if replayed is not None:
            return replayed
        values = self._runner.run(self._outputs, inputs, self._options)
        outputs = dict(zip(self._outputs, values, strict=True))
        if self._captured is not None:
            self._learn(self._captured, inputs, outputs)
        return outputs

    def _run_bound(self, inputs: Mapping[str, Any], keep: frozenset[str]) -> dict[str, Any]:
        """Run with OrtValues as inputs or outputs: what is kept stays on its device."""
        binding = self._runner.io_binding()
        for name, value in inputs.items():
            if isinstance(value, OrtKept):
                binding.bind_ortvalue_input(name, value.value)
            else:
                binding.bind_cpu_input(name, value)
        batch = next(iter(inputs.values())).shape[:1] if self._spec.max_batch_size else ()
        for tensor in self._spec.outputs:
            if tensor.name not in keep:
                binding.bind_output(tensor.name, "cpu")
            elif self._captured is None:
                binding.bind_output(tensor.name, "cpu" if self._device == "CPU" else "cuda")
            else:
                value = device_value((*batch, *tensor.shape), tensor.numpy_dtype)
                binding.bind_ortvalue_output(tensor.name, value)
        self._runner.run_with_iobinding(binding, self._options)
        values = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        return {
            name: OrtKept(value) if name in keep else np.array(value.numpy())
            for name, value in values.items()
        }

    def _learn(
        self, captured: CapturedRuns, inputs: Mapping[str, Any], outputs: Mapping[str, NDArray[Any]]
    ) -> None:
        """Capture a run that was made; where that fails, go on with a session that captures nothing."""
        try:
            captured.learn(inputs, outputs)
        except WrongReplayError:
            self._note_fault("a replay computed other values")
        except _onnxruntime_errors():
            self._note_fault("the capture failed")
        else:
            if len(captured) and _WITH_GRAPHS not in self.about:
                self.about = self.about.replace(", CUDA", _WITH_GRAPHS)
            return
        # A session that failed to capture may be of no more use: the next run starts another.
        self._captured = self._options = self._runner = None

    def _note_fault(self, fault: str) -> None:
        self.about = f"{self.about.replace(_WITH_GRAPHS, ', CUDA')}; no CUDA graphs: {fault}"


def _call_here(function: Callable[..., Result], *arguments: Any) -> Result:
    return function(*arguments)


def _import_onnxruntime(device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("ONNX Runtime", "cpu" if device == "CPU" else "gpu") from error
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise MissingExtraError(f"ONNX Runtime with {device}", "gpu")
    if device != "CPU":
        preload_cuda(onnxruntime)
    return onnxruntime


def preload_cuda(onnxruntime: Any) -> None:
    """Load the CUDA and cuDNN that pip installed, so that the providers for the GPU find them.

    Python's packages are not where the system's loader looks. Libraries of the system are used where there
    are no such packages, and what neither has is left to the provider, which then does not start.
    """
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        # It prints what it does not find, where a command prints its results.
        with redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()


def _providers(device: str) -> list[Any]:
    if device == "CPU":
        return [PROVIDERS["CPU"]]
    if device == "CUDA":
        return [PROVIDERS["CUDA"], PROVIDERS["CPU"]]
    return [(PROVIDERS["TensorRT"], _tensorrt_options()), PROVIDERS["CUDA"], PROVIDERS["CPU"]]


def _tensorrt_options() -> dict[str, str]:
    """Building an engine takes minutes, so it is kept; fp16 stays off: precision is in the graph."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "edgeseg" / "onnxruntime-tensorrt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot write TensorRT's engines to '{folder}' ({error.strerror}): set XDG_CACHE_HOME"
        ) from error
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": "0",
    }


def _tensors(nodes: list[Any]) -> dict[str, TensorSpec]:
    return {node.name: TensorSpec(node.name, _dtype(node.type), _shape(node.shape)) for node in nodes}


def _dtype(onnx_type: str) -> str:
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _shape(axes: list[Any]) -> tuple[int, ...]:
    return tuple(axis if isinstance(axis, int) else -1 for axis in axes)


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """All of ONNX Runtime's exceptions; they have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    known = [
        value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    return (*known, RuntimeError)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
