"""What to install or do, so that a machine does all it could."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from seg_bench.doctor.facts import Facts
from seg_bench.doctor.found import Board, Failed, OnnxRuntime, TensorRTFound
from seg_bench.doctor.targets import Target, target_of_jetpack

__all__ = ["Advice", "advise", "cuda_fault", "has_gpu_hardware", "has_two_onnxruntimes"]

_CUDA = "CUDAExecutionProvider"
_CPU_INSTALL = "pip install 'edgeseg[cpu]'"
_CONTAINER_SHM = 64 * 2**20
"""What Docker gives a container that is not told otherwise."""

_SERVER_PAGE = "see docs/jetson.md, 3. The server"
_ENGINES_PAGE = "see docs/jetson.md, 4. Engines"


@dataclass(frozen=True)
class Advice:
    """One thing to do.

    Attributes:
        purpose: what it is good for.
        steps: commands, in their order, or a page to read ("see docs/...").
    """

    purpose: str
    steps: tuple[str, ...]


def advise(facts: Facts) -> tuple[Advice, ...]:
    """What is missing that this machine could use."""
    return (
        *_gpu(facts),
        *_onnxruntime(facts),
        *_openvino(facts),
        *_tensorrt(facts),
        *_torch(facts),
        *_server(facts),
        *_shared_memory(facts),
        *_power(facts),
    )


def has_gpu_hardware(facts: Facts) -> bool:
    """Whether there is an NVIDIA GPU, be it without a driver."""
    return bool(_there(facts.gpu) or _there(facts.driver) or _there(facts.board) or facts.nvidia_card is True)


def has_two_onnxruntimes(facts: Facts) -> bool:
    """Whether two packages are installed that write into the same folder."""
    return {"onnxruntime", "onnxruntime-gpu"} <= _packages(facts).keys()


def cuda_fault(facts: Facts) -> str | None:
    """Why ONNX Runtime does not use the GPU although it was built to; None when it does, or was not."""
    found = facts.onnxruntime
    if not isinstance(found, OnnxRuntime) or _CUDA not in found.providers or facts.gpu is None:
        return None
    if found.cuda_fault:
        return f"CUDA does not load: {found.cuda_fault}"
    started = isinstance(facts.auto_fp32, str) and facts.auto_fp32.partition(";")[0].endswith("CUDA")
    return None if started else "CUDA is listed and does not start"


def _gpu(facts: Facts) -> Iterator[Advice]:
    if facts.gpu is not None or not has_gpu_hardware(facts):
        return
    if _is_jetson(facts):
        yield Advice("show the GPU to this container", ("docker run --runtime nvidia --gpus all ...",))
    elif facts.driver is not None:
        yield Advice("show the GPU, if this is a container", ("docker run --gpus all ...",))
    else:
        yield Advice(
            "NVIDIA's driver: on Ubuntu as below, else from https://www.nvidia.com/drivers",
            ("sudo ubuntu-drivers install", "sudo reboot"),
        )


def _onnxruntime(facts: Facts) -> Iterator[Advice]:
    found = facts.onnxruntime
    if isinstance(found, Failed):
        return
    gpu = _gpu_install(facts)
    if has_two_onnxruntimes(facts):
        remove = "pip uninstall -y onnxruntime onnxruntime-gpu"
        yield Advice("one ONNX Runtime instead of two", (remove, gpu or _CPU_INSTALL))
    elif found is None:
        yield Advice("ONNX Runtime runs models in process", (gpu or _CPU_INSTALL,))
    elif gpu and _CUDA not in found.providers:
        yield Advice("ONNX Runtime on the GPU", ("pip uninstall -y onnxruntime", gpu))
    elif cuda_fault(facts):
        page = "see https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html"
        yield Advice(
            f"CUDA and cuDNN of the releases that ONNX Runtime {found.version} was built for",
            (gpu, page) if gpu and not _is_jetson(facts) else (page,),
        )


def _gpu_install(facts: Facts) -> str | None:
    """How to get ONNX Runtime with CUDA; None without a GPU, and where nobody publishes one."""
    if not has_gpu_hardware(facts):
        return None
    if not _is_jetson(facts):
        return None if _is_arm(facts) else "pip install 'edgeseg[gpu]'"
    target = _target(facts)
    if target is None or target.onnxruntime_index is None:
        return None
    # Its wheels are for the Python of the board's system.
    if not _python(facts).startswith(f"{target.python}."):
        return None
    return f"pip install onnxruntime-gpu --index-url {target.onnxruntime_index}"


def _openvino(facts: Facts) -> Iterator[Advice]:
    if facts.openvino is None and not has_gpu_hardware(facts):
        yield Advice("OpenVINO, which auto takes for fp16 graphs", ("pip install 'edgeseg[openvino]'",))


def _tensorrt(facts: Facts) -> Iterator[Advice]:
    found = {"tensorrt": facts.tensorrt, "tensorrt-rtx": facts.tensorrt_rtx}
    usable = [name for name, each in found.items() if isinstance(each, TensorRTFound) and each.binding]
    if not has_gpu_hardware(facts):
        if not usable and not _is_arm(facts) and "torch" in _packages(facts):
            yield Advice(
                "seg-export check: TensorRT's verdict without a GPU", ("pip install 'edgeseg[tensorrt-rtx]'",)
            )
    elif not usable:
        step = _ENGINES_PAGE if _is_jetson(facts) else "pip install 'edgeseg[tensorrt]'"
        yield Advice("TensorRT builds and runs engines", (step,))
    elif not any(isinstance(each, TensorRTFound) and each.cuda_bindings for each in found.values()):
        yield Advice("cuda-bindings runs TensorRT's engines", (_cuda_bindings(facts, usable[0]),))


def _cuda_bindings(facts: Facts, extra: str) -> str:
    """On a Jetson the extra would bring another TensorRT than the board's."""
    target = _target(facts)
    if target is None:
        return _ENGINES_PAGE if _is_jetson(facts) else f"pip install 'edgeseg[{extra}]'"
    return f"pip install 'cuda-bindings<{int(target.cuda.split('.')[0]) + 1}'"


