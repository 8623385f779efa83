"""What stands for CUDA, TensorRT, NVML and ONNX Runtime on a GPU has the interface of the real thing.

The real ones are the packages of the `dev` extra, which import without a GPU. Three are not compared: full
TensorRT has no wheel with its binding, and the Python API of TensorRT for RTX; `onnxruntime-gpu` is 256 MB,
and its Python files are those of `onnxruntime`; jetson-stats is under the AGPL and installs on a Jetson only.
The stand-in for tegrastats prints recorded lines of real boards.
"""

from __future__ import annotations

import ctypes
import inspect
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

import cuda.bindings
import numpy as np
import onnxruntime
import pynvml
import pytest
import tensorrt_rtx_bindings as trt
from cuda.bindings import driver, runtime
from fake_cuda import FakeBuilderConfig, FakeDriver, FakeEngine, FakeRuntime
from fake_nvml import FakeNvml
from fake_onnx_cuda import FakeIOBinding, FakeOrtValue, FakeSession
from interfaces import Call, accepts, calls_of, positions, signatures
from onnxruntime.capi import onnxruntime_pybind11_state as state

import seg_export
import seg_runtime
from seg_bench.doctor import gpu_state
from seg_bench.power import nvml
from seg_runtime.engines import gpu, onnx_graphs
from seg_runtime.engines.onnx_engine import PROVIDERS

RUNTIME, EXPORT = Path(seg_runtime.__file__).parent, Path(seg_export.__file__).parent
CUDA = [call for call in calls_of(RUNTIME / "engines" / "cuda.py") if re.match("cuda[A-Z]", call.name)]
DRIVER = [call for call in calls_of(RUNTIME / "engines" / "gpu.py") if call.on == "driver"]
ENGINE = list(calls_of(RUNTIME / "engines" / "tensorrt_engine.py"))
ONNX = list(calls_of(RUNTIME / "engines" / "onnx_engine.py"))
GRAPHS = [*ONNX, *calls_of(RUNTIME / "engines" / "onnx_graphs.py")]
CACHE = [call for call in calls_of(EXPORT / "engines" / "network.py") if "timing_cache" in call.name]
NVML = [
    call
    for path in Path(nvml.__file__).parents[1].rglob("*.py")
    for call in calls_of(path)
    if call.name.startswith("nvml")
]


def on(receiver: str, calls: list[Call]) -> list[Call]:
    return [call for call in calls if call.on == receiver]


def named(calls: list[Call]) -> pytest.MarkDecorator:
    """A test for each call, of which there must be some."""
    assert calls
    return pytest.mark.parametrize("call", dict.fromkeys(calls), ids=lambda call: call.name)


def faked(stand_in: type) -> list[str]:
    """The methods of a stand-in that a real one has too; tests alone call `enqueue` and `view`."""
    methods = [name for name, each in vars(stand_in).items() if isinstance(each, FunctionType)]
    return [name for name in methods if not name.startswith("_") and name not in ("enqueue", "view")]


@named(CUDA)
def test_a_call_of_the_cuda_runtime_fits_cuda_bindings_and_the_stand_in(call: Call) -> None:
    assert accepts(getattr(runtime, call.name), call)
    if call.name != "cudaGetDeviceCount":  # Only the real one is asked.
        assert accepts(getattr(FakeRuntime(), call.name), call)


@pytest.mark.parametrize("name", faked(FakeRuntime))
def test_a_function_of_the_cuda_runtime_stands_in_for_one_of_as_many_results(name: str) -> None:
    real = getattr(runtime, name)
    assert positions(getattr(FakeRuntime(), name)) <= positions(real)
    returned = re.search(r"Returns\n\s*-+\n(.*?)(?:\n\s*\n|\Z)", real.__doc__, re.DOTALL)
    assert returned is not None
    results = [line for line in returned[1].splitlines() if re.match(r"\s*(cudaError_t$|\w+ : )", line)]
    text = FakeRuntime.__dict__[name].__annotations__["return"]
    assert len(results) == text.count(",") + 1


@named(DRIVER)
def test_a_call_of_the_driver_fits_its_c_interface_and_the_stand_in(call: Call) -> None:
    declared = Path(cuda.bindings.__file__).parent / "_internal" / "driver.pxd"
    found = re.search(rf"^cdef CUresult _{call.name}\((.*)\) except", declared.read_text(), re.MULTILINE)
    assert found is not None and found[1].count(",") + 1 == call.positional
    assert accepts(getattr(FakeDriver(), call.name), call)


