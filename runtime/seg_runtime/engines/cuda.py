"""GPU memory, a stream and captured work, over NVIDIA's own binding of the CUDA runtime (no torch)."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import EngineError, InferenceError, MissingExtraError

__all__ = ["Cuda", "CudaError", "DeviceArray", "Stream", "open_cuda"]


class CudaError(InferenceError):
    """A call of the CUDA runtime failed."""


class Cuda:
    """The CUDA runtime, its error codes made into exceptions.

    Args:
        runtime: the module `cuda.bindings.runtime`.
    """

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def __call__(self, function: str, *arguments: Any) -> Any:
        """Call a function by name; its one result, or None. Raises CudaError."""
        error, *results = getattr(self.runtime, function)(*arguments)
        if error != self.runtime.cudaError_t.cudaSuccess:
            # Else the next call, which did nothing wrong, would report it again.
            self.runtime.cudaGetLastError()
            _, text = self.runtime.cudaGetErrorString(error)
            raise CudaError(f"CUDA: {text.decode()} ({function})")
        return results[0] if results else None

    def finally_call(self, owner: object, function: str, *arguments: Any) -> None:
        """Call a function when the owner goes, where nobody could do anything about an error."""
        weakref.finalize(owner, getattr(self.runtime, function), *arguments)


def open_cuda(extra: str) -> Cuda:
    """The CUDA runtime of this machine.

    Args:
        extra: of edgeseg, that brings the binding.

    Raises:
        MissingExtraError: cuda-bindings is not installed.
        EngineError: there is no GPU, or the driver is too old.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingExtraError("cuda-bindings", extra) from error
    cuda = Cuda(runtime)
    try:
        cuda("cudaGetDeviceCount")
    except CudaError as error:
        raise EngineError(f"no NVIDIA GPU can be used here ({error}): run  seg-bench doctor") from error
    return cuda


class DeviceArray:
    """An array in the memory of the GPU, freed with the last reference to it.

    Attributes:
        shape: its shape.
        pointer: address on the device.
        capacity: bytes at that address, at least 1.
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._cuda = cuda
        self.shape = shape
        self.dtype = dtype
        self.capacity = max(1, self.nbytes)
        self.pointer: int = cuda("cudaMalloc", self.capacity)
        cuda.finally_call(self, "cudaFree", self.pointer)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def numpy(self) -> NDArray[Any]:
        """A copy of the values in the memory of the process. Raises CudaError."""
        values = np.empty(self.shape, self.dtype)
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda("cudaMemcpy", values.ctypes.data, self.pointer, self.nbytes, kind)
        return values


class Stream:
    """Work for the GPU in the order it is given, and one piece of it captured as a CUDA graph."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._kinds = cuda.runtime.cudaMemcpyKind
        # The default stream would wait for, and hold up, everybody else's work.
        self._stream = cuda("cudaStreamCreateWithFlags", cuda.runtime.cudaStreamNonBlocking)
        cuda.finally_call(self, "cudaStreamDestroy", self._stream)

    @property
    def address(self) -> int:
        return int(self._stream)

    def put(self, target: DeviceArray, source: NDArray[Any] | DeviceArray) -> None:
        """Copy values of the target's shape into it; `source` must live until `wait`."""
        on_device = isinstance(source, DeviceArray)
        kind = self._kinds.cudaMemcpyDeviceToDevice if on_device else self._kinds.cudaMemcpyHostToDevice
        pointer = source.pointer if isinstance(source, DeviceArray) else source.ctypes.data
        self._cuda("cudaMemcpyAsync", target.pointer, pointer, target.nbytes, kind, self._stream)

    def get(self, source: DeviceArray) -> NDArray[Any]:
        """A copy in the memory of the process, whole after `wait`."""
        values = np.empty(source.shape, source.dtype)
        kind = self._kinds.cudaMemcpyDeviceToHost
        self._cuda("cudaMemcpyAsync", values.ctypes.data, source.pointer, source.nbytes, kind, self._stream)
        return values

    def wait(self) -> None:
        """Until all work is done."""
        self._cuda("cudaStreamSynchronize", self._stream)

    def begin_capture(self) -> None:
        """Record instead of run what this thread gives to the stream; other threads may go on."""
        mode = self._cuda.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda("cudaStreamBeginCapture", self._stream, mode)

    def end_capture(self) -> CapturedWork:
        """What was recorded. Raises CudaError when it cannot be."""
        return CapturedWork(self._cuda, self._stream, self._cuda("cudaStreamEndCapture", self._stream))


class CapturedWork:
    """A CUDA graph: the kernels of one run with their addresses, launched all at once."""

    def __init__(self, cuda: Cuda, stream: Any, graph: Any) -> None:
        self._cuda = cuda
        self._stream = stream
        try:
            self._graph = cuda("cudaGraphInstantiate", graph, 0)
        finally:
            cuda("cudaGraphDestroy", graph)
        cuda.finally_call(self, "cudaGraphExecDestroy", self._graph)

    def launch(self) -> None:
        """Give it to the stream."""
        self._cuda("cudaGraphLaunch", self._graph, self._stream)
