"""`seg_runtime.engines.onnx_engine` on a made-up GPU: CUDA graphs, kept outputs, threads, what is refused."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fake_onnx_cuda import CPU, CUDA, Behaviour, FakeOrtValue, FakeSession, Memory
from onnx import TensorProto, helper, save_model
from tiny_graph import images, invert_graph, invert_spec, publish, rows_graph, rows_spec, semantic_graph
from tiny_graph import semantic_spec as spec_of

from seg_runtime.engines import ENGINES, load_model
from seg_runtime.engines.onnx_engine import OnnxEngine, OrtKept
from seg_runtime.engines.onnx_graphs import MOST_SHAPES
from seg_runtime.errors import EngineError, InferenceError, RepositoryError
from seg_runtime.local_session import LocalSession
from seg_runtime.spec import ModelSpec

PLAIN = f"ONNX Runtime {onnxruntime.__version__}, CUDA"
WITH_GRAPHS = f"ONNX Runtime {onnxruntime.__version__} with CUDA graphs, CUDA"
KEEP = frozenset({"probabilities"})


@pytest.fixture
def behaviour(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    """Of an ONNX Runtime with CUDA."""
    behaviour = Behaviour()
    Memory.threads.clear()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", partial(FakeSession, behaviour))
    monkeypatch.setattr(onnxruntime, "OrtValue", FakeOrtValue)
    return behaviour


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path, spec_of(), semantic_graph()).parent


@pytest.fixture
def engine(behaviour: Behaviour, folder: Path) -> OnnxEngine:
    return open_engine(folder)


def open_engine(folder: Path, spec: ModelSpec | None = None) -> OnnxEngine:
    return OnnxEngine(spec or spec_of(), folder, 1, "CUDA")


def wanted(image: np.ndarray) -> np.ndarray:
    """What `semantic_graph` computes."""
    return 1 / (1 + np.exp(2 - image.astype(np.float32).transpose(0, 3, 1, 2) * np.float32(4 / 255)))


def check(engine: OnnxEngine, count: int, seed: int) -> None:
    """One run of a batch gives the right answer, in an array that no later run writes to."""
    image = images(count, seed)
    np.testing.assert_allclose(engine.run({"image": image})["probabilities"], wanted(image), atol=1e-6)


def test_shape_that_comes_again_is_captured_and_then_replayed(
    engine: OnnxEngine, behaviour: Behaviour
) -> None:
    for turn in range(4):
        check(engine, 2, turn)
    assert behaviour.work == ["run", "run", "capture 1", "replay 1", "replay 1", "replay 1"]
    assert behaviour.loads == [True]


def test_engine_says_that_it_uses_cuda_graphs_once_it_does(engine: OnnxEngine) -> None:
    check(engine, 2, 0)
    assert engine.about == PLAIN
    for turn in range(3):
        check(engine, 2, turn)
        check(engine, 1, turn)
    assert engine.about == WITH_GRAPHS


def test_each_shape_has_a_graph_of_its_number_until_there_are_enough(
    behaviour: Behaviour, tmp_path: Path
) -> None:
    spec = spec_of(max_batch_size=MOST_SHAPES + 2)
    engine = open_engine(publish(tmp_path, spec, semantic_graph()).parent, spec)
    for turn in range(3):
        for count in range(1, MOST_SHAPES + 3):
            check(engine, count, 100 * turn + count)
    captured = [work for work in behaviour.work if work.startswith("capture")]
    assert captured == [f"capture {number + 1}" for number in range(MOST_SHAPES)]
    assert behaviour.work[-2:] == ["run", "run"]


def test_answers_of_replays_are_not_overwritten_by_later_ones(engine: OnnxEngine) -> None:
    batches = [images(2, seed) for seed in range(5)]
    answers = [engine.run({"image": batch})["probabilities"] for batch in batches]
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer, wanted(batch), atol=1e-6)


def test_input_that_is_not_contiguous_is_replayed(engine: OnnxEngine) -> None:
    for seed in range(4):
        image = images(4, seed)[::2]
        np.testing.assert_allclose(engine.run({"image": image})["probabilities"], wanted(image), atol=1e-6)


def test_kept_output_stays_on_the_gpu_and_no_replay_writes_to_it(
    engine: OnnxEngine, behaviour: Behaviour
) -> None:
    kept = {}
    for seed in range(5):
        check(engine, 2, seed)
        kept[seed] = engine.run({"image": images(2, seed)}, KEEP)["probabilities"]
    check(engine, 2, 9)
    assert "replay 1" in behaviour.work
    for seed, value in kept.items():
        assert isinstance(value, OrtKept) and value.value.device_name() == "cuda"
        np.testing.assert_allclose(value.numpy(), wanted(images(2, seed)), atol=1e-6)


def test_kept_output_is_an_input_of_another_model_on_the_gpu(behaviour: Behaviour, tmp_path: Path) -> None:
    publish(tmp_path, spec_of(), semantic_graph())
    publish(tmp_path, invert_spec(), invert_graph())
    with LocalSession(tmp_path, engine="onnxruntime-cuda") as session:
        for seed in range(3):
            kept = session.infer("tiny", {"image": images(3, seed)}, keep=KEEP)["probabilities"]
            inverted = session.infer("invert", {"probabilities": kept})["inverted"]
            np.testing.assert_allclose(inverted, 1 - wanted(images(3, seed)), atol=1e-6)
    assert set(behaviour.work) == {"run"}, "only calls from arrays to arrays are captured"


def test_all_work_on_the_gpu_is_done_by_one_thread(engine: OnnxEngine, behaviour: Behaviour) -> None:
    def work(first: int) -> None:
        for turn in range(10):
            check(engine, 1 + turn % 2, first + turn)
            kept = engine.run({"image": images(2, first)}, KEEP)["probabilities"]
            np.testing.assert_allclose(kept.numpy(), wanted(images(2, first)), atol=1e-6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (100, 200, 300, 400)))
    assert len(Memory.threads) == 1 and threading.get_ident() not in Memory.threads
    assert {work for work in behaviour.work if work.startswith("capture")} == {"capture 1", "capture 2"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_process_has_a_thread_for_the_gpu_again(engine: OnnxEngine) -> None:
    child = os.fork()
    if child == 0:
        from seg_runtime.engines.onnx_graphs import call_on_gpu_thread

        os._exit(call_on_gpu_thread(lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_graph_that_onnx_runtime_refuses_to_capture_runs_as_it_is(behaviour: Behaviour, folder: Path) -> None:
    behaviour.refuses = True
    engine = open_engine(folder)
    for turn in range(4):
        check(engine, 2, turn)
    assert behaviour.loads == [True, False]
    assert set(behaviour.work) == {"run"}
    assert engine.about == f"{PLAIN}; no CUDA graphs: ONNX Runtime refused them"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"capturable": False}, "the capture failed"),
        ({"stale": True}, "a replay computed other values"),
    ],
)
def test_capture_that_fails_is_noted_once_and_another_session_goes_on(
    engine: OnnxEngine, behaviour: Behaviour, fault: dict[str, bool], said: str
) -> None:
    vars(behaviour).update(fault)
    for turn in range(5):
        check(engine, 2, turn)
    kept = engine.run({"image": images(2)}, KEEP)["probabilities"]
    np.testing.assert_allclose(kept.numpy(), wanted(images(2)), atol=1e-6)
    assert behaviour.loads == [True, False]
    assert [work for work in behaviour.work if work != "run"][:1] == ["capture 1"]
    assert engine.about == f"{PLAIN}; no CUDA graphs: {said}"


def test_later_shape_that_cannot_be_captured_ends_the_use_of_cuda_graphs(
    engine: OnnxEngine, behaviour: Behaviour
) -> None:
    for turn in range(3):
        check(engine, 1, turn)
    assert engine.about == WITH_GRAPHS
    behaviour.capturable = False
    for turn in range(3):
        check(engine, 2, turn)
        check(engine, 1, turn)
    assert engine.about == f"{PLAIN}; no CUDA graphs: the capture failed"
    assert behaviour.work[-3:] == ["run", "run", "run"]


def test_session_that_cannot_be_started_again_is_one_line(engine: OnnxEngine, behaviour: Behaviour) -> None:
    behaviour.capturable = False
    check(engine, 2, 0)
    check(engine, 2, 1)
    engine._path.write_bytes(b"no graph")
    for _ in range(2):
        with pytest.raises(InferenceError, match=r"model 'tiny' failed: .*INVALID_PROTOBUF"):
            check(engine, 2, 2)


def test_graph_whose_output_shapes_the_contract_leaves_open_is_not_captured(
    behaviour: Behaviour, tmp_path: Path
) -> None:
    engine = open_engine(publish(tmp_path, rows_spec(), rows_graph()).parent, rows_spec())
    rows = np.ones((2, 32), np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(engine.run({"left": rows, "right": rows})["joined"], np.ones((2, 64)))
    assert (behaviour.loads, set(behaviour.work)) == ([False], {"run"})
    assert engine.about == PLAIN


def test_graph_with_an_operator_that_cannot_be_replayed_is_not_captured(
    behaviour: Behaviour, tmp_path: Path
) -> None:
    graph = semantic_graph()
    graph.graph.node[-1].output[0] = "all"
    places = helper.make_tensor("places", TensorProto.INT64, [1, 1], [0])
    graph.graph.initializer.append(places)
    graph.graph.node.append(helper.make_node("GatherND", ["all", "places"], ["probabilities"]))
    path = publish(tmp_path, spec_of(), semantic_graph())
    save_model(graph, path)
    engine = open_engine(path.parent)
    for _ in range(3):
        engine.run({"image": images(1)})
    assert (behaviour.loads, set(behaviour.work)) == ([False], {"run"})


def test_broken_graph_is_one_line_on_the_gpu_too(behaviour: Behaviour, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(RepositoryError, match="cannot be loaded"):
        open_engine(folder)


def test_provider_that_does_not_start_is_tried_once(
    behaviour: Behaviour, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSession, "get_providers", lambda session: [CPU])
    with pytest.raises(EngineError, match="could not start CUDA"):
        open_engine(folder)
    assert behaviour.loads == [True]


def test_note_about_an_engine_file_stands_after_that_about_cuda_graphs(
    behaviour: Behaviour, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.plan").write_bytes(b"engine")
    engine = load_model("auto", spec_of(), folder, 1)
    assert isinstance(engine, OnnxEngine)
    for turn in range(3):
        check(engine, 2, turn)
    assert engine.about == f"{WITH_GRAPHS}; version 1 has no engine.json beside its engine"


def test_memory_on_the_gpu_goes_with_the_engine(engine: OnnxEngine) -> None:
    gc.collect()
    before = len(Memory.blocks)
    for turn in range(3):
        check(engine, 2, turn)
    assert len(Memory.blocks) == before + 2
    vars(engine).clear()
    gc.collect()
    assert len(Memory.blocks) == before


def test_onnx_runtime_with_tensorrt_captures_nothing(
    behaviour: Behaviour, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tensorrt = "TensorrtExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [tensorrt, CUDA, CPU])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine = ENGINES["onnxruntime-tensorrt"](spec_of(), folder, 1)
    for _ in range(3):
        engine.run({"image": images(2)})
    assert (behaviour.loads, set(behaviour.work)) == ([False], {"run"})
