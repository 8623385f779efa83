"""The shipped Mask R-CNN: small, trained on the fixed split, and deployed as good as in torchvision."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bench_records import torch_candidate

from seg_bench.data.nuclei import load_nuclei
from seg_bench.data.splits import nuclei_split
from seg_bench.pipelines import Pipeline
from seg_bench.pipelines.instances import InstancesPipeline
from seg_bench.pipelines.instances_torch import ExportedInstancesPipeline, TorchInstancesPipeline
from seg_bench.run.scoring import Scorer
from seg_export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from seg_runtime import connect
from seg_runtime.model_config import to_text

WEIGHTS = Path(str(files("seg_export") / "weights" / "maskrcnn_nuclei.pth"))
SIDE = 512


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(WEIGHTS)


def test_shipped_file_is_at_most_8_mb() -> None:
    assert WEIGHTS.stat().st_size <= 8_000_000


def test_shipped_checkpoint_says_what_it_was_trained_on(checkpoint: Checkpoint) -> None:
    split = nuclei_split()
    assert checkpoint.metadata["data_set"] == "nuclei"
    assert checkpoint.metadata["split"] == {
        "seed": split.seed,
        **{part: list(getattr(split, part)) for part in ("train", "val", "test")},
    }
    assert checkpoint.class_names == ("nucleus",)
    assert checkpoint.arguments["max_detections"] == 300
    assert checkpoint.preprocessing.score_threshold == 0.8


def test_model_card_states_the_files_hash(checkpoint: Checkpoint) -> None:
    assert checkpoint.sha256 in WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")


def score(pipeline: Pipeline, folder: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    scorer, scores = Scorer(), []
    for sample in load_nuclei(folder):
        scores.append(scorer.score(sample, pipeline.run([pipeline.load(sample)])))
    return scorer.objects(300), scores


def fitted(folder: Path, out: Path) -> Path:
    """Square images at the model's size, so that neither side scales or pads."""
    samples = [sample for sample in load_nuclei(folder) if len(set(sample.size_hw())) == 1]
    assert len(samples) == 3
    for sample in samples:
        image, labels = sample.load_image(), sample.load_labels().astype(np.uint16)
        for name, pixels in (
            ("images", cv2.resize(image, (SIDE, SIDE))[..., ::-1]),
            ("labels", cv2.resize(labels, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)),
        ):
            (out / name).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(out / name / f"{sample.name}.png"), pixels)
    return out


@pytest.mark.full
def test_deployed_quality_is_torchvisions(nuclei_repo: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    folder = fitted(nuclei_folder, tmp_path / "fitted")
    with connect(nuclei_repo, engine="onnxruntime") as session:
        ours, our_scores = score(InstancesPipeline(session, "maskrcnn_nuclei"), folder)
        contract = to_text(session.spec("maskrcnn_nuclei"))
    candidate = replace(torch_candidate(WEIGHTS), contract=contract)  # with the score of the checkpoint
    theirs, their_scores = score(TorchInstancesPipeline(candidate), folder)
    assert theirs["ap"] > 0.4 and theirs["ap50"] > 0.7
    assert ours["ap"] == pytest.approx(theirs["ap"], abs=0.002)
    assert ours["ap50"] == pytest.approx(theirs["ap50"], abs=0.005)
    for mine, other in zip(our_scores, their_scores, strict=True):
        assert mine["dice"] == pytest.approx(other["dice"], abs=0.002)
        assert abs(mine["count_error"] - other["count_error"]) <= 1


@pytest.mark.full
def test_torchvisions_own_export_finds_what_torchvision_finds(nuclei_folder: Path, tmp_path: Path) -> None:
    """Images of several sizes, though it is traced with one."""
    from seg_bench.official_maskrcnn import export_official_maskrcnn

    export_official_maskrcnn(WEIGHTS, tmp_path)
    exported, eager = ExportedInstancesPipeline(tmp_path), TorchInstancesPipeline(torch_candidate(WEIGHTS))
    for sample in load_nuclei(nuclei_folder)[::5]:
        ours = exported.run([exported.load(sample)]).objects[0]
        theirs = eager.run([eager.load(sample)]).objects[0]
        assert abs(len(ours.scores) - len(theirs.scores)) <= 1
        count = min(10, len(ours.scores), len(theirs.scores))
        np.testing.assert_allclose(ours.scores[:count], theirs.scores[:count], atol=1e-4)
        assert (ours.masks[:count] == theirs.masks[:count]).mean() > 0.9999
