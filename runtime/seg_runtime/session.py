"""One interface to run models, wherever they run: in process or on a Triton server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["Handle", "Session", "axis_lengths", "check_same_checkpoint", "engine_of_models"]


class Handle(ABC):
    """An output that stayed where it was made, to be used as an input of a later `infer`.

    It is in an engine's memory in process, a shared-memory region with a local server and a plain array with
    a remote one; callers need not know which. Free it with `release()` or a `with` block; the
    session frees what is left when it closes.

    Attributes:
        spec: the model that made it (its `checkpoint_sha256` tells whether another model fits).
        output: the name of the output.
        shape: full shape, batch axis included.
        dtype: NumPy's name of the type.
    """

    def __init__(self, spec: ModelSpec, output: str, shape: tuple[int, ...], dtype: str) -> None:
        self.spec = spec
        self.output = output
        self.shape = shape
        self.dtype = dtype

    @abstractmethod
    def numpy(self) -> NDArray[Any]:
        """A copy of the values. Raises InferenceError after `release()`."""

    @abstractmethod
    def release(self) -> None:
        """Free the memory behind the handle; calling it again does nothing."""

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Session(ABC):
    """Runs the models of one repository or server. Safe to use from several threads.

    Attributes:
        where: "in-process", "grpc", "http" or "shared-memory": how tensors travel, for reports.
    """

    where: str

    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """Names of the models that can be run, sorted."""

    @abstractmethod
    def spec(self, model: str) -> ModelSpec:
        """The contract of a model. Raises ModelNotFoundError, naming the nearest known model."""

    @abstractmethod
    def engine(self, model: str) -> str:
        """What computes a model, in words, for example "OpenVINO 2026.4.1, CPU". Raises as `spec`."""

    def answers_from_cache(self, model: str) -> bool | None:
        """Whether a model's repeated requests are answered without running it; None if nobody tried yet."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Free every model, connection and handle; calling it again does nothing."""

    @abstractmethod
    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        """Run one request whose inputs were checked against `spec`."""

    def infer(
        self, model: str, inputs: Mapping[str, NDArray[Any] | Handle], keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run a model once.

        Args:
            model: its name.
            inputs: one array (or a handle kept from an earlier call) per input of the model, with
                the dtype and shape of its `TensorSpec`, batch axis first when the model batches.
            keep: names of outputs to leave where they are made.

        Returns:
            One entry per output: a `Handle` for names in `keep`, else an array.

        Raises:
            ModelNotFoundError: no such model.
            BadInputError: a missing or unknown input or output name, wrong dtype or shape, or a
                handle that a model of another checkpoint made.
            InferenceError: the model failed.
            MissingExtraError, EngineError: at the first use of a model in process, there is no engine
                that can run it.
            ServerError: the server is away, too slow or not ready.
        """
        spec = self.spec(model)
        check_inputs(spec, inputs)
        unknown = sorted(set(keep) - {tensor.name for tensor in spec.outputs})
        if unknown:
            known = ", ".join(tensor.name for tensor in spec.outputs)
            raise BadInputError(f"model '{model}' has no output '{unknown[0]}' to keep; it has {known}")
        return self._infer(spec, inputs, frozenset(keep))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def engine_of_models(session: Session, models: Iterable[str]) -> str:
    """What computes models that run together, in words: each engine once. Raises as `Session.engine`."""
    return "; ".join(dict.fromkeys(session.engine(model) for model in models))


def check_inputs(spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle]) -> None:
    """Refuse inputs that do not fit the model's contract, before they travel anywhere."""
    missing = [tensor.name for tensor in spec.inputs if tensor.name not in inputs]
    unknown = [name for name in inputs if spec.input(name) is None]
    if missing or unknown:
        wanted = ", ".join(tensor.name for tensor in spec.inputs)
        got = ", ".join(inputs) or "nothing"
        raise BadInputError(f"model '{spec.name}' wants the inputs {wanted}; it was given {got}")
    for tensor in spec.inputs:
        value = inputs[tensor.name]
        _check_tensor(spec, tensor, value)
        if isinstance(value, Handle):
            check_same_checkpoint(spec, value.spec)
    axis_lengths(spec, inputs)


def axis_lengths(spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle]) -> dict[str, int]:
    """The length of every named axis in inputs of the right shapes.

    Raises:
        BadInputError: axes of one name differ.
    """
    lengths: dict[str, int] = {}
    for tensor in spec.inputs:
        shape = inputs[tensor.name].shape
        if spec.max_batch_size:
            shape = shape[1:]
        dynamic = [length for length, axis in zip(shape, tensor.shape, strict=True) if axis < 0]
        # A tensor whose axes have no names says nothing about any length.
        for name, length in zip(tensor.axes, dynamic, strict=False):
            if lengths.setdefault(name, length) != length:
                raise BadInputError(
                    f"model '{spec.name}' wants as many {name} in every input; it was given "
                    f"{lengths[name]} and, in {tensor.name}, {length}"
                )
    return lengths


def check_same_checkpoint(spec: ModelSpec, made_by: ModelSpec) -> None:
    """Refuse to chain two models of different checkpoints: the answer would look right and be wrong.

    Args:
        spec: the model that is to take an output.
        made_by: the model that makes it. One that names no checkpoint, published by hand, may pass.

    Raises:
        BadInputError: the checkpoints differ.
    """
    wanted, got = spec.checkpoint_sha256, made_by.checkpoint_sha256
    if wanted and got and wanted != got:
        raise BadInputError(
            f"model '{spec.name}' is of checkpoint {wanted[:12]} and '{made_by.name}' of checkpoint "
            f"{got[:12]}: chain models that were published from one checkpoint"
        )


def _check_tensor(spec: ModelSpec, tensor: TensorSpec, value: NDArray[Any] | Handle) -> None:
    dtype = np.dtype(value.dtype)
    if dtype != tensor.numpy_dtype:
        raise BadInputError(f"model '{spec.name}' wants {tensor.name} as {tensor.dtype}, not {dtype.name}")
    wanted = (-1, *tensor.shape) if spec.max_batch_size else tensor.shape
    shape = tuple(value.shape)
    fits = len(shape) == len(wanted) and all(w in (-1, s) for w, s in zip(wanted, shape, strict=True))
    if not fits:
        shown = "x".join("N" if axis < 0 else str(axis) for axis in wanted)
        raise BadInputError(
            f"model '{spec.name}' wants {tensor.name} as {shown}; it was given {'x'.join(map(str, shape))}"
        )
    if spec.max_batch_size and not 1 <= shape[0] <= spec.max_batch_size:
        raise BadInputError(
            f"model '{spec.name}' takes 1 to {spec.max_batch_size} images at once; it was given {shape[0]}"
        )
