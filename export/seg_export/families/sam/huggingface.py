"""SAM's weights in the names of Hugging Face transformers, whose `SamModel` is segment_anything's network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.huggingface import check_images, check_settings, original_names, read_config
from seg_export.families.sam.network import VARIANTS

__all__ = ["DECODER_NAMES", "check_sam_config", "segment_anything_names"]

DECODER_NAMES = (
    ("prompt_encoder.mask_embed.conv1.", "prompt_encoder.mask_downscaling.0."),
    ("prompt_encoder.mask_embed.layer_norm1.", "prompt_encoder.mask_downscaling.1."),
    ("prompt_encoder.mask_embed.conv2.", "prompt_encoder.mask_downscaling.3."),
    ("prompt_encoder.mask_embed.layer_norm2.", "prompt_encoder.mask_downscaling.4."),
    ("prompt_encoder.mask_embed.conv3.", "prompt_encoder.mask_downscaling.6."),
    ("prompt_encoder.point_embed.", "prompt_encoder.point_embeddings."),
    ("shared_image_embedding.", "prompt_encoder.shared_embedding."),
    (
        "prompt_encoder.shared_embedding.positional_embedding",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    ("mask_decoder.upscale_conv1.", "mask_decoder.output_upscaling.0."),
    ("mask_decoder.upscale_layer_norm.", "mask_decoder.output_upscaling.1."),
    ("mask_decoder.upscale_conv2.", "mask_decoder.output_upscaling.3."),
)
"""Of the prompt encoder and the mask decoder, which SAM2 has too."""

_NAMES = (
    *DECODER_NAMES,
    ("vision_encoder.layers.", "image_encoder.blocks."),
    ("vision_encoder.patch_embed.projection.", "image_encoder.patch_embed.proj."),
    ("vision_encoder.neck.conv1.", "image_encoder.neck.0."),
    ("vision_encoder.neck.layer_norm1.", "image_encoder.neck.1."),
    ("vision_encoder.neck.conv2.", "image_encoder.neck.2."),
    ("vision_encoder.neck.layer_norm2.", "image_encoder.neck.3."),
    ("vision_encoder.", "image_encoder."),
    ("layer_norm", "norm"),
)

_MARKS = {"vision_encoder.patch_embed.projection.weight", "mask_decoder.iou_token.weight"}

_SIZES = {
    "vision_config.hidden_size": "encoder_embed_dim",
    "vision_config.num_hidden_layers": "encoder_depth",
    "vision_config.num_attention_heads": "encoder_num_heads",
    "vision_config.global_attn_indexes": "encoder_global_attn_indexes",
    "vision_config.window_size": "window_size",
    "vision_config.image_size": "image_size",
    "vision_config.patch_size": "patch_size",
    "prompt_encoder_config.image_size": "image_size",
    "prompt_encoder_config.patch_size": "patch_size",
}
"""Constructor arguments of `build_sam`, by their names in the configuration."""

_REST = {"window_size": 14, "image_size": 1024, "patch_size": 16}
"""What transformers takes for sizes that a configuration leaves out, with those of `vit_b`."""

_FIXED = {
    "vision_config.hidden_act": "gelu",
    "vision_config.layer_norm_eps": 1e-6,
    "vision_config.use_abs_pos": True,
    "vision_config.use_rel_pos": True,
    "prompt_encoder_config.hidden_act": "gelu",
    "mask_decoder_config.hidden_act": "relu",
    "mask_decoder_config.num_attention_heads": 8,
}
"""What every SAM has and leaves no trace in its weights."""


def segment_anything_names(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor] | None:
    """The tensors of a `SamModel` by segment_anything's names; None for any others.

    Args:
        tensors: a state dict.
        path: its file, for messages.

    Raises:
        CheckpointError: two versions of what is one tensor in segment_anything.
    """
    return original_names(tensors, _NAMES, path) if set(tensors) >= _MARKS else None


def check_sam_config(arguments: Mapping[str, Any], path: Path) -> None:
    """Refuse weights whose `config.json` or processor says something else than these arguments.

    Args:
        arguments: of `build_sam`, as the weights' shapes say them.
        path: the file of weights.

    Raises:
        CheckpointError: the first setting that differs.
    """
    if not (config := read_config(path, ("sam",))):
        return
    wanted = {name: arguments[argument] for name, argument in _SIZES.items()}
    usual = VARIANTS["vit_b"] | _REST
    defaults = {name: usual[argument] for name, argument in _SIZES.items()}
    check_settings(config, wanted | _FIXED, path, defaults)
    check_images(path, {"longest_edge": arguments["image_size"]})
