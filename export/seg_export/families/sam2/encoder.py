"""SAM2's image encoder (Hiera and its feature pyramid) in the form that exports to a small and fast graph.

The weights are sam2's; the arithmetic is rearranged without changing the result:

- the two finer levels pass through two 1x1 convolutions in a row, which become one with an eighth and a
  quarter of the channels between them;
- queries are pooled before they are cut into windows, and tokens that only fill up the last windows skip
  the projections;
- global attention runs over slices of queries, so that no matrix of scores of all tokens exists.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.tracing.gelu import gelu

__all__ = ["PIXEL_MEAN", "PIXEL_STD", "QUERY_SLICE", "Sam2EncoderGraph"]

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
"""Per channel (R, G, B), of pixels in 0..1, as in sam2's `SAM2Transforms`."""

QUERY_SLICE = 256
"""Queries that attend to all tokens at a time; their scores are the largest tensor of the graph."""


class Sam2EncoderGraph(nn.Module):
    """Normalisation and `SAM2Base.forward_image`.

    Args:
        sam2: a `sam2.modeling.sam2_base.SAM2Base`; its weights are shared, not copied.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    positions: torch.Tensor

    def __init__(self, sam2: Any) -> None:
        super().__init__()
        trunk = sam2.image_encoder.trunk
        side = sam2.image_size // 4
        # Of pixels in 0..255.
        self.register_buffer("mean", 255 * torch.tensor(PIXEL_MEAN)[:, None, None])
        self.register_buffer("scale", 1 / (255 * torch.tensor(PIXEL_STD)[:, None, None]))
        self.patch_embed = trunk.patch_embed.proj
        with torch.no_grad():
            self.register_buffer("positions", trunk._get_pos_embed((side, side)).contiguous())
        self.blocks = nn.ModuleList()
        for block in trunk.blocks:
            self.blocks.append(_Block(block, side))
            side = side // 2 if block.q_stride else side
        self.stage_ends = tuple(trunk.stage_ends)
        self.levels = _Levels(sam2)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode one image of side S.

        Args:
            image: (1, S, S, 3) uint8 RGB.

        Returns:
            The embedding (1, 256, S / 16, S / 16) without sam2's `no_mem_embed`, and the finer levels for the
            mask decoder (1, 32, S / 4, S / 4) and (1, 64, S / 8, S / 8), all float32.
        """
        # TensorRT transposes no uint8.
        pixels = image.to(torch.float32).permute(0, 3, 1, 2)
        tokens = self.patch_embed((pixels - self.mean) * self.scale).permute(0, 2, 3, 1) + self.positions
        stages = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.stage_ends:
                stages.append(tokens)
        result: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self.levels(*stages)
        return result


