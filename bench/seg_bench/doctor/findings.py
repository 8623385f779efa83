"""Turns facts into findings: rows to show, and what to do about what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seg_bench.doctor import advice
from seg_bench.doctor.advice import Advice
from seg_bench.doctor.facts import Facts
from seg_bench.doctor.found import Failed, Memory, PowerFound, ServerFound, TensorRTFound
from seg_bench.doctor.targets import target_of_jetpack
from seg_runtime.engines.tensorrt_api import version_numbers

__all__ = ["Finding", "Findings", "State", "examine"]

State = Literal["ok", "absent", "fault"]


@dataclass(frozen=True)
class Finding:
    """One row.

    Attributes:
        name: what it is about.
        state: "absent" is not there, "fault" is there and does not work, or could not be asked.
        text: what was found.
    """

    name: str
    state: State
    text: str


@dataclass(frozen=True)
class Findings:
    """What a machine can do, and what to do so that it can do more."""

    rows: tuple[Finding, ...]
    advice: tuple[Advice, ...]


def examine(facts: Facts) -> Findings:
    """Judge a machine."""
    rows = (
        *_processor(facts),
        _memory("memory", facts.memory),
        _memory("/dev/shm", facts.shared_memory),
        *_board(facts),
        _gpu(facts),
        _onnxruntime(facts),
        _openvino(facts),
        _tensorrt("TensorRT", facts.tensorrt, facts),
        _tensorrt("TensorRT for RTX", facts.tensorrt_rtx, facts),
        _torch(facts),
        _auto("auto, fp32 graphs", facts.auto_fp32),
        _auto("auto, fp16 graphs", facts.auto_fp16),
        _server(facts.server),
        _power(facts.power),
    )
    return Findings(rows, advice.advise(facts))


def _processor(facts: Facts) -> tuple[Finding, Finding]:
    machine, sets = facts.machine, facts.instruction_sets
    if isinstance(machine, Failed):
        processor = _failed("processor", machine)
    else:
        processor = Finding("processor", "ok", f"{machine.cpu}, cores: {machine.cores}")
    if isinstance(sets, Failed):
        return processor, _failed("instructions", sets)
    lacks = f" (not {', '.join(sets.lacks)})" if sets.lacks else ""
    return processor, Finding("instructions", "ok", (", ".join(sets.has) or "none that matter") + lacks)


def _memory(name: str, memory: Memory | Failed) -> Finding:
    if isinstance(memory, Failed):
        return _failed(name, memory)
    return Finding(name, "ok", f"{_size(memory.total)}, free: {_size(memory.free)}")


def _board(facts: Facts) -> tuple[Finding, ...]:
    """No row where there is no Jetson."""
    board = facts.board
    if board is None:
        return ()
    if isinstance(board, Failed):
        return (_failed("Jetson", board),)
    if board.l4t is None:
        return (
            Finding("Jetson", "ok", "release not known: /etc/nv_tegra_release is missing, as in a container"),
        )
    target = target_of_jetpack(board.jetpack or "")
    text = f"JetPack {board.jetpack or 'unknown'} (L4T {board.l4t})"
    if target is None:
        return (Finding("Jetson", "fault", f"{text}, for which there is no Triton image"),)
    if version_numbers(board.jetpack or "") < version_numbers(target.jetpack or ""):
        text += f"; versions here follow JetPack {target.jetpack}"
    return (Finding("Jetson", "ok", text),)


def _gpu(facts: Facts) -> Finding:
    gpu, driver = facts.gpu, facts.driver
    version = f"not known ({driver.reason})" if isinstance(driver, Failed) else driver or "not known"
    if isinstance(gpu, Failed):
        return _failed("GPU", gpu)
    if gpu is not None:
        size = "" if facts.board else f", {_size(gpu.memory)}"
        capability = f"compute capability {gpu.compute_capability}"
        return Finding("GPU", "ok", f"{gpu.name}, {capability}{size}, driver {version}")
    if driver is not None:
        return Finding("GPU", "fault", f"CUDA finds none though its driver is loaded: {version}")
    if advice.has_gpu_hardware(facts):
        return Finding("GPU", "fault", "one is there, and no driver for it is loaded")
    if isinstance(facts.nvidia_card, Failed):
        return _failed("GPU", facts.nvidia_card)
    return Finding("GPU", "absent", "no NVIDIA GPU")


def _onnxruntime(facts: Facts) -> Finding:
    name, found = "ONNX Runtime", facts.onnxruntime
    if isinstance(found, Failed):
        return _failed(name, found)
    if found is None:
        return Finding(name, "absent", "not installed")
    providers = [provider.removesuffix("ExecutionProvider") for provider in found.providers]
    gpu = [provider for provider in providers if provider in ("CUDA", "Tensorrt")]
    text = f"{found.version}: {', '.join(providers)}" + ("" if gpu else " (no GPU)")
    if advice.has_two_onnxruntimes(facts):
        return Finding(name, "fault", f"{text}; onnxruntime and onnxruntime-gpu hide each other")
    fault = advice.cuda_fault(facts)
    if fault:
        return Finding(name, "fault", f"{text}; {fault}")
    return Finding(name, "ok", text)


def _openvino(facts: Facts) -> Finding:
    if isinstance(facts.openvino, Failed):
        return _failed("OpenVINO", facts.openvino)
    if facts.openvino is None:
        return Finding("OpenVINO", "absent", "not installed")
    return Finding("OpenVINO", "ok", f"{facts.openvino}, on the CPU")


def _tensorrt(name: str, found: TensorRTFound | Failed | None, facts: Facts) -> Finding:
    if isinstance(found, Failed):
        return _failed(name, found)
    gpu = advice.has_gpu_hardware(facts)
    if found is None:
        return Finding(
            name, "absent", "not installed" if gpu else "not installed; engines need an NVIDIA GPU"
        )
    if not found.binding:
        return Finding(name, "fault" if gpu else "absent", f"{found.version}, without its Python binding")
    if not gpu:
        return Finding(name, "ok", f"{found.version}; engines need an NVIDIA GPU, seg-export check none")
    if not found.cuda_bindings:
        return Finding(name, "fault", f"{found.version}; its engines also need the package cuda-bindings")
    return Finding(name, "ok", f"{found.version}; auto takes engines of seg-export build first")


def _torch(facts: Facts) -> Finding:
    if isinstance(facts.machine, Failed):
        return _failed("PyTorch", facts.machine)
    version = facts.machine.packages.get("torch")
    if version is None:
        return Finding("PyTorch", "absent", "not installed; only export and training need it")
    return Finding("PyTorch", "ok", version)


def _auto(name: str, found: str | Failed | None) -> Finding:
    if isinstance(found, Failed):
        return _failed(name, found)
    return Finding(name, "ok" if found else "absent", found or "no engine is installed")


def _server(found: ServerFound | Failed | None) -> Finding:
    if isinstance(found, Failed):
        return _failed("seg-serve", found)
    if found is None:
        return Finding("seg-serve", "absent", "no Triton server")
    text = f"nvidia-pytriton {found.version}" if found.version else found.executable
    return Finding(
        "seg-serve", "ok", text + (", with edgeseg's onnxruntime backend" if found.own_backend else "")
    )


def _power(found: PowerFound | Failed) -> Finding:
    name = "power meter"
    if isinstance(found, Failed):
        return _failed(name, found)
    if found.meters:
        return Finding(name, "ok", ", ".join(found.meters))
    if found.denied:
        return Finding(name, "fault", "RAPL: this user may not read it")
    return Finding(name, "absent", "none: seg-bench run cannot tell joules per image")


def _failed(name: str, failed: Failed) -> Finding:
    return Finding(name, "fault", failed.reason)


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
