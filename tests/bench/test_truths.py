"""What a ground truth says is scored and learnt; what it ignores is not; an empty one is no truth."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from microbench.postprocess import measure_postprocess
from seg_bench.data.check import check_classes, check_truths
from seg_bench.data.class_truths import ClassMap
from seg_bench.data.classes import ClassSample
from seg_bench.data.samples import Sample, paired_samples
from seg_bench.metrics import HD95_DEFINITIONS, dice_score, hausdorff_95, iou_score
from seg_bench.pipelines import Outcome
from seg_bench.run.scoring import Scorer, foreground_dice
from seg_bench.train.augment import build_augmentation
from seg_bench.train.dataset import SegmentationDataset, load_pairs
from seg_bench.train.semantic_task import SemanticTask
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import Preprocessing
from seg_runtime.errors import BadInputError

SETTINGS = TrainSettings(epochs=1, batch_size=2, device="cpu", channels_last=False)


def disc(x: int = 30) -> NDArray[np.uint8]:
    mask = np.zeros((64, 64), np.uint8)
    cv2.circle(mask, (x, 32), 14, 1, -1)
    return mask


def data_of(root: Path, *masks: NDArray[np.uint8]) -> tuple[Sample, ...]:
    """Images of noise with these masks."""
    generator = np.random.default_rng(0)
    for number, mask in enumerate(masks):
        image = generator.integers(0, 255, mask.shape, np.uint8)
        for folder, pixels in (("images", image), ("masks", mask)):
            (root / folder).mkdir(exist_ok=True, parents=True)
            assert cv2.imwrite(str(root / folder / f"x_{number}.png"), pixels)
    return paired_samples(root)


def ignoring(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The right half does not count."""
    marked = mask.copy()
    marked[:, 32:] = 255
    return marked


def test_masks_of_0_and_1_are_learnt_and_scored_as_those_of_0_and_255(tmp_path: Path) -> None:
    ones, whites = data_of(tmp_path / "a", disc()), data_of(tmp_path / "b", disc() * 255)
    assert np.array_equal(ones[0].load_mask(), disc() > 0)
    pairs = [load_pairs(samples, (48, 48)) for samples in (ones, whites)]
    assert np.array_equal(pairs[0].masks[0], pairs[1].masks[0]) and pairs[0].masks[0].any()
    for samples in (ones, whites):
        assert foreground_dice(samples[0], Outcome([disc(40) > 0], {})) == dice_score(disc(40), disc())


def test_what_a_mask_ignores_counts_neither_way(tmp_path: Path) -> None:
    (sample,) = data_of(tmp_path, ignoring(disc()))
    found = disc(40) > 0
    scores = Scorer().score(sample, Outcome([found], {}))
    assert scores["dice"] == dice_score(found[:, :32], disc()[:, :32])
    assert scores["iou"] == iou_score(found[:, :32], disc()[:, :32])
    assert foreground_dice(sample, Outcome([found], {})) == scores["dice"]


def test_classes_that_a_map_ignores_count_neither_way(tmp_path: Path) -> None:
    (sample,) = data_of(tmp_path, ignoring(disc()))
    mapped = ClassSample(sample.name, sample.image_path, ClassMap(sample.mask_paths[0]))
    found = np.where(np.arange(64) < 32, disc(), 1 - disc())
    scorer = Scorer()
    scorer.score(mapped, Outcome([found > 0], {}, classes=[found]), classes=2)
    result = scorer.classes()
    assert result and [score.dice for score in result.scores] == [1.0, 1.0]
    assert [score.hd95 for score in result.scores] == [0.0, 0.0]
    check_classes([mapped], 2, "model")


def test_distances_are_of_the_definition_and_in_the_unit_that_are_asked_for(tmp_path: Path) -> None:
    (sample,) = data_of(tmp_path, disc())
    mapped = ClassSample(sample.name, sample.image_path, ClassMap(sample.mask_paths[0]))
    found = disc(40)
    for spacing_hw, definition in product((None, (0.5, 0.5), (0.2, 0.7)), HD95_DEFINITIONS):
        scorer, expected = Scorer(), hausdorff_95(found, disc(), spacing_hw, definition)
        outcome = Outcome([found > 0], {}, classes=[found])
        assert scorer.score(mapped, outcome, 2, spacing_hw, definition)["hd95"] == expected
        result = scorer.classes()
        assert result and result.scores[1].hd95 == expected


@pytest.mark.parametrize("loss", ["bce-dice", "focal", "generalised-dice"])
def test_ignored_pixels_have_no_gradient_and_no_loss_per_pixel(tmp_path: Path, loss: str) -> None:
    pairs = load_pairs(data_of(tmp_path, ignoring(disc()), disc()), (64, 64))
    data = SegmentationDataset(pairs, Preprocessing((0.5,), (0.25,)))
    _, truth = data[0]
    assert set(truth.unique().tolist()) == {-1, 0, 1} and (truth[..., 32:] == -1).all()
    logits = torch.zeros(1, 1, 64, 64, requires_grad=True)
    task = SemanticTask(data, data, replace(SETTINGS, loss=loss))
    task.loss(lambda _: logits, (torch.zeros(1, 1, 64, 64), truth[None])).backward()
    assert logits.grad is not None and not logits.grad[..., 32:].any() and logits.grad[..., :32].all()


def test_augmentation_mixes_no_ignored_pixels_with_others(tmp_path: Path) -> None:
    pairs = load_pairs(data_of(tmp_path, ignoring(disc())), (64, 64))
    data = SegmentationDataset(pairs, Preprocessing(), build_augmentation((64, 64)))
    for epoch in range(10):
        assert set(data[epoch, 0][1].unique().tolist()) <= {-1, 0, 1}


def test_validation_leaves_ignored_pixels_out_of_dice(tmp_path: Path) -> None:
    pairs = load_pairs(data_of(tmp_path, ignoring(disc())), (64, 64))
    data = SegmentationDataset(pairs, Preprocessing((0.5,), (0.25,)))

    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(disc(40) * 20.0 - 10.0)[None, None].float()

    _, score = SemanticTask(data, data, SETTINGS).validate(Fixed(), lambda: None)
    assert score == pytest.approx(dice_score(disc(40)[:, :32], disc()[:, :32]), abs=1e-4)


def test_a_truth_that_is_empty_everywhere_is_refused_by_training_benchmark_and_study(tmp_path: Path) -> None:
    empty = data_of(tmp_path / "a", disc() * 0, disc() * 0)
    for call in (
        lambda: load_pairs(empty, (64, 64)),
        lambda: check_truths(empty),
        lambda: measure_postprocess(None, {"empty": empty}),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadInputError, match="all 2 masks are empty, and no score means anything"):
            call()
    check_truths(data_of(tmp_path / "b", disc() * 0, disc()))


def test_255_that_is_ignored_in_one_mask_is_no_foreground_in_another(tmp_path: Path) -> None:
    samples = data_of(tmp_path, ignoring(disc()), ignoring(disc() * 0))
    with pytest.raises(BadInputError, match="written in two ways"):
        load_pairs(samples, (64, 64))


def test_black_and_white_maps_name_no_class_of_several(tmp_path: Path) -> None:
    (sample,) = data_of(tmp_path, disc() * 255)
    mapped = ClassSample(sample.name, sample.image_path, ClassMap(sample.mask_paths[0]))
    check_classes([mapped], 2, "lungs")
    with pytest.raises(BadInputError, match="black and white, and 'organs' has 3 classes"):
        check_classes([mapped], 3, "organs")
