"""ONNX Runtime's CUDA provider without a GPU: the CPU computes, and values on the GPU have addresses.

What the real one does with CUDA graphs is read from its sources: `InferenceSession::Run` in
core/session/inference_session.cc, cuda_execution_provider.cc and cuda_graph.cc in core/providers/cuda, and
its own test onnxruntime_test_python_cudagraph.py. `tests/project/test_stand_ins.py` compares the interfaces.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
RealSession = onnxruntime.InferenceSession


class FakeOrtValue:
    """Stands for `onnxruntime.OrtValue`, on the CPU or in the memory of the GPU."""

    def __init__(self, values: np.ndarray, device: str) -> None:
        self._values, self._device = values, device
        if device == "cuda":
            Memory.blocks[values.ctypes.data] = values

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0
    ) -> FakeOrtValue:
        Memory.note_call()
        values = np.empty(shape, element_type)
        values.view(np.uint8)[...] = 0xA5
        return FakeOrtValue(values, device_type)

    def numpy(self) -> np.ndarray:
        Memory.note_call()
        return self._values if self._device == "cpu" else self._values.copy()

    def update_inplace(self, data: np.ndarray) -> None:
        Memory.note_call()
        if data.size != self._values.size:
            raise RuntimeError("The input size of numpy arrays does not match the size of the OrtValue.")
        # The real one copies bytes, whatever type they are of.
        assert data.dtype == self._values.dtype
        self._values[...] = data.reshape(self._values.shape)

    def shape(self) -> list[int]:
        return list(self._values.shape)

    def device_name(self) -> str:
        return self._device

    def data_ptr(self) -> int:
        return self._values.ctypes.data


class Memory:
    """What lies on the GPU, by address, and the threads that called ONNX Runtime about it."""

    blocks: ClassVar[weakref.WeakValueDictionary[int, np.ndarray]] = weakref.WeakValueDictionary()
    threads: ClassVar[set[int]] = set()

    @classmethod
    def note_call(cls) -> None:
        cls.threads.add(threading.get_ident())

    @classmethod
    def at(cls, address: int) -> np.ndarray:
        assert address in cls.blocks, "a replay uses memory that was freed"
        return cls.blocks[address]


class FakeIOBinding:
    """Stands for `onnxruntime.IOBinding`."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.inputs: dict[str, FakeOrtValue] = {}
        self.outputs: dict[str, FakeOrtValue | str] = {}

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray) -> None:
        self.inputs[name] = FakeOrtValue(arr_on_cpu, "cpu")

    def bind_ortvalue_input(self, name: str, ortvalue: FakeOrtValue) -> None:
        self.inputs[name] = ortvalue

    def bind_output(self, name: str, device_type: str = "cpu") -> None:
        self.outputs[name] = device_type

    def bind_ortvalue_output(self, name: str, ortvalue: FakeOrtValue) -> None:
        self.outputs[name] = ortvalue

    def get_outputs(self) -> list[FakeOrtValue]:
        assert not any(isinstance(value, str) for value in self.outputs.values()), "before a run"
        return list(self.outputs.values())  # type: ignore[arg-type]


@dataclass
class Behaviour:
    """What goes wrong, and what happened.

    Attributes:
        refuses: ONNX Runtime starts no session with CUDA graphs, as for a graph with operators on the CPU.
        capturable: whether a capture ends well.
        stale: replays do not see what was put into their inputs.
        loads: for each session whether it captures.
        work: what the sessions did: "run", "capture" or "replay", with the graph's number where it has one.
    """

    refuses: bool = False
    capturable: bool = True
    stale: bool = False

    def __post_init__(self) -> None:
        self.loads: list[bool] = []
        self.work: list[str] = []


