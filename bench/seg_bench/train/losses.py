"""Segmentation losses on logits, with the article's definitions.

Each takes a confidence per pixel, (N, 1, H, W) in 0..1, or None, which is 1 everywhere: means and sums over
pixels are weighted by it, so that pixels with 0 are as if they were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from seg_bench.train.class_losses import (
    Classes,
    ClassLoss,
    class_focal,
    class_generalised_dice,
    weighed,
    weighted_cross_entropy_and_dice,
)
from seg_runtime.errors import BadInputError

__all__ = ["LOSSES", "CombinedLoss", "DiceLoss", "FocalLoss", "GeneralisedDiceLoss", "build_loss"]


class DiceLoss(nn.Module):
    """1 - Dice over all pixels of the batch, as the article flattens it."""

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar in 0..1 of (N, C, H, W) logits and targets of the same shape with values 0 or 1."""
        probabilities = weighed(torch.sigmoid(logits), confidence).flatten()
        truth = targets.to(probabilities.dtype)
        overlap = (probabilities * truth.flatten()).sum()
        truth = weighed(truth, confidence)
        return 1.0 - (2.0 * overlap + self.smooth) / (probabilities.sum() + truth.sum() + self.smooth)


class CombinedLoss(nn.Module):
    """Weighted sum of binary cross entropy (per pixel) and Dice (per batch)."""

    def __init__(self, bce_weight: float = 0.5, dice_weight: float = 0.5) -> None:
        super().__init__()
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.dice = DiceLoss()

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar of (N, C, H, W) logits and targets of the same shape with values 0 or 1."""
        truth = targets.to(logits.dtype)
        bce = F.binary_cross_entropy_with_logits(logits, truth, confidence) / _mean(confidence)
        dice: torch.Tensor = self.dice(logits, truth, confidence)
        return self.bce_weight * bce + self.dice_weight * dice


class FocalLoss(nn.Module):
    """Focal loss (Lin et al., 2017): cross entropy weighted by alpha_t * (1 - p_t) ** gamma."""

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar mean over the pixels of (N, C, H, W) logits and targets with values 0 or 1."""
        truth = targets.to(logits.dtype)
        bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        probability_of_truth = torch.exp(-bce)
        weight = self.alpha * truth + (1.0 - self.alpha) * (1.0 - truth)
        focal = weight * (1.0 - probability_of_truth) ** self.gamma * bce
        return weighed(focal, confidence).mean() / _mean(confidence)


class GeneralisedDiceLoss(nn.Module):
    """Generalised Dice (Sudre et al., 2017): classes weighted by 1 / (their pixel count) ** 2.

    With one output channel, background counts as the second class.
    """

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar in 0..1 of (N, C, H, W) logits and targets of the same shape with values 0 or 1."""
        probabilities = torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
        truth = targets.to(probabilities.dtype)
        if logits.shape[1] == 1:
            probabilities = torch.cat([probabilities, 1.0 - probabilities], dim=1)
            truth = torch.cat([truth, 1.0 - truth], dim=1)
        pixels, probabilities = (0, 2, 3), weighed(probabilities, confidence)
        overlaps, truth = (probabilities * truth).sum(pixels), weighed(truth, confidence)
        # A class that is absent would weigh infinitely; one pixel is the least that counts.
        weight = 1.0 / truth.sum(pixels).clamp(min=1.0) ** 2
        overlap = (weight * overlaps).sum()
        total = (weight * (probabilities + truth).sum(pixels)).sum()
        return 1.0 - 2.0 * overlap / (total + self.epsilon)


LOSSES = ("bce-dice", "focal", "generalised-dice")


def build_loss(
    name: str,
    *,
    bce_weight: float = 0.5,
    dice_weight: float = 0.5,
    classes: int = 1,
    class_weights: Sequence[float] = (),
) -> nn.Module:
    """Build a loss by name; the weights of cross entropy and Dice belong to "bce-dice".

    Args:
        name: one of `LOSSES`, of one class or of several.
        bce_weight: of the cross entropy, binary or of all classes.
        dice_weight: of Dice.
        classes: how many the network tells apart; 1 is foreground against background.
        class_weights: of each of several classes in cross entropy and focal loss; none of them is 1 each.

    Raises:
        BadInputError: an unknown name, negative weights, or class weights where they mean nothing.
    """
    if bce_weight < 0 or dice_weight < 0 or bce_weight + dice_weight == 0:
        raise BadInputError(
            f"loss weights bce={bce_weight} and dice={dice_weight}: neither may be negative, nor both zero"
        )
    if name not in LOSSES:
        raise BadInputError(f"unknown loss '{name}': choose one of {', '.join(LOSSES)}")
    if class_weights and (classes == 1 or name == "generalised-dice"):
        reason = "it weights classes by itself" if classes > 1 else "there is one class"
        raise BadInputError(f"class weights have no effect on {name}, since {reason}: leave them out")
    if classes > 1:
        of_classes: dict[str, Callable[[Classes], torch.Tensor]] = {
            "bce-dice": weighted_cross_entropy_and_dice(bce_weight, dice_weight),
            "focal": class_focal,
            "generalised-dice": class_generalised_dice,
        }
        return ClassLoss(of_classes[name], class_weights)
    builders: dict[str, Callable[[], nn.Module]] = {
        "bce-dice": lambda: CombinedLoss(bce_weight, dice_weight),
        "focal": FocalLoss,
        "generalised-dice": GeneralisedDiceLoss,
    }
    return builders[name]()


def _mean(confidence: torch.Tensor | None) -> torch.Tensor | float:
    """What the mean of a loss that is weighted by it is divided by."""
    return 1.0 if confidence is None else confidence.mean().clamp(min=1e-12)
