"""Confidence of pixels: in every loss, from maps and from annotators, through the augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seg_bench.cli.semantic_options import TrainOptions
from seg_bench.data.confidence import read_confidence
from seg_bench.data.consensus import soft_majority
from seg_bench.data.find import sample_from_json, sample_to_json
from seg_bench.data.samples import Sample
from seg_bench.data.splits import Split
from seg_bench.data.training import training_data
from seg_bench.train.augment import AUGMENTATIONS, build_augmentation
from seg_bench.train.boundary import BoundaryLoss
from seg_bench.train.dataset import Pairs, SegmentationDataset, augmented, load_pairs
from seg_bench.train.losses import LOSSES, build_loss
from seg_bench.train.recipe import SemanticRecipe, train_semantic
from seg_bench.train.semantic_task import SemanticTask
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import Preprocessing, load_checkpoint
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import write_png

SETTINGS = TrainSettings(epochs=1, batch_size=2, learning_rate=1e-2, device="cpu")
RECIPE = SemanticRecipe("unet", {"in_channels": 1, "num_classes": 1, "features": [2, 4]}, (16, 16))
SPLIT = Split("tiny", 0, ("a", "b"), ("c",), ())
Loss = Callable[..., torch.Tensor]


def batch(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, C, 8, 12) logits and (2, 1, 8, 12) classes, with something that does not count."""
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(2, classes, 8, 12, generator=generator)
    truth = torch.randint(0, max(classes, 2), (2, 1, 8, 12), generator=generator).float()
    truth[0, 0, :2, :2] = -1
    return logits, truth


def loss_of(classes: int, **changes: Any) -> Loss:
    """The loss of a task on logits, truth and perhaps a confidence."""
    empty = SegmentationDataset(Pairs((), (), ()), Preprocessing())
    task = SemanticTask(empty, empty, replace(SETTINGS, **changes), [f"class {n}" for n in range(classes)])
    return lambda logits, *planes: task._loss_of(logits, torch.cat(planes, dim=1))


CASES = pytest.mark.parametrize(
    ("classes", "changes"),
    [
        (classes, changes)
        for classes in (1, 4)
        for changes in (*({"loss": name} for name in LOSSES), {"boundary_weight": 1.0})
    ],
)


@CASES
def test_full_confidence_is_bit_equal_to_none(classes: int, changes: dict[str, Any]) -> None:
    logits, truth = batch(classes)
    loss = loss_of(classes, **changes)
    assert torch.equal(loss(logits, truth), loss(logits, truth, torch.ones_like(truth)))


@CASES
def test_pixels_without_confidence_have_no_gradient_and_change_no_loss(
    classes: int, changes: dict[str, Any]
) -> None:
    logits, truth = batch(classes)
    confidence = torch.full_like(truth, 0.5)
    confidence[..., 8:] = 0
    logits.requires_grad_()
    loss = loss_of(classes, **changes)
    value = loss(logits, truth, confidence)
    torch.autograd.backward(value)
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert not logits.grad[..., 8:].any() and logits.grad[..., :8].any()
    other = logits.detach().clone()
    other[..., 8:] = 50
    assert torch.equal(loss(other, truth, confidence), value.detach())
    assert loss(logits.detach(), truth, torch.zeros_like(truth)).isfinite()


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_that_of_the_region_that_counts(name: str, classes: int) -> None:
    logits, truth = batch(classes)
    confidence = torch.zeros_like(truth)
    confidence[..., :8] = 1
    loss = loss_of(classes, loss=name)
    torch.testing.assert_close(
        loss(logits, truth, confidence), loss(logits[..., :8].contiguous(), truth[..., :8].contiguous())
    )


@pytest.mark.parametrize("classes", [1, 4])
def test_the_boundary_loss_is_a_weighted_mean(classes: int) -> None:
    logits, truth = batch(classes)
    confidence = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1))
    parts = []
    for pixel in torch.nonzero(truth[:, 0] >= 0).tolist():
        alone = torch.zeros_like(truth)
        alone[pixel[0], 0, pixel[1], pixel[2]] = 1
        weight = float(confidence[pixel[0], 0, pixel[1], pixel[2]])
        parts.append((weight, float(BoundaryLoss()(logits, truth, alone))))
    weights, values = np.array(parts).T
    wanted = np.average(values, weights=weights)
    assert float(BoundaryLoss()(logits, truth, confidence)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["bce-dice", "focal"])
