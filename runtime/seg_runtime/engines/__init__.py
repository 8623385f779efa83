"""Engines: what computes a graph in this process.

The one that is best differs from model to model: an engine file may be built for one of them only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seg_runtime.engines.contract import Engine
from seg_runtime.engines.engine_file import ENGINE_FILE, engine_fault, this_machine
from seg_runtime.errors import BadInputError, EdgesegError, EngineError, MissingExtraError
from seg_runtime.repository import GRAPH_FILE
from seg_runtime.spec import ModelSpec

__all__ = ["AUTO", "ENGINES", "check_engine", "load_model"]

AUTO = "auto"
Opener = Callable[[ModelSpec, Path, int | None], Engine]


def _tensorrt(spec: ModelSpec, folder: Path, threads: int | None) -> Engine:
    from seg_runtime.engines.tensorrt_engine import load_engine

    return load_engine(spec, folder)


def _onnxruntime(device: str) -> Opener:
    def load(spec: ModelSpec, folder: Path, threads: int | None) -> Engine:
        from seg_runtime.engines.onnx_engine import OnnxEngine

        return OnnxEngine(spec, folder, threads, device)

    return load


def _openvino(spec: ModelSpec, folder: Path, threads: int | None) -> Engine:
    from seg_runtime.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(spec, folder, threads)


ENGINES: dict[str, Opener] = {
    "tensorrt": _tensorrt,
    "onnxruntime-tensorrt": _onnxruntime("TensorRT"),
    "onnxruntime-cuda": _onnxruntime("CUDA"),
    "openvino": _openvino,
    "onnxruntime": _onnxruntime("CPU"),
}
_BEST_FIRST = ("onnxruntime-cuda", "onnxruntime", "openvino")
"""Engines of `model.onnx` that "auto" tries. ONNX Runtime's TensorRT would build for minutes at first."""

_BEST_FIRST_ROUNDED = ("onnxruntime-cuda", "openvino", "onnxruntime")
"""The same for graphs that are not fp32: OpenVINO then computes in bfloat16 where the processor can, and
ONNX Runtime gains nothing on a CPU from fp16."""


def check_engine(name: str) -> None:
    """Refuse a name that is no engine's. Raises BadInputError."""
    if name != AUTO and name not in ENGINES:
        raise BadInputError(f"there is no engine '{name}': choose {AUTO}, {', '.join(ENGINES)}")


def load_model(name: str, spec: ModelSpec, folder: Path, threads: int | None) -> Engine:
    """Load a model into an engine.

    Args:
        name: a key of `ENGINES`; "auto" takes the best that is there and can run the model.
        spec: the model's contract.
        folder: its version folder.
        threads: threads of one call on a CPU; None leaves it to the engine.

    Raises:
        MissingExtraError: the engine is not installed; with "auto", none is.
        EngineError: it cannot be used on this machine, or cannot run this model.
        RepositoryError: the model is not built, broken or not what `spec` says.
    """
    if name != AUTO:
        return ENGINES[name](spec, folder, threads)
    if not (folder / ENGINE_FILE).is_file():
        return _load_graph(spec, folder, threads)
    fault = engine_fault(folder, this_machine())
    if fault is None or not (folder / GRAPH_FILE).is_file():
        return _tensorrt(spec, folder, threads)
    engine = _load_graph(spec, folder, threads)
    engine.about += f"; version {spec.version} {fault}"
    return engine


def _load_graph(spec: ModelSpec, folder: Path, threads: int | None) -> Engine:
    reason: EdgesegError = MissingExtraError("ONNX Runtime", "cpu")
    for name in _BEST_FIRST if spec.precision == "fp32" else _BEST_FIRST_ROUNDED:
        try:
            return ENGINES[name](spec, folder, threads)
        except MissingExtraError:
            continue
        except EngineError as error:
            reason = error
    raise reason
