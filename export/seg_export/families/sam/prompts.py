"""SAM's prompts as the mask decoder takes them: points and boxes as tokens, masks as a few channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["PADDING_LABEL", "MaskPrompts", "PointPrompts", "merge_heads", "split_axis", "split_heads"]

PADDING_LABEL = -10
"""Label of points that only fill up a row; SAM's own -1 is a live token and changes the masks."""

MASKED_SCORE = -1e4
"""Added to the scores of padding: its weight is exactly 0, in float16 too."""


class PointPrompts(nn.Module):
    """Tokens of the mask decoder: its own (score and masks), then one per point.

    Args:
        prompt: a `PromptEncoder` of segment_anything or sam2.
        own_tokens: (T, C), the decoder's.
        pads: whether the last of its own is the "not a point" that sam2 adds to every prompt with points.
    """

    gaussian: torch.Tensor
    labels: torch.Tensor
    embeddings: torch.Tensor
    own_tokens: torch.Tensor

    def __init__(self, prompt: Any, own_tokens: torch.Tensor, *, pads: bool = False) -> None:
        super().__init__()
        self.pads = pads
        height, width = prompt.input_image_size
        # (x + 0.5) / width in 0..1, then 2 * 1 - 1 and 2 pi, as in `PositionEmbeddingRandom`.
        self.register_buffer("size_wh", torch.tensor([width, height], dtype=torch.float32))
        self.register_buffer("gaussian", prompt.pe_layer.positional_encoding_gaussian_matrix.clone())
        embeddings = [prompt.not_a_point_embed, *prompt.point_embeddings]
        self.register_buffer("labels", torch.arange(-1, len(embeddings) - 1, dtype=torch.int32))
        self.register_buffer("embeddings", torch.cat([item.weight.detach() for item in embeddings]))
        self.register_buffer("own_tokens", own_tokens.detach()[None])

    def forward(
        self, point_coords: torch.Tensor, point_labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode points.

        Args:
            point_coords: (N, P, 2) float32, (x, y) in pixels of the encoder's input frame.
            point_labels: (N, P) int32.

        Returns:
            Tokens (N, T, C), and what is added to the scores of each when it is attended to,
            (N, 1, 1, T).
        """
        relative = (point_coords + 0.5) / self.get_buffer("size_wh")
        place = 2 * relative - 1
        # Not as a matrix product: angles stay in fp32, and TensorRT for RTX has none in fp32 for Turing.
        angle = 2 * math.pi * (place[..., :1] * self.gaussian[0] + place[..., 1:] * self.gaussian[1])
        position = torch.cat((torch.sin(angle), torch.cos(angle)), dim=-1)
        labels = point_labels[..., None]
        live = (labels == self.labels).to(torch.float32)
        points = position * (labels != -1).to(torch.float32) + live @ self.embeddings
        own = self.own_tokens.expand(points.shape[0], -1, -1)
        padding = (point_labels == PADDING_LABEL).to(torch.float32) * MASKED_SCORE
        if self.pads:
            padding = torch.cat((padding.amax(dim=1, keepdim=True), padding), dim=1)
        key_mask = torch.nn.functional.pad(padding, (self.own_tokens.shape[1] - self.pads, 0))
        return torch.cat((own, points), dim=1), key_mask[:, None, None]


class MaskPrompts(nn.Module):
    """Mask prompts, kept in the few channels from which their last layer makes an embedding.

    The embedding of prompt n is `no_mask + direction @ channels[n]`, and `channels[n]` is 0 where
    there is no mask.

    Args:
        prompt: a `segment_anything.modeling.PromptEncoder`.
    """

    no_mask: torch.Tensor
    direction: torch.Tensor

    def __init__(self, prompt: Any) -> None:
        super().__init__()
        *layers, last = prompt.mask_downscaling
        self.layers = nn.Sequential(*layers)
        no_mask = prompt.no_mask_embed.weight.detach()[0]
        weight, constant = last.weight.detach().flatten(1), last.bias.detach() - no_mask
        self.register_buffer("no_mask", no_mask)
        self.register_buffer("direction", torch.cat((weight, constant[:, None]), dim=1))

    def forward(self, mask_input: torch.Tensor, has_mask_input: torch.Tensor) -> torch.Tensor:
        """Masks (M, 1, 4H, 4W) and (N,) of 0 or 1 to channels (N, D, H * W); M is N or 1."""
        channels = self.layers(mask_input).flatten(2)
        channels = torch.nn.functional.pad(channels, (0, 0, 0, 1), value=1.0)
        # One mask for all prompts, or one for each, decided when the graph runs.
        index = torch.arange(has_mask_input.shape[0]).clamp(max=mask_input.shape[0] - 1)
        return channels.index_select(0, index) * has_mask_input[:, None, None]


def split_axis(values: torch.Tensor, axis: int, lengths: Sequence[int]) -> torch.Tensor:
    """`Tensor.unflatten`, which PyTorch leaves untyped; -1 is the length that is left over."""
    return values.reshape(*values.shape[:axis], *lengths, *values.shape[axis + 1 :])


def split_heads(values: torch.Tensor, heads: int) -> torch.Tensor:
    """(N, T, C) to (N, heads, T, C / heads)."""
    return split_axis(values, 2, (heads, -1)).transpose(1, 2)


def merge_heads(values: torch.Tensor) -> torch.Tensor:
    """(N, heads, T, C / heads) to (N, T, C)."""
    return values.transpose(1, 2).flatten(2)
