"""TensorRT engines on a real GPU: built here, run, chained and captured, against ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tiny_graph import SIDE, images, invert_graph, invert_spec, publish, semantic_graph, semantic_spec

from seg_export.engines.build import build_engines
from seg_export.engines.network import build_plan, parse_graph
from seg_export.export import export_models
from seg_export.families.semantic.random import random_unet
from seg_export.verification.tolerances import TOLERANCES
from seg_runtime.connection import connect
from seg_runtime.engines.cuda import DeviceArray
from seg_runtime.engines.gpu import first_gpu
from seg_runtime.engines.tensorrt_api import TensorRT, load_tensorrt
from seg_runtime.engines.tensorrt_engine import TensorRtEngine, open_engine
from seg_runtime.errors import BadInputError, EdgesegError
from seg_runtime.spec import ModelSpec

pytestmark = pytest.mark.skipif(first_gpu() is None, reason="no NVIDIA GPU")

SHAPES = {"image": (SIDE, SIDE, 1), "probabilities": (1, SIDE, SIDE)}


@pytest.fixture(scope="module")
def tensorrt() -> TensorRT:
    """Full TensorRT where it is installed, else TensorRT for RTX."""
    pytest.importorskip("cuda.bindings")
    try:
        return load_tensorrt()
    except EdgesegError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("tiny"), semantic_spec(), semantic_graph())


@pytest.fixture(scope="module")
def engine(tensorrt: TensorRT, graph: Path) -> TensorRtEngine:
    return build(tensorrt, graph, semantic_spec())


def build(tensorrt: TensorRT, graph: Path, spec: ModelSpec) -> TensorRtEngine:
    """An engine of this graph for this GPU, batches of 1 to 4."""
    name = spec.inputs[0].name
    batches = ((1, *SHAPES[name]), (2, *SHAPES[name]), (4, *SHAPES[name]))
    plan, _ = build_plan(parse_graph(tensorrt, graph), {name: batches})
    path = graph.with_name("model.plan")
    path.write_bytes(plan)
    return open_engine(path, spec, tensorrt.backend)


def expected(graph: Path, batch: np.ndarray) -> np.ndarray:
    runner = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(runner.run(None, {"image": batch})[0])


def check_answer(engine: TensorRtEngine, graph: Path, batch: np.ndarray) -> None:
    answer = engine.run({"image": batch})["probabilities"]
    np.testing.assert_allclose(answer, expected(graph, batch), rtol=1e-5, atol=1e-5)


def test_answers_are_onnx_runtimes_for_changing_batches(graph: Path, engine: TensorRtEngine) -> None:
    for seed, count in enumerate((1, 1, 1, 4, 2, 2, 2, 2, 3, 1)):
        check_answer(engine, graph, images(count, seed))


def test_runs_of_one_shape_are_captured_as_a_cuda_graph(graph: Path, engine: TensorRtEngine) -> None:
    for seed in range(4):
        check_answer(engine, graph, images(2, seed))
    if not engine._capturable:
        pytest.skip("this TensorRT cannot capture its work as a CUDA graph")
    assert engine._captured is not None


def test_kept_output_is_the_input_of_another_engine_on_the_device(
    tensorrt: TensorRT, graph: Path, engine: TensorRtEngine, tmp_path: Path
) -> None:
    second = build(tensorrt, publish(tmp_path, invert_spec(), invert_graph()), invert_spec())
    batch = images(3)
    kept = engine.run({"image": batch}, keep=frozenset({"probabilities"}))["probabilities"]
    assert isinstance(kept, DeviceArray)
    engine.run({"image": images(3, seed=1)})
    inverted = second.run({"probabilities": kept})["inverted"]
    np.testing.assert_allclose(inverted, 1 - expected(graph, batch), rtol=1e-5, atol=1e-5)


def test_batch_that_it_was_not_built_for_names_the_limits(engine: TensorRtEngine) -> None:
    with pytest.raises(BadInputError, match="takes image from 1x32x32x1 to 4x32x32x1"):
        engine.run({"image": images(5)})


def test_a_model_that_seg_export_build_published_is_what_auto_runs(
    tensorrt: TensorRT, tmp_path: Path
) -> None:
    export_models(random_unet(features=(4, 8)), tmp_path, "unet", size_hw=(32, 32))
    (built,) = build_engines(tmp_path, ("unet",), backend=tensorrt.backend)
    assert built.version == 2
    batch, answers = images(2), {}
    for engine, name in (("auto", tensorrt.name), ("onnxruntime", "ONNX Runtime")):
        with connect(tmp_path, engine=engine) as session:
            assert session.engine("unet").startswith(name)
            answers[engine] = session.infer("unet", {"image": batch})["probabilities"]
    tolerance = TOLERANCES["fp32, TF32"]
    np.testing.assert_allclose(
        answers["auto"], answers["onnxruntime"], rtol=tolerance.rtol, atol=tolerance.atol
    )
