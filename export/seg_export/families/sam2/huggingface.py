"""SAM2's weights in the names of Hugging Face transformers, whose `Sam2VideoModel` is sam2's network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.huggingface import (
    check_images,
    check_settings,
    original_names,
    read_config,
    setting,
)
from seg_export.families.sam.huggingface import DECODER_NAMES
from seg_export.families.sam2.network import VARIANTS
from seg_runtime.errors import CheckpointError

__all__ = ["config_arguments", "sam2_names"]

_STAGES = range(4)

_NAMES = (
    *DECODER_NAMES,
    ("prompt_encoder.", "sam_prompt_encoder."),
    ("mask_decoder.", "sam_mask_decoder."),
    ("vision_encoder.backbone.patch_embed.projection.", "image_encoder.trunk.patch_embed.proj."),
    ("vision_encoder.backbone.", "image_encoder.trunk."),
    *((f"vision_encoder.neck.convs.{i}.", f"image_encoder.neck.convs.{i}.conv.") for i in _STAGES),
    *((f"mask_downsampler.layers.{i}.conv.", f"mask_downsampler.encoder.{3 * i}.") for i in _STAGES),
    *(
        (f"mask_downsampler.layers.{i}.layer_norm.", f"mask_downsampler.encoder.{3 * i + 1}.")
        for i in _STAGES
    ),
    ("mask_downsampler.final_conv.", "mask_downsampler.encoder.12."),
    ("memory_encoder.memory_fuser.", "memory_encoder.fuser."),
    ("memory_encoder.feature_projection.", "memory_encoder.pix_feat_proj."),
    ("memory_encoder.projection.", "memory_encoder.out_proj."),
    (".depthwise_conv.", ".dwconv."),
    (".pointwise_conv1.", ".pwconv1."),
    (".pointwise_conv2.", ".pwconv2."),
    ("memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    ("temporal_positional_encoding_projection_layer.", "obj_ptr_tpos_proj."),
    ("no_memory_embedding", "no_mem_embed"),
    ("no_memory_positional_encoding", "no_mem_pos_enc"),
    ("no_object_pointer", "no_obj_ptr"),
    ("occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
    ("object_pointer_proj.", "obj_ptr_proj."),
    (".o_proj.", ".out_proj."),
    (".scale", ".gamma"),
    ("layer_norm", "norm"),
)

_MARKS = {"vision_encoder.backbone.patch_embed.projection.weight", "mask_decoder.iou_token.weight"}

_POINTS = "sam_prompt_encoder.point_embeddings."

_TRUNK = "vision_config.backbone_config"

_SIZES = {
    "embed_dim": f"{_TRUNK}.hidden_size",
    "stages": f"{_TRUNK}.blocks_per_stage",
    "global_att_blocks": f"{_TRUNK}.global_attention_blocks",
    "window_pos_embed_bkg_spatial_size": f"{_TRUNK}.window_positional_embedding_background_size",
    "window_spec": f"{_TRUNK}.window_size_per_stage",
    "image_size": "prompt_encoder_config.image_size",
    "memory_layers": "memory_attention_num_layers",
}
"""Arguments of `build_sam2`, and where the configuration has them."""

_HEADS, _OCCLUSION = f"{_TRUNK}.num_attention_heads_per_stage", "enable_occlusion_spatial_embedding"

_REST = {"window_spec": [8, 4, 14, 7], "image_size": 1024, "memory_layers": 4}
"""What transformers takes for sizes that a configuration leaves out, with those of `sam2.1_tiny`."""

_FIXED = {
    f"{_TRUNK}.patch_stride": [4, 4],
    f"{_TRUNK}.patch_padding": [3, 3],
    f"{_TRUNK}.query_stride": [2, 2],
    f"{_TRUNK}.num_query_pool_stages": 3,
    f"{_TRUNK}.hidden_act": "gelu",
    f"{_TRUNK}.layer_norm_eps": 1e-6,
    "vision_config.fpn_top_down_levels": [2, 3],
    "vision_config.num_feature_levels": 3,
    "prompt_encoder_config.patch_size": 16,
    "prompt_encoder_config.hidden_act": "gelu",
    "mask_decoder_config.num_attention_heads": 8,
    "mask_decoder_config.dynamic_multimask_via_stability": True,
    "mask_decoder_config.dynamic_multimask_stability_delta": 0.05,
    "mask_decoder_config.dynamic_multimask_stability_thresh": 0.98,
    "memory_attention_num_attention_heads": 1,
    "memory_attention_feed_forward_hidden_act": "relu",
    "memory_attention_rope_theta": 10000,
    "rope_parameters.rope_theta": 10000,
    "mask_downsampler_hidden_act": "gelu",
    "mask_downsampler_stride": 2,
    "memory_fuser_hidden_act": "gelu",
    "sigmoid_scale_for_mem_enc": 20,
    "sigmoid_bias_for_mem_enc": -10,
    "max_object_pointers_in_encoder": 16,
    "max_cond_frame_num": -1,
    "multimask_output_in_sam": True,
    "multimask_output_for_tracking": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
}
"""What every SAM2 has and leaves no trace in its weights."""


def sam2_names(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor] | None:
    """The tensors of a `Sam2VideoModel` by sam2's names; None for any others.

    Args:
        tensors: a state dict.
        path: its file, for messages.

    Raises:
        CheckpointError: a `Sam2Model`, which has no memory, or two versions of what is one tensor in sam2.
    """
    if not set(tensors) >= _MARKS:
        return None
    if "memory_temporal_positional_encoding" not in tensors:
        raise CheckpointError(
            f"checkpoint {path} is a Sam2Model of transformers, a SAM2 without its memory: load its weights "
            "into the Sam2VideoModel that it was trained from, with strict=False, and save that one"
        )
    renamed = original_names(tensors, _NAMES, path)
    points = renamed.pop(f"{_POINTS}weight")
    return renamed | {f"{_POINTS}{i}.weight": point[None] for i, point in enumerate(points)}


def config_arguments(path: Path) -> dict[str, Any] | None:
    """Arguments of `build_sam2` from the `config.json` next to a file of weights; None without one.

    Raises:
        CheckpointError: a network that `build_sam2` does not build, or images prepared in another way.
    """
    config = read_config(path, ("sam2", "sam2_video"))
    if not config:
        return None
    usual = VARIANTS["sam2.1_tiny"] | _REST
    arguments = {name: setting(config, where, usual[name]) for name, where in _SIZES.items()}
    arguments["first_release"] = not setting(config, _OCCLUSION, True)
    try:
        arguments["num_heads"] = setting(config, _HEADS, [usual["num_heads"]])[0]
        derived = _derived(arguments)
    except (TypeError, LookupError) as error:
        raise CheckpointError(f"the config.json next to {path} has a size that is none: {error}") from error
    check_settings(config, derived | _FIXED, path, _derived(usual))
    check_images(path, {"height": arguments["image_size"], "width": arguments["image_size"]})
    return arguments


def _derived(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that follow from the arguments of `build_sam2`."""
    side = arguments["image_size"]
    return {
        f"{_TRUNK}.embed_dim_per_stage": [arguments["embed_dim"] << stage for stage in _STAGES],
        _HEADS: [arguments["num_heads"] << stage for stage in _STAGES],
        "vision_config.backbone_feature_sizes": [[side // stride] * 2 for stride in (4, 8, 16)],
        "memory_attention_rope_feat_sizes": [side // 16] * 2,
        "image_size": side,
        "enable_temporal_pos_encoding_for_object_pointers": not arguments["first_release"],
    }
