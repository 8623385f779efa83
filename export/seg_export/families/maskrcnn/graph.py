"""torchvision's Mask R-CNN with fixed shapes: as many proposals, candidates and detections as there may be.

The weights are torchvision's and so is the arithmetic; what torchvision selects by index lists of varying
length is selected here by `topk` of fixed length, and rows that only fill up are carried along and left out
at the end. Of the masks of all classes only that of the detected class is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.families.maskrcnn.fixed_nms import fixed_nms
from seg_export.families.maskrcnn.fixed_roi_align import FixedRoIAlign, PackedPyramid

__all__ = ["CANDIDATES", "EMPTY_LOGIT", "MaskRcnnGraph", "canvas_anchors", "feature_sizes", "padded_hw"]

CANDIDATES = 1000
"""Pairs of a box and a class that the last suppression looks at, the most probable ones. torchvision looks at
all above its score threshold: equal while there are no more of them, or while enough of these are kept."""

EMPTY_LOGIT = -20.0
"""Mask logits of rows that hold no detection."""

_ABSENT = -1.0
"""A score below all others."""


class MaskRcnnGraph(nn.Module):
    """From a batch of images at one size to a fixed number of detections each.

    Args:
        model: torchvision's `MaskRCNN` in eval mode; its weights are shared.
        size_hw: (height, width) in pixels of the images.
    """

    def __init__(self, model: Any, size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.input = _Input(model.transform, size_hw)
        self.backbone = model.backbone
        sizes_hw = feature_sizes(model, size_hw)
        self.proposals = _Proposals(model, canvas_anchors(model, size_hw, sizes_hw))
        heads = model.roi_heads
        self.levels = [list(sizes_hw).index(name) for name in heads.box_roi_pool.featmap_names]
        pooled = [list(sizes_hw.values())[level] for level in self.levels]
        height = padded_hw(size_hw)[0]
        scales = [2.0 ** round(math.log2(level_height / height)) for level_height, _ in pooled]
        self.pyramid = PackedPyramid(pooled)
        self.box_pool = FixedRoIAlign(heads.box_roi_pool, self.pyramid, scales)
        self.boxes = _Boxes(heads)
        self.mask_pool = FixedRoIAlign(heads.mask_roi_pool, self.pyramid, scales)
        self.masks = _Masks(heads)

    def forward(self, image: torch.Tensor, valid_hw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Find objects.

        Args:
            image: (N, H, W, 3) uint8 RGB.
            valid_hw: (N, 2) int32, (height, width) in pixels of the part at the top left that is the image.

        Returns:
            boxes (N, D, 4) float32 x0, y0, x1, y1 in pixels of the input, scores (N, D) float32, labels
            (N, D) int32 from 1 on, mask logits (N, D, 28, 28) float32 for each box, and how many objects
            were found, (N, 1) int32, which may be more than D. Rows beyond that are 0.
        """
        features = list(self.backbone(self.input(image, valid_hw)).values())
        limits = valid_hw.to(torch.float32).flip(-1)
        proposals, present = self.proposals(features, limits)
        packed = self.pyramid([features[level] for level in self.levels])
        boxes, scores, labels, count = self.boxes(
            self.box_pool(packed, proposals), proposals, present, limits
        )
        found = scores > 0
        masks = self.masks(self.mask_pool(packed, boxes), labels)
        return (
            boxes * found[..., None].to(boxes.dtype),
            scores,
            labels * found.to(torch.int32),
            torch.where(found[..., None, None], masks, EMPTY_LOGIT),
            count,
        )