class _Block(nn.Module):
    """A transformer block over (1, H, W, C) tokens; the first of a stage halves H and W."""

    def __init__(self, block: Any, side: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.wide, self.narrow = block.mlp.layers
        self.widen = getattr(block, "proj", None)
        self.pooled = bool(block.q_stride)
        self.attention = _Attention(block.attn, side, block.window_size, self.pooled)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(tokens)
        shortcut = tokens if self.widen is None else self.widen(normed)
        shortcut = _pool(shortcut) if self.pooled and self.widen is not None else shortcut
        tokens = shortcut + self.attention(normed)
        result: torch.Tensor = tokens + self.narrow(gelu(self.wide(self.norm2(tokens))))
        return result


class _Attention(nn.Module):
    """Self-attention inside windows; global when they are the whole grid."""

    def __init__(self, attention: Any, side: int, window_size: int, pooled: bool) -> None:
        super().__init__()
        self.heads, self.grid, self.pooled = attention.num_heads, side, pooled
        self.side = window_size or side
        self.windows = -(-side // self.side)
        self.proj = attention.proj
        # A positive scale passes through the pooling of queries.
        scale = (attention.dim_out // attention.num_heads) ** -0.5
        weights, biases = attention.qkv.weight.detach().chunk(3), attention.qkv.bias.detach().chunk(3)
        for name, weight, bias, factor in zip(
            ("query", "key", "value"), weights, biases, (scale, 1, 1), strict=True
        ):
            self.register_buffer(f"{name}_weight", factor * weight)
            self.register_buffer(f"{name}_bias", factor * bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        query = self._project(tokens, "query", fills=False)
        query = _pool(query) if self.pooled else query
        side, grid = (self.side // 2, self.grid // 2) if self.pooled else (self.side, self.grid)
        windows = [self._cut(query, side)]
        windows += [self._cut(self._project(tokens, name), self.side) for name in ("key", "value")]
        attended = self._attend(*windows)
        shape = (1, self.windows, self.windows, self.heads, side, side, -1)
        joined = attended.reshape(shape).permute(0, 1, 4, 2, 5, 3, 6)
        padded = self.windows * side
        joined = joined.reshape(1, padded, padded, -1)
        joined = joined[:, :grid, :grid] if padded > grid else joined
        result: torch.Tensor = self.proj(joined)
        return result

    def _project(self, tokens: torch.Tensor, name: str, fills: bool = True) -> torch.Tensor:
        """(1, H, W, C in) to (1, H, W, C); keys and values of what fills the last windows are the bias."""
        weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
        fill = self.windows * self.side - self.grid
        if not (fill and fills):
            return F.linear(tokens, weight, bias)
        return F.pad(F.linear(tokens, weight), (0, 0, 0, fill, 0, fill)) + bias

    def _cut(self, values: torch.Tensor, side: int) -> torch.Tensor:
        """(1, H, W, C) to (windows, heads, side * side, C / heads)."""
        fill = self.windows * side - values.shape[1]
        if fill:
            # Only queries: what they give in the fill is cut off again.
            values = F.pad(values, (0, 0, 0, fill, 0, fill))
        shape = (self.windows, side, self.windows, side, self.heads, -1)
        cut = values.reshape(shape).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(self.windows**2, self.heads, side**2, -1)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        key = key.transpose(-2, -1)
        if self.windows > 1:
            return torch.softmax(query @ key, dim=-1) @ value
        slices = torch.split(query, QUERY_SLICE, dim=-2)
        return torch.cat([torch.softmax(part @ key, dim=-1) @ value for part in slices], dim=-2)


class _Levels(nn.Module):
    """The feature pyramid down to stride 16, and the decoder's 1x1 convolutions of the finer levels."""

    def __init__(self, sam2: Any) -> None:
        super().__init__()
        coarsest, coarse, middle, fine = (item.conv for item in sam2.image_encoder.neck.convs)
        decoder = sam2.sam_mask_decoder
        for name, layers in (
            ("coarsest", (coarsest,)),
            ("coarse", (coarse,)),
            ("middle", (middle, decoder.conv_s1)),
            ("fine", (fine, decoder.conv_s0)),
        ):
            weight, bias = _in_one(*layers)
            self.register_buffer(f"{name}_weight", weight)
            self.register_buffer(f"{name}_bias", bias)

    def forward(
        self, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor, fourth: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Stages (1, H, W, C), from fine to coarse, to the three levels (1, C, H, W)."""
        above = self._project(fourth, "coarsest")
        _, height, width, channels = above.shape
        # Each place of the coarsest level counts for two by two of the next.
        above = above[:, :, None, :, None].expand(1, height, 2, width, 2, channels)
        embedding = self._project(third, "coarse") + above.reshape(1, 2 * height, 2 * width, channels)
        levels = (embedding, self._project(first, "fine"), self._project(second, "middle"))
        embedding, fine, middle = (level.permute(0, 3, 1, 2) for level in levels)
        return embedding, fine, middle

    def _project(self, stage: torch.Tensor, name: str) -> torch.Tensor:
        return stage @ self.get_buffer(f"{name}_weight") + self.get_buffer(f"{name}_bias")


def _in_one(*layers: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """1x1 convolutions in a row as the weight (C in, C out) and bias of one."""
    weight, bias = torch.eye(layers[0].in_channels, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for layer in layers:
        matrix = layer.weight.detach().double().flatten(1).T
        weight, bias = weight @ matrix, bias @ matrix if len(bias) > 1 else bias
        bias = bias + layer.bias.detach().double()
    return weight.float(), bias.float()


def _pool(tokens: torch.Tensor) -> torch.Tensor:
    """The largest of two by two tokens: (1, H, W, C) to (1, H / 2, W / 2, C)."""
    return F.max_pool2d(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
