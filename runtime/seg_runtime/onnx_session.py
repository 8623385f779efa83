"""Runs the models of a repository folder in this process, with ONNX Runtime."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from seg_runtime.ensemble import run_steps
from seg_runtime.errors import InferenceError, MissingExtraError, RepositoryError
from seg_runtime.handles import OwnedHandle, usable_handle
from seg_runtime.repository import Repository
from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["OnnxSession", "OrtHandle"]

_PREFERRED_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_FATAL_ONLY = 4
"""ONNX Runtime's log level: its errors reach the caller as exceptions, not on stderr as well."""


class OrtHandle(OwnedHandle):
    """A kept output: an OrtValue on the device that computed it."""

    def __init__(self, spec: ModelSpec, output: str, value: Any, dtype: str, owner: object) -> None:
        super().__init__(spec, output, tuple(value.shape()), dtype, owner)
        self._value: Any = value

    @property
    def released(self) -> bool:
        return self._value is None

    @property
    def value(self) -> Any:
        """The OrtValue. Raises InferenceError after `release()`."""
        value = self._value
        if value is None:
            raise self.released_error()
        return value

    def numpy(self) -> NDArray[Any]:
        # OrtValue.numpy() of a value on the CPU is a view of its memory.
        return np.array(self.value.numpy())

    def release(self) -> None:
        self._value = None


@dataclass(frozen=True)
class _Model:
    """A loaded graph: its contract, its ONNX Runtime session and the device that it computes on.

    An ensemble has only its contract.
    """

    spec: ModelSpec
    runner: Any
    output_names: list[str]
    device: str


class OnnxSession(Session):
    """Models of a repository folder, each loaded at its first use and kept until `close()`.

    The version that is served when a model is first used stays in use; a later publication is seen
    by the next session.

    Args:
        path: the model repository.
        threads: threads inside one operator; None lets ONNX Runtime use all cores.
        providers: ONNX Runtime's execution providers, best first; None picks CUDA where the
            installed ONNX Runtime has it, else the CPU.

    Raises:
        RepositoryError: the folder is missing.
        MissingExtraError: ONNX Runtime is not installed.
    """

    where = "in-process"

    def __init__(
        self, path: str | Path, *, threads: int | None = None, providers: Sequence[str] | None = None
    ) -> None:
        self._repository = Repository(path)
        self._ort = _import_onnxruntime()
        available = self._ort.get_available_providers()
        self._providers = list(providers or [name for name in _PREFERRED_PROVIDERS if name in available])
        self._threads = threads
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        self._handles: weakref.WeakSet[OrtHandle] = weakref.WeakSet()
        self._owner = object()
        self._closed = False

    def models(self) -> tuple[str, ...]:
        return self._repository.models()

    def spec(self, model: str) -> ModelSpec:
        return self._model(model).spec

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for handle in self._handles:
                handle.release()
            self._models.clear()

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is not None:
            return model
        with self._lock:
            if self._closed:
                raise InferenceError("the session is closed: call connect() again")
            if name not in self._models:
                self._models[name] = self._load(name)
            return self._models[name]

    def _load(self, name: str) -> _Model:
        spec = self._repository.spec(name)
        if spec.steps:
            return _Model(spec, None, [], "cpu")
        spec, path = _served_version(self._repository, name)
        options = self._ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            runner = self._ort.InferenceSession(path, options, providers=self._providers)
        except _onnxruntime_errors() as error:
            raise RepositoryError(
                f"{path} cannot be loaded ({_first_line(error)}): publish '{name}' again with seg-export"
            ) from error
        _check_graph(spec, path, runner)
        device = "cuda" if runner.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        return _Model(spec, runner, [tensor.name for tensor in spec.outputs], device)

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        if spec.steps:
            return run_steps(self, spec, inputs, keep)
        model = self._model(spec.name)
        try:
            if not keep and not any(isinstance(value, Handle) for value in inputs.values()):
                feed = {
                    name: np.ascontiguousarray(cast("NDArray[Any]", value)) for name, value in inputs.items()
                }
                return dict(zip(model.output_names, model.runner.run(model.output_names, feed), strict=True))
            return self._run_bound(model, inputs, keep)
        except _onnxruntime_errors() as error:
            raise InferenceError(f"model '{spec.name}' failed: {_first_line(error)}") from error

    def _run_bound(
        self, model: _Model, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        """Run with handles as inputs or outputs: what is kept stays an OrtValue on its device."""
        binding = model.runner.io_binding()
        for name, value in inputs.items():
            if isinstance(value, Handle):
                handle = cast("OrtHandle", usable_handle(value, self._owner))
                binding.bind_ortvalue_input(name, handle.value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in model.output_names:
            binding.bind_output(name, model.device if name in keep else "cpu")
        model.runner.run_with_iobinding(binding)
        values = dict(zip(model.output_names, binding.get_outputs(), strict=True))
        return {
            name: self._handle(model.spec, name, value) if name in keep else np.array(value.numpy())
            for name, value in values.items()
        }

    def _handle(self, spec: ModelSpec, name: str, value: Any) -> OrtHandle:
        tensor = next(tensor for tensor in spec.outputs if tensor.name == name)
        handle = OrtHandle(spec, name, value, tensor.dtype, self._owner)
        with self._lock:
            self._handles.add(handle)
        return handle


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("ONNX Runtime", "cpu") from error
    return onnxruntime


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """All of ONNX Runtime's exceptions; they have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    known = [
        value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    return (*known, RuntimeError)


def _served_version(repository: Repository, name: str) -> tuple[ModelSpec, Path]:
    """Contract and graph of one and the same version, even while another one is being published."""
    while True:
        path = repository.graph_path(name)
        spec = repository.spec(name)
        if path.parent.name == str(spec.version):
            return spec, path


def _check_graph(spec: ModelSpec, path: Path, runner: Any) -> None:
    """Refuse a graph whose inputs or outputs are not those of its `config.pbtxt`."""
    batched = spec.max_batch_size > 0
    for kind, tensors, nodes in (
        ("input", spec.inputs, runner.get_inputs()),
        ("output", spec.outputs, runner.get_outputs()),
    ):
        expected = {tensor.name: tensor for tensor in tensors}
        found = {node.name: node for node in nodes}
        if expected.keys() != found.keys():
            raise RepositoryError(
                f"{path} has the {kind}s {', '.join(found)} but its config.pbtxt says {', '.join(expected)}: "
                f"publish '{spec.name}' again with seg-export"
            )
        for name, tensor in expected.items():
            if not _fits(tensor, found[name], kind, batched):
                wanted = f"{tensor.dtype} {['N'] * batched + list(tensor.shape)}"
                raise RepositoryError(
                    f"{path} has {kind} '{name}' as {found[name].type} {found[name].shape} but its "
                    f"config.pbtxt says {wanted}: publish '{spec.name}' again with seg-export"
                )


def _fits(tensor: TensorSpec, node: Any, kind: str, batched: bool) -> bool:
    """Whether the graph accepts every input that the contract allows, and makes no other outputs.

    An axis that the graph leaves open (a name instead of a number) may have any length.
    """
    wanted = (-1, *tensor.shape) if batched else tensor.shape
    onnx_type = {"float32": "float", "float64": "double"}.get(tensor.dtype, tensor.dtype)
    if node.type != f"tensor({onnx_type})" or len(node.shape) != len(wanted):
        return False
    return all(
        not isinstance(axis, int) or axis == want or (kind == "output" and want == -1)
        for axis, want in zip(node.shape, wanted, strict=True)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
