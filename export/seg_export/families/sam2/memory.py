"""SAM2's memory encoder, and its way to take a mask instead of clicks, in the form that exports.

Memories are rounded to bfloat16, as sam2's video predictor stores them, in arithmetic that every backend has.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.tracing.gelu import gelu

__all__ = ["Sam2MaskPromptGraph", "Sam2MemoryEncoderGraph", "round_to_bfloat16"]

LOGIT_SCALE, LOGIT_OFFSET = 20.0, -10.0
"""Of a mask of 0 and 1 that is taken for an answer, in `SAM2Base._use_mask_as_output`."""


class Sam2MemoryEncoderGraph(nn.Module):
    """`SAM2Base._encode_new_memory` on the logits of one object.

    Args:
        sam2: a `sam2.modeling.sam2_base.SAM2Base`; its weights are shared, not copied.
    """

    absent: torch.Tensor

    def __init__(self, sam2: Any) -> None:
        super().__init__()
        encoder = sam2.memory_encoder
        self.side = sam2.image_size
        self.scale, self.offset = sam2.sigmoid_scale_for_mem_enc, sam2.sigmoid_bias_for_mem_enc
        *layers, self.last = encoder.mask_downsampler.encoder
        self.convolutions, self.norms = nn.ModuleList(layers[0::3]), nn.ModuleList(layers[1::3])
        self.image = encoder.pix_feat_proj
        self.fusers = encoder.fuser.layers
        self.out = encoder.out_proj
        absent = sam2.no_obj_embed_spatial
        absent = torch.zeros(1, sam2.mem_dim) if absent is None else absent.detach()
        self.register_buffer("absent", absent[..., None, None])

    def forward(
        self,
        image_embeddings: torch.Tensor,
        low_res_masks: torch.Tensor,
        from_prompt: torch.Tensor,
        object_score_logits: torch.Tensor,
    ) -> torch.Tensor:
        """Remember an object on one frame.

        Args:
            image_embeddings: (1, 256, H, W) float32, the encoder's for this frame.
            low_res_masks: (1, 1, 4H, 4W) float32 logits, -1024 where there is no object.
            from_prompt: (1,) float32, 1 for a frame with clicks, whose mask counts as it is seen.
            object_score_logits: (1, 1) float32, the decoder's.

        Returns:
            (1, 64, H, W) float32 memory, rounded to bfloat16.
        """
        size = (self.side, self.side)
        logits = F.interpolate(low_res_masks, size=size, mode="bilinear", align_corners=False)
        seen = (logits > 0).to(torch.float32)
        mask = from_prompt * seen + (1 - from_prompt) * torch.sigmoid(logits)
        mask = mask * self.scale + self.offset
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            mask = gelu(_channel_norm(convolution(mask), norm))
        fused = self.image(image_embeddings) + self.last(mask)
        for fuser in self.fusers:
            fused = fused + _fuse(fuser, fused)
        present = (object_score_logits > 0).to(torch.float32)[..., None, None]
        return round_to_bfloat16(self.out(fused) + (1 - present) * self.absent)


class Sam2MaskPromptGraph(nn.Module):
    """What `SAM2Base._use_mask_as_output` makes of a mask, beside the call of the decoder.

    Args:
        sam2: a `sam2.modeling.sam2_base.SAM2Base`; its weights are shared, not copied.
    """

    kernel: torch.Tensor
    inside: torch.Tensor
    no_pointer: torch.Tensor

    def __init__(self, sam2: Any) -> None:
        super().__init__()
        self.downsample = sam2.mask_downsample
        # The triangle of an antialiased bilinear reduction by 4: 8 taps that add up to 1.
        taps = (1 - (torch.arange(8) - 3.5).abs() / 4) / 4
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None])
        # Taps beyond the edge do not count.
        side = torch.ones(1, 1, sam2.image_size)
        share = F.conv1d(side, taps[None, None], stride=4, padding=2)[0, 0]
        self.register_buffer("inside", 1 / torch.outer(share, share))
        self.register_buffer("no_pointer", sam2.no_obj_ptr.detach().clone())

    def forward(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Take a mask of side S.

        Args:
            mask: (1, S, S) uint8, 0 or 1.

        Returns:
            The decoder's mask input (1, 1, S / 4, S / 4); the logits that count as the answer, of the same
            shape; and the object pointer where the mask is empty, (1, 256). All float32.
        """
        pixels = mask.to(torch.float32)[:, None]
        share = F.conv2d(pixels, self.kernel, stride=4, padding=2) * self.inside
        logits = share * LOGIT_SCALE + LOGIT_OFFSET
        # An output that depends on no input is no output to some backends.
        pointer = self.no_pointer + 0 * logits[0, 0, :1, :1]
        return self.downsample(pixels), logits, pointer


def round_to_bfloat16(values: torch.Tensor) -> torch.Tensor:
    """Values as bfloat16 holds them: 8 bits from the leading one on, ties to even.

    Not as a cast: TensorRT has no bfloat16 before Ampere.
    """
    # Where the logarithm of nearly a power of two is off, both steps lead to that power.
    exponent = torch.floor(torch.log(values.abs().clamp(min=1e-30)) * (1 / math.log(2)))
    finest = torch.pow(2.0, 7 - exponent)
    return torch.round(values * finest) / finest


def _channel_norm(values: torch.Tensor, norm: Any) -> torch.Tensor:
    """sam2's LayerNorm2d on (1, C, H, W)."""
    placed = values.permute(0, 2, 3, 1)
    normed = F.layer_norm(placed, placed.shape[-1:], norm.weight, norm.bias, norm.eps)
    return normed.permute(0, 3, 1, 2)


def _fuse(block: Any, values: torch.Tensor) -> torch.Tensor:
    """What sam2's `CXBlock` adds to (1, C, H, W)."""
    placed = block.dwconv(values).permute(0, 2, 3, 1)
    normed = F.layer_norm(placed, placed.shape[-1:], block.norm.weight, block.norm.bias, block.norm.eps)
    result: torch.Tensor = (block.gamma * block.pwconv2(gelu(block.pwconv1(normed)))).permute(0, 3, 1, 2)
    return result
