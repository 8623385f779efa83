"""The parts of `seg_bench.doctor.facts.Facts`. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Board",
    "Failed",
    "GpuState",
    "InstructionSets",
    "Memory",
    "OnnxRuntime",
    "PowerFound",
    "ServerFound",
    "TensorRTFound",
]


@dataclass(frozen=True)
class Failed:
    """A fact that could not be learned, and why: one line."""

    reason: str


@dataclass(frozen=True)
class InstructionSets:
    """Of those that matter for inference on this kind of processor: which it has and which it lacks."""

    has: tuple[str, ...]
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """A size and how much of it can still be had."""

    total: int
    free: int


@dataclass(frozen=True)
class Board:
    """A Jetson.

    Attributes:
        l4t: release of Jetson Linux, as "36.4.3"; None where its file is not there, as in a container.
        jetpack: the JetPack it belongs to, as "6.2"; None when unknown.
        power_mode: what nvpmodel limits it to, as "15W" or "MAXN"; None when unknown.
    """

    l4t: str | None
    jetpack: str | None
    power_mode: str | None = None


@dataclass(frozen=True)
class GpuState:
    """What the first GPU was doing before anything of ours ran on it.

    Attributes:
        memory: its own, in bytes; None where NVML does not know.
        busy_percent: share of the last moment in which it computed; None where NVML does not know.
        limits: what keeps its clock lower than it could be, as "power cap".
    """

    memory: Memory | None
    busy_percent: int | None
    limits: tuple[str, ...]


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime, as it was imported.

    Attributes:
        version: its version.
        providers: what was compiled into it, as "CUDAExecutionProvider"; best first.
        cuda_fault: why the library of its CUDA provider does not load; None when it does, or there is none.
    """

    version: str
    providers: tuple[str, ...]
    cuda_fault: str | None = None


@dataclass(frozen=True)
class PowerFound:
    """Power meters.

    Attributes:
        meters: those that can be read, as "tegrastats (VDD_IN)".
        denied: whether the processor's counters are there and this user may not read them.
    """

    meters: tuple[str, ...]
    denied: bool


@dataclass(frozen=True)
class TensorRTFound:
    """TensorRT, or TensorRT for RTX.

    Attributes:
        version: of the binding, or of the library where there is no binding.
        binding: whether Python can use it.
        cuda_bindings: whether the package `cuda-bindings`, which runs its engines, is there.
    """

    version: str
    binding: bool
    cuda_bindings: bool


@dataclass(frozen=True)
class ServerFound:
    """The server that `seg-serve` would start.

    Attributes:
        executable: its path.
        version: of the wheel that it lies in; None for one on PATH.
        own_backend: whether it gets edgeseg's `onnxruntime` backend.
    """

    executable: str
    version: str | None
    own_backend: bool
