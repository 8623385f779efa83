"""What a machine can compute the rows with, and how fast it multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from seg_bench.doctor.facts import Facts
from seg_bench.doctor.found import Failed, InstructionSets, OnnxRuntime, ServerFound, TensorRTFound
from seg_bench.doctor.slowdowns import slowdowns
from seg_runtime.engines.gpu import Gpu

__all__ = ["Device", "examine_device", "matrix_gflops"]

_BF16 = {"avx512_bf16", "amx", "bf16"}
"""Instruction sets with products in bfloat16; without them PyTorch emulates it."""

_NOT_ON_A_PROCESSOR: frozenset[tuple[str, str | None]] = frozenset({("fp16", "onnxruntime"), ("fp16", None)})
"""ONNX Runtime computes fp16 on a processor in fp32, with conversions between."""

_GPU_GFLOPS = 10_000.0
"""What a network reaches on a GPU, about; only for estimates of how long a row takes."""


@dataclass(frozen=True)
class Device:
    """What there is to compute with.

    Attributes:
        engines: keys of `seg_runtime.engines.ENGINES` that can run here; on a GPU those of the GPU.
        server: whether there is a Triton that `seg-serve` would start.
        pytorch: whether PyTorch is, which exports and is the baseline.
        compiles: whether that is measured compiled in bfloat16, too.
        gflops: fp32 products and sums per second, in units of 10^9; of a GPU a rough guess.
        notes: what is left out and why, and what slows the machine down, a line each.
    """

    engines: tuple[str, ...]
    pytorch: bool
    compiles: bool
    gflops: float
    notes: tuple[str, ...]
    server: bool = False

    @property
    def gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return bool({"onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"} & set(self.engines))

    @property
    def left_out(self) -> frozenset[tuple[str, str | None]]:
        """(precision, engine) pairs that nobody deploys there; the engine is None in Triton."""
        return frozenset() if self.gpu else _NOT_ON_A_PROCESSOR


def examine_device(facts: Facts) -> Device:
    """Decide what the rows are computed with.

    Args:
        facts: from `seg_bench.doctor.gather`.
    """
    notes: list[str] = []
    gpu = isinstance(facts.gpu, Gpu)
    engines = _gpu_engines(facts, notes) if gpu else ()
    if not engines:
        engines = _cpu_engines(facts)
    pytorch = find_spec("torch") is not None
    if not pytorch:
        notes.append("PyTorch is not installed: nothing is exported, and no baseline is measured")
    compiles = pytorch and (gpu or _has_bf16(facts.instruction_sets))
    if pytorch and not compiles:
        notes.append("this processor has no bfloat16 products: compiled PyTorch in bf16 is not measured")
    notes += slowdowns(facts)
    return Device(
        engines,
        pytorch,
        compiles,
        _GPU_GFLOPS if gpu else matrix_gflops(),
        tuple(notes),
        isinstance(facts.server, ServerFound),
    )


def matrix_gflops(seconds: float = 0.2, clock: Callable[[], float] = time.perf_counter) -> float:
    """Fastest product of two 768x768 fp32 matrices in NumPy, in 10^9 products and sums per second."""
    side = 768
    left, right = np.random.default_rng(0).random((2, side, side), dtype=np.float32)
    best, end = float("inf"), clock() + seconds
    while True:
        start = clock()
        left @ right
        best = min(best, clock() - start)
        if clock() > end:
            return 2 * side**3 / best / 1e9


def _cpu_engines(facts: Facts) -> tuple[str, ...]:
    there = {
        "onnxruntime": isinstance(facts.onnxruntime, OnnxRuntime),
        "openvino": isinstance(facts.openvino, str),
    }
    return tuple(name for name, present in there.items() if present)


def _gpu_engines(facts: Facts, notes: list[str]) -> tuple[str, ...]:
    engines = []
    found = facts.onnxruntime
    if isinstance(found, OnnxRuntime) and "CUDAExecutionProvider" in found.providers:
        if found.cuda_fault is None:
            engines.append("onnxruntime-cuda")
        else:
            notes.append(f"ONNX Runtime with CUDA does not load: {found.cuda_fault}")
    else:
        notes.append("ONNX Runtime with CUDA is not installed: pip install 'edgeseg[gpu]'")
    if any(_runs_engines(each) for each in (facts.tensorrt, facts.tensorrt_rtx)):
        engines.append("tensorrt")
    return tuple(engines)


def _runs_engines(found: TensorRTFound | Failed | None) -> bool:
    return isinstance(found, TensorRTFound) and found.binding and found.cuda_bindings


def _has_bf16(found: InstructionSets | Failed) -> bool:
    return isinstance(found, InstructionSets) and bool(_BF16 & set(found.has))
