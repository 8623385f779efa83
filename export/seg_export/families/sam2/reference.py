"""sam2's own modules behind the inputs of our graphs: what the graphs are verified against."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.families.sam.prompts import PADDING_LABEL
from seg_export.families.sam2.encoder import PIXEL_MEAN, PIXEL_STD

__all__ = [
    "DecoderReference",
    "EncoderReference",
    "MaskPromptReference",
    "MemoryAttentionReference",
    "MemoryEncoderReference",
]


class _Reference(nn.Module):
    """Args:
    sam2: a `sam2.modeling.sam2_base.SAM2Base`.
    """

    def __init__(self, sam2: Any) -> None:
        super().__init__()
        self.sam2 = sam2


class EncoderReference(_Reference):
    """`SAM2Base.forward_image` on an image as `SAM2Transforms` normalises it."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Input and result as those of `Sam2EncoderGraph`."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
        normalised = (image.permute(0, 3, 1, 2).to(torch.float32) / 255 - mean) / std
        fine, middle, embedding = self.sam2.forward_image(normalised)["backbone_fpn"]
        return embedding, fine, middle


class DecoderReference(_Reference):
    """What `SAM2Base._forward_sam_heads` calls, once per prompt, before it replaces masks without object."""

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
    ) -> tuple[torch.Tensor, ...]:
        """Inputs and result as those of `Sam2DecoderGraph`."""
        image = image_embeddings + no_memory * self.sam2.no_mem_embed.reshape(1, -1, 1, 1)
        levels = [high_res_features_0, high_res_features_1]
        results = []
        for index, (coords, labels) in enumerate(zip(point_coords, point_labels, strict=True)):
            mask = mask_input[index % len(mask_input)][None] if has_mask_input[index] else None
            live = labels != PADDING_LABEL
            points = (coords[live][None], labels[live][None]) if live.any() else None
            results.append(self._answer(image, levels, points, mask))
        return tuple(torch.cat(parts) for parts in zip(*results, strict=True))

    def _answer(
        self,
        image: torch.Tensor,
        levels: list[torch.Tensor],
        points: tuple[torch.Tensor, torch.Tensor] | None,
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        prompt, decoder = self.sam2.sam_prompt_encoder, self.sam2.sam_mask_decoder
        sparse, dense = prompt(points=points, boxes=None, masks=mask)
        masks, quality, tokens, presence = decoder.predict_masks(
            image, prompt.get_dense_pe(), sparse, dense, repeat_image=False, high_res_features=levels
        )
        single, single_quality = decoder._dynamic_multimask_via_stability(masks, quality)
        masks = torch.cat((single, masks[:, 1:]), dim=1)
        quality = torch.cat((single_quality, quality[:, 1:]), dim=1)
        present = (presence > 0).float()[..., None]
        pointers = present * self.sam2.obj_ptr_proj(tokens) + (1 - present) * self.sam2.no_obj_ptr
        return masks, quality, presence, pointers


class MaskPromptReference(_Reference):
    """The parts of `SAM2Base._use_mask_as_output` that look at the mask alone."""

    def forward(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Input and result as those of `Sam2MaskPromptGraph`."""
        pixels = mask[:, None].float()
        side = mask.shape[-1] // 4
        logits = F.interpolate(
            pixels * 20.0 - 10.0, size=(side, side), align_corners=False, mode="bilinear", antialias=True
        )
        return self.sam2.mask_downsample(pixels), logits, self.sam2.no_obj_ptr.detach()


class MemoryAttentionReference(_Reference):
    """The end of `SAM2Base._prepare_memory_conditioned_features`: tokens, positions, attention."""

    def forward(
        self,
        image_embeddings: torch.Tensor,
        memories: torch.Tensor,
        memory_slots: torch.Tensor,
        object_pointers: torch.Tensor,
        pointer_distances: torch.Tensor,
        pointer_range: torch.Tensor,
    ) -> torch.Tensor:
        """Inputs and result as those of `Sam2MemoryAttentionGraph`."""
        sam2 = self.sam2
        tokens, positions = [_tokens(memory[None]) for memory in memories], []
        for memory, slot in zip(memories, memory_slots, strict=True):
            placed = _tokens(sam2.memory_encoder.position_encoding(memory[None]))
            positions.append(placed + sam2.maskmem_tpos_enc[slot])
        parts = sam2.hidden_dim // sam2.mem_dim
        tokens.append(object_pointers.reshape(-1, 1, sam2.mem_dim))
        positions.append(self._times(pointer_distances / pointer_range).repeat_interleave(parts, dim=0))
        attended = sam2.memory_attention(
            curr=[_tokens(image_embeddings)],
            curr_pos=[_tokens(sam2.image_encoder.neck.position_encoding(image_embeddings))],
            memory=torch.cat(tokens),
            memory_pos=torch.cat(positions),
            num_obj_ptr_tokens=parts * len(object_pointers),
        )
        result: torch.Tensor = attended.permute(1, 2, 0).reshape(image_embeddings.shape)
        return result

    def _times(self, distances: torch.Tensor) -> torch.Tensor:
        from sam2.modeling.sam2_utils import get_1d_sine_pe

        if not self.sam2.add_tpos_enc_to_obj_ptrs:
            return torch.zeros(len(distances), 1, self.sam2.mem_dim)
        encoded = get_1d_sine_pe(distances, dim=self.sam2.hidden_dim)
        times: torch.Tensor = self.sam2.obj_ptr_tpos_proj(encoded)[:, None]
        return times


class MemoryEncoderReference(_Reference):
    """`SAM2Base._encode_new_memory`, stored as sam2's video predictor does."""

    def forward(
        self,
        image_embeddings: torch.Tensor,
        low_res_masks: torch.Tensor,
        from_prompt: torch.Tensor,
        object_score_logits: torch.Tensor,
    ) -> torch.Tensor:
        """Inputs and result as those of `Sam2MemoryEncoderGraph`."""
        size = (self.sam2.image_size, self.sam2.image_size)
        logits = F.interpolate(low_res_masks, size=size, mode="bilinear", align_corners=False)
        memory, _ = self.sam2._encode_new_memory(
            [_tokens(image_embeddings)],
            [tuple(image_embeddings.shape[-2:])],
            logits,
            object_score_logits,
            bool(from_prompt),
        )
        rounded: torch.Tensor = memory.to(torch.bfloat16).float()
        return rounded


def _tokens(values: torch.Tensor) -> torch.Tensor:
    """(1, C, H, W) to sam2's (H * W, 1, C)."""
    return values.flatten(2).permute(2, 0, 1)
