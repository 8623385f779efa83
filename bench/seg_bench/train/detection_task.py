"""Instance segmentation: torchvision's own losses, and mask AP as deployed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from seg_bench.metrics.average_precision import Found, labelled_objects, mask_average_precision
from seg_bench.train.augment import derived_seed
from seg_bench.train.detection_dataset import DetectionDataset, Target
from seg_bench.train.settings import TrainSettings
from seg_bench.train.task import Step, autocast, epoch_batches, pick_device
from seg_export.families.maskrcnn.reference import MaskRcnnReference
from seg_runtime.paste import paste_crops
from seg_runtime.sam.rle import coco_rle, encode_counts

__all__ = ["DetectionTask"]

Batch = tuple[list[torch.Tensor], list[Target]]


class DetectionTask:
    """Images with objects of one class; see `seg_bench.train.task.Task`.

    Args:
        train_data: crops.
        val_data: as whole images for the score, as crops for the loss.
        size_hw: (height, width) in pixels of the deployed model's input.

    Raises:
        BadInputError: a device or precision that there is not.
    """

    metric = "mask AP"

    def __init__(
        self,
        train_data: DetectionDataset,
        val_data: DetectionDataset,
        size_hw: tuple[int, int],
        settings: TrainSettings,
    ) -> None:
        self._train_data = train_data
        self._val_data = val_data
        self._truths = [labelled_objects(labels) for labels in val_data.objects.labels]
        self._size_hw = size_hw
        self._settings = settings
        self._device = pick_device(settings)
        self.validation_steps = len(val_data)
        self.train_batches = epoch_batches(train_data, self._order, settings, _collate)

    def _order(self, epoch: int) -> list[int]:
        count, settings = len(self._train_data), self._settings
        generator = torch.Generator().manual_seed(derived_seed(settings.seed, epoch, count))
        order = torch.randperm(count, generator=generator).tolist()
        # A last batch of a single image has no statistics to normalise with.
        rest = count % settings.batch_size
        return order[: count - rest] if rest == 1 and count > 1 else order

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The sum of torchvision's five losses."""
        images, targets = batch
        with autocast(self._settings, self._device):
            losses = model(
                [image.to(self._device) for image in images],
                [{name: value.to(self._device) for name, value in target.items()} for target in targets],
            )
        return torch.stack([value.float() for value in losses.values()]).sum()

    @torch.inference_mode()
    def validate(self, model: nn.Module, step: Step) -> tuple[float, float]:
        """Mean loss per batch of crops, always the same ones, and mask AP of whole images."""
        losses = self._validation_losses(model)
        reference = MaskRcnnReference(model.eval(), self._size_hw).eval()
        found = []
        for image in self._val_data.objects.images:
            found.append(self._find(reference, image))
            step()
        limit = int(reference.model.roi_heads.detections_per_img)
        score = mask_average_precision(self._truths, found, limit).ap or 0.0
        return sum(losses) / len(losses), score

    def _validation_losses(self, model: nn.Module) -> list[float]:
        """torchvision computes losses in training mode only; the norms keep their statistics."""
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        batches = DataLoader(self._val_data, batch_size=self._settings.batch_size, collate_fn=_collate)
        return [float(self.loss(model, batch)) for batch in batches]

    def _find(self, reference: nn.Module, image: Any) -> Found:
        valid_hw = torch.tensor([image.shape[:2]], dtype=torch.int32)
        outputs = reference(torch.from_numpy(image)[None].to(self._device), valid_hw)
        boxes, scores, labels, logits = (output[0].cpu().numpy() for output in outputs[:4])
        rows = scores > 0
        probabilities = 1 / (1 + np.exp(-logits[rows]))
        crops = paste_crops(probabilities, boxes[rows], image.shape[:2])
        size_hw = image.shape[:2]
        rles = [
            coco_rle(encode_counts(crop.mask.view(np.uint8), crop.origin_xy, size_hw), size_hw)
            for crop in crops
        ]
        return Found(scores[rows].tolist(), labels[rows].tolist(), rles)


def _collate(samples: Sequence[tuple[torch.Tensor, Target]]) -> Batch:
    return [image for image, _ in samples], [target for _, target in samples]
