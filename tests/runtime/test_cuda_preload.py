"""CUDA and cuDNN that pip installed are loaded before ONNX Runtime looks for them."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from packaging.requirements import Requirement
from tiny_graph import publish_all, semantic_spec

from seg_bench.doctor import probe
from seg_runtime.connection import connect
from seg_runtime.errors import EngineError
from seg_runtime.server.locate import OWN_BACKEND

ROOT = Path(__file__).parents[2]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of an onnxruntime-gpu whose CUDA provider does not start, in order."""
    made: list[str] = []
    real_session = onnxruntime.InferenceSession

    def preload() -> None:
        made.append("preload")
        print("Failed to load libcudart.so.13")  # noqa: T201 - as the real one

    def session(path: str, options: Any, providers: list[Any]) -> Any:
        names = [each if isinstance(each, str) else each[0] for each in providers]
        made.append(names[0].removesuffix("ExecutionProvider"))
        return real_session(path, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    compiled_in = ["TensorrtExecutionProvider", CUDA, CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: compiled_in)
    return made


@pytest.mark.parametrize(("machine", "extras"), [("x86_64", {"cuda", "cudnn"}), ("aarch64", set())])
def test_gpu_extra_brings_them_where_no_board_has_its_own(machine: str, extras: set[str]) -> None:
    """A Jetson's CUDA is its system's, and the ONNX Runtime for it declares no such extras."""
    declared = ProjectMetadata(str(ROOT), PluginManager()).core.optional_dependencies["gpu"]
    wanted = [
        each for each in map(Requirement, declared) if each.marker.evaluate({"platform_machine": machine})
    ]
    assert [(each.name, each.extras) for each in wanted] == [("onnxruntime-gpu", extras)]
    assert not wanted[0].specifier.contains("1.20.2"), "the first with these extras is 1.21"


@pytest.mark.parametrize(
    ("engine", "asked"), [("onnxruntime-cuda", "CUDA"), ("onnxruntime-tensorrt", "Tensorrt")]
)
def test_engine_for_the_gpu_loads_them_first_and_prints_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    calls: list[str],
    engine: str,
    asked: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    session = connect(publish_all(tmp_path / "repo"), engine=engine)
    with pytest.raises(EngineError, match="could not start"):
        session.spec("tiny"), session.engine("tiny")
    assert calls == ["preload", asked]
    assert capfd.readouterr().out == ""


def test_auto_loads_them_for_the_gpu_and_goes_on_without_one(tmp_path: Path, calls: list[str]) -> None:
    with connect(publish_all(tmp_path)) as session:
        assert session.engine("tiny").endswith("CPU")
    assert calls == ["preload", "CUDA", "CPU"]


def test_engine_for_the_cpu_loads_none(tmp_path: Path, calls: list[str]) -> None:
    with connect(publish_all(tmp_path), engine="onnxruntime") as session:
        session.engine("tiny")
    assert calls == ["CPU"]


def test_onnx_runtime_that_cannot_load_them_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    monkeypatch.delattr(onnxruntime, "preload_dlls")
    with connect(publish_all(tmp_path)) as session:
        session.engine("tiny")
    assert calls == ["CUDA", "CPU"]


def test_doctor_looks_for_the_fault_after_they_were_loaded(
    monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    def fault(folder: Path) -> str | None:
        calls.append("load provider")
        return None

    monkeypatch.setattr(probe, "_cuda_fault", fault)
    probe.PROBES["onnxruntime"]()
    assert calls == ["preload", "load provider"]


@pytest.fixture
def open_in_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Any]:
    """Opens a graph as the server's backend does for an instance of this kind."""
    utilities = types.ModuleType("triton_python_backend_utils")
    utilities.TritonModelException = RuntimeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, utilities.__name__, utilities)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda level: None)
    found = importlib.util.spec_from_file_location("backend_model", OWN_BACKEND / "model.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    spec = semantic_spec()
    graph = publish_all(tmp_path / "repo") / spec.name / str(spec.version) / "model.onnx"
    return lambda kind: module._open(
        graph, {}, {"model_instance_kind": kind, "model_instance_device_id": "0"}, "model"
    )


@pytest.mark.parametrize(("kind", "expected"), [("GPU", ["preload", "CUDA"]), ("CPU", ["CPU"])])
def test_backend_of_the_server_loads_them_for_instances_on_the_gpu(
    open_in_backend: Callable[[str], Any], calls: list[str], kind: str, expected: list[str]
) -> None:
    open_in_backend(kind)
    assert calls == expected