class _Input(nn.Module):
    """Casts, normalises and then pads with 0, as torchvision's `GeneralizedRCNNTransform`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, transform: Any, size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(transform.image_mean)[:, None, None])
        self.register_buffer("std", torch.tensor(transform.image_std)[:, None, None])
        height, width = padded_hw(size_hw, int(transform.size_divisible))
        self.padding = (0, width - size_hw[1], 0, height - size_hw[0])

    def forward(self, image: torch.Tensor, valid_hw: torch.Tensor) -> torch.Tensor:
        """(N, H, W, 3) uint8 to (N, 3, H', W') float32."""
        pixels = image.to(torch.float32).permute(0, 3, 1, 2) / 255
        rows = torch.arange(image.shape[1], dtype=torch.int32)[None] < valid_hw[:, :1]
        columns = torch.arange(image.shape[2], dtype=torch.int32)[None] < valid_hw[:, 1:]
        inside = (rows[:, None, :, None] & columns[:, None, None, :]).to(torch.float32)
        return F.pad((pixels - self.mean) / self.std * inside, self.padding)


class _Proposals(nn.Module):
    """The region proposal network: the most probable boxes of each level, suppressed within it."""

    def __init__(self, model: Any, anchors: Sequence[torch.Tensor]) -> None:
        super().__init__()
        network = model.rpn
        self.head = network.head
        self.coder = network.box_coder
        self.before, self.after = network._pre_nms_top_n["testing"], network._post_nms_top_n["testing"]
        self.threshold, self.min_size = float(network.nms_thresh), float(network.min_size)
        self.score_threshold = float(network.score_thresh)
        self.level_count = len(anchors)
        for level, boxes in enumerate(anchors):
            self.register_buffer(f"anchors_{level}", boxes)

    def forward(
        self, features: list[torch.Tensor], limits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and valid (width, height), (N, 2), to boxes (N, R, 4) and which are there, (N, R)."""
        objectness, deltas = self.head(features)
        chosen = [self._choose(level, objectness[level], deltas[level]) for level in range(self.level_count)]
        boxes = torch.stack([level_boxes for level_boxes, _ in chosen], dim=1)
        scores = torch.sigmoid(torch.stack([level_scores for _, level_scores in chosen], dim=1))
        boxes = _clip(boxes, limits[:, None, None])
        sides = boxes[..., 2:] - boxes[..., :2]
        alive = (sides >= self.min_size).all(dim=-1) & (scores >= self.score_threshold)
        kept = fixed_nms(boxes, alive.to(boxes.dtype), self.threshold)
        ranked = torch.where(kept > 0, scores, _ABSENT).flatten(1)
        best, places = ranked.topk(min(self.after, ranked.shape[1]))
        return _take(boxes.flatten(1, 2), places), (best >= 0).to(boxes.dtype)

    def _choose(
        self, level: int, objectness: torch.Tensor, deltas: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best of one level, decoded: boxes (N, K, 4) and logits (N, K), filled up to the same K."""
        anchors = self.get_buffer(f"anchors_{level}")
        per_place = objectness.shape[1]
        logits = objectness.permute(0, 2, 3, 1).flatten(1)
        height, width = deltas.shape[2:]
        codes = deltas.reshape(-1, per_place, 4, height, width).permute(0, 3, 4, 1, 2).flatten(1, 3)
        count = min(self.before, anchors.shape[0])
        best, places = logits.topk(count)
        boxes = _decode(self.coder, _take(codes, places), anchors[places])
        missing = self.before - count
        # A logit whose probability is 0; its box has no size and is left out.
        return F.pad(boxes, (0, 0, 0, missing)), F.pad(best, (0, missing), value=-100.0)


class _Boxes(nn.Module):
    """The second stage: classes and refined boxes of the proposals, suppressed per class."""

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.head, self.predictor, self.coder = heads.box_head, heads.box_predictor, heads.box_coder
        self.score_threshold, self.nms_threshold = float(heads.score_thresh), float(heads.nms_thresh)
        self.detections = int(heads.detections_per_img)

    def forward(
        self, pooled: torch.Tensor, proposals: torch.Tensor, present: torch.Tensor, limits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pooled (N, C, R, 7, 7) of proposals (N, R, 4) to boxes, scores, labels and the count."""
        logits, codes = self.predictor(self.head(pooled.transpose(1, 2).flatten(0, 1)))
        per_box = present.shape[1]
        logits, codes = (values.reshape(-1, per_box, values.shape[1]) for values in (logits, codes))
        scores = torch.softmax(logits, dim=-1)[..., 1:] * present[..., None]
        classes = scores.shape[-1]
        best, places = scores.flatten(1).topk(min(CANDIDATES, per_box * classes))
        rows, labels = places // classes, places % classes + 1
        # Every proposal has a code per class, the background included.
        own_code = _take(codes.reshape(codes.shape[0], -1, 4), rows * (classes + 1) + labels)
        boxes = _clip(_decode(self.coder, own_code, _take(proposals, rows)), limits[:, None])
        alive = (best > self.score_threshold) & ((boxes[..., 2:] - boxes[..., :2]) >= 1e-2).all(dim=-1)
        kept = fixed_nms(_apart(boxes, labels, alive), alive.to(boxes.dtype), self.nms_threshold)
        best, order = torch.where(kept > 0, best, _ABSENT).topk(min(self.detections, best.shape[1]))
        count = kept.sum(dim=1, keepdim=True).to(torch.int32)
        return _take(boxes, order), best.clamp(min=0), labels.gather(1, order).to(torch.int32), count


class _Masks(nn.Module):
    """The mask head, with the last layer applied for the class of each detection only.

    The transposed convolution makes 4 pixels of each place: a convolution with 4 times the channels, whose
    pixels are put beside one another only when a single channel is left.
    """

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.head = heads.mask_head
        upscale = heads.mask_predictor.conv5_mask
        channels = upscale.weight.shape[1]
        self.register_buffer(
            "up_weight", upscale.weight.detach().permute(2, 3, 1, 0).reshape(4 * channels, -1, 1, 1)
        )
        self.register_buffer("up_bias", upscale.bias.detach().repeat(4))
        last = heads.mask_predictor.mask_fcn_logits
        self.register_buffer("weight", last.weight.detach().flatten(1))
        self.register_buffer("bias", last.bias.detach())

    def forward(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Pooled (N, C, D, 14, 14) and labels (N, D) to logits (N, D, 28, 28)."""
        features = self.head(pooled.transpose(1, 2).flatten(0, 1))
        height, width = features.shape[2:]
        four = F.relu(F.conv2d(features, self.get_buffer("up_weight"), self.get_buffer("up_bias")))
        chosen = labels.flatten().to(torch.int64)
        weight, bias = self.get_buffer("weight")[chosen], self.get_buffer("bias")[chosen]
        pixels = weight[:, None, None] @ four.reshape(-1, 4, weight.shape[1], height * width)
        logits = (
            pixels.reshape(-1, 2, 2, height, width).permute(0, 3, 1, 4, 2) + bias[:, None, None, None, None]
        )
        return logits.reshape(-1, labels.shape[1], 2 * height, 2 * width)


def feature_sizes(model: Any, size_hw: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """(height, width) of every feature map that the backbone makes of images of a size."""
    height, width = padded_hw(size_hw, int(model.transform.size_divisible))
    with torch.inference_mode():
        features = model.backbone(torch.zeros(1, 3, height, width))
    return {name: (feature.shape[2], feature.shape[3]) for name, feature in features.items()}


def canvas_anchors(
    model: Any, size_hw: tuple[int, int], sizes_hw: dict[str, tuple[int, int]]
) -> list[torch.Tensor]:
    """torchvision's anchors of each level, (A, 4) float32, for images of a size."""
    from torchvision.models.detection.image_list import ImageList

    canvas = torch.zeros(1, 3, *padded_hw(size_hw, int(model.transform.size_divisible)))
    maps = [torch.zeros(1, 1, *level_hw) for level_hw in sizes_hw.values()]
    (anchors,) = model.rpn.anchor_generator(ImageList(canvas, [tuple(canvas.shape[2:])]), maps)
    counts = [
        height * width * per_place
        for (height, width), per_place in zip(
            sizes_hw.values(), model.rpn.anchor_generator.num_anchors_per_location(), strict=True
        )
    ]
    return list(anchors.split(counts))


def padded_hw(size_hw: tuple[int, int], divisor: int = 32) -> tuple[int, int]:
    """The size that images are padded to: torchvision's next multiple of 32."""
    height, width = (math.ceil(side / divisor) * divisor for side in size_hw)
    return height, width


def _take(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(N, M, 4) at (N, K) places of axis 1: (N, K, 4)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def _decode(coder: Any, codes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """torchvision's `BoxCoder.decode_single` for (..., 4) codes and boxes."""
    weights = torch.tensor(coder.weights)
    sides = boxes[..., 2:] - boxes[..., :2]
    centers = boxes[..., :2] + 0.5 * sides
    moves = codes[..., :2] / weights[:2] * sides + centers
    growths = torch.exp((codes[..., 2:] / weights[2:]).clamp(max=coder.bbox_xform_clip)) * sides
    return torch.cat((moves - 0.5 * growths, moves + 0.5 * growths), dim=-1)


def _clip(boxes: torch.Tensor, limits_xy: torch.Tensor) -> torch.Tensor:
    """(..., 4) boxes into (..., 2) valid (width, height)."""
    corners = torch.cat((limits_xy, limits_xy), dim=-1)
    return torch.minimum(boxes.clamp(min=0), corners)


def _apart(boxes: torch.Tensor, labels: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """Move boxes (N, K, 4) of different labels so far apart that they never overlap.

    As torchvision's `batched_nms` does up to 1000 boxes, and with its rounding.
    """
    reached = (boxes * alive[..., None].to(boxes.dtype)).flatten(1).max(dim=1).values + 1.0
    return boxes + (labels.to(boxes.dtype) * reached[:, None])[..., None]
