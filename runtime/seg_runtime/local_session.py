"""Runs the models of a repository folder in this process, each in the engine that suits it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.engines import AUTO, check_engine, load_model
from seg_runtime.engines.contract import Engine, Kept
from seg_runtime.ensemble import run_steps
from seg_runtime.errors import InferenceError
from seg_runtime.handles import ArrayHandle, OwnedHandle, usable_handle
from seg_runtime.repository import Repository
from seg_runtime.session import Handle, Session, engine_of_models
from seg_runtime.spec import ModelSpec

__all__ = ["EngineHandle", "LocalSession"]


class EngineHandle(OwnedHandle):
    """A kept output in an engine's own memory."""

    def __init__(self, spec: ModelSpec, output: str, kept: Kept, dtype: str, owner: object) -> None:
        super().__init__(spec, output, kept.shape, dtype, owner)
        self._kept: Kept | None = kept

    @property
    def released(self) -> bool:
        return self._kept is None

    @property
    def kept(self) -> Kept:
        """The value itself. Raises InferenceError after `release()`."""
        kept = self._kept
        if kept is None:
            raise self.released_error()
        return kept

    def numpy(self) -> NDArray[Any]:
        return self.kept.numpy()

    def release(self) -> None:
        self._kept = None


@dataclass(frozen=True)
class _Model:
    """A loaded model; an ensemble has only its contract."""

    spec: ModelSpec
    engine: Engine | None


class LocalSession(Session):
    """Models of a repository folder, each loaded at its first use and kept until `close()`.

    The version that is served when a model is first used stays in use; a later publication is seen
    by the next session.

    Args:
        path: the model repository.
        threads: threads of one call on a CPU; None lets the engine use all cores.
        engine: what computes, "auto" or a key of `seg_runtime.engines.ENGINES`.

    Raises:
        BadInputError: there is no such engine.
        RepositoryError: the folder is missing.
    """

    where = "in-process"

    def __init__(self, path: str | Path, *, threads: int | None = None, engine: str = AUTO) -> None:
        check_engine(engine)
        self._repository = Repository(path)
        self._engine = engine
        self._threads = threads
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        self._handles: weakref.WeakSet[OwnedHandle] = weakref.WeakSet()
        self._owner = object()
        self._closed = False

    def models(self) -> tuple[str, ...]:
        return self._repository.models()

    def spec(self, model: str) -> ModelSpec:
        return self._model(model).spec

    def engine(self, model: str) -> str:
        loaded = self._model(model)
        if loaded.engine is not None:
            return loaded.engine.about
        return engine_of_models(self, (step.model for step in loaded.spec.steps))

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
            return _Model(spec, None)
        # A version folder never changes, so contract and file are of one version whatever is published.
        folder = self._repository.version_folder(spec)
        return _Model(spec, load_model(self._engine, spec, folder, self._threads))

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        engine = self._model(spec.name).engine
        if engine is None:
            return run_steps(self, spec, inputs, keep)
        feed = {
            name: self._value(value, engine) if isinstance(value, Handle) else np.ascontiguousarray(value)
            for name, value in inputs.items()
        }
        answer = engine.run(feed, keep)
        for name in keep:
            answer[name] = self._handle(spec, name, answer[name])
        return answer

    def _value(self, handle: Handle, engine: Engine) -> Any:
        """What a handle holds, as it is where the engine takes it, else as an array."""
        handle = usable_handle(handle, self._owner)
        if isinstance(handle, EngineHandle) and isinstance(handle.kept, engine.kept_type):
            return handle.kept
        return handle.values if isinstance(handle, ArrayHandle) else handle.numpy()

    def _handle(self, spec: ModelSpec, name: str, value: Kept | NDArray[Any]) -> OwnedHandle:
        handle: OwnedHandle
        if isinstance(value, np.ndarray):
            handle = ArrayHandle(spec, name, value, self._owner)
        else:
            tensor = next(tensor for tensor in spec.outputs if tensor.name == name)
            handle = EngineHandle(spec, name, value, tensor.dtype, self._owner)
        with self._lock:
            self._handles.add(handle)
        return handle