@pytest.mark.parametrize("classes", [1, 4])
def test_a_pixel_of_twice_the_confidence_counts_twice(name: str, classes: int) -> None:
    logits, truth = batch(classes)
    truth = truth.clamp(min=0)
    confidence = torch.full_like(truth, 0.5)
    confidence[..., :4] = 1
    loss = build_loss(name, classes=classes, dice_weight=0)
    twice = [torch.cat([each[..., :4], each], dim=-1) for each in (logits, truth)]
    torch.testing.assert_close(loss(logits, truth, confidence), loss(*twice))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("outside", [0, 255])
def test_confidence_moves_with_its_mask_and_changes_no_random_number(name: str, outside: int) -> None:
    generator, settings = np.random.default_rng(0), AUGMENTATIONS[name]
    image = generator.integers(0, 256, (32, 32), np.uint8)
    mask = (image > 128).astype(np.uint8)
    shown = np.where(mask, np.uint8(200), np.uint8(55))
    plain, weighed = (Pairs(("a",), (image,), (mask,), each) for each in ((), (shown,)))
    one, two = (
        SegmentationDataset(pairs, Preprocessing(), build_augmentation((32, 32), settings, outside=at))
        for pairs, at in ((plain, outside), (weighed, [outside, 255]))
    )
    for epoch in range(30):
        (pixels, classes), (same, planes) = one[epoch, 0], two[epoch, 0]
        assert (
            torch.equal(pixels, same) and torch.equal(classes[0], planes[0]) and planes.shape == (2, 32, 32)
        )
        inside = planes[1] < 1
        wanted = torch.where(planes[0] == 1, 200 / 255, 55 / 255)
        assert torch.equal(planes[1][inside], wanted[inside])
        assert (planes[0][~inside] == (0 if outside == 0 else -1)).all()
    kept = SegmentationDataset(augmented(weighed, two.transform, 0), Preprocessing())  # type: ignore[arg-type]
    assert all(torch.equal(*each) for each in zip(kept[0], two[0], strict=True))


def write_data(root: Path, masks: dict[str, NDArray[np.uint8]]) -> Path:
    """Three images of 16x16 pixels, with these folders of masks, one mask for all images."""
    generator = np.random.default_rng(0)
    for folder, mask in {"images": None, **masks}.items():
        (root / folder).mkdir(parents=True)
        for name in "abc":
            image = generator.integers(0, 256, (16, 16), np.uint8) if mask is None else mask
            write_png(root / folder / f"{name}.png", image)
    return root


def block(rows: int) -> NDArray[np.uint8]:
    """A mask of its first rows."""
    return np.repeat(np.arange(16) < rows, 16).reshape(16, 16) * np.uint8(255)


def test_maps_weigh_their_images_and_the_checkpoint_says_so(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", {"masks": block(8)})
    (root / "confidence").mkdir()
    half = np.zeros((16, 16), np.uint8)
    half[:, :8] = 255
    write_png(root / "confidence" / "a.png", half)
    found = training_data(root)
    pairs = load_pairs(found.samples, (16, 16), confidence=found.confidence)
    assert [each.mean() for each in pairs.confidences] == [127.5, 255, 255]
    assert (pairs.masks[0][:, 8:] == 255).all() and (pairs.masks[0][:, :8] < 2).all()
    result = train_semantic(root, SPLIT, tmp_path / "run", RECIPE, SETTINGS)
    assert load_checkpoint(result.checkpoint).metadata["mean_confidence"] == 0.75
    (root / "confidence" / "a.png").unlink()
    with pytest.raises(BadInputError, match=r"mean_confidence=0\.75, this one has None"):
        train_semantic(root, SPLIT, tmp_path / "run", RECIPE, SETTINGS, resume=True)


def test_a_map_of_16_bits_is_one_of_8(tmp_path: Path) -> None:
    import cv2

    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert cv2.imwrite(str(tmp_path / "deep.png"), values * 257)
    write_png(tmp_path / "flat.png", values.astype(np.uint8))
    deep, flat = (read_confidence(tmp_path / f"{name}.png", (16, 16)) for name in ("deep", "flat"))
    assert np.array_equal(deep, flat) and np.array_equal(flat, values)


def test_weights_of_annotators_decide_truth_and_confidence(tmp_path: Path) -> None:
    root = write_data(
        tmp_path / "data", {"masks/anna": block(4), "masks/boris": block(8), "masks/chen": block(12)}
    )
    weights = {"anna": 1.0, "boris": 1.0, "chen": 2.0}
    (sample, *_) = training_data(root, annotator_weights=weights).samples
    assert isinstance(sample, Sample) and sample_from_json(sample_to_json(sample)) == sample
    truth = sample.load_truth()
    assert truth.confidence is not None
    assert np.array_equal(truth.mask, block(8) > 0)  # Chen alone is half of them.
    assert truth.confidence[[0, 4, 8, 12], 0].tolist() == [255, 128, 0, 255]
    alone = {"anna": 0.0, "boris": 0.0, "chen": 1.0}
    (sample, *_) = training_data(root, annotator_weights=alone).samples
    assert np.array_equal(sample.load_mask(), block(12) > 0)
    recipe = replace(RECIPE, annotator_weights=weights)
    result = train_semantic(root, SPLIT, tmp_path / "weighted", recipe, SETTINGS)
    metadata = load_checkpoint(result.checkpoint).metadata
    assert metadata["annotator_weights"] == weights and metadata["truth"] is None
    assert metadata["mean_confidence"] == pytest.approx((255 + 128 + 0 + 255) / 4 / 255)
    result = train_semantic(root, SPLIT, tmp_path / "union", replace(RECIPE, truth="union"), SETTINGS)
    metadata = load_checkpoint(result.checkpoint).metadata
    assert (metadata["truth"], metadata["mean_confidence"]) == ("union", None)


def test_equal_weights_are_the_majority() -> None:
    masks = [np.random.default_rng(seed).random((9, 9)) > 0.5 for seed in range(3)]
    mask, confidence = soft_majority(masks, (2, 2, 2))
    assert np.array_equal(mask, np.sum(masks, axis=0) > 1.5)
    assert set(np.unique(confidence)) == {85, 255}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((8, 9), 200, np.uint8), r"a.png' is 9x8, its image 16x16: both must have one size"),
        (np.zeros((16, 16), np.uint8), "has no value above 0, and 255 counts wholly"),
        (np.eye(16, dtype=np.uint8), "has no value above 1, and 255 counts wholly"),
        (np.dstack([block(8)] * 2 + [block(9)]), "map of confidence|save the confidence as gray"),
    ],
)
def test_maps_that_cannot_be_used_are_one_line(
    tmp_path: Path, image: NDArray[np.uint8], message: str
) -> None:
    write_png(tmp_path / "a.png", image)
    with pytest.raises(BadImageError, match=message):
        read_confidence(tmp_path / "a.png", (16, 16))


