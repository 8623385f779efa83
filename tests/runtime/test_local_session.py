"""`seg_runtime.local_session` against bare ONNX Runtime, on every engine that runs on a CPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_graph import (
    images,
    invert_graph,
    invert_spec,
    publish,
    publish_all,
    rows_graph,
    rows_spec,
    semantic_graph,
    semantic_spec,
)

from seg_export.verification.tolerances import TOLERANCES
from seg_runtime.errors import (
    BadInputError,
    InferenceError,
    MissingExtraError,
    ModelNotFoundError,
    RepositoryError,
)
from seg_runtime.local_session import LocalSession
from seg_runtime.spec import TensorSpec

ON_CPU = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_all(tmp_path_factory.mktemp("repo"))


@pytest.fixture(params=ON_CPU)
def session(request: pytest.FixtureRequest, repository: Path):
    with LocalSession(repository, threads=1, engine=request.param) as session:
        yield session


def same(session: LocalSession, answer: np.ndarray, expected: np.ndarray) -> None:
    """Bit for bit what bare ONNX Runtime gives, or within the tolerance of fp32 on another engine."""
    if session.engine("tiny").startswith("ONNX Runtime"):
        np.testing.assert_array_equal(answer, expected)
    row = TOLERANCES["fp32"]
    np.testing.assert_allclose(answer, expected, rtol=row.rtol, atol=row.atol)


def bare_runner(repository: Path, model: str = "tiny") -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        repository / model / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )


def test_session_gives_what_bare_onnx_runtime_gives(session: LocalSession, repository: Path) -> None:
    runner = bare_runner(repository)
    for batch in (1, 2, 8):
        expected = runner.run(None, {"image": images(batch)})[0]
        same(session, session.infer("tiny", {"image": images(batch)})["probabilities"], expected)


def test_session_takes_arrays_of_any_memory_layout(session: LocalSession) -> None:
    array = images(2)
    strided = np.asfortranarray(array)
    expected = session.infer("tiny", {"image": array})["probabilities"]
    np.testing.assert_array_equal(session.infer("tiny", {"image": strided})["probabilities"], expected)
    kept = session.infer("tiny", {"image": strided}, keep=["probabilities"])["probabilities"]
    np.testing.assert_array_equal(kept.numpy(), expected)


def test_session_lists_models_and_runs_in_process(session: LocalSession) -> None:
    assert session.models() == ("invert", "tiny", "tiny_dynamic")
    assert session.where == "in-process"
    assert session.spec("tiny") == semantic_spec()


def test_session_loads_each_model_once_even_from_many_threads(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    original = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *args, **named: loaded.append(args[0]) or original(*args, **named),
    )
    with LocalSession(repository) as session, ThreadPoolExecutor(8) as pool:
        assert not loaded
        list(pool.map(lambda seed: session.infer("tiny", {"image": images(1, seed)}), range(32)))
    assert len(loaded) == 1


def test_many_threads_get_the_serial_answers(session: LocalSession) -> None:
    inputs = [images(1 + seed % 8, seed) for seed in range(200)]
    expected = [session.infer("tiny", {"image": array})["probabilities"] for array in inputs]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda array: session.infer("tiny", {"image": array})["probabilities"], inputs)
        )
    for answer, want in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer, want)


def test_session_costs_less_than_a_millisecond_over_bare_onnx_runtime(
    session: LocalSession, repository: Path
) -> None:
    runner, feed = bare_runner(repository), {"image": images(1)}

    def fastest(call: Callable[[], object]) -> float:
        times = []
        for _ in range(200):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    def keep_and_fetch() -> None:
        session.infer("tiny", feed, keep=["probabilities"])["probabilities"].numpy()

    bare = fastest(lambda: runner.run(None, feed))
    assert fastest(lambda: session.infer("tiny", feed)) - bare < 1e-3
    assert fastest(keep_and_fetch) - bare < 1e-3


def test_kept_output_is_an_input_of_another_model_without_a_copy_through_numpy(session: LocalSession) -> None:
    with session.infer("tiny", {"image": images(3)}, keep=["probabilities"])["probabilities"] as kept:
        assert kept.shape == (3, 1, 32, 32)
        assert kept.dtype == "float32"
        assert kept.spec == semantic_spec()
        inverted = session.infer("invert", {"probabilities": kept})["inverted"]
        np.testing.assert_array_equal(inverted, 1 - kept.numpy())


def test_values_of_a_handle_are_a_copy(session: LocalSession) -> None:
    kept = session.infer("tiny", {"image": images(1)}, keep=["probabilities"])["probabilities"]
    values = kept.numpy()
    values[:] = 7
    assert kept.numpy().max() <= 1


def test_released_handle_is_refused_in_one_line(session: LocalSession) -> None:
    kept = session.infer("tiny", {"image": images(1)}, keep=["probabilities"])["probabilities"]
    kept.release()
    kept.release()
    with pytest.raises(InferenceError, match="was released"):
        kept.numpy()
    with pytest.raises(InferenceError, match="was released"):
        session.infer("invert", {"probabilities": kept})


def test_handle_of_another_session_is_refused(session: LocalSession, repository: Path) -> None:
    with LocalSession(repository) as other:
        kept = other.infer("tiny", {"image": images(1)}, keep=["probabilities"])["probabilities"]
        with pytest.raises(BadInputError, match=r"made by another session: pass handle\.numpy\(\)"):
            session.infer("invert", {"probabilities": kept})


def test_handle_of_a_model_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, semantic_spec(), semantic_graph())
    publish(tmp_path, replace(invert_spec(), checkpoint_sha256="cd" * 32), invert_graph())
    with LocalSession(tmp_path) as session:
        kept = session.infer("tiny", {"image": images(1)}, keep=("probabilities",))["probabilities"]
        message = "'invert' is of checkpoint cdcdcdcdcdcd and 'tiny' of checkpoint abababababab"
        with pytest.raises(BadInputError, match=message):
            session.infer("invert", {"probabilities": kept})


def test_inputs_that_must_be_of_one_length_are_refused_when_they_are_not(tmp_path: Path) -> None:
    publish(tmp_path, rows_spec(), rows_graph())
    left, right = np.zeros((3, 32), np.float32), np.zeros((2, 32), np.float32)
    with (
        LocalSession(tmp_path) as session,
        pytest.raises(BadInputError, match="as many rows in every input; it was given 3 and, in right, 2"),
    ):
        session.infer("rows", {"left": left, "right": right})


def test_closing_releases_handles_and_refuses_more_work(repository: Path) -> None:
    session = LocalSession(repository)
    kept = session.infer("tiny", {"image": images(1)}, keep=["probabilities"])["probabilities"]
    session.close()
    session.close()
    with pytest.raises(InferenceError, match="was released"):
        kept.numpy()
    with pytest.raises(InferenceError, match="closed"):
        session.infer("tiny", {"image": images(1)})


def test_unknown_model_suggests_the_nearest_name(session: LocalSession) -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean 'tiny'"):
        session.infer("tinny", {"image": images(1)})


@pytest.mark.parametrize("contents", [b"", b"not a graph"])
def test_corrupt_graph_is_one_line_and_nothing_on_stderr(
    tmp_path: Path, contents: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, semantic_spec(), semantic_graph()).write_bytes(contents)
    with (
        LocalSession(tmp_path) as session,
        pytest.raises(RepositoryError, match=r"model\.onnx.*publish") as caught,
    ):
        session.infer("tiny", {"image": images(1)})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": (TensorSpec("masks", "float32", (1, 32, 32)),)},
        {"outputs": (TensorSpec("probabilities", "float16", (1, 32, 32)),)},
        {"inputs": (TensorSpec("image", "uint8", (64, 64, 1)),)},
        {"inputs": (TensorSpec("image", "uint8", (-1, 32, 1)),)},
        {"max_batch_size": 0},
    ],
    ids=["name", "type", "size", "free axis", "no batch axis"],
)
def test_graph_that_is_not_what_its_configuration_says_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    publish(tmp_path, semantic_spec(**changes), semantic_graph())
    with LocalSession(tmp_path) as session, pytest.raises(RepositoryError, match=r"config\.pbtxt says"):
        session.spec("tiny")


def test_graph_that_fails_while_it_runs_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        "gather",
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 1])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    tensors = {
        "inputs": (TensorSpec("index", "int64", (1,)),),
        "outputs": (TensorSpec("value", "float32", (1,)),),
    }
    publish(tmp_path, semantic_spec("gather", **tensors), model)
    with (
        LocalSession(tmp_path) as session,
        pytest.raises(InferenceError, match="model 'gather' failed") as caught,
    ):
        session.infer("gather", {"index": np.array([[99]])})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("engine", "extra"), [("auto", "cpu"), ("onnxruntime", "cpu"), ("openvino", "openvino")]
)
def test_missing_engine_names_its_extra(
    repository: Path, monkeypatch: pytest.MonkeyPatch, engine: str, extra: str
) -> None:
    for module in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    with (
        LocalSession(repository, engine=engine) as session,
        pytest.raises(MissingExtraError, match=rf"edgeseg\[{extra}\]"),
    ):
        session.infer("tiny", {"image": images(1)})
