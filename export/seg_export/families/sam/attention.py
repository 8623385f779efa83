"""Attention in SAM's mask decoder, arranged for few tokens and an image of thousands of places.

The modules take segment_anything's `Attention` and give what it gives. A projection of the image is
never made: it is applied to the tokens on the other side of the product, where it is cheaper.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from seg_export.families.sam.prompts import merge_heads, split_axis, split_heads

__all__ = [
    "ImageToTokens",
    "SelfAttention",
    "TokensToImage",
    "head_weight",
    "outward_values",
    "project",
    "score_scale",
    "softmax_over_tokens",
    "times_image",
]


class SelfAttention(nn.Module):
    """Attention among the tokens of a prompt."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, queries: torch.Tensor, values: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        query, key = project(self.attention, queries, "q"), project(self.attention, queries, "k")
        scores = query @ key.transpose(-2, -1) * score_scale(self.attention) + key_mask
        attended = torch.softmax(scores, dim=-1) @ project(self.attention, values, "v")
        result: torch.Tensor = self.attention.out_proj(merge_heads(attended))
        return result


class TokensToImage(nn.Module):
    """Tokens attend to the image; the key and value projections are applied on the tokens' side.

    The bias of the keys adds the same to all scores of a token, which a softmax does not see.
    """

    place: torch.Tensor
    key_weight: torch.Tensor
    value_weight: torch.Tensor

    def __init__(self, attention: Any, encoding: torch.Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.register_buffer("key_weight", head_weight(attention.k_proj, attention.num_heads))
        self.register_buffer("value_weight", head_weight(attention.v_proj, attention.num_heads))
        self.register_buffer("place", self.key_weight @ encoding.transpose(1, 2))

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Queries (N, T, C) with their positions and keys (N, L, C) without theirs to (N, T, C)."""
        query = project(self.attention, queries, "q") * score_scale(self.attention)
        scores = times_image(query @ self.key_weight, keys.transpose(1, 2)) + query @ self.place
        weights = torch.softmax(scores, dim=-1)
        share = split_axis(weights.flatten(1, 2) @ keys, 1, weights.shape[1:3])
        attended = merge_heads(share @ self.value_weight.transpose(-2, -1)) + self.attention.v_proj.bias
        result: torch.Tensor = self.attention.out_proj(attended)
        return result


class ImageToTokens(nn.Module):
    """The image attends to the tokens; its query and output projections are applied on their side."""

    place: torch.Tensor
    query_weight: torch.Tensor

    def __init__(self, attention: Any, encoding: torch.Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.register_buffer("query_weight", head_weight(attention.q_proj, attention.num_heads))
        bias = split_axis(attention.q_proj.bias.detach(), 0, (attention.num_heads, -1))[..., None]
        self.register_buffer("place", self.query_weight @ encoding.transpose(1, 2) + bias)

    def forward(
        self, queries: torch.Tensor, tokens: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor
    ) -> torch.Tensor:
        """Queries and tokens (N, T, C), keys (N, L, C): what is added to the keys."""
        key = project(self.attention, queries + tokens, "k") * score_scale(self.attention)
        scores = times_image(key @ self.query_weight, keys.transpose(1, 2)) + key @ self.place
        weights = softmax_over_tokens(scores, key_mask).flatten(1, 2)
        values = outward_values(self.attention, queries)
        result: torch.Tensor = weights.transpose(1, 2) @ values + self.attention.out_proj.bias
        return result


def project(attention: Any, values: torch.Tensor, which: str) -> torch.Tensor:
    """(N, T, C) through the "q", "k" or "v" projection to (N, heads, T, C / heads)."""
    projection = {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj}[which]
    return split_heads(projection(values), attention.num_heads)


def score_scale(attention: Any) -> float:
    return float((attention.internal_dim // attention.num_heads) ** -0.5)


def head_weight(projection: Any, heads: int) -> torch.Tensor:
    """A projection's weight as (heads, C / heads, C in)."""
    weight: torch.Tensor = split_axis(projection.weight.detach(), 0, (heads, -1))
    return weight


def times_image(left: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """(N, heads, T, D) @ (N, D, L), as one product per prompt: (N, heads, T, L)."""
    return split_axis(left.flatten(1, 2) @ image, 1, left.shape[1:3])


def softmax_over_tokens(scores: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
    """Softmax over axis 2 of (N, heads, T, L).

    Written out: runtimes transpose for a softmax over any axis but the last, and over so short an
    axis that costs several times as much.
    """
    scores = scores + key_mask.transpose(2, 3)
    weights = torch.exp(scores - scores.amax(dim=2, keepdim=True))
    return weights / weights.sum(dim=2, keepdim=True)


def outward_values(attention: Any, queries: torch.Tensor) -> torch.Tensor:
    """Values already through the output projection of their head: (N, heads * T, C)."""
    value = project(attention, queries, "v")
    weight = split_axis(attention.out_proj.weight.detach().T, 0, (attention.num_heads, -1))
    return (value @ weight).flatten(1, 2)
