"""SAM's prompt encoder and mask decoder in the form that exports to a small and fast graph.

The weights are segment_anything's; the arithmetic is rearranged without changing the result:

- what is the same for all prompts of an image (queries, keys and values that the first block takes
  from the image) is computed once, not once per prompt. A mask prompt keeps that true: it enters
  the embedding linearly, through so few channels that its share is added to the scores instead;
- a prompt has few tokens and an image has thousands, so the projections of the later blocks are
  applied to the tokens, where it is cheaper, and never to the image;
- points that only fill up a batch are masked out wherever tokens are attended to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.families.sam.attention import (
    ImageToTokens,
    SelfAttention,
    TokensToImage,
    head_weight,
    outward_values,
    project,
    score_scale,
    softmax_over_tokens,
    times_image,
)
from seg_export.families.sam.prompts import MaskPrompts, PointPrompts, merge_heads, split_axis
from seg_export.tracing.gelu import gelu

__all__ = ["FirstBlock", "LaterBlock", "MaskHeads", "SamDecoderGraph"]


class SamDecoderGraph(nn.Module):
    """Prompt encoder and mask decoder of a `segment_anything.modeling.Sam`.

    Args:
        sam: its weights are shared, not copied.
    """

    def __init__(self, sam: Any) -> None:
        super().__init__()
        decoder, transformer = sam.mask_decoder, sam.mask_decoder.transformer
        encoding = sam.prompt_encoder.get_dense_pe().detach().flatten(2).transpose(1, 2)
        own_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        self.points = PointPrompts(sam.prompt_encoder, own_tokens)
        self.masks = MaskPrompts(sam.prompt_encoder)
        self.first = FirstBlock(transformer.layers[0], encoding, self.masks.direction)
        self.later = nn.ModuleList(LaterBlock(layer, encoding) for layer in transformer.layers[1:])
        self.final = TokensToImage(transformer.final_attn_token_to_image, encoding)
        self.final_norm = transformer.norm_final_attn
        self.heads = MaskHeads(decoder)
        self.quality = decoder.iou_prediction_head

    def forward(
        self,
        image_embeddings: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask_input: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the masks of N prompts on one image.

        Args:
            image_embeddings: (1, 256, H, W) float32, the encoder's.
            point_coords: (N, P, 2) float32, (x, y) in pixels of the encoder's input frame.
            point_labels: (N, P) int32: 1 foreground, 0 background, 2 and 3 the corners of a box, -1
                SAM's own "not a point", -10 for points that only fill up the row.
            mask_input: (M, 1, 4H, 4W) float32 logits of an earlier answer; M is N, or 1 for a mask
                that all prompts share (zeros, where there is none).
            has_mask_input: (N,) float32, 1 where the mask counts and 0 where it does not.

        Returns:
            Logits of the masks (N, 4, 4H, 4W) and their predicted quality (N, 4), both float32.
        """
        tokens, key_mask = self.points(point_coords, point_labels)
        mask = self.masks(mask_input, has_mask_input)
        image = image_embeddings.flatten(2).transpose(1, 2) + self.masks.no_mask
        queries, keys = self.first(tokens, key_mask, image, mask)
        for block in self.later:
            queries, keys = block(queries, keys, tokens, key_mask)
        queries = self.final_norm(queries + self.final(queries + tokens, keys))
        tokens = queries[:, 1 : 1 + self.heads.masks]
        masks = self.heads(tokens, keys, image_embeddings.shape[-2:])
        return masks, self.quality(queries[:, 0])


