"""`seg-export build` with TensorRT for RTX's own builder; ONNX Runtime stands in for the missing GPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeBuilderConfig
from numpy.typing import NDArray
from typer.testing import CliRunner

import seg_export.engines.build as build_steps
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import app
from seg_export.engines import network
from seg_export.engines.build import build_engines
from seg_export.engines.check import _graphs
from seg_export.engines.groups import partner_of
from seg_export.engines.timing_cache import read_timing_cache, timing_cache_path, write_timing_cache
from seg_export.export import export_models
from seg_export.families.semantic.random import random_unet
from seg_export.publishing.manage import rollback
from seg_export.verification.comparison import VerificationError
from seg_export.verification.graph_runner import GraphRunner
from seg_runtime.connection import connect
from seg_runtime.engines.engine_file import Machine, read_fingerprint, this_machine
from seg_runtime.engines.tensorrt_api import TensorRT, load_tensorrt
from seg_runtime.errors import EdgesegError, ModelNotFoundError, RepositoryError
from seg_runtime.repository import CONFIG_FILE, Repository
from seg_runtime.server.check import check_repository
from seg_runtime.spec import ModelSpec, ServingSpec

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


@pytest.mark.full
@pytest.mark.slow
def test_models_of_an_ensemble_get_their_engines_together_and_roll_back_together(tmp_path: Path) -> None:
    export_models(random_checkpoint("sam", SMALL_SAM), tmp_path, "sam")
    built = build(tmp_path, "sam_encoder")
    assert {engine.model for engine in built} == {"sam_encoder", "sam_decoder"}
    repository = Repository(tmp_path)
    assert [repository.spec(name).version for name in repository.models()] == [2, 2, 2]
    assert {step.version for step in repository.spec("sam").steps} == {2}
    rollback(tmp_path, "sam", None)
    assert {repository.spec(name).backend for name in ("sam_encoder", "sam_decoder")} == {"onnxruntime"}


def test_a_broken_contract_of_another_model_is_in_nobodys_way(repo: Path) -> None:
    (repo / "broken" / "1").mkdir(parents=True)
    (repo / "broken" / CONFIG_FILE).write_text("platform: ")
    encoder = replace(Repository(repo).spec("unet"), task="sam-encoder")
    assert partner_of(Repository(repo), encoder) is None
    assert [engine.model for engine in build(repo, "unet")] == ["unet"]
    with pytest.raises(RepositoryError, match=r"broken/config\.pbtxt"):
        build(repo)


def test_a_foreign_model_is_left_out_of_a_check_unless_it_is_named(repo: Path) -> None:
    (repo / "foreign" / "1").mkdir(parents=True)
    (repo / "foreign" / CONFIG_FILE).write_text('name: "foreign" backend: "python"')
    assert [graph.name for graph in _graphs([], repo)] == ["unet"]
    with pytest.raises(RepositoryError, match="no usable edgeseg contract"):
        _graphs(["foreign"], repo)


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


def test_ctrl_c_stops_the_builder_itself_and_the_next_build_is_a_whole_one(repo: Path) -> None:
    before, handler = everything(repo), signal.getsignal(signal.SIGINT)
    phases = []

    def stop(phase: str, done: int, total: int) -> None:
        phases.append(phase)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(repo, on_progress=stop)
    assert phases, "the builder never told how far it is"
    assert "unet: verifying" not in phases, "it went on to the end"
    assert everything(repo) == before
    assert not list(repo.parent.glob(f".{repo.name}.staging*/*"))
    assert signal.getsignal(signal.SIGINT) == handler
    (built,) = build(repo)
    assert (built.version, built.report.passed) == (2, True)


def test_progress_counts_the_builders_steps_to_their_end(repo: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build(repo, on_progress=lambda *step: told.append(step))
    assert told[-1] == ("unet: verifying", 0, 1)
    phase, total = told[0][0], told[0][2]
    assert phase.startswith("unet: ")
    steps = [done for name, done, _ in told if name == phase]
    assert steps == sorted(steps)
    assert total > 1
    assert {count for name, _, count in told if name == phase} == {total}
    assert steps[-1] <= total


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root; the test above simulates a full one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_that_fills_up_with_the_engine_keeps_what_was_served(small_disk: Path) -> None:
    repo = small_disk / "repo"
    export_models(random_unet(features=(4, 8)), repo, "unet", size_hw=(32, 48))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 30_000))
    before = everything(small_disk)
    with pytest.raises(
        RepositoryError, match=r"no space left on the disk .* nothing was published"
    ) as caught:
        build(repo)
    assert "\n" not in str(caught.value)
    assert everything(small_disk) == before
    filler.unlink()
    assert build(repo)[0].version == 2


@pytest.fixture
def full_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TensorRT:
    """TensorRT for RTX in the place of TensorRT, which alone has a timing cache and asks the device."""
    full = TensorRT(load_tensorrt("tensorrt-rtx").module, "tensorrt", "10.3.0.26")
    monkeypatch.setattr(build_steps, "load_tensorrt", lambda backend: full)
    monkeypatch.setattr(build_steps, "_forced_capability", lambda tensorrt, machine: "86")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(f"{tmp_path.name}_cache")))
    return full


# TensorRT for RTX says that its timing caches do nothing.
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_timing_cache_is_kept_for_the_next_build_and_survives_an_interrupted_one(
    repo: Path, full_tensorrt: TensorRT
) -> None:
    path = timing_cache_path(full_tensorrt, GPU)
    assert path is not None
    (built,) = build(repo)
    assert (built.fingerprint.backend, built.fingerprint.tensorrt_version) == ("tensorrt", "10.3.0.26")
    measured = read_timing_cache(path)
    assert measured

    def stop(*step: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(repo, force=True, on_progress=stop)
    assert read_timing_cache(path) == measured
    path.write_bytes(b"damaged")
    assert build(repo, force=True)[0].version == 3
    assert read_timing_cache(path) == measured


@pytest.mark.parametrize(
    ("kept", "used"), [(b"good", b"good"), (b"", b""), (b"damaged", b""), (b"foreign", b"")]
)
def test_timing_cache_that_is_damaged_or_of_another_gpu_is_begun_anew(kept: bytes, used: bytes) -> None:
    config = FakeBuilderConfig()
    assert network._attached_timing_cache(config, kept) == used
    assert config.attached == [used]


def test_full_tensorrt_is_not_told_what_to_build_for() -> None:
    full = TensorRT(load_tensorrt("tensorrt-rtx").module, "tensorrt", "10.3.0.26")
    assert build_steps._forced_capability(full, Machine("8.7", "Orin", {})) is None


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
