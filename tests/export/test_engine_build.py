"""`seg-export build` with TensorRT for RTX's own builder; ONNX Runtime stands in for the missing GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import seg_export.engines.build as build_steps
from seg_export.cli import app
from seg_export.comparison import VerificationError
from seg_export.engines.build import build_engines
from seg_export.engines.timing_cache import read_timing_cache, timing_cache_path, write_timing_cache
from seg_export.export import export_models
from seg_export.graph_runner import GraphRunner
from seg_export.manage import rollback
from seg_export.random_weights import random_sam, random_unet
from seg_runtime.connection import connect
from seg_runtime.engine_file import Machine, read_fingerprint, this_machine
from seg_runtime.errors import EdgesegError, ModelNotFoundError, RepositoryError
from seg_runtime.repository import CONFIG_FILE, Repository
from seg_runtime.server.check import check_repository
from seg_runtime.spec import ModelSpec, ServingSpec
from seg_runtime.tensorrt_api import TensorRT, load_tensorrt

GPU = Machine("8.6", "NVIDIA RTX A4000", {})
SMALL_SAM = {
    "image_size": 64,
    "encoder_embed_dim": 32,
    "encoder_depth": 2,
    "encoder_num_heads": 2,
    "encoder_global_attn_indexes": [1],
    "window_size": 3,
    "prompt_embed_dim": 32,
    "decoder_mlp_dim": 32,
    "iou_head_hidden_dim": 32,
}


class Stand:
    """The graph beside an engine, plus an error."""

    def __init__(self, path: Path, spec: ModelSpec, backend: str, error: float = 0.0) -> None:
        assert path.stat().st_size > 1000
        self._run = GraphRunner(path.with_name("model.onnx"), spec.name)
        self._error = np.float32(error)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: value + self._error for name, value in self._run(inputs).items()}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    serving = ServingSpec(instances=3)
    export_models(random_unet(features=(4, 8)), tmp_path, "unet", size_hw=(32, 48), serving=serving)
    return tmp_path


def build(repo: Path, *models: str, **options: Any) -> Any:
    return build_engines(repo, models, machine=GPU, open_engine=Stand, **options)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_engine_becomes_the_next_version_with_its_graph_and_the_settings_of_the_old(repo: Path) -> None:
    (built,) = build(repo)
    folder = repo / "unet" / "2"
    assert {file.name for file in folder.iterdir()} == {
        "model.onnx",
        "model.plan",
        "engine.json",
        CONFIG_FILE,
    }
    assert (built.version, built.fresh, built.size_bytes) == (
        2,
        False,
        (folder / "model.plan").stat().st_size,
    )
    spec = Repository(repo).spec("unet")
    assert (spec.backend, spec.version) == ("tensorrt", 2)
    assert "count: 3" in (repo / "unet" / CONFIG_FILE).read_text()
    made = read_fingerprint(folder)
    assert (made.backend, made.compute_capability, made.device) == ("tensorrt-rtx", "8.6", GPU.device)
    assert made.profile["image"] == ((1, 32, 48, 1), (1, 32, 48, 1), (8, 32, 48, 1))
    assert built.report.passed
    assert {row.batch for row in built.report.comparisons} == {1, 2, 3}


def test_what_fits_is_not_built_again_unless_forced(repo: Path) -> None:
    build(repo)
    before = everything(repo)
    (again,) = build(repo)
    assert again.fresh
    assert everything(repo) == before
    (forced,) = build(repo, force=True)
    assert (forced.fresh, forced.version) == (False, 3)


def test_engine_of_another_gpu_is_built_anew(repo: Path) -> None:
    build(repo)
    (other,) = build_engines(repo, machine=Machine("8.9", "NVIDIA L4", {}), open_engine=Stand)
    assert (other.fresh, other.version, other.fingerprint.compute_capability) == (False, 3, "8.9")


def test_models_of_an_ensemble_get_their_engines_together_and_roll_back_together(tmp_path: Path) -> None:
    export_models(random_sam(SMALL_SAM), tmp_path, "sam")
    built = build(tmp_path, "sam_encoder")
    assert {engine.model for engine in built} == {"sam_encoder", "sam_decoder"}
    repository = Repository(tmp_path)
    assert [repository.spec(name).version for name in repository.models()] == [2, 2, 2]
    assert {step.version for step in repository.spec("sam").steps} == {2}
    rollback(tmp_path, "sam", None)
    assert {repository.spec(name).backend for name in ("sam_encoder", "sam_decoder")} == {"onnxruntime"}


def test_engine_that_strays_is_not_published(repo: Path) -> None:
    before = everything(repo)

    def wrong(path: Path, spec: ModelSpec, backend: str) -> Stand:
        return Stand(path, spec, backend, error=0.1)

    with pytest.raises(VerificationError, match="strays from its graph"):
        build_engines(repo, machine=GPU, open_engine=wrong)
    assert everything(repo) == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_full_disk_or_ctrl_c_leaves_nothing_half_written(
    repo: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    before = everything(repo)

    def fail(*arguments: Any, **options: Any) -> None:
        raise failure

    monkeypatch.setattr(build_steps, "write_fingerprint", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else RepositoryError):
        build(repo)
    assert everything(repo) == before
    assert not list(repo.parent.glob(f".{repo.name}.staging*/*"))


def test_machine_without_a_gpu_is_told_what_needs_none(repo: Path) -> None:
    if this_machine().compute_capability:
        pytest.skip("an NVIDIA GPU is here")
    with pytest.raises(EdgesegError, match=r"no NVIDIA GPU here: .*`seg-export check` needs none"):
        build_engines(repo)


def test_unknown_gpu_and_unknown_model_are_refused(repo: Path) -> None:
    with pytest.raises(EdgesegError, match=r"compute capability 8\.7; it knows 75, 80, .*use full TensorRT"):
        build_engines(repo, machine=Machine("8.7", "Orin", {}), backend="tensorrt-rtx")
    with pytest.raises(ModelNotFoundError, match="unet"):
        build(repo, "une")
    empty = repo / "empty"
    empty.mkdir()
    with pytest.raises(RepositoryError, match="no graph"):
        build(empty)


def test_server_and_session_refuse_a_foreign_engine_and_name_the_command(repo: Path) -> None:
    if this_machine().compute_capability:
        pytest.skip("an NVIDIA GPU is here")
    build(repo)
    (problem,) = check_repository(repo).problems
    assert "needs an NVIDIA GPU and there is none here" in problem
    assert f"seg-export build unet --repo {repo}" in problem
    with (
        connect(repo, engine="tensorrt") as session,
        pytest.raises(EdgesegError, match="seg-export build unet"),
    ):
        session.spec("unet")
    with connect(repo) as session:
        assert "ONNX Runtime" in session.engine("unet")


def test_timing_cache_survives_a_failed_write_and_is_only_for_full_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rtx = load_tensorrt("tensorrt-rtx")
    assert timing_cache_path(rtx, GPU) is None
    path = timing_cache_path(TensorRT(rtx.module, "tensorrt", "10.3.0.26"), GPU)
    assert path is not None
    assert read_timing_cache(path) == b""
    write_timing_cache(path, b"measured")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    write_timing_cache(path, b"half")
    assert read_timing_cache(path) == b"measured"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_command_builds_and_says_what_it_made(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_steps, "this_machine", lambda: GPU)
    monkeypatch.setattr(build_steps, "_open_engine", Stand)
    run = CliRunner()
    made = run.invoke(app, ["build", "unet", "--repo", str(repo)])
    assert made.exit_code == 0, made.output
    assert "unet version 2: built in" in made.output
    again = run.invoke(app, ["build", "--repo", str(repo), "--json"])
    (row,) = json.loads(again.stdout)
    assert (row["model"], row["version"], row["fresh"], row["report"]) == ("unet", 2, True, None)
