"""Losses and weights of several classes, against PyTorch and MONAI."""

from __future__ import annotations

import cv2
import monai.losses
import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional as F

from seg_bench.train.balance import check_present, frequency_weights, repeat_factors
from seg_bench.train.boundary import BoundaryLoss, signed_distance
from seg_bench.train.losses import LOSSES, build_loss
from seg_bench.train.settings import TrainSettings
from seg_runtime.errors import BadInputError

CLASSES = 4
WEIGHTS = (0.5, 1.0, 4.0, 2.0)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """(2, 4, 8, 9) logits and (2, 1, 8, 9) classes."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, CLASSES, 8, 9, generator=generator)
    truth = torch.randint(0, CLASSES, (2, 1, 8, 9), generator=generator)
    return logits, truth.float()


def test_cross_entropy_is_pytorchs_with_weights_and_ignored_pixels(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, truth = batch
    truth[0, 0, :3] = -1
    loss = build_loss("bce-dice", bce_weight=1, dice_weight=0, classes=CLASSES, class_weights=WEIGHTS)
    wanted = F.cross_entropy(logits, truth[:, 0].long(), torch.tensor(WEIGHTS), ignore_index=-1)
    torch.testing.assert_close(loss(logits, truth), wanted)


def test_dice_and_focal_are_monais(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, truth = batch
    dice = build_loss("bce-dice", bce_weight=0, dice_weight=1, classes=CLASSES)
    theirs = monai.losses.DiceLoss(
        softmax=True, to_onehot_y=True, batch=True, smooth_nr=1.0, smooth_dr=1.0, reduction="mean"
    )
    torch.testing.assert_close(dice(logits, truth), theirs(logits, truth))
    focal = build_loss("focal", classes=CLASSES, class_weights=WEIGHTS)
    # MONAI means over pixels and classes, of which each pixel has one.
    of_monai = monai.losses.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0, weight=list(WEIGHTS))
    torch.testing.assert_close(focal(logits, truth), of_monai(logits, truth) * CLASSES)


def test_generalised_dice_is_monais(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, truth = batch
    theirs = monai.losses.GeneralizedDiceLoss(
        softmax=True, to_onehot_y=True, batch=True, smooth_nr=0.0, smooth_dr=1e-6
    )
    torch.testing.assert_close(
        build_loss("generalised-dice", classes=CLASSES)(logits, truth), theirs(logits, truth)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_no_loss_and_get_no_gradient(
    name: str, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, truth = batch
    truth[:, :, :, 5:] = -1
    loss = build_loss(name, classes=CLASSES)
    logits.requires_grad_()
    value = loss(logits, truth)
    value.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert not logits.grad[..., 5:].any() and logits.grad[..., :5].any()
    other = logits.detach().clone()
    other[..., 5:] = 50 * torch.randn_like(other[..., 5:])
    torch.testing.assert_close(loss(other, truth), value.detach())
    torch.testing.assert_close(loss(logits[..., :5], truth[..., :5]).detach(), value.detach())
    nothing = loss(logits.detach(), torch.full_like(truth, -1))
    assert nothing.isfinite()


@pytest.mark.parametrize("seed", range(3))
def test_signed_distance_is_that_of_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = cv2.GaussianBlur(generator.random((40, 53)), (0, 0), 4) > 0.5
    wanted = np.where(mask, 1 - distance_transform_edt(mask), distance_transform_edt(~mask))
    np.testing.assert_allclose(signed_distance(mask), wanted, atol=1e-4)
    assert (
        not signed_distance(np.ones((4, 5), bool)).any() and not signed_distance(~np.ones((4, 5), bool)).any()
    )


def test_boundary_loss_is_its_definition_and_grows_with_the_distance(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, truth = batch
    truth[0, 0, :2] = -1
    probabilities, total = torch.softmax(logits, dim=1), 0.0
    for image in range(2):
        for number in range(1, CLASSES):
            distance = torch.from_numpy(signed_distance((truth[image, 0] == number).numpy()))
            total += float((probabilities[image, number] * distance)[truth[image, 0] >= 0].sum())
    wanted = total / (int((truth >= 0).sum()) * (CLASSES - 1))
    assert float(BoundaryLoss()(logits, truth)) == pytest.approx(wanted, rel=1e-4)
    square = torch.zeros(1, 1, 32, 32)
    square[..., 4:12, 4:12] = 1
    speck = torch.full((1, 1, 32, 32), -9.0)
    near, far = speck.clone(), speck.clone()
    near[..., 13, 13], far[..., 30, 30] = 9.0, 9.0
    losses = [float(BoundaryLoss()(each, square)) for each in (speck, near, far)]
    assert losses == sorted(losses) and losses[2] - losses[1] > 5 * (losses[1] - losses[0])


def test_a_rare_class_weighs_more_and_its_images_are_drawn_more_often() -> None:
    pixels = np.array([[90, 10, 0], [80, 20, 0], [85, 15, 0], [80, 10, 10]])
    frequencies = [335 / 400, 55 / 400, 10 / 100]
    assert frequency_weights(pixels) == pytest.approx([np.median(frequencies) / each for each in frequencies])
    assert repeat_factors(pixels).tolist() == pytest.approx([1, 1, 1, 2])
    with pytest.raises(BadInputError, match="no image of the train part has bar: split again"):
        check_present(pixels[:3], ("background", "disc", "bar"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "focal", "class_weights": (1.0,)}, "there is one class"),
        ({"name": "generalised-dice", "classes": 3, "class_weights": (1, 1, 1)}, "weights classes by itself"),
        ({"name": "dice", "classes": 3}, "unknown loss 'dice'"),
    ],
)
def test_settings_without_effect_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        build_loss(**options)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="none may be negative or infinite"):
        TrainSettings(class_weights=(1.0, -1.0))