def test_numbers_that_are_passed_to_the_driver_are_those_of_its_header() -> None:
    known = driver.CUdevice_attribute
    assert known.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == gpu._MAJOR
    assert known.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == gpu._MINOR


@named(on("engine", ENGINE))
def test_a_call_of_an_engine_fits_tensorrt_and_the_stand_in(call: Call) -> None:
    assert accepts(getattr(trt.ICudaEngine, call.name), call)
    assert accepts(getattr(FakeEngine(FakeRuntime()), call.name), call)


@named(on("self._context", ENGINE))
def test_a_call_of_an_execution_context_fits_tensorrt_and_the_stand_in(call: Call) -> None:
    assert accepts(getattr(trt.IExecutionContext, call.name), call)
    assert accepts(getattr(FakeEngine(FakeRuntime()), call.name), call)


@named(CACHE)
def test_a_call_about_timing_caches_fits_tensorrt_and_the_stand_in(call: Call) -> None:
    if call.on == "config":
        assert accepts(getattr(trt.IBuilderConfig, call.name), call)
        assert call.name == "get_timing_cache" or accepts(getattr(FakeBuilderConfig(), call.name), call)


@pytest.mark.parametrize(
    ("stand_in", "real"),
    [
        (FakeEngine, (trt.ICudaEngine, trt.IExecutionContext)),
        (FakeBuilderConfig, (trt.IBuilderConfig,)),
        (FakeNvml, (pynvml,)),
    ],
)
def test_a_stand_in_takes_nothing_that_the_real_one_refuses(stand_in: type, real: tuple[Any, ...]) -> None:
    for name in faked(stand_in):
        (owner, *_) = [each for each in real if hasattr(each, name)]
        wanted = positions(getattr(stand_in, name))
        assert wanted <= positions(getattr(owner, name)), name


@named([call for call in ENGINE if call.on in ("module", "module.Runtime(log)")])
def test_a_call_of_tensorrt_fits_the_real_one(call: Call) -> None:
    owner = trt if call.on == "module" else trt.Runtime
    assert callable(getattr(owner, call.name))
    if call.name == "deserialize_cuda_engine":
        assert accepts(trt.Runtime.deserialize_cuda_engine, call)


def test_attributes_of_tensorrt_that_are_used_are_there() -> None:
    assert isinstance(trt.ICudaEngine.num_io_tensors, property)
    assert callable(trt.IExecutionContext.is_stream_capturable)
    assert {mode.name for mode in trt.TensorIOMode.__members__.values()} >= {"INPUT", "OUTPUT"}
    assert {"ERROR", "INTERNAL_ERROR"} <= set(dir(trt.ILogger))
    assert re.match(r"\d+\.\d+", trt.__version__)


def test_library_of_tensorrt_says_its_version_by_the_function_that_is_faked() -> None:
    spec = find_spec("tensorrt_rtx_libs")
    assert spec is not None and spec.submodule_search_locations
    (library,) = Path(spec.submodule_search_locations[0]).glob("libtensorrt_rtx.so*")
    assert str(ctypes.CDLL(str(library)).getInferLibVersion()).isdigit()


@named(NVML)
def test_a_call_of_nvml_fits_nvidia_ml_py_and_the_stand_in(call: Call) -> None:
    assert accepts(getattr(pynvml, call.name), call)
    assert accepts(getattr(FakeNvml([]), call.name), call)


@pytest.mark.parametrize(
    ("structure", "fields"),
    [
        ("c_nvmlProcessInfo_v3_t", {"pid", "usedGpuMemory"}),
        ("c_nvmlMemory_t", {"total", "free", "used"}),
        ("c_nvmlUtilization_t", {"gpu", "memory"}),
    ],
)
def test_what_the_nvml_of_the_tests_returns_has_the_real_fields(structure: str, fields: set[str]) -> None:
    assert fields <= {name for name, _ in getattr(pynvml, structure)._fields_}


def test_reasons_for_a_lower_clock_have_the_bits_of_nvml() -> None:
    names = {
        "power cap": {pynvml.nvmlClocksEventReasonSwPowerCap},
        "hardware slowdown": {pynvml.nvmlClocksEventReasonHwSlowdown},
        "temperature": {
            pynvml.nvmlClocksEventReasonSwThermalSlowdown,
            pynvml.nvmlClocksEventReasonHwThermalSlowdown,
        },
        "power brake": {pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown},
    }
    assert {bit: text for text, bits in names.items() for bit in bits} == gpu_state._LIMITS


