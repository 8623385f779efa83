"""Dice, IoU and mean IoU in NumPy, against the article's torch code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seg_bench.metrics import dice_score, iou_score, mean_iou
from seg_runtime.errors import BadInputError


def article_iou(pred, target, threshold=0.5):
    pred_binary = (pred >= threshold).bool()
    target_binary = target.bool()
    intersection = (pred_binary & target_binary).float().sum()
    union = (pred_binary | target_binary).float().sum()
    return 1.0 if union == 0 else float(intersection / union)


def article_dice(pred, target, threshold=0.5, smooth=1.0):
    pred_binary = (pred >= threshold).float()
    target_binary = target.float()
    intersection = (pred_binary * target_binary).sum()
    return float((2.0 * intersection + smooth) / (pred_binary.sum() + target_binary.sum() + smooth))


def article_mean_iou(preds, targets, num_classes, ignore_index=255):
    ious = []
    for cls in range(num_classes):
        valid = targets != ignore_index
        pred_cls, true_cls = (preds == cls) & valid, (targets == cls) & valid
        intersection = (pred_cls & true_cls).sum().float()
        union = (pred_cls | true_cls).sum().float()
        if union > 0:
            ious.append(float(intersection / union))
    return float(np.mean(ious)) if ious else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_dice_and_iou_of_probabilities_equal_the_articles(seed):
    generator = np.random.default_rng(seed)
    pred = generator.random((3, 40, 50), np.float32)
    target = generator.random((3, 40, 50)) > generator.random()
    tensors = torch.from_numpy(pred), torch.from_numpy(target)

    assert dice_score(pred, target) == pytest.approx(article_dice(*tensors), abs=1e-6)
    assert dice_score(pred, target, 0.3, 0.0) == pytest.approx(article_dice(*tensors, 0.3, 0.0), abs=1e-6)
    assert iou_score(pred, target) == pytest.approx(article_iou(*tensors), abs=1e-6)
    assert iou_score(pred, target, 0.7) == pytest.approx(article_iou(*tensors, 0.7), abs=1e-6)


def test_a_probability_at_the_threshold_is_foreground():
    assert iou_score(np.array([[0.5, 0.49]]), np.array([[1, 0]])) == 1.0


def test_two_empty_masks_have_iou_and_dice_one():
    empty = np.zeros((4, 4), bool)

    assert iou_score(empty, empty) == 1.0
    assert dice_score(empty, empty) == 1.0
    assert dice_score(empty, empty, smooth=0.0) == 1.0


def test_an_empty_prediction_has_iou_zero_and_the_smoothed_dice():
    pred, target = np.zeros((3, 3), bool), np.ones((3, 3), bool)

    assert iou_score(pred, target) == 0.0
    assert dice_score(pred, target) == pytest.approx(1 / 10)


def test_masks_of_0_and_255_count_like_masks_of_0_and_1():
    generator = np.random.default_rng(0)
    pred, target = generator.random((2, 30, 30)) > 0.4
    pred_255, target_255 = pred * np.uint8(255), target * np.uint8(255)

    assert dice_score(pred_255, target_255) == dice_score(pred, target)
    assert iou_score(pred_255, target_255) == iou_score(pred, target)


@pytest.mark.parametrize("seed", range(5))
def test_mean_iou_equals_the_articles_with_ignored_pixels_and_absent_classes(seed):
    generator = np.random.default_rng(seed)
    pred, target = generator.integers(0, 4, (2, 2, 30, 30))
    target[generator.random(target.shape) < 0.2] = 255

    expected = article_mean_iou(torch.from_numpy(pred), torch.from_numpy(target), 6)

    assert mean_iou(pred, target, 6) == pytest.approx(expected, abs=1e-6)
    assert mean_iou(pred.astype(np.uint8), target.astype(np.uint8), 6) == pytest.approx(expected, abs=1e-6)


def test_mean_iou_of_ignored_pixels_only_is_zero_as_in_the_article():
    assert mean_iou(np.zeros((4, 4), np.uint8), np.full((4, 4), 7, np.uint8), 2, ignore_index=7) == 0.0


def test_different_shapes_are_refused():
    for metric in (dice_score, iou_score):
        with pytest.raises(BadInputError, match="one shape"):
            metric(np.zeros((4, 4)), np.zeros((1, 4, 4)))
    with pytest.raises(BadInputError, match="one shape"):
        mean_iou(np.zeros((4, 4), int), np.zeros((4, 5), int), 2)


def test_mean_iou_refuses_probabilities():
    with pytest.raises(BadInputError, match="argmax"):
        mean_iou(np.zeros((4, 4)), np.zeros((4, 4), int), 2)
