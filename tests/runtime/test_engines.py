"""Which engine runs a model, and handles that go from one engine to another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from tiny_graph import images, invert_graph, invert_spec, publish, publish_all, semantic_graph, semantic_spec

from seg_runtime import engines
from seg_runtime.connection import connect
from seg_runtime.engines.openvino_engine import OpenVinoEngine
from seg_runtime.errors import BadInputError, EngineError, MissingExtraError, RepositoryError
from seg_runtime.local_session import EngineHandle, LocalSession

ONNX_RUNTIME = f"ONNX Runtime {onnxruntime.__version__}, CPU"
OPENVINO = f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"
PROBABILITIES = frozenset({"probabilities"})


def chosen(repository: Path, model: str = "tiny", engine: str = "auto") -> str:
    with connect(repository, engine=engine, threads=1) as session:
        return session.engine(model)


def test_session_says_which_engine_runs_a_model(tmp_path: Path) -> None:
    publish_all(tmp_path)
    assert chosen(tmp_path, engine="onnxruntime") == ONNX_RUNTIME
    assert chosen(tmp_path, engine="openvino") == OPENVINO


def test_auto_takes_onnx_runtime_for_fp32_and_openvino_for_other_precisions(tmp_path: Path) -> None:
    for precision in ("fp32", "fp16", "int8"):
        publish(tmp_path, semantic_spec(precision, precision=precision), semantic_graph())
    assert chosen(tmp_path, "fp32") == ONNX_RUNTIME
    assert chosen(tmp_path, "fp16") == chosen(tmp_path, "int8") == OPENVINO


@pytest.mark.parametrize(
    ("missing", "precision", "taken"),
    [("onnxruntime", "fp32", OPENVINO), ("openvino", "int8", ONNX_RUNTIME)],
)
def test_auto_takes_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, precision: str, taken: str
) -> None:
    publish(tmp_path, semantic_spec(precision=precision), semantic_graph())
    monkeypatch.setitem(sys.modules, missing, None)
    assert chosen(tmp_path) == taken


def test_auto_takes_another_engine_for_what_one_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise EngineError("OpenVINO cannot load it")

    publish(tmp_path, semantic_spec(precision="int8"), semantic_graph())
    monkeypatch.setitem(engines.ENGINES, "openvino", refuse)
    assert chosen(tmp_path) == ONNX_RUNTIME
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="OpenVINO cannot load it"):
        chosen(tmp_path)


def test_auto_runs_the_graph_beside_an_engine_that_does_not_fit_and_says_why(tmp_path: Path) -> None:
    graph = publish(tmp_path, semantic_spec(), semantic_graph())
    (graph.parent / "model.plan").write_bytes(b"engine")
    assert chosen(tmp_path) == f"{ONNX_RUNTIME}; version 1 has no engine.json beside its engine"


def test_auto_takes_a_fitting_engine_file_and_names_the_fault_when_there_is_no_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fitting:
        about = "TensorRT 10.3.0, Orin"

    graph = publish(tmp_path, semantic_spec(), semantic_graph())
    (graph.parent / "model.plan").write_bytes(b"engine")
    with monkeypatch.context() as patch:
        patch.setattr(engines, "engine_fault", lambda folder, machine: None)
        patch.setattr(engines, "_tensorrt", lambda *arguments: Fitting())
        assert chosen(tmp_path) == "TensorRT 10.3.0, Orin"
    graph.unlink()
    with pytest.raises(Exception, match="run  seg-export build tiny"):
        chosen(tmp_path)


def test_engine_that_does_not_exist_or_belongs_to_a_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no engine 'tensorflow': choose auto, tensorrt, .*onnxruntime"):
        connect(tmp_path, engine="tensorflow")
    with pytest.raises(
        BadInputError, match=r"engine 'openvino' is for a repository folder: the server at grpc"
    ):
        connect("grpc://localhost", engine="openvino")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_empty_graph_is_refused_before_an_engine_sees_it(tmp_path: Path, engine: str) -> None:
    publish(tmp_path, semantic_spec(), semantic_graph()).write_bytes(b"")
    with pytest.raises(RepositoryError, match=r"model\.onnx is empty; publish it with seg-export"):
        chosen(tmp_path, engine=engine)


def test_graph_that_openvino_cannot_load_is_one_line_and_nothing_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, semantic_spec(), semantic_graph()).write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"OpenVINO cannot load .*model\.onnx.*publish 'tiny'") as caught:
        chosen(tmp_path, engine="openvino")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_onnx_runtime_without_a_gpu_provider_names_the_extra(tmp_path: Path, device: str) -> None:
    publish_all(tmp_path)
    with pytest.raises(MissingExtraError, match=r"ONNX Runtime with .* run  pip install 'edgeseg\[gpu\]'"):
        chosen(tmp_path, engine=f"onnxruntime-{device}")


def test_provider_that_does_not_start_is_an_error_and_auto_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu on a machine without a GPU: the provider is listed and left out by the session."""
    publish_all(tmp_path)
    original = onnxruntime.InferenceSession
    asked: list[Any] = []

    def left_out(path: Path, options: Any, providers: list[Any]) -> Any:
        asked.append(providers)
        return original(path, options, providers=["CPUExecutionProvider"])

    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", left_out)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for device, engine in (("CUDA", "onnxruntime-cuda"), ("TensorRT", "onnxruntime-tensorrt")):
        with pytest.raises(EngineError, match=f"could not start {device}.*seg-bench doctor"):
            chosen(tmp_path, engine=engine)
    assert chosen(tmp_path) == ONNX_RUNTIME
    (name, options), *others = asked[1]
    assert (name, others) == (names[0], names[1:])
    assert options["trt_fp16_enable"] == "0"
    assert options["trt_engine_cache_path"] == str(tmp_path / "cache" / "edgeseg" / "onnxruntime-tensorrt")