class FakeSession:
    """Stands for an `onnxruntime.InferenceSession` of the providers CUDA and CPU."""

    def __init__(
        self, behaviour: Behaviour, path_or_bytes: Any, sess_options: Any, providers: list[Any]
    ) -> None:
        Memory.note_call()
        options = [each[1] for each in providers if isinstance(each, tuple) and each[0] == CUDA]
        self._captures = bool(options) and options[0].get("enable_cuda_graph") == "1"
        self._session = RealSession(path_or_bytes, sess_options, providers=[CPU])
        self._names = [each if isinstance(each, str) else each[0] for each in providers]
        self._behaviour = behaviour
        self._broken = False
        self._graphs: dict[tuple[int, int], tuple[dict[str, int], dict[str, int], dict[str, np.ndarray]]] = {}
        self._own: weakref.WeakSet[FakeOrtValue] = weakref.WeakSet()
        behaviour.loads.append(self._captures)
        if self._captures and behaviour.refuses:
            raise Fail(
                "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as "
                "requested by the user as all compute graph nodes have not been partitioned to the "
                "CUDAExecutionProvider"
            )

    def get_providers(self) -> list[str]:
        return self._names

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def io_binding(self) -> FakeIOBinding:
        return FakeIOBinding(self)

    def run(
        self, output_names: list[str], input_feed: dict[str, np.ndarray], run_options: Any = None
    ) -> list[np.ndarray]:
        Memory.note_call()
        assert not self._broken
        assert self._graph(run_options) is None, "addresses of the caller were captured"
        self._behaviour.work.append("run")
        return self._session.run(output_names, input_feed)

    def run_with_iobinding(self, iobinding: FakeIOBinding, run_options: Any = None) -> None:
        Memory.note_call()
        assert not self._broken and iobinding.session is self
        graph = self._graph(run_options)
        if graph is None:
            self._behaviour.work.append("run")
            self._write(iobinding, self._compute(iobinding))
        elif (threading.get_ident(), graph) in self._graphs:
            self._replay(iobinding, graph)
        else:
            self._capture(iobinding, graph)

    def _graph(self, run_options: Any) -> int | None:
        """The number of a graph that is captured or replayed; 0 where the caller gives none."""
        if not self._captures:
            return None
        entry = "0" if run_options is None else run_options.get_run_config_entry("gpu_graph_id")
        return None if entry == "-1" else int(entry)

    def _compute(self, iobinding: FakeIOBinding) -> dict[str, np.ndarray]:
        feed = {name: value._values for name, value in iobinding.inputs.items()}
        names = [node.name for node in self.get_outputs()]
        return dict(zip(names, self._session.run(names, feed), strict=True))

    def _write(self, iobinding: FakeIOBinding, computed: dict[str, np.ndarray]) -> None:
        for name, target in iobinding.outputs.items():
            if isinstance(target, FakeOrtValue):
                target.update_inplace(computed[name])
            else:
                iobinding.outputs[name] = value = FakeOrtValue(computed[name], target)
                if target == "cuda":
                    self._own.add(value)

    def _capture(self, iobinding: FakeIOBinding, graph: int) -> None:
        self._behaviour.work.append(f"capture {graph}")
        addresses = _addresses(iobinding)
        if not self._behaviour.capturable:
            self._broken = True
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
        computed = self._compute(iobinding)
        self._write(iobinding, computed)
        self._graphs[threading.get_ident(), graph] = (*addresses, computed)

    def _replay(self, iobinding: FakeIOBinding, graph: int) -> None:
        """The real one launches what it captured, whatever is bound now."""
        self._behaviour.work.append(f"replay {graph}")
        inputs, outputs, computed = self._graphs[threading.get_ident(), graph]
        assert (inputs, outputs) == _addresses(iobinding), "addresses changed since the capture"
        if not self._behaviour.stale:
            feed = {name: Memory.at(address) for name, address in inputs.items()}
            computed = dict(zip(outputs, self._session.run(list(outputs), feed), strict=True))
        for value in self._own:
            # It was free when the graph was captured, and kernels write their own results into it.
            value._values.view(np.uint8)[...] = 0xA5
        for name, address in outputs.items():
            Memory.at(address)[...] = computed[name]


def _addresses(iobinding: FakeIOBinding) -> tuple[dict[str, int], dict[str, int]]:
    """Of inputs and outputs, which must lie on the GPU."""
    both: list[dict[str, int]] = []
    for values in (iobinding.inputs, iobinding.outputs):
        addresses = {}
        for name, value in values.items():
            assert isinstance(value, FakeOrtValue) and value.device_name() == "cuda", f"{name} has no address"
            addresses[name] = value.data_ptr()
        both.append(addresses)
    return both[0], both[1]