def _torch(facts: Facts) -> Iterator[Advice]:
    """Not on a Jetson: models are exported where PyTorch is, on a workstation."""
    if not isinstance(facts.machine, Failed) and "torch" not in _packages(facts) and not _is_jetson(facts):
        yield Advice("PyTorch, for export and training", ("pip install 'edgeseg[export]'",))


def _server(facts: Facts) -> Iterator[Advice]:
    found = facts.server
    if isinstance(found, Failed):
        return
    if found is None and not _is_jetson(facts):
        yield Advice("a Triton server for seg-serve", ("pip install 'edgeseg[server]'",))
    on_path = found is not None and found.version is None
    if has_gpu_hardware(facts) and not on_path and _has_image(facts):
        yield Advice("a Triton server on the GPU: NVIDIA's container", (_SERVER_PAGE,))


def _shared_memory(facts: Facts) -> Iterator[Advice]:
    size = facts.shared_memory
    if not isinstance(size, Failed) and size.total <= _CONTAINER_SHM:
        yield Advice(
            "tensors in shared memory: this container has little of it", ("docker run --ipc=host ...",)
        )


def _power(facts: Facts) -> Iterator[Advice]:
    found = facts.power
    if isinstance(found, Failed) or _is_jetson(facts):
        return
    if _there(facts.gpu) and not any(meter.startswith("NVML") for meter in found.meters):
        yield Advice("joules per image and memory on the GPU", ("pip install 'edgeseg[power]'",))
    if found.denied:
        counters = "/sys/class/powercap/intel-rapl:*/energy_uj"
        yield Advice(
            "joules per image on the processor, until the next start", (f"sudo chmod a+r {counters}",)
        )


def _there(fact: object) -> bool:
    return fact is not None and not isinstance(fact, Failed)


def _is_jetson(facts: Facts) -> bool:
    return isinstance(facts.board, Board)


def _is_arm(facts: Facts) -> bool:
    return not isinstance(facts.machine, Failed) and facts.machine.system.endswith(("aarch64", "arm64"))


def _target(facts: Facts) -> Target | None:
    """Of a Jetson; None elsewhere, and for one whose JetPack is not known or too old."""
    jetpack = facts.board.jetpack if isinstance(facts.board, Board) else None
    return target_of_jetpack(jetpack) if jetpack else None


def _has_image(facts: Facts) -> bool:
    """Whether there is a Triton image for it: not for a JetPack that is known and too old."""
    return not isinstance(facts.board, Board) or facts.board.jetpack is None or _target(facts) is not None


def _python(facts: Facts) -> str:
    return "" if isinstance(facts.machine, Failed) else facts.machine.python


def _packages(facts: Facts) -> dict[str, str]:
    return {} if isinstance(facts.machine, Failed) else facts.machine.packages
