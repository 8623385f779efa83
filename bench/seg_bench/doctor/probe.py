"""Asks one library of this machine: `python -m seg_bench.doctor.probe NAME` prints the answer as JSON.

A driver or a library that does not fit can end the process or never return, so each is asked in a
process of its own: see `seg_bench.doctor.gather`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_bench.doctor.found import GpuState, OnnxRuntime, PowerFound, ServerFound, TensorRTFound
from seg_bench.json_fields import to_json
from seg_runtime.engines.onnx_engine import preload_cuda
from seg_runtime.engines.tensorrt_api import Backend
from seg_runtime.errors import EdgesegError, MissingExtraError

if TYPE_CHECKING:
    from seg_runtime.spec import Precision

__all__ = ["ANSWER_START", "GRAPH", "PROBES", "main"]

ANSWER_START = '{"'
"""How the line with the answer begins."""

GRAPH = (
    b'\x08\x08::\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x06doctorZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n'
    b"\x02\x08\x04b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x04B\x04\n\x00\x10\x11"
)
"""The ONNX graph y = x + x of 4 floats; a test builds it with the package onnx and compares."""


def _machine() -> Any:
    from seg_bench.machine import describe_machine

    return describe_machine()


def _gpu() -> Any:
    from seg_runtime.engines.gpu import first_gpu

    return first_gpu()


def _gpu_state() -> GpuState | None:
    from seg_bench.doctor.gpu_state import read_gpu_state
    from seg_runtime.engines.gpu import first_bus_id

    bus_id = first_bus_id()
    return None if bus_id is None else read_gpu_state(_import("pynvml", "power"), bus_id)


def _onnxruntime() -> OnnxRuntime:
    onnxruntime = _import("onnxruntime", "cpu")
    providers = tuple(onnxruntime.get_available_providers())
    if "CUDAExecutionProvider" in providers:
        preload_cuda(onnxruntime)
    folder = Path(onnxruntime.__file__).parent / "capi"
    fault = _cuda_fault(folder) if "CUDAExecutionProvider" in providers else None
    return OnnxRuntime(onnxruntime.__version__, providers, fault)


def _cuda_fault(folder: Path) -> str | None:
    """Why the CUDA provider does not load. ONNX Runtime itself would only leave it out."""
    try:
        # The second one takes symbols from the first.
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return str(error)
    return None


def _openvino() -> str:
    return str(_import("openvino", "openvino").__version__).partition("-")[0]


def _import(module: str, extra: str) -> Any:
    """Raises MissingExtraError when it is not installed, and what it raises itself when it is broken."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingExtraError(module, extra) from error


def _tensorrt(backend: Backend) -> Callable[[], TensorRTFound]:
    def ask() -> TensorRTFound:
        from seg_runtime.engines.tensorrt_api import installed_version, load_tensorrt

        try:
            return TensorRTFound(load_tensorrt(backend).version, True, _has_cuda_bindings())
        except MissingExtraError:
            version = installed_version(backend)
            if version is None:
                raise
            return TensorRTFound(version, False, _has_cuda_bindings())

    return ask


def _has_cuda_bindings() -> bool:
    try:
        import cuda.bindings.runtime  # noqa: F401 - a package without its libraries is of no use
    except ImportError:
        return False
    return True


def _auto(precision: Precision) -> Callable[[], str]:
    def ask() -> str:
        import numpy as np

        from seg_runtime.engines import AUTO, load_model
        from seg_runtime.spec import ModelSpec, TensorSpec

        x, y = TensorSpec("x", "float32", (4,)), TensorSpec("y", "float32", (4,))
        spec = ModelSpec("doctor", 1, "semantic", "doctor", (x,), (y,), precision=precision)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.onnx").write_bytes(GRAPH)
            engine = load_model(AUTO, spec, Path(folder), 1)
            # A GPU's library may load and have no code for this GPU.
            engine.run({"x": np.ones(4, np.float32)})
            return engine.about

    return ask


def _server() -> ServerFound:
    from seg_runtime.server.locate import find_server, libpython_folder

    program = find_server()
    if not program.bundled:
        return ServerFound(str(program.executable), None, program.own_backend)
    libpython_folder()
    return ServerFound(str(program.executable), metadata.version("nvidia-pytriton"), program.own_backend)


def _power() -> PowerFound:
    from seg_bench.power import Meters
    from seg_bench.power.rapl import is_denied

    with Meters() as meters:
        return PowerFound(meters.found(), is_denied())


PROBES: dict[str, Callable[[], Any]] = {
    "machine": _machine,
    "gpu": _gpu,
    "gpu_state": _gpu_state,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt("tensorrt"),
    "tensorrt_rtx": _tensorrt("tensorrt-rtx"),
    "auto_fp32": _auto("fp32"),
    "auto_fp16": _auto("fp16"),
    "server": _server,
    "power": _power,
}
"""By the name of the field of `Facts` that each one fills."""


def main(name: str) -> None:
    """Print {"answer": ...}, with null for what is not installed, or {"failed": reason}."""
    try:
        answer = {"answer": to_json(PROBES[name]())}
    except MissingExtraError:
        answer = {"answer": None}
    except EdgesegError as error:
        answer = {"failed": str(error)}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
