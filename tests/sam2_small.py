"""A small SAM2 of sam2's own classes with seeded weights: 256 pixels, five blocks, masks that vary."""

from __future__ import annotations

from typing import Any

import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import nn

SIDE = 256
GRID = SIDE // 16
ARGUMENTS: dict[str, Any] = {
    "embed_dim": 16,
    "num_heads": 1,
    "stages": [1, 1, 2, 1],
    "global_att_blocks": [3],
    "window_pos_embed_bkg_spatial_size": [7, 7],
    "image_size": SIDE,
    "memory_layers": 2,
}
"""Of `seg_export.families.sam2.network.build_sam2`, for the same model."""

MASK_GAIN, SCORE_GAIN, SCORE_BIAS = 0.4, 12.0, 2.5
QK_GAIN, MEMORY_GAIN = 1.4, 0.3


def small_sam2(seed: int = 0, first_release: bool = False, **options: Any) -> SAM2VideoPredictor:
    """sam2's video predictor with the settings of `build_sam2_video_predictor` and no hole filling.

    The weights are random, and scaled so that masks have edges inside the image and objects come and go.

    Args:
        seed: of the weights.
        first_release: leave out what only the releases 2.1 have.
        options: of `SAM2VideoPredictor`, for example `non_overlap_masks`.
    """
    torch.manual_seed(seed)
    model = SAM2VideoPredictor(
        image_encoder=_image_encoder(),
        memory_attention=_memory_attention(),
        memory_encoder=_memory_encoder(),
        **_settings(first_release),
        **options,
    )
    _scale(model, seed)
    model.memory_attention.register_forward_pre_hook(memories_as_float32, with_kwargs=True)
    return model.eval()


def memories_as_float32(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Outside autocast sam2 fails on a frame that has memories, kept as bfloat16, and no pointer."""
    return args, {**kwargs, "memory": kwargs["memory"].float()}


def _image_encoder() -> ImageEncoder:
    trunk = Hiera(
        embed_dim=ARGUMENTS["embed_dim"],
        num_heads=ARGUMENTS["num_heads"],
        stages=tuple(ARGUMENTS["stages"]),
        global_att_blocks=tuple(ARGUMENTS["global_att_blocks"]),
        window_pos_embed_bkg_spatial_size=tuple(ARGUMENTS["window_pos_embed_bkg_spatial_size"]),
    )
    neck = FpnNeck(
        position_encoding=_positions(256),
        d_model=256,
        backbone_channel_list=[128, 64, 32, 16],
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=1)


def _memory_attention() -> MemoryAttention:
    shared: dict[str, Any] = {
        "rope_theta": 10000.0,
        "feat_sizes": [GRID, GRID],
        "embedding_dim": 256,
        "num_heads": 1,
        "downsample_rate": 1,
        "dropout": 0.1,
    }
    layer = MemoryAttentionLayer(
        activation="relu",
        cross_attention=RoPEAttention(rope_k_repeat=True, kv_in_dim=64, **shared),
        d_model=256,
        dim_feedforward=2048,
        dropout=0.1,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=RoPEAttention(**shared),
    )
    return MemoryAttention(
        d_model=256, pos_enc_at_input=True, layer=layer, num_layers=ARGUMENTS["memory_layers"]
    )


def _memory_encoder() -> MemoryEncoder:
    block = CXBlock(dim=256, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True)
    return MemoryEncoder(
        out_dim=64,
        mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
        fuser=Fuser(block, num_layers=2),
        position_encoding=_positions(64),
    )


def _positions(channels: int) -> PositionEmbeddingSine:
    return PositionEmbeddingSine(num_pos_feats=channels, normalize=True, scale=None, temperature=10000)


def _settings(first_release: bool) -> dict[str, Any]:
    return {
        "num_maskmem": 7,
        "image_size": SIDE,
        "sigmoid_scale_for_mem_enc": 20.0,
        "sigmoid_bias_for_mem_enc": -10.0,
        "binarize_mask_from_pts_for_mem_enc": True,
        "use_mask_input_as_output_without_sam": True,
        "directly_add_no_mem_embed": True,
        "no_obj_embed_spatial": not first_release,
        "use_high_res_features_in_sam": True,
        "multimask_output_in_sam": True,
        "iou_prediction_use_sigmoid": True,
        "use_obj_ptrs_in_encoder": True,
        "add_tpos_enc_to_obj_ptrs": not first_release,
        "proj_tpos_enc_in_obj_ptrs": not first_release,
        "use_signed_tpos_enc_to_obj_ptrs": not first_release,
        "only_obj_ptrs_in_the_past_for_eval": True,
        "pred_obj_scores": True,
        "pred_obj_scores_mlp": True,
        "fixed_no_obj_ptr": True,
        "multimask_output_for_tracking": True,
        "use_multimask_token_for_obj_ptr": True,
        "multimask_min_pt_num": 0,
        "multimask_max_pt_num": 1,
        "use_mlp_for_obj_ptr_proj": True,
        "sam_mask_decoder_extra_args": {
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
    }


def _scale(model: SAM2VideoPredictor, seed: int) -> None:
    """Make prompts, memories and images matter: with PyTorch's own initialisation they hardly do."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            fan_in = module.weight[0].numel()
            gain = QK_GAIN if name.endswith(("q_proj", "k_proj")) else 1.4
            gain = MEMORY_GAIN if name == "memory_encoder.out_proj" else gain
            # Among hundreds of memory tokens a pointer's distance would hardly be seen.
            gain = 8.0 if name == "obj_ptr_tpos_proj" else gain
            nn.init.normal_(module.weight, std=gain / fan_in**0.5, generator=generator)
    for embedding in (model.no_mem_embed, model.maskmem_tpos_enc, model.no_obj_ptr):
        nn.init.normal_(embedding, std=0.5, generator=generator)
    _centre_masks(model.eval())
    head = model.sam_mask_decoder.pred_obj_score_head.layers[-1]
    with torch.no_grad():
        head.weight *= SCORE_GAIN
        head.bias += SCORE_BIAS


@torch.no_grad()
def _centre_masks(model: SAM2VideoPredictor) -> None:
    """Take the mean of the upscaled features out of every mask: about half of its pixels are then above 0."""
    decoder, seen = model.sam_mask_decoder, []
    hook = decoder.output_upscaling[-1].register_forward_hook(lambda _, __, output: seen.append(output))
    features = model.forward_image(_calibration_image())["backbone_fpn"]
    point = {"point_coords": torch.full((1, 1, 2), SIDE / 2), "point_labels": torch.ones(1, 1)}
    embeddings = features[2] + model.no_mem_embed.reshape(1, -1, 1, 1)
    model._forward_sam_heads(embeddings, point, None, features[:2])
    hook.remove()
    mean = seen[0].mean(dim=(0, 2, 3))
    away = torch.eye(len(mean)) - torch.outer(mean, mean) / mean.square().sum()
    for network in decoder.output_hypernetworks_mlps:
        last = network.layers[-1]
        last.weight.copy_(MASK_GAIN * away @ last.weight)
        last.bias.copy_(MASK_GAIN * away @ last.bias)


def _calibration_image() -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(-2, 2, SIDE), torch.linspace(-2, 2, SIDE), indexing="ij")
    return torch.stack([x, y, torch.sin(6 * x) * torch.cos(5 * y)])[None]