def test_providers_are_known_to_onnx_runtime() -> None:
    assert set(PROVIDERS.values()) <= set(state.get_all_providers())


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (onnxruntime.preload_dlls, Call("", "preload_dlls", 0)),
        (onnxruntime.get_available_providers, Call("", "get_available_providers", 0)),
        (onnxruntime.InferenceSession, Call("", "InferenceSession", 2, ("providers",))),
        (onnxruntime.set_default_logger_severity, Call("", "set_default_logger_severity", 1)),
    ],
)
def test_functions_of_onnx_runtime_that_are_replaced_are_called_as_they_can_be(
    function: Callable[..., Any], wanted: Call
) -> None:
    assert accepts(function, wanted)
    called = {(call.positional, call.keywords) for call in ONNX if call.name == wanted.name}
    assert called <= {(wanted.positional, wanted.keywords)}


@named([call for call in GRAPHS if call.on in ("self._runner", "self._session", "session")])
def test_a_call_of_a_session_fits_onnx_runtime_and_the_stand_in(call: Call) -> None:
    assert accepts(getattr(onnxruntime.InferenceSession, call.name), call)
    assert accepts(getattr(FakeSession, call.name), call)


@named([call for call in GRAPHS if call.on in ("binding", "self._binding")])
def test_a_call_of_an_io_binding_fits_onnx_runtime_and_the_stand_in(call: Call) -> None:
    assert accepts(getattr(onnxruntime.IOBinding, call.name), call)
    assert accepts(getattr(FakeIOBinding, call.name), call)


@named(
    [
        call
        for call in GRAPHS
        if call.on in ("value", "value.value", "self.value", "self._inputs[name]", "onnxruntime.OrtValue")
    ]
)
def test_a_call_of_an_ort_value_fits_onnx_runtime_and_the_stand_in(call: Call) -> None:
    assert accepts(getattr(onnxruntime.OrtValue, call.name), call)
    assert accepts(getattr(FakeOrtValue, call.name), call)


@pytest.mark.parametrize(
    ("stand_in", "real"),
    [
        (FakeSession, onnxruntime.InferenceSession),
        (FakeIOBinding, onnxruntime.IOBinding),
        (FakeOrtValue, onnxruntime.OrtValue),
    ],
)
def test_arguments_of_onnx_runtime_have_their_names_in_the_stand_in(stand_in: type, real: type) -> None:
    for name in faked(stand_in):
        taken = list(inspect.signature(getattr(stand_in, name)).parameters)
        assert taken == list(inspect.signature(getattr(real, name)).parameters)[: len(taken)], name


def test_values_on_the_cpu_are_those_of_onnx_runtime() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for kind in (onnxruntime.OrtValue, FakeOrtValue):
        value = kind.ortvalue_from_shape_and_type((2, 3), np.float32, "cpu", 0)
        value.update_inplace(values)
        np.testing.assert_array_equal(value.numpy(), values)
        assert (tuple(value.shape()), value.device_name()) == ((2, 3), "cpu")
        with pytest.raises(RuntimeError, match="input size of numpy arrays does not match"):
            value.update_inplace(values[:1])


def test_run_options_hold_the_number_of_a_cuda_graph() -> None:
    options = onnx_graphs.without_capture()
    assert isinstance(options, onnxruntime.RunOptions)
    assert options.get_run_config_entry("gpu_graph_id") == "-1"


def test_library_of_onnx_runtime_knows_cuda_graphs_by_the_number_that_is_set() -> None:
    assert b"gpu_graph_id" in Path(state.__file__).read_bytes()


def test_a_call_with_an_argument_too_many_or_of_another_name_is_seen() -> None:
    assert not accepts(runtime.cudaMalloc, Call("", "cudaMalloc", 2))
    assert not accepts(trt.IExecutionContext.set_input_shape, Call("", "set_input_shape", 1))
    assert not accepts(trt.IBuilderConfig.set_timing_cache, Call("", "set_timing_cache", 1, ("ignore",)))
    assert len(signatures(trt.IExecutionContext.set_input_shape)) == 3
    assert positions(trt.ICudaEngine.create_execution_context) == {0, 1}
