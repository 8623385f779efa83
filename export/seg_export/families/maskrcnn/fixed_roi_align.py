"""RoIAlign over a feature pyramid with fixed shapes and no plugin; each box is sampled on its own level only.

The levels are laid into one map, so that one sampling operator serves boxes of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["FixedRoIAlign", "PackedPyramid"]

_OUTSIDE = -3.0
"""A place that `grid_sample` takes for outside of the map, where everything is 0."""


class PackedPyramid(nn.Module):
    """Lays feature maps of falling size into one: the first at the left, the others in a column beside it.

    Args:
        sizes_hw: (height, width) of each level, the largest first.
    """

    def __init__(self, sizes_hw: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.sizes_hw = tuple(sizes_hw)
        column = self.sizes_hw[1:]
        self.column_width = max((width for _, width in column), default=0)
        self.height = max(self.sizes_hw[0][0], sum(height for height, _ in column))
        self.width = self.sizes_hw[0][1] + self.column_width
        rows = [sum(height for height, _ in column[:index]) for index in range(len(column))]
        self.origins_xy = ((0, 0), *((self.sizes_hw[0][1], row) for row in rows))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """(N, C, h, w) per level to (N, C, height, width)."""
        first, *others = features
        left = F.pad(first, (0, 0, 0, self.height - first.shape[2]))
        if not others:
            return left
        widened = [F.pad(feature, (0, self.column_width - feature.shape[3])) for feature in others]
        column = torch.cat(widened, dim=2)
        return torch.cat((left, F.pad(column, (0, 0, 0, self.height - column.shape[2]))), dim=3)


class FixedRoIAlign(nn.Module):
    """torchvision's `MultiScaleRoIAlign` on a packed pyramid; no gradient is needed.

    Args:
        pool: the torchvision module; its sampling ratio must be set.
        pyramid: where the levels lie.
        scales: of each level, for example 1/4.
        aligned: whether boxes are shifted by half a pixel; torchvision's module never does.
    """

    table: torch.Tensor
    steps: torch.Tensor

    def __init__(
        self, pool: Any, pyramid: PackedPyramid, scales: Sequence[float], aligned: bool = False
    ) -> None:
        super().__init__()
        self.size = int(pool.output_size[0])
        self.sampling = int(pool.sampling_ratio)
        self.aligned = aligned
        self.pyramid = pyramid
        rows = [
            (scale, *origin_xy, width, height)
            for scale, origin_xy, (height, width) in zip(
                scales, pyramid.origins_xy, pyramid.sizes_hw, strict=True
            )
        ]
        self.register_buffer("table", torch.tensor(rows, dtype=torch.float32))
        self.limits = _level_limits(pool, scales)
        bins = torch.arange(self.size, dtype=torch.float32).expand(self.sampling, -1)
        inside = (torch.arange(self.sampling)[:, None] + 0.5) / self.sampling
        # Samples of one place in all bins follow one another, so that bins are averaged along one axis.
        self.register_buffer("steps", torch.stack((bins, inside.expand(-1, self.size))).flatten(1))

    def forward(self, packed: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Sample boxes.

        Args:
            packed: (N, C, H, W) float32 from the pyramid.
            boxes: (N, R, 4) float32 x0, y0, x1, y1 in pixels of the images.

        Returns:
            (N, C, R, size, size) float32.
        """
        batch, boxes_per_image, per_bin = boxes.shape[0], boxes.shape[1], self.sampling**2
        sampled = F.grid_sample(
            packed, self._grid(boxes), mode="bilinear", padding_mode="zeros", align_corners=False
        )
        pooled = sampled.reshape(batch, packed.shape[1], per_bin, -1).mean(dim=2)
        return pooled.reshape(batch, -1, boxes_per_image, self.size, self.size)

    def _grid(self, boxes: torch.Tensor) -> torch.Tensor:
        """(N, samples per bin * R * size, size, 2) places (x, y), as `grid_sample` counts them."""
        rows = self._rows(boxes)
        scale, origins, sizes = rows[..., 0:1], rows[..., 1:3], rows[..., 3:5]
        offset = 0.5 if self.aligned else 0.0
        start = boxes[..., :2] * scale - offset
        lengths = boxes[..., 2:] * scale - offset - start
        lengths = (lengths if self.aligned else lengths.clamp(min=1.0)) / self.size
        places = (
            start[..., None, :]
            + self.steps[0, :, None] * lengths[..., None, :]
            + self.steps[1, :, None] * lengths[..., None, :]
        )
        sizes, origins = sizes[..., None, :], origins[..., None, :]
        outside = (places < -1.0) | (places > sizes)
        inside = torch.minimum(places.clamp(min=0.0), sizes - 1.0) + origins
        whole = torch.tensor([self.pyramid.width, self.pyramid.height], dtype=torch.float32)
        places = torch.where(outside, _OUTSIDE, (2.0 * inside + 1.0) / whole - 1.0)
        places = places.reshape(*boxes.shape[:2], self.sampling, self.size, 2).permute(0, 2, 1, 3, 4)
        # (N, samples down, samples across, R, bins down, bins across)
        shape = (-1, self.sampling, self.sampling, boxes.shape[1], self.size, self.size)
        x = places[:, None, :, :, None, :, 0].expand(*shape)
        y = places[:, :, None, :, :, None, 1].expand(*shape)
        return torch.stack((x, y), dim=-1).flatten(1, 4)

    def _rows(self, boxes: torch.Tensor) -> torch.Tensor:
        """(N, R, 5): scale, origin x, y, width, height of each box's level."""
        sides = torch.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
        rows = self.table[0].expand(*boxes.shape[:2], -1)
        for level, limit in enumerate(self.limits, start=1):
            rows = torch.where((sides >= limit)[..., None], self.table[level], rows)
        return rows


def _level_limits(pool: Any, scales: Sequence[float]) -> list[float]:
    """The shortest side (root of the area) of boxes on each level but the first.

    Equation 1 of the Feature Pyramid Network paper, https://arxiv.org/abs/1612.03144, without a logarithm;
    the power of 1e-6 is torchvision's.
    """
    first = -torch.log2(torch.tensor(scales[0])).round().item()
    return [
        pool.canonical_scale * 2.0 ** (first + level - pool.canonical_level - 1e-6)
        for level in range(1, len(scales))
    ]
