"""`seg_runtime.engines.tensorrt_engine` on a made-up GPU: buffers, shapes, CUDA graphs, errors."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorrt_rtx_bindings as trt
from fake_cuda import FakeEngine, FakeRuntime

from seg_runtime.engines.cuda import Cuda, DeviceArray, open_cuda
from seg_runtime.engines.gpu import first_gpu
from seg_runtime.engines.tensorrt_api import load_tensorrt
from seg_runtime.engines.tensorrt_engine import TensorRtEngine, _log, load_engine, open_engine
from seg_runtime.errors import BadInputError, EngineError, InferenceError, MissingExtraError, RepositoryError
from seg_runtime.spec import ModelSpec, TensorSpec

SPEC = ModelSpec(
    "line",
    1,
    "semantic",
    "unet",
    (TensorSpec("x", "float32", (3,)),),
    (TensorSpec("y", "float32", (3,)),),
    backend="tensorrt",
    max_batch_size=4,
)
no_gpu = pytest.mark.skipif(first_gpu() is not None, reason="there is a GPU, and it would be used")


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def engine(runtime: FakeRuntime) -> TensorRtEngine:
    return make_engine(runtime, FakeEngine(runtime))


def make_engine(runtime: FakeRuntime, fake: FakeEngine) -> TensorRtEngine:
    tensorrt = load_tensorrt("tensorrt-rtx")
    return TensorRtEngine(Path("model.plan"), SPEC, tensorrt, fake, Cuda(runtime), _log(tensorrt.module))


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3), np.float32)


def test_runs_of_changing_shapes_give_the_right_answers(engine: TensorRtEngine) -> None:
    for turn, count in enumerate((2, 2, 2, 4, 1, 4, 4, 4, 3, 3, 1)):
        x = rows(count, turn)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x + 1)


def test_second_run_of_one_shape_is_captured_and_later_ones_are_launched(
    engine: TensorRtEngine, runtime: FakeRuntime
) -> None:
    def work() -> list[str]:
        runtime.calls.clear()
        engine.run({"x": rows(2)})
        return [call for call in runtime.calls if call in ("execute", "cudaGraphLaunch")]

    assert work() == ["execute"]
    assert work() == ["execute", "cudaGraphLaunch"]
    assert work() == ["cudaGraphLaunch"]
    engine.run({"x": rows(3)})
    assert not runtime.graphs, "a graph of other shapes stayed"
    assert work() == ["execute"]


def test_engine_that_cannot_be_captured_runs_as_it_is(engine: TensorRtEngine, runtime: FakeRuntime) -> None:
    runtime.capturable = False
    for turn in range(4):
        x = rows(2, turn)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x + 1)
    assert "cudaGraphLaunch" not in runtime.calls
    assert runtime.calls.count("execute") == 5, "it was tried to be captured more than once"


def test_buffers_are_used_again_and_grow_only_when_they_must(
    engine: TensorRtEngine, runtime: FakeRuntime
) -> None:
    for count in (4, 1, 2, 4, 4):
        engine.run({"x": rows(count)})
    assert runtime.calls.count("cudaMalloc") == 2
    assert len(runtime.memory) == 2


def test_kept_output_stays_on_the_device_and_outlives_later_runs(
    engine: TensorRtEngine, runtime: FakeRuntime
) -> None:
    x = rows(2)
    kept = engine.run({"x": x}, keep=frozenset({"y"}))["y"]
    assert isinstance(kept, DeviceArray)
    assert "cudaMemcpyDeviceToHost" not in runtime.calls
    for turn in range(3):
        engine.run({"x": rows(2, seed=turn + 1)})
    np.testing.assert_array_equal(kept.numpy(), 2 * x + 1)

    runtime.calls.clear()
    np.testing.assert_array_equal(engine.run({"x": kept})["y"], 2 * (2 * x + 1) + 1)
    assert "cudaMemcpyHostToDevice" not in runtime.calls

    held = len(runtime.memory)
    del kept
    assert len(runtime.memory) == held - 1


def test_shape_that_the_engine_was_not_built_for_names_the_limits(engine: TensorRtEngine) -> None:
    with pytest.raises(BadInputError, match="'line' takes x from 1x3 to 4x3, and was given 5x3: ") as caught:
        engine.run({"x": rows(5)})
    assert "\n" not in str(caught.value)
    engine.run({"x": rows(4)})


def test_full_memory_is_one_line_and_leaves_a_usable_engine(
    engine: TensorRtEngine, runtime: FakeRuntime
) -> None:
    engine.run({"x": rows(1)})
    runtime.allocations_left = 1
    with pytest.raises(InferenceError, match=r"'line' failed: CUDA: out of memory \(cudaMalloc\)"):
        engine.run({"x": rows(4)})
    runtime.allocations_left = None
    for turn in range(3):
        x = rows(4, turn)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x + 1)


def test_failed_execution_gives_tensorrts_reason(runtime: FakeRuntime) -> None:
    fake = FakeEngine(runtime)
    engine = make_engine(runtime, fake)
    fake.context.fails = True
    engine._log.log(trt.ILogger.ERROR, "Error Code 1:\n no kernel")
    with pytest.raises(InferenceError, match="'line' failed: Error Code 1: no kernel"):
        engine.run({"x": rows(2)})
    fake.context.fails = False
    np.testing.assert_array_equal(engine.run({"x": rows(2)})["y"], 2 * rows(2) + 1)


def test_memory_and_graphs_go_with_the_engine_and_its_outputs(runtime: FakeRuntime) -> None:
    engine = make_engine(runtime, FakeEngine(runtime))
    for _ in range(3):
        kept = engine.run({"x": rows(2)}, keep=frozenset({"y"}))["y"]
    assert len(runtime.graphs) == 1
    del engine
    gc.collect()
    assert not runtime.graphs
    assert list(runtime.memory) == [kept.pointer]
    np.testing.assert_array_equal(kept.numpy(), 2 * rows(2) + 1)
    del kept
    assert not runtime.memory


def test_engine_of_another_model_is_refused(runtime: FakeRuntime) -> None:
    with pytest.raises(RepositoryError, match=r"has the outputs z but its config\.pbtxt says y"):
        make_engine(runtime, FakeEngine(runtime, output="z"))


@no_gpu
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used here.*seg-bench doctor"):
        open_cuda("tensorrt-rtx")
    folder = tmp_path / "repo" / "line" / "1"
    folder.mkdir(parents=True)
    (folder / "model.plan").write_bytes(b"engine")
    with pytest.raises(EngineError, match="no NVIDIA GPU"):
        open_engine(folder / "model.plan", SPEC)
    with pytest.raises(RepositoryError, match=r"has no engine\.json.*run  seg-export build line --repo"):
        load_engine(SPEC, folder)


def test_missing_binding_of_cuda_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingExtraError, match=r"cuda-bindings.*edgeseg\[tensorrt\]"):
        open_cuda("tensorrt")
