"""SAM2's memory attention in the form that exports to a small and fast graph.

The weights are sam2's; the arithmetic is rearranged without changing the result:

- rotary positions are two matrix products with real tables, one of them with the weights turned by 90
  degrees: no complex numbers, no pairs of channels taken apart;
- a memory has 64 channels and its values 256, and the weights of a softmax add up to 1: the projection of
  the values is applied to what was attended to, a quarter of the multiplications;
- attention runs over slices of queries, so that no matrix of scores of all tokens exists.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["Sam2MemoryAttentionGraph"]

QUERY_SLICE = 256
"""Queries that attend to all memories at a time; their scores are the largest tensor of the graph."""


class Sam2MemoryAttentionGraph(nn.Module):
    """The attention of one frame to memories and object pointers, of one object.

    Args:
        sam2: a `sam2.modeling.sam2_base.SAM2Base`; its weights are shared, not copied.
    """

    frame_positions: torch.Tensor
    memory_positions: torch.Tensor
    slots: torch.Tensor
    frequencies: torch.Tensor

    def __init__(self, sam2: Any) -> None:
        super().__init__()
        grid, attention = sam2.sam_image_embedding_size, sam2.memory_attention
        frame = _sine_positions(sam2.image_encoder.neck.position_encoding, sam2.hidden_dim, grid)
        self.register_buffer("frame_positions", 0.1 * frame)
        memory = _sine_positions(sam2.memory_encoder.position_encoding, sam2.mem_dim, grid)
        self.register_buffer("memory_positions", memory)
        self.register_buffer("slots", sam2.maskmem_tpos_enc.detach().reshape(-1, 1, sam2.mem_dim))
        self.layers = nn.ModuleList(_Layer(layer, grid) for layer in attention.layers)
        self.norm = attention.norm
        self.times = sam2.obj_ptr_tpos_proj if sam2.add_tpos_enc_to_obj_ptrs else None
        self.parts = sam2.hidden_dim // sam2.mem_dim
        half = sam2.hidden_dim // 2
        self.register_buffer("frequencies", 10000.0 ** (-2 * (torch.arange(half) // 2) / half))

    def forward(
        self,
        image_embeddings: torch.Tensor,
        memories: torch.Tensor,
        memory_slots: torch.Tensor,
        object_pointers: torch.Tensor,
        pointer_distances: torch.Tensor,
        pointer_range: torch.Tensor,
    ) -> torch.Tensor:
        """Attend to K memories and Q object pointers.

        Args:
            image_embeddings: (1, 256, H, W) float32, the encoder's for this frame.
            memories: (K, 64, H, W) float32, the memory encoder's.
            memory_slots: (K,) int32, index into sam2's `maskmem_tpos_enc`: 6 for frames with prompts, and
                for the others how many frames away they are, less 1.
            object_pointers: (Q, 256) float32, the decoder's.
            pointer_distances: (Q,) float32, frames between each pointer and this frame, signed as in sam2.
            pointer_range: (1,) float32, what sam2 divides them by: min(frames of the video, 16) - 1.

        Returns:
            (1, 256, H, W) float32 embeddings for the mask decoder.
        """
        channels, height, width = image_embeddings.shape[1:]
        tokens = image_embeddings.flatten(2).transpose(1, 2)[0] + self.frame_positions
        past = memories.flatten(2).transpose(1, 2)
        placed = past + (self.memory_positions + self.slots.index_select(0, memory_slots))
        pointers = object_pointers.reshape(-1, past.shape[-1])
        timed = self._timed(object_pointers, pointer_distances, pointer_range)
        values = torch.cat((past.flatten(0, 1), pointers))
        for layer in self.layers:
            tokens = layer(tokens, placed, timed, values)
        normed: torch.Tensor = self.norm(tokens)
        return normed.T.reshape(1, channels, height, width)

    def _timed(self, pointers: torch.Tensor, distances: torch.Tensor, longest: torch.Tensor) -> torch.Tensor:
        """Pointers as (Q * 4, 64) tokens with their positions in time."""
        parts = pointers.reshape(-1, self.parts, pointers.shape[-1] // self.parts)
        if self.times is None:
            # The first release knows no times; an input that nothing reads is no input to some backends.
            return (parts + 0 * (distances * longest)[:, None, None]).flatten(0, 1)
        angles = (distances / longest)[:, None] * self.frequencies
        times: torch.Tensor = self.times(torch.cat((torch.sin(angles), torch.cos(angles)), dim=-1))
        return (parts + times[:, None]).flatten(0, 1)


class _Layer(nn.Module):
    """Attention of the frame to itself, then to the memories, then a small network."""

    def __init__(self, layer: Any, grid: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.wide, self.narrow = layer.linear1, layer.linear2
        own, cross = layer.self_attn, layer.cross_attn_image
        rope = _rope_tables(own, grid)
        scale = own.internal_dim**-0.5
        self.own_query = _Rotated(own.q_proj, rope, scale)
        self.own_key = _Rotated(own.k_proj, rope)
        self.own_value = own.v_proj
        self.own_out = own.out_proj
        self.query = _Rotated(cross.q_proj, rope, scale)
        self.key = _Rotated(cross.k_proj, rope)
        weight, bias = cross.out_proj.weight.double(), cross.out_proj.bias.double()
        out = nn.Linear(cross.kv_in_dim, cross.embedding_dim)
        out.weight = nn.Parameter((weight @ cross.v_proj.weight.double()).detach().float())
        out.bias = nn.Parameter((weight @ cross.v_proj.bias.double() + bias).detach().float())
        self.out = out

    def forward(
        self, tokens: torch.Tensor, placed: torch.Tensor, timed: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Tokens (L, 256), memories (K, L, 64), pointers (4Q, 64) and both without positions: (L, 256)."""
        normed = self.norm1(tokens)
        own = _attend(self.own_query(normed), self.own_key(normed), self.own_value(normed))
        tokens = tokens + self.own_out(own)
        keys = torch.cat((self.key(placed).flatten(0, 1), self.key.unrotated(timed)))
        tokens = tokens + self.out(_attend(self.query(self.norm2(tokens)), keys, values))
        result: torch.Tensor = tokens + self.narrow(torch.relu(self.wide(self.norm3(tokens))))
        return result