def test_maps_that_leave_no_foreground_are_refused(tmp_path: Path) -> None:
    corner = np.zeros((16, 16), np.uint8)
    corner[15, 15] = 255  # Background in the mask: "nothing" would be a perfect answer.
    data = training_data(write_data(tmp_path / "data", {"masks": block(8), "confidence": corner}))
    with pytest.raises(BadInputError, match="no pixel that counts is foreground in any of 3 images"):
        load_pairs(data.samples, (16, 16), confidence=data.confidence)


def test_an_annotator_who_is_named_twice_is_refused() -> None:
    with pytest.raises(BadInputError, match="names one twice"):
        TrainOptions(annotator_weights="anna=1,boris=1,anna=2").weights_of_annotators()


def test_a_map_of_no_image_is_refused(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", {"masks": block(8)})
    (root / "confidence").mkdir()
    write_png(root / "confidence" / "d.png", block(8))
    with pytest.raises(BadInputError, match=r"d.png' belongs to no image: expected NAME.png"):
        training_data(root)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"anna": 1, "dora": 1}, "name anna, dora, and .* has anna, boris: give a weight to each"),
        ({"anna": 1}, "0 to leave one out"),
        ({"anna": -1, "boris": 1}, "are anna=-1, boris=1: give numbers of at least 0, and one above it"),
        ({"anna": 0, "boris": 0}, "and one above it"),
        ({"anna": float("nan"), "boris": 1}, "anna=nan"),
    ],
)
def test_weights_that_cannot_be_used_are_one_line(
    tmp_path: Path, weights: dict[str, float], message: str
) -> None:
    root = write_data(tmp_path / "data", {"masks/anna": block(4), "masks/boris": block(8)})
    with pytest.raises(BadInputError, match=message):
        training_data(root, annotator_weights=weights)


def test_two_ways_to_weigh_are_refused(tmp_path: Path) -> None:
    weights = {"anna": 1.0, "boris": 1.0}
    root = write_data(
        tmp_path / "data", {"masks/anna": block(4), "masks/boris": block(8), "confidence": block(8)}
    )
    with pytest.raises(BadInputError, match="each say how much pixels count"):
        training_data(root, annotator_weights=weights)
    with pytest.raises(BadInputError, match="each say what the ground truth is"):
        training_data(root, truth="union", annotator_weights=weights)
    plain = write_data(tmp_path / "plain", {"masks": block(4)})
    with pytest.raises(BadInputError, match="--annotator-weights needs masks of annotators"):
        training_data(plain, annotator_weights=weights)
