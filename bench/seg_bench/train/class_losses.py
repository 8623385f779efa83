"""Segmentation losses where each pixel has one of several classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["ClassLoss", "class_focal", "class_generalised_dice", "weighed", "weighted_cross_entropy_and_dice"]

_SURELY_NOT = -200.0
"""A log-probability that is 0 in float32."""

Classes = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]
"""log-probabilities and one-hot truth, (N, C, H, W), both without what does not count; weights (C,);
confidence (N, 1, H, W) or None, see `seg_bench.train.losses`."""


def weighed(values: torch.Tensor, confidence: torch.Tensor | None) -> torch.Tensor:
    """Values of pixels times their confidence, (N, 1, H, W), where there is one."""
    return values if confidence is None else values * confidence


class ClassLoss(nn.Module):
    """Brings logits and truth into `Classes` and takes a loss of them; pixels with -1 do not count.

    Args:
        loss: of `Classes`.
        weights: of the classes; none of them is 1 each.
    """

    def __init__(self, loss: Callable[[Classes], torch.Tensor], weights: Sequence[float] = ()) -> None:
        super().__init__()
        self._loss = loss
        self._weights = tuple(weights)

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar of (N, C, H, W) logits and (N, 1, H, W) classes, 0 to C - 1, or -1."""
        count = logits.shape[1]
        classes = targets[:, 0].long()
        counted = (classes >= 0)[:, None]
        truth = F.one_hot(classes.clamp(min=0), count).permute(0, 3, 1, 2).to(logits.dtype) * counted
        weights = logits.new_tensor(self._weights or [1.0] * count)
        log_probabilities = F.log_softmax(logits, dim=1).masked_fill(~counted, _SURELY_NOT)
        return self._loss((log_probabilities, truth, weights, confidence))


def weighted_cross_entropy_and_dice(
    ce_weight: float, dice_weight: float
) -> Callable[[Classes], torch.Tensor]:
    """Weighted sum of cross entropy per pixel, with the classes' weights, and 1 - mean Dice of the batch.

    Dice is that of each class over all pixels of the batch, smoothed by 1, as the article's of one class.
    """

    def loss(parts: Classes) -> torch.Tensor:
        return ce_weight * _cross_entropy(parts) + dice_weight * _dice_loss(parts)

    return loss


def class_focal(parts: Classes, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss (Lin et al., 2017) over a softmax, whose alpha are the classes' weights."""
    log_probability, weight, counted = _of_truth(parts)
    focus = (1.0 - log_probability.exp()) ** gamma
    return -(weight * focus * log_probability).sum() / counted.sum().clamp(min=1.0)


def class_generalised_dice(parts: Classes, epsilon: float = 1e-6) -> torch.Tensor:
    """Generalised Dice (Sudre et al., 2017): classes weighted by 1 / (their pixel count) ** 2."""
    overlaps, totals, pixels = _overlaps(parts)
    weight = 1.0 / pixels.clamp(min=1.0) ** 2
    return 1.0 - 2.0 * (weight * overlaps).sum() / ((weight * totals).sum() + epsilon)


def _cross_entropy(parts: Classes) -> torch.Tensor:
    """As `torch.nn.functional.cross_entropy` with weights: 0 where no pixel counts."""
    log_probability, weight, _ = _of_truth(parts)
    return -(weight * log_probability).sum() / weight.sum().clamp(min=1e-12)


def _dice_loss(parts: Classes, smooth: float = 1.0) -> torch.Tensor:
    overlaps, totals, _ = _overlaps(parts)
    return 1.0 - ((2.0 * overlaps + smooth) / (totals + smooth)).mean()


def _overlaps(parts: Classes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over the pixels, (C,): of probability times truth, of both together, and of the truth."""
    log_probabilities, truth, _, confidence = parts
    probabilities, pixels = weighed(log_probabilities.exp(), confidence), (0, 2, 3)
    overlaps, truth = (probabilities * truth).sum(pixels), weighed(truth, confidence)
    return overlaps, (probabilities + truth).sum(pixels), truth.sum(pixels)


def _of_truth(parts: Classes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probability and weight of each pixel's true class and its confidence, (N, H, W), 0 without one."""
    log_probabilities, truth, weights, confidence = parts
    log_probability = (truth * log_probabilities).sum(dim=1)
    truth = weighed(truth, confidence)
    return log_probability, (truth * weights[:, None, None]).sum(dim=1), truth.sum(dim=1)
