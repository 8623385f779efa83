"""The verification that a graph passed, for what an engine in process computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from sam_models import WEIGHTS
from typer.testing import CliRunner

from seg_export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from seg_export.cli.main import app
from seg_export.export import export_models
from seg_export.families.semantic.random import random_unet
from seg_export.verification.comparison import VerificationReport
from seg_export.verification.published import verify_published
from seg_runtime import engines
from seg_runtime.errors import BadInputError, EngineError, MissingExtraError, RepositoryError

SIZE_HW = (32, 48)
ON_CPU = pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_unet(features=(4, 8))


@pytest.fixture(scope="module")
def repo(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in fp32 and fp16."""
    repo = tmp_path_factory.mktemp("repo")
    for precision in ("fp32", "fp16"):
        export_models(checkpoint, repo, precision, size_hw=SIZE_HW, precision=precision)  # type: ignore[arg-type]
    return repo


def shown(report: VerificationReport) -> list[tuple[str, float, float]]:
    return [(row.case, row.tolerance_needed, row.mask_iou) for row in report.comparisons if not row.passed]


@ON_CPU
@pytest.mark.parametrize("model", ["fp32", "fp16"])
def test_engine_passes_the_verification_of_its_models_precision(
    repo: Path, checkpoint: Checkpoint, engine: str, model: str
) -> None:
    report = verify_published(repo, model, checkpoint, engine=engine)
    assert shown(report) == []
    assert report.precision == model
    assert report.subject.startswith({"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[engine])
    assert {row.batch for row in report.comparisons} >= {1, 2, 3}


@pytest.mark.full
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_openvino_passes_the_verification_of_the_trained_sam(tiny_sam_repo: Path, half: str) -> None:
    report = verify_published(tiny_sam_repo, f"sam_tiny_{half}", load_checkpoint(WEIGHTS), engine="openvino")
    assert shown(report) == []


@ON_CPU
def test_engine_with_another_models_file_fails(repo: Path, engine: str) -> None:
    report = verify_published(repo, "fp32", random_unet(features=(4, 8), seed=1), engine=engine)
    assert not report.passed


class Answers:
    """An engine on a GPU that multiplies as TF32: its answers are those of the graph, rounded to 10 bits."""

    about = "TensorRT 10.3.0, Orin"
    batches: ClassVar[list[int]] = []

    def __init__(self, spec: object, folder: Path, threads: int | None) -> None:
        self._engine = engines._onnxruntime("CPU")(spec, folder, threads)  # type: ignore[arg-type]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.batches.append(len(inputs["image"]))
        return {name: value * np.float32(1 + 2**-10) for name, value in self._engine.run(inputs).items()}


def test_gpu_is_allowed_tf32_and_gets_no_batch_beyond_the_contract(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_models(checkpoint, tmp_path, "unet", size_hw=SIZE_HW, max_batch_size=2)
    monkeypatch.setitem(engines.ENGINES, "tensorrt", Answers)
    report = verify_published(tmp_path, "unet", checkpoint, engine="tensorrt")
    assert (report.precision, report.passed) == ("fp32, TF32", True)
    assert max(Answers.batches) == 2
    monkeypatch.setattr(Answers, "about", "Rounding, CPU")
    assert not verify_published(tmp_path, "unet", checkpoint, engine="tensorrt").passed


def test_command_says_which_engine_was_verified_and_refuses_what_is_not_there(
    tiny_repo: Path, tiny_checkpoint: Path
) -> None:
    run = CliRunner()
    call = ["verify", "unet_tiny", "--checkpoint", str(tiny_checkpoint), "--repo", str(tiny_repo), "--engine"]
    told = run.invoke(app, [*call, "openvino"])
    assert told.exit_code == 0, told.output
    assert "OpenVINO" in told.output
    assert json.loads(run.invoke(app, [*call, "auto", "--json"]).stdout)["passed"]
    assert isinstance(run.invoke(app, [*call, "none"]).exception, BadInputError)
    assert isinstance(run.invoke(app, [*call, "tensorrt"]).exception, RepositoryError)
    missing = run.invoke(app, [*call, "onnxruntime-cuda"]).exception
    assert isinstance(missing, MissingExtraError | EngineError)
