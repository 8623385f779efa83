"""Rows are compared with the fp32 graph before they are timed; so is PyTorch compiled in bfloat16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench_records import torch_candidate

from seg_bench.baseline import TorchSession
from seg_bench.candidate import COMPILED, PYTORCH
from seg_bench.metrics import iou_score
from seg_bench.records import Record, Run
from seg_bench.run import agreements
from seg_bench.run.options import RunOptions
from seg_bench.run.runner import measure
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import RepositoryError

pytestmark = pytest.mark.slow
NAMES = ("MCUCXR_0003_0", "MCUCXR_0006_0")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from seg_export.checkpoints.checkpoint import write_checkpoint
    from seg_export.families.semantic.random import random_unet

    path = tmp_path_factory.mktemp("agreements") / "tiny.pth"
    tiny = random_unet(features=(4, 8))
    write_checkpoint(path, replace(tiny, preprocessing=replace(tiny.preprocessing, input_size_hw=(64, 64))))
    return path


@pytest.fixture(scope="module")
def options(checkpoint: Path, xray_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """`tiny` and `tiny_half` of one checkpoint, two X-rays, two calls."""
    from seg_export.export import export_model

    repo = tmp_path_factory.mktemp("agreements") / "repo"
    export_model(checkpoint, repo, "tiny")
    export_model(checkpoint, repo, "tiny_half", precision="fp16")
    return RunOptions(
        repo, xray_folder, limit=2, engines=("onnxruntime",), repeats=2, warm_up=1, energy=False, gate=True
    )


def by_model(run: Run) -> dict[tuple[str, str], Record]:
    return {(record.model.name, record.runtime): record for record in run.records}


def mask(repo: Path, model: str, image: Path) -> np.ndarray:
    with connect(repo, engine="onnxruntime") as session:
        found = SemanticSegmenter(session, model).segment(cv2.imread(str(image), cv2.IMREAD_GRAYSCALE))
    return found.mask > 0


@pytest.mark.full
def test_agreement_is_the_iou_of_what_users_get(options: RunOptions) -> None:
    rows = by_model(measure(options))
    images = [next(options.data.glob(f"images/{name}.png")) for name in NAMES]
    for (name, _), record in rows.items():
        wanted = [
            iou_score(mask(options.repo, name, image), mask(options.repo, "tiny", image)) for image in images
        ]
        assert record.agreement
        assert record.agreement.images == NAMES
        assert list(record.agreement.mask_iou) == pytest.approx(wanted)
        assert record.agreement.reference.startswith("ONNX Runtime")
        assert record.latency and record.failure is None
    assert rows["tiny", "ONNX Runtime"].agreement.lowest == 1  # type: ignore[union-attr]


def test_a_row_that_differs_too_much_is_not_timed_and_the_others_are(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreements, "REQUIRED_IOU", {"fp32": 0.995, "fp16": 1.1})
    rows = by_model(measure(options))
    half, whole = rows["tiny_half", "ONNX Runtime"], rows["tiny", "ONNX Runtime"]
    assert half.latency is None and half.agreement
    assert half.failure and "and fp16 must have 1.1" in half.failure
    assert whole.latency and whole.failure is None


def test_without_the_fp32_graph_nothing_starts(options: RunOptions, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(options.repo / "tiny_half", tmp_path / "repo" / "tiny_half")
    with pytest.raises(RepositoryError, match="has no fp32 graph of the checkpoint of 'tiny_half'"):
        measure(replace(options, repo=tmp_path / "repo"))


def test_pairs_that_are_left_out_have_no_row(options: RunOptions) -> None:
    run = measure(replace(options, gate=False, left_out=frozenset({("fp16", "onnxruntime")})))
    assert [record.model.name for record in run.records] == ["tiny"]


@pytest.mark.full
def test_pytorch_compiled_in_bfloat16_is_a_row_of_its_own(
    options: RunOptions, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreements, "REQUIRED_IOU", {"fp32": 0.995, "bf16": 0.9})
    baselines = {"baseline": True, "compiled": True, "checkpoint": checkpoint}
    rows = by_model(measure(replace(options, models=("tiny",), **baselines)))  # type: ignore[arg-type]
    eager, compiled = rows["tiny", PYTORCH], rows["tiny", COMPILED]
    assert (eager.model.precision, compiled.model.precision) == ("fp32", "bf16")
    assert compiled.engine and " compiled, bf16, " in compiled.engine
    assert eager.agreement and eager.agreement.lowest > 0.999
    assert compiled.agreement and compiled.latency


@pytest.mark.full
def test_compiled_pytorch_computes_in_bfloat16_what_the_eager_one_does(checkpoint: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 1), np.uint8)
    found = []
    for runtime in (PYTORCH, COMPILED):
        session = TorchSession(replace(torch_candidate(checkpoint, runtime), input_size_hw=(64, 64)))
        spec = session.spec("any")
        outputs = session.infer("any", {spec.inputs[0].name: image})
        found.append(outputs[spec.outputs[0].name])
    eager, compiled = found
    assert compiled.dtype == eager.dtype == np.float32
    # bfloat16 has 8 significant bits, and fp32's own rounding is a thousand times finer.
    assert 1e-5 < np.abs(eager - compiled).max() < 0.1
