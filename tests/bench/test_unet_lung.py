"""The shipped lung U-Net: small, trained on the fixed split, and right on X-rays it never saw."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.splits import montgomery_split
from seg_bench.metrics import dice_score
from seg_export.checkpoint import Checkpoint, build_model, load_checkpoint
from seg_runtime.preprocess import to_batch
from seg_runtime.spec import ClaheSpec

WEIGHTS = Path(str(files("seg_export") / "weights" / "unet_lung.pth"))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(WEIGHTS)


def test_shipped_file_is_at_most_4_mb() -> None:
    assert WEIGHTS.stat().st_size <= 4_000_000


def test_shipped_checkpoint_says_what_it_was_trained_on(checkpoint: Checkpoint) -> None:
    split = montgomery_split()
    assert checkpoint.metadata["data_set"] == "montgomery"
    assert checkpoint.metadata["split"] == {
        "seed": split.seed,
        **{part: list(getattr(split, part)) for part in ("train", "val", "test")},
    }
    assert checkpoint.class_names == ("lung",)
    assert checkpoint.preprocessing.clahe == ClaheSpec(2.0, (8, 8))
    assert checkpoint.preprocessing.input_size_hw == (512, 512)


def test_model_card_states_the_files_hash(checkpoint: Checkpoint) -> None:
    assert checkpoint.sha256 in WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")


def test_shipped_model_segments_test_xrays_well(checkpoint: Checkpoint, xray_folder: Path) -> None:
    model, preprocessing = build_model(checkpoint), checkpoint.preprocessing
    scores = []
    for sample in load_montgomery(xray_folder):
        batch = to_batch([sample.load_image()], preprocessing.input_size_hw, 1, preprocessing.clahe)
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255.0
        with torch.inference_mode():
            logits = model((pixels - preprocessing.mean[0]) / preprocessing.std[0])
        scores.append(dice_score(torch.sigmoid(logits)[0, 0].numpy(), sample.load_mask()))
    assert np.mean(scores) >= 0.97
    assert min(scores) >= 0.95
