"""Semantic segmentation: a loss per pixel, and Dice per image."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from seg_bench.metrics.torch_metrics import dice_score
from seg_bench.train.augment import Pair, derived_seed
from seg_bench.train.dataset import SegmentationDataset
from seg_bench.train.losses import build_loss
from seg_bench.train.settings import TrainSettings
from seg_bench.train.task import Step, autocast, pick_device

__all__ = ["SemanticTask"]

_SURELY_NOT = -100.0
"""A logit of which the sigmoid is 0 in float32."""


class SemanticTask:
    """Images with one mask each; see `seg_bench.train.task.Task`.

    Raises:
        BadInputError: a device, loss or precision that there is not.
    """

    metric = "Dice"

    def __init__(
        self, train_data: SegmentationDataset, val_data: SegmentationDataset, settings: TrainSettings
    ) -> None:
        self._train_data = train_data
        self._settings = settings
        self._device = pick_device(settings)
        self._criterion = build_loss(
            settings.loss, bce_weight=settings.bce_weight, dice_weight=settings.dice_weight
        )
        self._val_batches = DataLoader(val_data, batch_size=settings.batch_size)
        self.validation_steps = len(self._val_batches)

    def train_batches(self, epoch: int) -> DataLoader[Pair]:
        data, settings = self._train_data, self._settings
        data.epoch = epoch
        generator = torch.Generator().manual_seed(derived_seed(settings.seed, epoch, len(data)))
        order = torch.randperm(len(data), generator=generator).tolist()
        return DataLoader(
            Subset(data, order),
            batch_size=settings.batch_size,
            num_workers=settings.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def loss(self, model: nn.Module, batch: Pair) -> torch.Tensor:
        images, masks = batch
        truth = masks.to(self._device)
        with autocast(self._settings, self._device):
            logits = model(self._move(images))
        # With deep supervision every head learns the same, each with the same weight.
        heads = logits if isinstance(logits, list) else [logits]
        return torch.stack([self._criterion(*_counted(head.float(), truth)) for head in heads]).mean()

    @torch.inference_mode()
    def validate(self, model: nn.Module, step: Step) -> tuple[float, float]:
        """Mean loss per batch and mean Dice per image."""
        model.eval()
        losses, scores = [], []
        for images, masks in self._val_batches:
            logits, truth = _counted(model(self._move(images)), masks.to(self._device))
            losses.append(float(self._criterion(logits, truth)))
            scores += [dice_score(*pair) for pair in zip(torch.sigmoid(logits), truth, strict=True)]
            step()
        return sum(losses) / len(losses), sum(scores) / len(scores)

    def _move(self, images: torch.Tensor) -> torch.Tensor:
        order = torch.channels_last if self._settings.channels_last else torch.contiguous_format
        return images.to(self._device, memory_format=order, non_blocking=True)


def _counted(logits: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and truth, (N, 1, H, W), in which pixels that do not count (-1) are sure and true background.

    So they have no gradient, and add nothing to a loss per pixel or to Dice.
    """
    ignored = truth < 0
    return logits.masked_fill(ignored, _SURELY_NOT), truth.masked_fill(ignored, 0.0)
