"""Engine files of TensorRT and TensorRT for RTX on the GPU that they were built for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seg_runtime.engines.contract import check_tensors
from seg_runtime.engines.cuda import CapturedWork, Cuda, CudaError, DeviceArray, Stream, open_cuda
from seg_runtime.engines.engine_file import ENGINE_FILE, rebuild_command, require_engine, this_machine
from seg_runtime.engines.gpu import first_gpu
from seg_runtime.engines.tensorrt_api import Backend, TensorRT, load_tensorrt
from seg_runtime.errors import BadInputError, InferenceError, RepositoryError
from seg_runtime.repository import version_file
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["TensorRtEngine", "load_engine", "open_engine"]

Shapes = dict[str, tuple[int, ...]]


def load_engine(spec: ModelSpec, folder: Path) -> TensorRtEngine:
    """The engine of a version folder, after a look at its fingerprint.

    Raises:
        MissingExtraError: TensorRT or cuda-bindings is not installed.
        RepositoryError: there is no engine, or it is stale, of another device or not what `spec` says;
            names the command that builds one.
        EdgesegError: TensorRT or the GPU cannot be used.
    """
    fingerprint = require_engine(folder, spec.name, folder.parent.parent, this_machine())
    return open_engine(version_file(spec, folder, ENGINE_FILE), spec, fingerprint.backend)


def open_engine(path: Path, spec: ModelSpec, backend: Backend | None = None) -> TensorRtEngine:
    """An engine file itself, whatever lies beside it.

    Args:
        path: the file, in a version folder or on its way there.
        spec: what its tensors must be.
        backend: which TensorRT built it; None takes the one that is installed.

    Raises:
        MissingExtraError, RepositoryError, EdgesegError: as `load_engine`.
    """
    tensorrt = load_tensorrt(backend)
    cuda = open_cuda(tensorrt.backend)
    log = _log(tensorrt.module)
    engine = tensorrt.module.Runtime(log).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        command = rebuild_command(spec.name, path.parent.parent.parent)
        raise RepositoryError(f"{path} cannot be loaded ({log.last}): run  {command}")
    return TensorRtEngine(path, spec, tensorrt, engine, cuda, log)


class TensorRtEngine:
    """A deserialised engine with buffers of its own, one run at a time.

    Inputs are copied into its buffers and outputs out of them, on the device where both ends are there:
    addresses then change only when a buffer must grow, and a CUDA graph that was captured for some
    shapes is good until other shapes come.

    Args:
        path: its file, for messages.
        spec: what its tensors must be.
        tensorrt: the binding it was loaded with.
        engine: an `ICudaEngine`.
        cuda: the CUDA runtime.
        log: the logger that the engine was loaded with; must live as long.

    Raises:
        RepositoryError: its tensors are not those of `spec`.
    """

    kept_type = DeviceArray

    def __init__(
        self, path: Path, spec: ModelSpec, tensorrt: TensorRT, engine: Any, cuda: Cuda, log: Any
    ) -> None:
        self._tensors = _tensors(tensorrt.module, engine)
        check_tensors(spec, path, self._tensors["INPUT"], self._tensors["OUTPUT"])
        gpu = first_gpu()
        self.about = f"{tensorrt.name}, {gpu.name if gpu else 'GPU'}"
        self._model, self._path = spec.name, path
        self._limits = _limits(engine, self._tensors["INPUT"])
        self._cuda, self._log = cuda, log
        self._lock = threading.Lock()
        self._stream = Stream(cuda)
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise InferenceError(f"model '{spec.name}' cannot be prepared: {log.last}")
        self._buffers: dict[str, DeviceArray] = {}
        self._shapes: Shapes = {}
        self._capturable = True
        self._captured: CapturedWork | None = None
        self._ran_before = False

    def run(self, inputs: Mapping[str, Any], keep: frozenset[str] = frozenset()) -> dict[str, Any]:
        """As `Engine.run`; a kept output is a `DeviceArray`.

        Raises:
            BadInputError: a shape that the engine was not built for; names its limits.
            InferenceError: TensorRT or CUDA failed.
        """
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        try:
            with self._lock:
                if shapes != self._shapes:
                    self._prepare(shapes)
                for name, value in inputs.items():
                    self._stream.put(self._buffers[name], value)
                self._execute()
                answer = {name: self._answer(name, name in keep) for name in self._tensors["OUTPUT"]}
                self._stream.wait()
        except CudaError as error:
            raise InferenceError(f"model '{self._model}' failed: {error}") from error
        return answer

    def _prepare(self, shapes: Shapes) -> None:
        """Set the input shapes, and give every tensor a buffer that is large enough."""
        self._check_limits(shapes)
        # Until all of it is done, no shapes count as prepared.
        self._shapes, self._captured, self._ran_before = {}, None, False
        for name, shape in shapes.items():
            self._must(self._context.set_input_shape(name, shape))
        for tensors in (self._tensors["INPUT"], self._tensors["OUTPUT"]):
            for name, tensor in tensors.items():
                shape = shapes.get(name) or tuple(self._context.get_tensor_shape(name))
                if min(shape, default=0) < 0:
                    raise InferenceError(f"model '{self._model}' has an output '{name}' of unknown size")
                self._must(self._context.set_tensor_address(name, self._buffer(tensor, shape).pointer))
        self._shapes = shapes

    def _buffer(self, tensor: TensorSpec, shape: tuple[int, ...]) -> DeviceArray:
        needed = int(np.prod(shape, dtype=np.int64)) * tensor.numpy_dtype.itemsize
        buffer = self._buffers.get(tensor.name)
        if buffer is None or buffer.capacity < needed:
            # The old one goes first: there may not be room for both.
            self._buffers.pop(tensor.name, None)
            del buffer
            self._buffers[tensor.name] = buffer = DeviceArray(self._cuda, shape, tensor.numpy_dtype)
        buffer.shape = shape
        return buffer

    def _execute(self) -> None:
        """Run; from the second run with the same shapes on as a CUDA graph, where that works."""
        if self._captured is None and self._ran_before and self._capturable:
            self._captured = self._capture()
        if self._captured is not None:
            self._captured.launch()
        else:
            self._must(self._context.execute_async_v3(self._stream.address))
        self._ran_before = True

    def _capture(self) -> CapturedWork | None:
        can_capture = getattr(self._context, "is_stream_capturable", None)
        self._capturable = can_capture is None or can_capture(self._stream.address)
        if not self._capturable:
            return None
        self._stream.begin_capture()
        recorded = self._context.execute_async_v3(self._stream.address)
        try:
            captured = self._stream.end_capture()
        except CudaError:
            recorded = False
        # Loops and conditions cannot be recorded; such an engine runs as it is.
        self._capturable = recorded
        return captured if recorded else None

    def _answer(self, name: str, keep: bool) -> Any:
        buffer = self._buffers[name]
        if not keep:
            return self._stream.get(buffer)
        kept = DeviceArray(self._cuda, buffer.shape, buffer.dtype)
        self._stream.put(kept, buffer)
        return kept

    def _check_limits(self, shapes: Shapes) -> None:
        for name, (smallest, largest) in self._limits.items():
            shape = shapes[name]
            if not all(low <= has <= high for low, has, high in zip(smallest, shape, largest, strict=True)):
                limits = f"{_shown(smallest)} to {_shown(largest)}"
                raise BadInputError(
                    f"the engine of model '{self._model}' takes {name} from {limits}, and was given "
                    f"{_shown(shape)}: send less at once, or run it with --engine onnxruntime-cuda"
                )

    def _must(self, done: bool) -> None:
        if not done:
            raise InferenceError(f"model '{self._model}' failed: {self._log.last}")


def _tensors(module: Any, engine: Any) -> dict[str, dict[str, TensorSpec]]:
    """The engine's tensors by name, under "INPUT" and "OUTPUT"; -1 is an axis of any length."""
    tensors: dict[str, dict[str, TensorSpec]] = {"INPUT": {}, "OUTPUT": {}}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        dtype = np.dtype(module.nptype(engine.get_tensor_dtype(name))).name
        spec = TensorSpec(name, dtype, tuple(engine.get_tensor_shape(name)))
        tensors[engine.get_tensor_mode(name).name][name] = spec
    return tensors


def _limits(
    engine: Any, inputs: Mapping[str, TensorSpec]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Smallest and largest shape of each input that has axes of any length."""
    limits = {}
    for name, tensor in inputs.items():
        if min(tensor.shape, default=0) < 0:
            smallest, _, largest = engine.get_tensor_profile_shape(name, 0)
            limits[name] = (tuple(smallest), tuple(largest))
    return limits


def _log(module: Any) -> Any:
    """A logger that remembers TensorRT's last error as `last`, for the message of ours."""

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.last = "TensorRT gave no reason"

        def log(self, severity: Any, text: str) -> None:
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                self.last = " ".join(text.split())

    return Log()


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
