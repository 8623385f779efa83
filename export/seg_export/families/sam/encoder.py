"""SAM's image encoder in the form that exports to a small and fast graph.

The weights are segment_anything's; the arithmetic is rearranged without changing the result:

- global attention runs over slices of queries, so that no matrix of scores or of relative positions
  of the size tokens x tokens exists. The positions of a slice are added as a row and a column
  part; folding them into queries and keys needs no addition, but a third more multiplications;
- the tokens that only fill up the last windows skip the projections.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.tracing.gelu import gelu

__all__ = ["SamEncoderGraph"]

QUERY_SLICE = 256
"""Queries that attend to all tokens at a time; their scores are the largest tensor of the graph."""


class SamEncoderGraph(nn.Module):
    """Normalisation, padding and image encoder of a `segment_anything.modeling.Sam`.

    Args:
        sam: its weights are shared, not copied.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        encoder = sam.image_encoder
        self.patch_embed = encoder.patch_embed
        self.pos_embed = encoder.pos_embed
        grid = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
        self.blocks = nn.ModuleList(_Block(block, grid) for block in encoder.blocks)
        self.neck = encoder.neck
        self.register_buffer("pixel_mean", sam.pixel_mean.clone())
        self.register_buffer("pixel_std", sam.pixel_std.clone())

    def forward(self, image: torch.Tensor, valid_hw: torch.Tensor) -> torch.Tensor:
        """Encode images of side S.

        Args:
            image: (N, S, S, 3) uint8 RGB, resized so that its longer side is S, at the top left.
            valid_hw: (N, 2) int32, (height, width) in pixels of the part that is the image; the
                rest counts as SAM's padding, whatever it holds.

        Returns:
            (N, 256, S / 16, S / 16) float32 image embeddings.
        """
        # TensorRT transposes no uint8.
        pixels = image.to(torch.float32).permute(0, 3, 1, 2)
        normalised = (pixels - self.pixel_mean) / self.pixel_std * _valid(image, valid_hw)
        tokens = self.patch_embed(normalised)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self._neck(tokens)

    def _neck(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) to (N, 256, H, W); norms over channels run where channels are last."""
        narrow, first_norm, wide, second_norm = self.neck
        weight = narrow.weight.flatten(1)
        tokens = _channel_norm(F.linear(tokens, weight), first_norm)
        embeddings = wide(tokens.permute(0, 3, 1, 2))
        return _channel_norm(embeddings.permute(0, 2, 3, 1), second_norm).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """A transformer block over (N, H, W, C) tokens, windowed or global."""

    def __init__(self, block: Any, grid: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.attention = _Attention(block.attn, grid, block.window_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        result: torch.Tensor = tokens + self.mlp.lin2(gelu(self.mlp.lin1(self.norm2(tokens))))
        return result


class _Attention(nn.Module):
    """Self-attention inside windows of `side` x `side` tokens; global when they are the whole grid."""

    weight: torch.Tensor
    bias: torch.Tensor
    relative_h: torch.Tensor
    relative_w: torch.Tensor

    def __init__(self, attention: Any, grid: int, window_size: int) -> None:
        super().__init__()
        self.grid, self.heads = grid, attention.num_heads
        self.side = window_size or grid
        self.windows = -(-grid // self.side)
        self.proj = attention.proj
        # The scale goes into the keys, because the queries also meet the relative positions.
        scale = torch.ones(3, 1)
        scale[1] = attention.scale
        weight, bias = attention.qkv.weight.detach(), attention.qkv.bias
        bias = torch.zeros(len(weight)) if bias is None else bias.detach()
        self.register_buffer(
            "weight", (weight.reshape(3, -1, weight.shape[1]) * scale[..., None]).flatten(0, 1)
        )
        self.register_buffer("bias", (bias.reshape(3, -1) * scale).flatten())
        self.relative = attention.use_rel_pos
        if self.relative:
            self.register_buffer("relative_h", _relative(attention.rel_pos_h, self.side))
            self.register_buffer("relative_w", _relative(attention.rel_pos_w, self.side))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, channels = tokens.shape[0], tokens.shape[-1]
        query, key, value = self._project(tokens)
        key = key.transpose(-2, -1)
        slices = torch.split(query, QUERY_SLICE, dim=-2)
        if self.relative:
            positions = (torch.split(part, QUERY_SLICE, dim=-2) for part in self._relative_scores(query))
            scores = (_add(part @ key, *by) for part, *by in zip(slices, *positions, strict=True))
        else:
            scores = (part @ key for part in slices)
        attended = torch.cat([torch.softmax(part, dim=-1) @ value for part in scores], dim=-2)
        shape = (batch, self.windows, self.windows, self.heads, self.side, self.side, -1)
        joined = attended.reshape(shape).permute(0, 1, 4, 2, 5, 3, 6)
        padded = self.windows * self.side
        joined = joined.reshape(batch, padded, padded, channels)[:, : self.grid, : self.grid]
        result: torch.Tensor = self.proj(joined)
        return result

    def _project(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, each (N * windows, heads, side * side, C / heads)."""
        batch = tokens.shape[0]
        fill = self.windows * self.side - self.grid
        projected = tokens @ self.weight.T
        if fill:
            projected = F.pad(projected, (0, 0, 0, fill, 0, fill))
        projected = projected + self.bias
        shape = (batch, self.windows, self.side, self.windows, self.side, 3, self.heads, -1)
        parts = projected.reshape(shape).permute(5, 0, 1, 3, 6, 2, 4, 7)
        parts = parts.reshape(3, batch * self.windows**2, self.heads, self.side**2, -1)
        return parts.unbind(0)

    def _relative_scores(self, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What rows and columns of keys add to each query's scores, each (..., side * side, side)."""
        grid = query.reshape(*query.shape[:2], self.side, self.side, -1)
        by_row = grid @ self.relative_h
        by_column = (grid.transpose(2, 3) @ self.relative_w).transpose(2, 3)
        return by_row.flatten(2, 3), by_column.flatten(2, 3)


def _valid(image: torch.Tensor, valid_hw: torch.Tensor) -> torch.Tensor:
    """(N, 1, S, S) float32: 1 where the image is, 0 in the padding."""
    rows = torch.arange(image.shape[1], dtype=torch.int32)[None] < valid_hw[:, :1]
    columns = torch.arange(image.shape[2], dtype=torch.int32)[None] < valid_hw[:, 1:]
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(torch.float32)


def _channel_norm(values: torch.Tensor, norm: Any) -> torch.Tensor:
    """segment_anything's LayerNorm2d for channels in the last axis."""
    return F.layer_norm(values, values.shape[-1:], norm.weight, norm.bias, norm.eps)


def _relative(positions: torch.Tensor, side: int) -> torch.Tensor:
    """(side, C, side): for each query coordinate, the embeddings of all key coordinates."""
    offsets = torch.arange(side)[:, None] - torch.arange(side)[None, :] + side - 1
    return positions.detach()[offsets].transpose(1, 2).contiguous()


def _add(scores: torch.Tensor, by_row: torch.Tensor, by_column: torch.Tensor) -> torch.Tensor:
    """Add to (..., queries, side * side) what the rows and columns of keys add, (..., queries, side)."""
    grid = scores.reshape(*by_row.shape, by_row.shape[-1])
    return (grid + by_row[..., None] + by_column[..., None, :]).flatten(-2)
