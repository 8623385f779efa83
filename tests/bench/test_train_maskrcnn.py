"""Training a Mask R-CNN on a few small crops: what it leaves, exact resume, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seg_bench.data.nuclei import load_nuclei
from seg_bench.data.splits import Split
from seg_bench.train.detection_dataset import CropSettings, DetectionDataset, load_objects
from seg_bench.train.detection_task import DetectionTask
from seg_bench.train.maskrcnn_recipe import MaskRcnnRecipe, train_maskrcnn
from seg_bench.train.recipe import TrainResult
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import build_model, load_checkpoint
from seg_export.checkpoints.files import read_plain
from seg_runtime.errors import BadInputError

RECIPE = MaskRcnnRecipe(size_hw=(128, 128), max_detections=20, crops=CropSettings(size=64), half=True)
SETTINGS = TrainSettings(epochs=2, batch_size=2, learning_rate=1e-3, ema_decay=0.5, seed=3, device="cpu")


@pytest.fixture(scope="module")
def split(nuclei_folder: Path) -> Split:
    names = tuple(sample.name for sample in load_nuclei(nuclei_folder))
    return Split("six", 0, names[:3], names[3:5], names[5:])


@pytest.fixture(scope="module")
def finished(nuclei_folder: Path, split: Split, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that nobody interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return train_maskrcnn(nuclei_folder, split, out, RECIPE, SETTINGS)


@pytest.mark.slow
def test_run_leaves_a_checkpoint_that_can_be_exported_and_says_how_it_was_made(
    finished: TrainResult, split: Split
) -> None:
    folder = finished.checkpoint.parent
    assert {path.name for path in folder.iterdir()} == {"best.pth", "history.json", "history.png", "last.pt"}
    assert json.loads((folder / "history.json").read_text())["metric"] == "mask AP"
    checkpoint = load_checkpoint(finished.checkpoint)
    assert (checkpoint.family, checkpoint.class_names) == ("maskrcnn", ("nucleus",))
    assert checkpoint.preprocessing.input_size_hw == (128, 128)
    assert checkpoint.metadata["split"]["val"] == list(split.val)
    assert checkpoint.metadata["val_mask_ap"] == finished.history.best_score
    assert checkpoint.metadata["augmentation"]["size"] == 64
    assert read_plain(finished.checkpoint)["state_dict"]["backbone.body.conv1.weight"].dtype == torch.float16
    assert build_model(checkpoint).training is False


@pytest.mark.slow
def test_stopped_run_resumes_with_the_identical_loss_curve(
    finished: TrainResult, nuclei_folder: Path, split: Split, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train_maskrcnn(nuclei_folder, split, out, RECIPE, replace(SETTINGS, stop_after=1))
    history = train_maskrcnn(nuclei_folder, split, out, RECIPE, SETTINGS, resume=True).history
    assert history.train_loss == finished.history.train_loss
    assert history.val_loss == finished.history.val_loss
    with pytest.raises(BadInputError, match="belongs to a run with"):
        other = replace(RECIPE, crops=CropSettings(size=96))
        train_maskrcnn(nuclei_folder, split, out, other, SETTINGS, resume=True)


@pytest.mark.full
def test_learning_one_image_by_heart_finds_its_objects(nuclei_folder: Path, split: Split) -> None:
    """The score is of what is deployed: a network that knows an image gets it, an untrained one does not."""
    samples = [sample for sample in load_nuclei(nuclei_folder) if sample.name == "08ae2741df2f"]
    objects = load_objects(samples, (128, 128))
    whole = CropSettings(
        size=128,
        zoom=(1.0, 1.0),
        brightness=0,
        contrast=0,
        saturation=0,
        invert_probability=0,
        cut_probability=0,
    )
    data = DetectionDataset(objects, (128, 128), whole)
    task = DetectionTask(data, data, (128, 128), SETTINGS)
    torch.manual_seed(0)
    from seg_export.families.maskrcnn.network import build_maskrcnn

    model = build_maskrcnn(**{**RECIPE.arguments, "min_size": 128, "max_size": 128})
    _, before = task.validate(model, lambda: None)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    for epoch in range(60):
        for batch in task.train_batches(epoch):
            model.train()
            optimiser.zero_grad()
            torch.autograd.backward(task.loss(model, batch))
            optimiser.step()
    _, after = task.validate(model, lambda: None)
    assert before < 0.05 and after > 0.2


def test_what_cannot_be_trained_is_refused(nuclei_folder: Path, split: Split, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="crops of 256 pixels from images of 128x128"):
        MaskRcnnRecipe(size_hw=(128, 128))
    with pytest.raises(BadInputError, match="val part is empty"):
        train_maskrcnn(nuclei_folder, replace(split, val=()), tmp_path / "a", RECIPE, SETTINGS)
    with pytest.raises(BadInputError, match="the data folder lacks 1"):
        train_maskrcnn(nuclei_folder, replace(split, val=("nobody",)), tmp_path / "b", RECIPE, SETTINGS)
    assert not any(tmp_path.iterdir())
