"""CUDA graphs in ONNX Runtime: the kernels of a run, captured once for each input shape, launched at once."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seg_runtime.spec import ModelSpec

__all__ = [
    "CapturedRuns",
    "WrongReplayError",
    "call_on_gpu_thread",
    "can_be_captured",
    "device_value",
    "without_capture",
]

MOST_SHAPES = 8
"""Every captured shape holds memory on the GPU."""

_NOT_REPLAYABLE = b"GatherND"
"""ONNX Runtime's kernel of it copies from memory of the process that is gone when the graph is replayed.
Source: `GatherNDBase::PrepareCompute` in core/providers/cuda/tensor/gather_nd.cc."""

_TOLERANCE = 1e-2
"""Replays run the very kernels that were captured; what differs by more was not captured as a whole."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
Result = TypeVar("Result")


class WrongReplayError(RuntimeError):
    """A captured run computed something else than the run itself."""


def call_on_gpu_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function on the thread that does all of ONNX Runtime's work on the GPU.

    ONNX Runtime captures for each thread apart and keeps what it captured until the session goes, and while
    one thread captures, calls of CUDA in other threads fail.
    """
    return _gpu_thread(os.getpid()).submit(function, *arguments).result()


@cache
def _gpu_thread(pid: int) -> ThreadPoolExecutor:
    """A forked process does not have the thread of its parent."""
    return ThreadPoolExecutor(1, "onnxruntime-gpu")


def can_be_captured(spec: ModelSpec, path: Path) -> bool:
    """Whether a model may be replayed: its inputs' shapes decide its outputs', and its operators allow it.

    Args:
        spec: its contract.
        path: `model.onnx`, not empty.
    """
    if any(axis < 0 for tensor in (*spec.inputs, *spec.outputs) for axis in tensor.shape):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_NOT_REPLAYABLE) < 0


def without_capture() -> Any:
    """`onnxruntime.RunOptions` of a run that is neither captured nor replayed."""
    return _run_options(-1)


def device_value(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An OrtValue on the GPU in memory that no session owns.

    A replay writes again to what was free in its session's memory when it was captured: outputs of the
    session itself, if kept, would change.
    """
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype.type, "cuda", 0)


class CapturedRuns:
    """A model's captured runs, one for each of the first `MOST_SHAPES` input shapes that came twice.

    Args:
        session: an `onnxruntime.InferenceSession` with `enable_cuda_graph`; the model `can_be_captured`.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._seen: set[Shapes] = set()
        self._runs: dict[Shapes, _CapturedRun] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def replay(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | None:
        """The outputs of a replay; None where nothing was captured for these shapes."""
        run = self._runs.get(_shapes(inputs))
        return None if run is None else run.replay(inputs)

    def learn(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Capture the shapes of a run the second time they come, and compare a replay with that run.

        Args:
            inputs, outputs: of a run that was not a replay.

        Raises:
            WrongReplayError: the replay computes something else.
            Exception: as `InferenceSession.run_with_iobinding`; the session must not be used any more.
        """
        shapes = _shapes(inputs)
        if shapes not in self._seen:
            self._seen.add(shapes)
            return
        if shapes in self._runs or len(self._runs) == MOST_SHAPES:
            return
        run = _CapturedRun(self._session, len(self._runs) + 1, inputs, outputs)
        replayed = run.replay(inputs)
        if not all(_agree(replayed[name], outputs[name]) for name in outputs):
            raise WrongReplayError("a captured run computes other values")
        self._runs[shapes] = run


class _CapturedRun:
    """One run of a session with its inputs and outputs at fixed addresses."""

    def __init__(
        self,
        session: Any,
        number: int,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
    ) -> None:
        self._session, self._options = session, _run_options(number)
        self._binding = session.io_binding()
        self._inputs = {name: device_value(value.shape, value.dtype) for name, value in inputs.items()}
        self._outputs = {name: device_value(value.shape, value.dtype) for name, value in outputs.items()}
        for name, value in self._inputs.items():
            # With other values than the first replay's, which then shows whether it sees new inputs.
            value.update_inplace(np.zeros_like(inputs[name]))
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        # Runs as often as it must before it captures, and replays.
        session.run_with_iobinding(self._binding, self._options)

    def replay(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, value in inputs.items():
            self._inputs[name].update_inplace(value)
        self._session.run_with_iobinding(self._binding, self._options)
        return {name: value.numpy() for name, value in self._outputs.items()}


def _run_options(graph: int) -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def _shapes(inputs: Mapping[str, NDArray[Any]]) -> Shapes:
    return tuple(sorted((name, value.shape) for name, value in inputs.items()))


def _agree(replayed: NDArray[Any], outputs: NDArray[Any]) -> bool:
    return np.allclose(replayed, outputs, _TOLERANCE, _TOLERANCE, equal_nan=True)