class _Rotated(nn.Module):
    """A projection followed by rotary positions: (..., L, C in) to (..., L, C)."""

    weight: torch.Tensor
    bias: torch.Tensor
    turned_weight: torch.Tensor
    turned_bias: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, projection: Any, rope: tuple[torch.Tensor, torch.Tensor], scale: float = 1.0) -> None:
        super().__init__()
        weight, bias = scale * projection.weight.detach(), scale * projection.bias.detach()
        self.register_buffer("weight", weight.T.contiguous())
        self.register_buffer("bias", bias)
        self.register_buffer("turned_weight", _turned(weight).T.contiguous())
        self.register_buffer("turned_bias", _turned(bias))
        self.register_buffer("cosine", rope[0])
        self.register_buffer("sine", rope[1])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        turned = values @ self.turned_weight + self.turned_bias
        return self.unrotated(values) * self.cosine + turned * self.sine

    def unrotated(self, values: torch.Tensor) -> torch.Tensor:
        return values @ self.weight + self.bias


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Scaled queries (L, C), keys (T, C) and values (T, D) to (L, D)."""
    keys = keys.T
    slices = torch.split(queries, QUERY_SLICE)
    return torch.cat([torch.softmax(part @ keys, dim=-1) @ values for part in slices])


def _turned(weights: torch.Tensor) -> torch.Tensor:
    """Each pair of rows (a, b) as (-b, a): what a complex number becomes when it is multiplied by i."""
    pairs = weights.reshape(-1, 2, *weights.shape[1:])
    return torch.stack((-pairs[:, 1], pairs[:, 0]), dim=1).reshape(weights.shape)


def _rope_tables(attention: Any, grid: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of sam2's rotary positions, (grid * grid, C), the same for both of a pair."""
    from sam2.modeling.position_encoding import compute_axial_cis

    theta = attention.compute_cis.keywords["theta"]
    cis = compute_axial_cis(attention.internal_dim, grid, grid, theta=theta)
    return cis.real.repeat_interleave(2, dim=1), cis.imag.repeat_interleave(2, dim=1)


def _sine_positions(encoding: Any, channels: int, grid: int) -> torch.Tensor:
    """(grid * grid, C) of a `PositionEmbeddingSine`."""
    positions: torch.Tensor = encoding(torch.zeros(1, channels, grid, grid))
    return positions[0].flatten(1).T.contiguous()
