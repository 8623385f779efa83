"""Segment Anything (SAM) of any size, built from segment_anything's own modules.

The three official sizes and every other one are described by the same constructor arguments, which
can also be read off a state dict, so that a checkpoint says by itself what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from seg_runtime.errors import BadInputError, MissingExtraError

__all__ = ["VARIANTS", "build_sam", "sam_arguments", "variant_name"]

VARIANTS: dict[str, dict[str, Any]] = {
    "vit_b": {
        "encoder_embed_dim": 768,
        "encoder_depth": 12,
        "encoder_num_heads": 12,
        "encoder_global_attn_indexes": [2, 5, 8, 11],
    },
    "vit_l": {
        "encoder_embed_dim": 1024,
        "encoder_depth": 24,
        "encoder_num_heads": 16,
        "encoder_global_attn_indexes": [5, 11, 17, 23],
    },
    "vit_h": {
        "encoder_embed_dim": 1280,
        "encoder_depth": 32,
        "encoder_num_heads": 16,
        "encoder_global_attn_indexes": [7, 15, 23, 31],
    },
}
"""Constructor arguments of the official sizes; everything else is `build_sam`'s default."""


def build_sam(
    *,
    encoder_embed_dim: int,
    encoder_depth: int,
    encoder_num_heads: int,
    encoder_global_attn_indexes: Sequence[int],
    image_size: int = 1024,
    patch_size: int = 16,
    prompt_embed_dim: int = 256,
    mlp_ratio: float = 4,
    qkv_bias: bool = True,
    use_rel_pos: bool = True,
    window_size: int = 14,
    decoder_depth: int = 2,
    decoder_mlp_dim: int = 2048,
    decoder_num_heads: int = 8,
    num_multimask_outputs: int = 3,
    iou_head_depth: int = 3,
    iou_head_hidden_dim: int = 256,
    mask_in_chans: int = 16,
    pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
    pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
) -> nn.Module:
    """segment_anything's `Sam`, wired as its `build_sam.py` does, in eval mode on the CPU.

    Args:
        image_size: side in pixels of the square image the encoder takes.
        pixel_mean: per channel (R, G, B), of pixels in 0..255.
        pixel_std: per channel (R, G, B), of pixels in 0..255.

    Raises:
        BadInputError: sizes that do not divide one another.
        MissingExtraError: segment_anything is not installed.
    """
    _check_divides(image_size, patch_size, "image_size", "patch_size")
    _check_divides(encoder_embed_dim, encoder_num_heads, "encoder_embed_dim", "encoder_num_heads")
    _check_divides(prompt_embed_dim, 2 * decoder_num_heads, "prompt_embed_dim", "twice decoder_num_heads")
    try:
        from segment_anything import modeling
    except ImportError as error:
        raise MissingExtraError("segment-anything", "export") from error
    grid_hw = (image_size // patch_size, image_size // patch_size)
    image_encoder = modeling.ImageEncoderViT(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=encoder_embed_dim,
        depth=encoder_depth,
        num_heads=encoder_num_heads,
        mlp_ratio=mlp_ratio,
        out_chans=prompt_embed_dim,
        qkv_bias=qkv_bias,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=use_rel_pos,
        window_size=window_size,
        global_attn_indexes=tuple(encoder_global_attn_indexes),
    )
    prompt_encoder = modeling.PromptEncoder(
        embed_dim=prompt_embed_dim,
        image_embedding_size=grid_hw,
        input_image_size=(image_size, image_size),
        mask_in_chans=mask_in_chans,
    )
    mask_decoder = modeling.MaskDecoder(
        num_multimask_outputs=num_multimask_outputs,
        transformer=modeling.TwoWayTransformer(
            depth=decoder_depth,
            embedding_dim=prompt_embed_dim,
            mlp_dim=decoder_mlp_dim,
            num_heads=decoder_num_heads,
        ),
        transformer_dim=prompt_embed_dim,
        iou_head_depth=iou_head_depth,
        iou_head_hidden_dim=iou_head_hidden_dim,
    )
    sam: nn.Module = modeling.Sam(
        image_encoder, prompt_encoder, mask_decoder, list(pixel_mean), list(pixel_std)
    )
    return sam.eval()


def sam_arguments(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any] | None:
    """Constructor arguments of the SAM that a state dict belongs to; None when it is no SAM's.

    What leaves no trace in the shapes is taken as in every published SAM: 8 attention heads in the
    decoder, ImageNet's pixel statistics.
    """
    try:
        return _encoder_arguments(state_dict) | _decoder_arguments(state_dict)
    except (KeyError, IndexError, ZeroDivisionError):
        return None


def variant_name(arguments: Mapping[str, Any]) -> str | None:
    """The official size with these constructor arguments, for example "vit_b"; None for another."""
    for name, sizes in VARIANTS.items():
        if all(_same(arguments.get(key), value) for key, value in sizes.items()):
            return name
    return None


def _encoder_arguments(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    _, grid, _, width = tensors["image_encoder.pos_embed"].shape
    patch = tensors["image_encoder.patch_embed.proj.weight"].shape[-1]
    depth = _count(tensors, "image_encoder.blocks.{}.norm1.weight")
    spans = [
        (tensors[f"image_encoder.blocks.{index}.attn.rel_pos_h"].shape[0] + 1) // 2 for index in range(depth)
    ]
    windows = [span for span in spans if span != grid]
    first = "image_encoder.blocks.0."
    return {
        "image_size": grid * patch,
        "patch_size": patch,
        "prompt_embed_dim": tensors["image_encoder.neck.0.weight"].shape[0],
        "encoder_embed_dim": width,
        "encoder_depth": depth,
        "encoder_num_heads": width // tensors[f"{first}attn.rel_pos_h"].shape[1],
        "encoder_global_attn_indexes": [index for index, span in enumerate(spans) if span == grid],
        "mlp_ratio": tensors[f"{first}mlp.lin1.weight"].shape[0] / width,
        "qkv_bias": f"{first}attn.qkv.bias" in tensors,
        "window_size": windows[0] if windows else 0,
    }


def _decoder_arguments(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    transformer = "mask_decoder.transformer.layers"
    head = "mask_decoder.iou_prediction_head.layers"
    return {
        "decoder_depth": _count(tensors, transformer + ".{}.norm1.weight"),
        "decoder_mlp_dim": tensors[f"{transformer}.0.mlp.lin1.weight"].shape[0],
        "num_multimask_outputs": tensors["mask_decoder.mask_tokens.weight"].shape[0] - 1,
        "iou_head_depth": _count(tensors, head + ".{}.weight"),
        "iou_head_hidden_dim": tensors[f"{head}.0.weight"].shape[0],
        "mask_in_chans": tensors["prompt_encoder.mask_downscaling.3.weight"].shape[0],
    }


def _count(tensors: Mapping[str, torch.Tensor], pattern: str) -> int:
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count


def _same(given: Any, wanted: Any) -> bool:
    return list(given or ()) == wanted if isinstance(wanted, list) else given == wanted


def _check_divides(whole: int, part: int, whole_name: str, part_name: str) -> None:
    if part < 1 or whole < 1 or whole % part:
        raise BadInputError(f"{whole_name} {whole} must be a multiple of {part_name}, which is {part}")