class FirstBlock(nn.Module):
    """The first transformer block: what it takes from the image is the same for all prompts.

    Args:
        layer: segment_anything's `TwoWayAttentionBlock`.
        encoding: (1, L, C), the positions of the image's L places.
        direction: (C, D), how a mask prompt's D channels enter the embedding.
    """

    encoding: torch.Tensor
    direction: torch.Tensor

    def __init__(self, layer: Any, encoding: torch.Tensor, direction: torch.Tensor) -> None:
        super().__init__()
        self.self_attention = SelfAttention(layer.self_attn)
        self.layer = layer
        self.register_buffer("encoding", encoding)
        self.register_buffer("direction", direction)
        to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        for name, projection, heads in (
            ("key_direction", to_image.k_proj, to_image.num_heads),
            ("value_direction", to_image.v_proj, to_image.num_heads),
            ("query_direction", to_tokens.q_proj, to_tokens.num_heads),
        ):
            self.register_buffer(name, head_weight(projection, heads) @ direction)

    def forward(
        self, tokens: torch.Tensor, key_mask: torch.Tensor, image: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (N, T, C), image (1, L, C) and mask (N, D, L) to queries (N, T, C) and keys (N, L, C)."""
        layer = self.layer
        placed = image + self.encoding
        queries = layer.norm1(self.self_attention(tokens, tokens, key_mask))
        queries = layer.norm2(queries + self._to_image(queries + tokens, placed, image, mask))
        queries = layer.norm3(queries + layer.mlp(queries))
        keys = layer.norm4(self._to_tokens(queries, tokens, key_mask, placed, image, mask))
        return queries, keys

    def _to_image(
        self, queries: torch.Tensor, placed: torch.Tensor, image: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        attention = self.layer.cross_attn_token_to_image
        query = project(attention, queries, "q") * score_scale(attention)
        key, value = project(attention, placed, "k"), project(attention, image, "v")
        scores = query @ key.transpose(-2, -1)
        scores = scores + times_image(query @ self.get_buffer("key_direction"), mask)
        weights = torch.softmax(scores, dim=-1)
        share = split_axis(weights.flatten(1, 2) @ mask.transpose(1, 2), 1, weights.shape[1:3])
        attended = weights @ value + share @ self.get_buffer("value_direction").transpose(-2, -1)
        result: torch.Tensor = attention.out_proj(merge_heads(attended))
        return result

    def _to_tokens(
        self,
        queries: torch.Tensor,
        tokens: torch.Tensor,
        key_mask: torch.Tensor,
        placed: torch.Tensor,
        image: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        attention = self.layer.cross_attn_image_to_token
        key = project(attention, queries + tokens, "k") * score_scale(attention)
        scores = key @ project(attention, placed, "q").transpose(-2, -1)
        scores = scores + times_image(key @ self.get_buffer("query_direction"), mask)
        weights = softmax_over_tokens(scores, key_mask).flatten(1, 2)
        values = outward_values(attention, queries)
        directions = self.direction.T.expand(values.shape[0], -1, -1)
        update = torch.cat((weights, mask), dim=1).transpose(1, 2) @ torch.cat((values, directions), dim=1)
        result: torch.Tensor = update + (image + attention.out_proj.bias)
        return result


class LaterBlock(nn.Module):
    """A transformer block whose keys already differ from prompt to prompt."""

    def __init__(self, layer: Any, encoding: torch.Tensor) -> None:
        super().__init__()
        self.self_attention = SelfAttention(layer.self_attn)
        self.to_image = TokensToImage(layer.cross_attn_token_to_image, encoding)
        self.to_tokens = ImageToTokens(layer.cross_attn_image_to_token, encoding)
        self.layer = layer

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, tokens: torch.Tensor, key_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and tokens (N, T, C), keys (N, L, C): the updated queries and keys."""
        layer = self.layer
        queries = layer.norm1(queries + self.self_attention(queries + tokens, queries, key_mask))
        queries = layer.norm2(queries + self.to_image(queries + tokens, keys))
        queries = layer.norm3(queries + layer.mlp(queries))
        keys = layer.norm4(keys + self.to_tokens(queries, tokens, keys, key_mask))
        return queries, keys


class MaskHeads(nn.Module):
    """Masks from their tokens and the image; channels stay last until the very end.

    Args:
        decoder: a `MaskDecoder` of segment_anything or sam2.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.masks = decoder.num_mask_tokens
        first, self.norm, _, second, _ = decoder.output_upscaling
        self.register_buffer("first_weight", _upscaling_weight(first))
        self.register_buffer("first_bias", first.bias.detach().repeat(4))
        self.register_buffer("second_weight", _upscaling_weight(second))
        self.register_buffer("second_bias", second.bias.detach().repeat(4))
        self.channels = (first.out_channels, second.out_channels)
        networks = decoder.output_hypernetworks_mlps
        self.depth = len(networks[0].layers)
        for index in range(self.depth):
            layers = [network.layers[index] for network in networks]
            weights = torch.stack([layer.weight.detach().T for layer in layers])
            self.register_buffer(f"hyper_weight_{index}", weights)
            self.register_buffer(
                f"hyper_bias_{index}", torch.stack([layer.bias.detach() for layer in layers])[:, None]
            )

    def forward(
        self,
        tokens: torch.Tensor,
        keys: torch.Tensor,
        grid_hw: torch.Size,
        middle: torch.Tensor | None = None,
        finest: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits of masks.

        Args:
            tokens: (N, masks, C).
            keys: (N, H * W, C).
            grid_hw: H and W.
            middle: what sam2 adds after the first upscaling, (1, H * W * 4, C / 4), pixels in its order.
            finest: and after the second, (1, H * W * 16, C / 8).

        Returns:
            (N, masks, 4H, 4W).
        """
        height, width = grid_hw
        fine = keys @ self.get_buffer("first_weight") + self.get_buffer("first_bias")
        fine = split_axis(fine, 2, (4, self.channels[0])).flatten(1, 2)
        fine = fine if middle is None else fine + middle
        fine = gelu(F.layer_norm(fine, (self.channels[0],), self.norm.weight, self.norm.bias, self.norm.eps))
        finer = fine @ self.get_buffer("second_weight") + self.get_buffer("second_bias")
        finer = split_axis(finer, 2, (4, self.channels[1])).flatten(1, 2)
        finer = gelu(finer if finest is None else finer + finest)
        logits = finer @ self._hyper(tokens).transpose(1, 2)
        logits = logits.reshape(-1, height, width, 2, 2, 2, 2, self.masks).permute(0, 7, 1, 3, 5, 2, 4, 6)
        return logits.reshape(-1, self.masks, 4 * height, 4 * width)

    def _hyper(self, tokens: torch.Tensor) -> torch.Tensor:
        """One small network per mask, all at once: (N, masks, C) to (N, masks, channels)."""
        values = tokens.transpose(0, 1)
        for index in range(self.depth):
            values = values @ self.get_buffer(f"hyper_weight_{index}") + self.get_buffer(
                f"hyper_bias_{index}"
            )
            values = F.relu(values) if index < self.depth - 1 else values
        return values.transpose(0, 1)


def _upscaling_weight(convolution: Any) -> torch.Tensor:
    """A 2x2 transposed convolution of stride 2 as (C in, 4 * C out): its 4 pixels row by row."""
    weight: torch.Tensor = convolution.weight.detach().permute(0, 2, 3, 1).flatten(1)
    return weight
