"""CUDA, its driver and TensorRT without a GPU: host memory, work that is done when the stream is waited for.

Enumerations are the real ones, and `tests/project/test_stand_ins.py` compares everything faked here with the
real interfaces.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorrt_rtx_bindings as trt
from cuda.bindings import runtime as real

OK = real.cudaError_t.cudaSuccess


class FakeRuntime:
    """Stands for the module `cuda.bindings.runtime`.

    Attributes:
        memory: what is allocated, by address.
        calls: names of the functions called, in order.
        allocations_left: how many more calls of cudaMalloc work; None is any number.
        capturable: whether a capture ends well.
        graphs: CUDA graphs that were made and not destroyed.
    """

    cudaError_t = real.cudaError_t  # noqa: N815
    cudaMemcpyKind = real.cudaMemcpyKind  # noqa: N815
    cudaStreamCaptureMode = real.cudaStreamCaptureMode  # noqa: N815
    cudaStreamNonBlocking = real.cudaStreamNonBlocking  # noqa: N815
    cudaGetErrorString = staticmethod(real.cudaGetErrorString)  # noqa: N815

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.calls: list[str] = []
        self.allocations_left: int | None = None
        self.capturable = True
        self.graphs: set[int] = set()
        self._queue: list[Callable[[], None]] = []
        self._recording: list[Callable[[], None]] | None = None
        self._recorded: dict[int, list[Callable[[], None]]] = {}

    def enqueue(self, work: Callable[[], None]) -> None:
        """Do it when the stream is waited for, or record it."""
        (self._queue if self._recording is None else self._recording).append(work)

    def view(self, pointer: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """What lies at an address that is allocated and large enough."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.memory[pointer][:count].view(dtype).reshape(shape)

    def cudaGetLastError(self) -> tuple[Any]:  # noqa: N802
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Any, int]:  # noqa: N802
        self.calls.append("cudaMalloc")
        if self.allocations_left is not None:
            if self.allocations_left == 0:
                return real.cudaError_t.cudaErrorMemoryAllocation, 0
            self.allocations_left -= 1
        block = np.full(size, 0xA5, np.uint8)
        self.memory[block.ctypes.data] = block
        return OK, block.ctypes.data

    def cudaFree(self, pointer: int) -> tuple[Any]:  # noqa: N802
        del self.memory[pointer]
        return (OK,)

    def cudaMemcpy(self, target: int, source: int, count: int, kind: Any) -> tuple[Any]:  # noqa: N802
        assert not self._queue, "a copy that does not wait for the stream"
        self._copy(target, source, count, kind)
        return (OK,)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, count: int, kind: Any, stream: Any
    ) -> tuple[Any]:
        assert self._recording is None, "addresses of the caller were captured"
        self.calls.append(kind.name)
        self.enqueue(lambda: self._copy(target, source, count, kind))
        return (OK,)

    def _copy(self, target: int, source: int, count: int, kind: Any) -> None:
        on_device = {"cudaMemcpyHostToDevice": (1, 0), "cudaMemcpyDeviceToHost": (0, 1)}.get(
            kind.name, (1, 1)
        )
        for pointer, device in zip((target, source), on_device, strict=True):
            assert (pointer in self.memory) == bool(device), "freed, or memory of the other side"
            assert not device or len(self.memory[pointer]) >= count
        ctypes.memmove(target, source, count)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, int]:  # noqa: N802
        return OK, 7

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any]:  # noqa: N802
        return (OK,)

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any]:  # noqa: N802
        work, self._queue = self._queue, []
        for each in work:
            each()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any]:  # noqa: N802
        self._recording = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, int]:  # noqa: N802
        recorded, self._recording = self._recording, None
        if not self.capturable:
            return real.cudaError_t.cudaErrorStreamCaptureUnsupported, 0
        assert recorded is not None
        number = len(self.calls) + 1000
        self._recorded[number] = recorded
        return OK, number

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, int]:  # noqa: N802
        self.graphs.add(graph)
        return OK, graph

    def cudaGraphDestroy(self, graph: int) -> tuple[Any]:  # noqa: N802
        return (OK,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Any]:  # noqa: N802
        self.graphs.remove(graph)
        return (OK,)

    def cudaGraphLaunch(self, graph: int, stream: Any) -> tuple[Any]:  # noqa: N802
        assert graph in self.graphs
        self.calls.append("cudaGraphLaunch")
        self._queue.extend(self._recorded[graph])
        return (OK,)


class FakeEngine:
    """An `ICudaEngine` and `IExecutionContext` of y = 2 x + 1, float32 (N, 3), N from 1 to 4.

    Attributes:
        fails: makes every execution fail.
    """

    num_io_tensors = 2

    def __init__(self, runtime: FakeRuntime, output: str = "y") -> None:
        self.runtime = runtime
        self.fails = False
        self._names = ("x", output)
        self._shape = (-1, 3)
        self._addresses: dict[str, int] = {}

    def get_tensor_name(self, number: int) -> str:
        return self._names[number]

    def get_tensor_dtype(self, name: str) -> Any:
        return trt.DataType.FLOAT

    def get_tensor_mode(self, name: str) -> Any:
        return trt.TensorIOMode.INPUT if name == "x" else trt.TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> Any:
        return trt.Dims(self._shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Any]:
        return [trt.Dims((length, 3)) for length in (1, 2, 4)]

    def create_execution_context(self) -> FakeEngine:
        context = FakeEngine(self.runtime, self._names[1])
        self.context = context
        return context

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return True

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.runtime.calls.append("execute")
        addresses, shape = dict(self._addresses), self._shape

        def compute() -> None:
            source, target = (self.runtime.view(addresses[name], shape, np.float32) for name in self._names)
            target[:] = 2 * source + 1

        if not self.fails:
            self.runtime.enqueue(compute)
        return not self.fails


class FakeBuilderConfig:
    """An `IBuilderConfig` to which only caches that begin with "good" or are empty can be attached."""

    def __init__(self) -> None:
        self.attached: list[bytes] = []

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return None if content == b"damaged" else content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        fits = cache.startswith(b"good") or not cache
        self.attached += [cache] if fits else []
        return fits


_CAPABILITY = {75: 8, 76: 6}


class FakeDriver:
    """Stands for libcuda.so.1, loaded by ctypes; `failing` is a call that returns an error."""

    def __init__(self, failing: str = "", devices: int = 1) -> None:
        self._failing, self._devices = failing, devices

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._code("cuInit")

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._devices
        return self._code("cuDeviceGetCount")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        return self._code("cuDeviceGet")

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        name.value = b"NVIDIA GeForce RTX 3090"
        return self._code("cuDeviceGetName")

    def cuDeviceGetPCIBusId(self, text: Any, length: int, device: Any) -> int:  # noqa: N802
        text.value = b"0000:65:00.0"
        return self._code("cuDeviceGetPCIBusId")

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:  # noqa: N802
        # More than 32 bits: a smaller integer would lose it.
        assert isinstance(size._obj, ctypes.c_size_t)
        size._obj.value = 24 * 2**30
        return self._code("cuDeviceTotalMem_v2")

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = _CAPABILITY[attribute]
        return self._code("cuDeviceGetAttribute")

    def _code(self, name: str) -> int:
        return 999 if name == self._failing else 0