def test_folder_for_built_engines_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_all(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"cannot write TensorRT's engines.*set XDG_CACHE_HOME"):
        chosen(tmp_path, engine="onnxruntime-tensorrt")


@pytest.mark.parametrize("precisions", [("fp32", "int8"), ("int8", "fp32")])
def test_handle_of_one_engine_is_an_input_of_another(tmp_path: Path, precisions: tuple[str, str]) -> None:
    publish(tmp_path, semantic_spec(precision=precisions[0]), semantic_graph())
    publish(tmp_path, semantic_spec("invert", precision=precisions[1], **_tensors()), invert_graph())
    with LocalSession(tmp_path, threads=1) as session:
        assert {session.engine("tiny"), session.engine("invert")} == {ONNX_RUNTIME, OPENVINO}
        kept = session.infer("tiny", {"image": images(3)}, keep=PROBABILITIES)["probabilities"]
        assert isinstance(kept, EngineHandle) == (precisions[0] == "fp32")
        inverted = session.infer("invert", {"probabilities": kept}, keep=["inverted"])["inverted"]
        np.testing.assert_allclose(inverted.numpy(), 1 - kept.numpy(), rtol=0, atol=4e-3)


def _tensors() -> Mapping[str, Any]:
    return {"inputs": invert_spec().inputs, "outputs": invert_spec().outputs}


def test_kept_output_of_openvino_is_not_overwritten_by_later_runs(tmp_path: Path) -> None:
    publish_all(tmp_path)
    with LocalSession(tmp_path, engine="openvino", threads=1) as session:
        kept = session.infer("tiny", {"image": images(2)}, keep=PROBABILITIES)["probabilities"]
        before = kept.numpy()
        for seed in range(1, 4):
            session.infer("tiny", {"image": images(2, seed)})
        np.testing.assert_array_equal(kept.numpy(), before)


def test_only_graphs_in_fp32_are_held_to_fp32_by_openvino(tmp_path: Path) -> None:
    hints = {}
    for precision in ("fp32", "fp16", "int8"):
        spec = semantic_spec(precision, precision=precision)
        folder = publish(tmp_path, spec, semantic_graph()).parent
        engine = OpenVinoEngine(spec, folder, 1)
        hints[precision] = engine._compiled.get_property("INFERENCE_PRECISION_HINT")
    own = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    assert hints["fp32"] == openvino.Type.f32
    assert hints["fp16"] == hints["int8"] == own


SIGNAL_AFTER_ANOTHER_THREAD_CLOSED = """
import gc, os, signal, sys, threading
from pathlib import Path
from seg_runtime.local_session import LocalSession

signal.signal(signal.SIGUSR1, lambda *_: None)
held = [LocalSession(Path(sys.argv[1]), engine="openvino")]
held[0].engine("tiny")
closer = threading.Thread(target=lambda: (held.pop().close(), gc.collect()))
closer.start()
closer.join()
os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""


def test_signal_after_openvino_was_closed_by_another_thread_is_handled(tmp_path: Path) -> None:
    publish(tmp_path, semantic_spec(), semantic_graph())
    command = [sys.executable, "-c", SIGNAL_AFTER_ANOTHER_THREAD_CLOSED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
