"""Nothing that edgeseg loads reports to anybody: no file in a fresh home folder, no name looked up."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime
import pytest
from tiny_graph import images, publish_all
from tracing import Traced, trace_python

from seg_runtime.connection import connect
from seg_runtime.server import ServerOptions, TritonServer

IN_PROCESS = """
import sys, numpy as np
from seg_runtime.connection import connect
with connect(sys.argv[1], engine=sys.argv[2], threads=1) as session:
    session.infer("tiny", {"image": np.zeros((1, 32, 32, 1), np.uint8)})
"""
EXPORT = """
import sys
from pathlib import Path
from seg_export.export import export_model
export_model(Path(sys.argv[1]), Path(sys.argv[2]))
import onnxruntime, openvino
"""
NOTHING = Traced([], [])
SETTING = "ORT_DISABLE_TELEMETRY"
HAS_TELEMETRY = (1, 32)
"""The first ONNX Runtime for Linux that sends."""


@pytest.fixture(autouse=True)
def no_setting_from_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_client_reports_nothing(tmp_path: Path, engine: str) -> None:
    repository = publish_all(tmp_path / "repo")
    assert trace_python(IN_PROCESS, tmp_path / "home", {}, repository, engine) == NOTHING


@pytest.mark.full
@pytest.mark.slow
def test_exporter_reports_nothing_nor_does_what_is_imported_after_it(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    assert trace_python(EXPORT, tmp_path / "home", {}, tiny_checkpoint, tmp_path / "repo") == NOTHING


@pytest.mark.server
def test_backend_reports_nothing_even_where_nobody_set_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, models=("tiny",))
    with TritonServer(publish_all(tmp_path / "repo"), options) as server, connect(server.grpc_url) as session:
        session.infer("tiny", {"image": images(1)})
        assert SETTING not in os.environ
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("package", ["seg_runtime", "seg_export", "seg_bench"])
def test_each_package_switches_telemetry_off_when_it_is_imported(tmp_path: Path, package: str) -> None:
    code = f"import {package}, os, sys; assert os.environ[{SETTING!r}] == '1'; import openvino"
    assert trace_python(code, tmp_path / "home", {}) == NOTHING


def test_setting_of_the_user_is_respected_and_seen_by_this_test(tmp_path: Path) -> None:
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < HAS_TELEMETRY:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} has no telemetry to be seen")
    repository = publish_all(tmp_path / "repo")
    traced = trace_python(IN_PROCESS, tmp_path / "home", {SETTING: "0"}, repository, "onnxruntime")
    assert any("Microsoft" in name for name in traced.files)


def test_openvino_by_itself_looks_up_a_name_which_this_test_sees(tmp_path: Path) -> None:
    traced = trace_python("import openvino", tmp_path / "home", {})
    assert any("intel" in name for name in traced.files)
    assert traced.network
