"""The shipped lung networks: small, trained on the fixed split, and right on X-rays they never saw."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.splits import montgomery_split
from seg_bench.metrics import dice_score
from seg_export.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint
from seg_runtime.preprocess import to_batch
from seg_runtime.spec import ClaheSpec

WEIGHTS = Path(str(files("seg_export") / "weights"))
SIDES = {"unet": 512, "unetpp": 256, "transunet": 256}


@pytest.fixture(scope="module", params=SIDES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(family: str) -> Checkpoint:
    return load_checkpoint(WEIGHTS / f"{family}_lung.pth")


def test_shipped_file_is_at_most_4_mb(family: str) -> None:
    assert (WEIGHTS / f"{family}_lung.pth").stat().st_size <= 4_000_000


def test_shipped_checkpoint_says_what_it_was_trained_on(family: str, checkpoint: Checkpoint) -> None:
    split = montgomery_split()
    assert checkpoint.family == family
    assert checkpoint.metadata["data_set"] == "montgomery"
    assert checkpoint.metadata["split"] == {
        "seed": split.seed,
        **{part: list(getattr(split, part)) for part in ("train", "val", "test")},
    }
    assert checkpoint.class_names == ("lung",)
    assert checkpoint.preprocessing.clahe == ClaheSpec(2.0, (8, 8))
    assert checkpoint.preprocessing.input_size_hw == (SIDES[family], SIDES[family])


def test_model_card_states_the_files_hash(family: str, checkpoint: Checkpoint) -> None:
    assert checkpoint.sha256 in (WEIGHTS / f"{family}_lung.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_shipped_model_segments_test_xrays_well(checkpoint: Checkpoint, xray_folder: Path) -> None:
    model, preprocessing = build_model(checkpoint), checkpoint.preprocessing
    scores = []
    for sample in load_montgomery(xray_folder):
        batch = to_batch([sample.load_image()], preprocessing.input_size_hw, 1, preprocessing.clahe)
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255.0
        with torch.inference_mode():
            logits = model((pixels - preprocessing.mean[0]) / preprocessing.std[0])
        # Judged in the frame of the original image, as users see it.
        probability = cv2.resize(torch.sigmoid(logits)[0, 0].numpy(), sample.load_mask().shape[::-1])
        scores.append(dice_score(probability, sample.load_mask()))
    assert np.mean(scores) >= 0.97
    assert min(scores) >= 0.95
