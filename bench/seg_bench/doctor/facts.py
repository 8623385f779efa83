"""What is known of a machine. None is something that is not there."""

from __future__ import annotations

from dataclasses import dataclass

from seg_bench.doctor.found import (
    Board,
    Failed,
    GpuState,
    InstructionSets,
    Memory,
    OnnxRuntime,
    PowerFound,
    ServerFound,
    TensorRTFound,
)
from seg_bench.records import Machine
from seg_runtime.engines.gpu import Gpu

__all__ = ["Facts"]


@dataclass(frozen=True)
class Facts:
    """A machine.

    Attributes:
        machine: as records of measurements describe it.
        shared_memory: of `/dev/shm`.
        load: processes that ran or waited for a core, a mean of the last minute.
        board: None when it is no Jetson.
        gpu: the first one, as the driver sees it.
        gpu_state: of the same GPU; None without nvidia-ml-py.
        driver: version of NVIDIA's kernel driver.
        nvidia_card: whether an NVIDIA card is on the PCI bus, with a driver or without.
        auto_fp32, auto_fp16: what `connect(engine="auto")` computed a graph of that precision with.
    """

    machine: Machine | Failed
    instruction_sets: InstructionSets | Failed
    memory: Memory | Failed
    shared_memory: Memory | Failed
    load: float | Failed
    board: Board | Failed | None
    gpu: Gpu | Failed | None
    gpu_state: GpuState | Failed | None
    driver: str | Failed | None
    nvidia_card: bool | Failed
    onnxruntime: OnnxRuntime | Failed | None
    openvino: str | Failed | None
    tensorrt: TensorRTFound | Failed | None
    tensorrt_rtx: TensorRTFound | Failed | None
    auto_fp32: str | Failed | None
    auto_fp16: str | Failed | None
    server: ServerFound | Failed | None
    power: PowerFound | Failed
