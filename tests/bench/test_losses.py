"""The losses against their textbook formulas and torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from seg_bench.train.losses import (
    LOSSES,
    CombinedLoss,
    DiceLoss,
    FocalLoss,
    GeneralisedDiceLoss,
    build_loss,
)
from seg_runtime.errors import BadInputError


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 8, 9, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(3, 1, 8, 9, generator=generator) > 0.7).double()


def test_dice_loss_is_the_articles(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = batch
    probabilities = torch.sigmoid(logits).view(-1)
    truth = targets.view(-1)
    dice = (2 * (probabilities * truth).sum() + 1.0) / (probabilities.sum() + truth.sum() + 1.0)
    torch.testing.assert_close(DiceLoss()(logits, targets), 1.0 - dice)


def test_combined_loss_weighs_cross_entropy_and_dice(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = batch
    bce = torch.nn.BCEWithLogitsLoss()(logits, targets)
    expected = 0.3 * bce + 0.7 * DiceLoss()(logits, targets)
    torch.testing.assert_close(CombinedLoss(0.3, 0.7)(logits, targets), expected)


def test_focal_loss_equals_torchvisions(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = batch
    expected = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0, reduction="mean")
    torch.testing.assert_close(FocalLoss()(logits, targets), expected)


def test_generalised_dice_weighs_classes_by_inverse_squared_area() -> None:
    targets = torch.zeros(1, 1, 2, 2)
    targets[0, 0, 0, 0] = 1.0
    logits = torch.tensor([[[[math.log(4.0), 0.0], [0.0, 0.0]]]])  # probabilities 0.8, 0.5, 0.5, 0.5
    overlap = 0.8 / 1 + 1.5 / 9
    total = (2.3 + 1) / 1 + (1.7 + 3) / 9
    assert float(GeneralisedDiceLoss()(logits, targets)) == pytest.approx(1 - 2 * overlap / total, abs=1e-5)


def test_generalised_dice_of_several_classes_uses_softmax() -> None:
    targets = torch.nn.functional.one_hot(torch.tensor([[[0, 1], [2, 2]]]), 3).permute(0, 3, 1, 2).float()
    perfect = (targets * 2 - 1) * 30
    assert float(GeneralisedDiceLoss()(perfect, targets)) == pytest.approx(0.0, abs=1e-5)
    assert float(GeneralisedDiceLoss()(-perfect, targets)) > 0.5


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls_towards_the_truth_and_has_finite_gradients(name: str) -> None:
    loss = build_loss(name)
    targets = torch.zeros(2, 1, 4, 4)
    targets[:, :, :2] = 1.0
    logits = torch.zeros(2, 1, 4, 4, requires_grad=True)
    at_zero = loss(logits, targets)
    at_zero.backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert float(loss((targets * 2 - 1) * 5, targets)) < float(at_zero.detach())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_finite_for_empty_masks_and_large_logits(name: str) -> None:
    empty = torch.zeros(1, 1, 4, 4)
    for logits in (torch.full((1, 1, 4, 4), -80.0), torch.full((1, 1, 4, 4), 80.0)):
        assert math.isfinite(float(build_loss(name)(logits, empty)))


def test_unknown_loss_and_bad_weights_are_refused() -> None:
    with pytest.raises(BadInputError, match="choose one of bce-dice, focal, generalised-dice"):
        build_loss("hinge")
    with pytest.raises(BadInputError, match="neither may be negative"):
        build_loss("bce-dice", bce_weight=-1.0)
    with pytest.raises(BadInputError, match="nor both zero"):
        build_loss("bce-dice", bce_weight=0.0, dice_weight=0.0)
