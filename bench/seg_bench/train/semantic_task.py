"""Semantic segmentation: a loss per pixel, and Dice per image or class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset

from seg_bench.data.class_names import BACKGROUND
from seg_bench.metrics.classes import class_confusion, class_scores
from seg_bench.metrics.torch_metrics import dice_score
from seg_bench.train.augment import Pair, derived_seed
from seg_bench.train.balance import frequency_weights, repeat_factors
from seg_bench.train.boundary import BoundaryLoss
from seg_bench.train.dataset import SegmentationDataset
from seg_bench.train.losses import build_loss
from seg_bench.train.settings import TrainSettings
from seg_bench.train.task import Step, autocast, epoch_batches, pick_device
from seg_runtime.errors import BadInputError

__all__ = ["SemanticTask"]

_SURELY_NOT = -100.0
"""A logit of which the sigmoid is 0 in float32."""


class SemanticTask:
    """Images with one mask or one map of classes each; see `seg_bench.train.task.Task`.

    Args:
        train_data, val_data: the parts; validation loads the second in the order it has.
        settings: of the loop.
        class_names: of the network's classes; one for foreground against background.

    Attributes:
        class_weights: what the classes weigh in the loss; empty for 1 each.

    Raises:
        BadInputError: a device, loss or precision that there is not.
    """

    def __init__(
        self,
        train_data: SegmentationDataset,
        val_data: Dataset[Pair],
        settings: TrainSettings,
        class_names: Sequence[str] = ("foreground",),
    ) -> None:
        self._train_data = train_data
        self._settings = settings
        self._names = tuple(class_names)
        self.metric = "mean Dice" if len(self._names) > 1 else "Dice"
        self._device = pick_device(settings)
        self.class_weights = self._weights()
        self._criterion = build_loss(
            settings.loss,
            bce_weight=settings.bce_weight,
            dice_weight=settings.dice_weight,
            classes=len(self._names),
            class_weights=self.class_weights,
        )
        self._boundary = BoundaryLoss() if settings.boundary_weight else None
        self.train_batches = epoch_batches(train_data, self._order, settings)
        self._val_batches = DataLoader(val_data, batch_size=settings.batch_size)
        self.validation_steps = len(self._val_batches)

    def _weights(self) -> tuple[float, ...]:
        """Of the classes in the loss; none without such a setting."""
        chosen, count = self._settings.class_weights, len(self._names)
        if chosen == "frequency":
            if count == 1:
                raise BadInputError("class weights need several classes: use --loss focal or --bce-weight")
            return frequency_weights(self._train_data.pairs.class_pixels[:, :count])
        if chosen and len(chosen) != count:
            raise BadInputError(
                f"{len(chosen)} class weights for {count} classes ({', '.join(self._names)}): "
                "give one for each"
            )
        return chosen

    def _order(self, epoch: int) -> list[int]:
        """The images of an epoch: each once, or with those of rare classes more often."""
        count = len(self._train_data)
        generator = torch.Generator().manual_seed(derived_seed(self._settings.seed, epoch, count))
        if not self._settings.oversample:
            return torch.randperm(count, generator=generator).tolist()
        classes = max(len(self._names), 2)
        factors = torch.from_numpy(repeat_factors(self._train_data.pairs.class_pixels[:, :classes]))
        return torch.multinomial(factors, count, replacement=True, generator=generator).tolist()

    def loss(self, model: nn.Module, batch: Pair) -> torch.Tensor:
        images, masks = batch
        truth = masks.to(self._device)
        with autocast(self._settings, self._device):
            logits = model(self._move(images))
        # With deep supervision every head learns the same, each with the same weight.
        heads = logits if isinstance(logits, list) else [logits]
        return torch.stack([self._loss_of(head.float(), truth) for head in heads]).mean()

    @torch.inference_mode()
    def validate(self, model: nn.Module, step: Step) -> tuple[float, float]:
        """Mean loss per batch, and mean Dice per image, or of the classes but the background."""
        model.eval()
        losses: list[float] = []
        scores: list[float] = []
        confusions: list[NDArray[np.int64]] = []
        for images, masks in self._val_batches:
            logits, truth = model(self._move(images)), masks.to(self._device)
            losses.append(float(self._loss_of(logits, truth)))
            if len(self._names) > 1:
                confusions += _confusions(logits, truth)
            else:
                counted = zip(*_counted(logits, truth[:, :1]), strict=True)
                scores += [dice_score(torch.sigmoid(each), mask) for each, mask in counted]
            step()
        score = sum(scores) / len(scores) if scores else self._mean_dice(confusions)
        return sum(losses) / len(losses), score

    def _loss_of(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        truth, confidence = truth[:, :1], truth[:, 1:] if truth.shape[1] > 1 else None
        pair = (logits, truth) if len(self._names) > 1 else _counted(logits, truth)
        loss: torch.Tensor = self._criterion(*pair, confidence)
        if self._boundary is not None:
            loss = loss + self._settings.boundary_weight * self._boundary(logits, truth, confidence)
        return loss

    def _mean_dice(self, confusions: Sequence[NDArray[np.int64]]) -> float:
        """Of the classes that occur, in truth or prediction; 0 where no pixel counts."""
        if not confusions:
            return 0.0
        found = zip(self._names, class_scores(confusions), strict=True)
        scores = [score.dice for name, score in found if name != BACKGROUND and score.dice is not None]
        return float(np.mean(scores)) if scores else 0.0

    def _move(self, images: torch.Tensor) -> torch.Tensor:
        order = torch.channels_last if self._settings.channels_last else torch.contiguous_format
        return images.to(self._device, memory_format=order, non_blocking=True)


def _counted(logits: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and truth, (N, 1, H, W), in which pixels that do not count (-1) are sure and true background.

    So they have no gradient, and add nothing to a loss per pixel or to Dice.
    """
    ignored = truth < 0
    return logits.masked_fill(ignored, _SURELY_NOT), truth.masked_fill(ignored, 0.0)


def _confusions(logits: torch.Tensor, truth: torch.Tensor) -> list[NDArray[np.int64]]:
    """As `class_confusion` of each image, without the pixels that do not count."""
    predicted, classes = logits.argmax(dim=1).cpu().numpy(), truth[:, 0].long().cpu().numpy()
    counted = classes >= 0
    return [
        class_confusion(predicted[index][counted[index]], classes[index][counted[index]], logits.shape[1])
        for index in range(len(classes))
        if counted[index].any()
    ]
