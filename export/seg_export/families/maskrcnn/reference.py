"""torchvision's own Mask R-CNN in the form of our graph's contract: what the graph is verified against."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.families.maskrcnn.graph import EMPTY_LOGIT, padded_hw

__all__ = ["MaskRcnnReference"]


class MaskRcnnReference(nn.Module):
    """torchvision's modules in torchvision's order on images that are padded to one canvas.

    That is what torchvision itself does with a batch of images of several sizes. It infers the scale of its
    feature maps from the first image it ever sees; here it is told.

    Args:
        model: torchvision's `MaskRCNN` in eval mode.
        size_hw: (height, width) in pixels of the images.
    """

    def __init__(self, model: Any, size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.canvas_hw = padded_hw(size_hw, int(model.transform.size_divisible))

    def forward(self, image: torch.Tensor, valid_hw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As `MaskRcnnGraph`, one image after the other."""
        results = [self._one(pixels, valid) for pixels, valid in zip(image, valid_hw.tolist(), strict=True)]
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True))

    def _one(self, image: torch.Tensor, valid_hw: list[int]) -> tuple[torch.Tensor, ...]:
        from torchvision.models.detection.image_list import ImageList
        from torchvision.ops.poolers import _setup_scales

        model, (height, width) = self.model, valid_hw
        pixels = image[:height, :width].permute(2, 0, 1).to(torch.float32) / 255
        padding = (0, self.canvas_hw[1] - width, 0, self.canvas_hw[0] - height)
        canvas = F.pad(model.transform.normalize(pixels), padding)[None]
        features = model.backbone(canvas)
        heads = model.roi_heads
        for pool in (heads.box_roi_pool, heads.mask_roi_pool):
            maps = [features[name] for name in pool.featmap_names]
            pool.scales, pool.map_levels = _setup_scales(
                maps, [self.canvas_hw], pool.canonical_scale, pool.canonical_level
            )
        proposals, _ = model.rpn(ImageList(canvas, [(height, width)]), features)
        boxes, scores, labels = self._detections(features, proposals, (height, width))
        count, limit = len(scores), heads.detections_per_img
        boxes, scores, labels = boxes[:limit], scores[:limit], labels[:limit]
        pooled = heads.mask_roi_pool(features, [boxes], [(height, width)])
        logits = heads.mask_predictor(heads.mask_head(pooled))
        masks = logits[torch.arange(len(labels)), labels]
        missing = limit - len(scores)
        return (
            F.pad(boxes, (0, 0, 0, missing)),
            F.pad(scores, (0, missing)),
            F.pad(labels, (0, missing)).to(torch.int32),
            F.pad(masks, (0, 0, 0, 0, 0, missing), value=EMPTY_LOGIT),
            torch.tensor([count], dtype=torch.int32),
        )

    def _detections(
        self, features: dict[str, torch.Tensor], proposals: list[torch.Tensor], size_hw: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All detections, those beyond the limit too."""
        heads = self.model.roi_heads
        pooled = heads.box_roi_pool(features, proposals, [size_hw])
        logits, codes = heads.box_predictor(heads.box_head(pooled))
        limit, heads.detections_per_img = heads.detections_per_img, len(logits) * logits.shape[1]
        try:
            boxes, scores, labels = heads.postprocess_detections(logits, codes, proposals, [size_hw])
        finally:
            heads.detections_per_img = limit
        return boxes[0], scores[0], labels[0]
