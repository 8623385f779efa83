"""The torch metrics equal the NumPy ones, which are tested against the article's code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seg_bench import metrics
from seg_bench.metrics import torch_metrics
from seg_runtime.errors import BadInputError


@pytest.mark.parametrize("seed", range(5))
def test_dice_and_iou_equal_the_numpy_ones_exactly(seed):
    generator = np.random.default_rng(seed)
    pred = generator.random((2, 1, 33, 47), np.float32)
    target = (generator.random(pred.shape) > 0.6).astype(np.float32)
    tensors = torch.from_numpy(pred), torch.from_numpy(target)

    assert torch_metrics.dice_score(*tensors) == metrics.dice_score(pred, target)
    assert torch_metrics.dice_score(*tensors, 0.3, 2.0) == metrics.dice_score(pred, target, 0.3, 2.0)
    assert torch_metrics.iou_score(*tensors) == metrics.iou_score(pred, target)


def test_mean_iou_of_logits_equals_the_numpy_one_of_their_argmax():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 20, 30, generator=generator)
    targets = torch.randint(0, 4, (2, 20, 30), generator=generator)
    targets[:, :3] = 255

    expected = metrics.mean_iou(logits.argmax(dim=1).numpy(), targets.numpy(), 5)

    assert torch_metrics.mean_iou(logits, targets, 5) == pytest.approx(expected, abs=1e-12)


def test_empty_masks_follow_the_article():
    empty, full = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)

    assert torch_metrics.iou_score(empty, empty) == 1.0
    assert torch_metrics.dice_score(empty, empty) == 1.0
    assert torch_metrics.iou_score(empty, full) == 0.0
    assert torch_metrics.mean_iou(torch.zeros(1, 2, 4, 4), torch.full((1, 4, 4), 255), 2) == 0.0


def test_metrics_of_tensors_with_gradients_return_plain_floats():
    pred = torch.sigmoid(torch.randn(1, 8, 8, requires_grad=True))

    assert isinstance(torch_metrics.dice_score(pred, torch.ones(1, 8, 8)), float)


def test_areas_beyond_the_whole_numbers_of_float32_are_counted_exactly():
    pixels = 2**24 + 2
    ones = torch.ones(1, dtype=torch.uint8).expand(pixels)

    assert torch_metrics.dice_score(ones, ones, smooth=0.0) == 1.0
    assert torch_metrics.iou_score(ones, ones) == 1.0


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(BadInputError, match="one shape"):
        torch_metrics.dice_score(torch.zeros(1, 4, 4), torch.zeros(4, 4))
    with pytest.raises(BadInputError, match=r"\(B, C, H, W\)"):
        torch_metrics.mean_iou(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4).long(), 2)
