"""SAM2's prompt encoder and mask decoder in the form that exports to a small and fast graph.

The transformer is SAM's, see `sam_decoder`. What SAM2 adds: finer levels of the image, a token that tells
whether the object is there, another mask where the single one is not stable, and object pointers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from seg_export.families.sam.attention import TokensToImage
from seg_export.families.sam.decoder import FirstBlock, LaterBlock, MaskHeads
from seg_export.families.sam.prompts import MaskPrompts, PointPrompts

__all__ = ["Sam2DecoderGraph"]


class Sam2DecoderGraph(nn.Module):
    """`SAM2Base._forward_sam_heads` for many prompts on one image.

    Args:
        sam2: a `sam2.modeling.sam2_base.SAM2Base`; its weights are shared, not copied.
    """

    no_memory: torch.Tensor
    no_pointer: torch.Tensor

    def __init__(self, sam2: Any) -> None:
        super().__init__()
        decoder, prompt = sam2.sam_mask_decoder, sam2.sam_prompt_encoder
        transformer = decoder.transformer
        encoding = prompt.get_dense_pe().detach().flatten(2).transpose(1, 2)
        own = (decoder.obj_score_token, decoder.iou_token, decoder.mask_tokens, prompt.not_a_point_embed)
        self.points = PointPrompts(prompt, torch.cat([item.weight for item in own]), pads=True)
        self.masks = MaskPrompts(prompt)
        self.first = FirstBlock(transformer.layers[0], encoding, self.masks.direction)
        self.later = nn.ModuleList(LaterBlock(layer, encoding) for layer in transformer.layers[1:])
        self.final = TokensToImage(transformer.final_attn_token_to_image, encoding)
        self.final_norm = transformer.norm_final_attn
        self.heads = MaskHeads(decoder)
        self.quality, self.presence = decoder.iou_prediction_head, decoder.pred_obj_score_head
        self.pointer = sam2.obj_ptr_proj
        self.delta = float(decoder.dynamic_multimask_stability_delta)
        self.stable = float(decoder.dynamic_multimask_stability_thresh)
        self.register_buffer("no_memory", sam2.no_mem_embed.detach().reshape(1, -1))
        self.register_buffer("no_pointer", sam2.no_obj_ptr.detach()[None])

    def forward(
        self,
        image_embeddings: torch.Tensor,
        high_res_features_0: torch.Tensor,
        high_res_features_1: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask_input: torch.Tensor,
        no_memory: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Predict the masks of N prompts on one image.

        Args:
            image_embeddings: (1, 256, H, W) float32, the encoder's or the memory attention's.
            high_res_features_0: (1, 32, 4H, 4W) float32, the encoder's.
            high_res_features_1: (1, 64, 2H, 2W) float32, the encoder's.
            point_coords: (N, P, 2) float32, (x, y) in pixels of the encoder's input; P is 1 or more.
            point_labels: (N, P) int32: 1 foreground, 0 background, 2 and 3 the corners of a box, -1 sam2's
                "not a point", -10 for points that only fill up the row. Where there is another label than
                -10, sam2's own "not a point" is added.
            mask_input: (M, 1, 4H, 4W) float32 logits; M is N, or 1 for a mask that all prompts share.
            has_mask_input: (N,) float32, 1 where the mask counts and 0 where it does not.
            no_memory: (1,) float32, 1 to add sam2's `no_mem_embed` to the embeddings, as without memories.

        Returns:
            Logits of the masks (N, 4, 4H, 4W), the first after sam2's choice by stability and none of them
            replaced where there is no object; their predicted quality (N, 4); the logit that the object is
            there (N, 1); and object pointers (N, 4, 256), the first always that of the single mask. float32.
        """
        tokens, key_mask = self.points(point_coords, point_labels)
        mask = self.masks(mask_input, has_mask_input)
        constant = self.masks.no_mask + no_memory * self.no_memory
        image = image_embeddings.flatten(2).transpose(1, 2) + constant
        queries, keys = self.first(tokens, key_mask, image, mask)
        for block in self.later:
            queries, keys = block(queries, keys, tokens, key_mask)
        queries = self.final_norm(queries + self.final(queries + tokens, keys))
        mask_tokens = queries[:, 2 : 2 + self.heads.masks]
        middle, finest = _by_pixel(high_res_features_1, 2), _by_pixel(high_res_features_0, 4)
        masks = self.heads(mask_tokens, keys, image_embeddings.shape[-2:], middle, finest)
        presence = self.presence(queries[:, 0])
        pointers = self._pointers(mask_tokens, presence)
        masks, quality = self._choose(masks, self.quality(queries[:, 1]))
        return masks, quality, presence, pointers

    def _pointers(self, mask_tokens: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
        present = (presence > 0).to(torch.float32)[..., None]
        pointers: torch.Tensor = present * self.pointer(mask_tokens) + (1 - present) * self.no_pointer
        return pointers

    def _choose(self, masks: torch.Tensor, quality: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`MaskDecoder._dynamic_multimask_via_stability` on (N, 4, H, W) and (N, 4)."""
        single = masks[:, 0].flatten(1)
        inner = (single > self.delta).to(torch.float32).sum(dim=1)
        outer = (single > -self.delta).to(torch.float32).sum(dim=1)
        ratio = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
        stable = (ratio >= self.stable).to(torch.int64)
        best = 1 + torch.argmax(quality[:, 1:], dim=1)
        chosen = (1 - stable) * best
        count, height, width = quality.shape[1], *masks.shape[2:]
        index = torch.cat((chosen[:, None], torch.arange(1, count).expand(chosen.shape[0], -1)), dim=1)
        index = (index + count * torch.arange(chosen.shape[0])[:, None]).flatten()
        masks = masks.flatten(0, 1).index_select(0, index).reshape(-1, count, height, width)
        return masks, quality.flatten().index_select(0, index).reshape(-1, count)


def _by_pixel(features: torch.Tensor, finer: int) -> torch.Tensor:
    """(1, C, finer * H, finer * W) to (1, H * W * finer * finer, C), in the order of `MaskHeads`.

    That is by place of the grid, then by pixel of each upscaling by two.
    """
    _, channels, height, width = features.shape
    levels = {2: 1, 4: 2}[finer]
    split = (2,) * levels
    # Channels go last first: runtimes then move whole pixels.
    places = features.flatten(2).transpose(1, 2)
    places = places.reshape(height // finer, *split, width // finer, *split, channels)
    rows, columns = range(1, 1 + levels), range(2 + levels, 2 + 2 * levels)
    pixels = [axis for pair in zip(rows, columns, strict=True) for axis in pair]
    return places.permute(0, 1 + levels, *pixels, 2 + 2 * levels).reshape(1, -1, channels)
