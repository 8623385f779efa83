"""Segment Anything 2 (SAM2) of any size, built from sam2's own modules.

A state dict says by its shapes which official size and release it is. What leaves no trace in them (heads,
windows of the later stages, blocks with global attention, the side of the image) is known for official sizes
only; another size is described by its constructor arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from seg_runtime.errors import BadInputError, MissingExtraError

__all__ = [
    "HIDDEN",
    "INSTALL",
    "MEMORY",
    "VARIANTS",
    "build_sam2",
    "is_sam2",
    "readable_arguments",
    "sam2_arguments",
    "variant_name",
]

HIDDEN = 256
"""Channels of the embedding, of object pointers and of the tokens in the mask decoder."""

MEMORY = 64
"""Channels of a memory."""

INSTALL = (
    "SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0 && pip install 'edgeseg[sam2]'"
)
"""sam2 is published as source only and would otherwise install a second torch to build itself with."""

_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "embed_dim": 96,
        "num_heads": 1,
        "stages": [1, 2, 7, 2],
        "global_att_blocks": [5, 7, 9],
        "window_pos_embed_bkg_spatial_size": [7, 7],
    },
    "small": {
        "embed_dim": 96,
        "num_heads": 1,
        "stages": [1, 2, 11, 2],
        "global_att_blocks": [7, 10, 13],
        "window_pos_embed_bkg_spatial_size": [7, 7],
    },
    "base_plus": {
        "embed_dim": 112,
        "num_heads": 2,
        "stages": [2, 3, 16, 3],
        "global_att_blocks": [12, 16, 20],
        "window_pos_embed_bkg_spatial_size": [14, 14],
    },
    "large": {
        "embed_dim": 144,
        "num_heads": 2,
        "stages": [2, 6, 36, 4],
        "global_att_blocks": [23, 33, 43],
        "window_pos_embed_bkg_spatial_size": [7, 7],
        "window_spec": [8, 4, 16, 8],
    },
}

VARIANTS: dict[str, dict[str, Any]] = {
    f"sam{release}_{size}": {**arguments, "first_release": release == "2"}
    for release in ("2.1", "2")
    for size, arguments in _SIZES.items()
}
"""Constructor arguments of the official sizes of both releases; the rest is `build_sam2`'s default."""


def build_sam2(
    *,
    embed_dim: int,
    num_heads: int,
    stages: Sequence[int],
    global_att_blocks: Sequence[int],
    window_pos_embed_bkg_spatial_size: Sequence[int] = (14, 14),
    window_spec: Sequence[int] = (8, 4, 14, 7),
    image_size: int = 1024,
    memory_layers: int = 4,
    first_release: bool = False,
) -> nn.Module:
    """sam2's `SAM2Base`, wired as its configuration files do, in eval mode on the CPU.

    Its settings are those that `build_sam2_video_predictor` gives it with `apply_postprocessing`.

    Args:
        embed_dim: channels of Hiera's first stage; each further one has twice as many.
        num_heads: of the first stage; each further one has twice as many.
        stages: blocks of the four stages.
        global_att_blocks: indices of blocks without windows.
        window_pos_embed_bkg_spatial_size: (height, width) of the positions that are stretched over the image.
        window_spec: side of the windows of each stage.
        image_size: side in pixels of the square image the encoder takes, a multiple of 32.
        memory_layers: of the memory attention.
        first_release: SAM2 of July 2024, without the parts that SAM 2.1 added.

    Raises:
        BadInputError: sizes that do not fit one another.
        MissingExtraError: sam2 is not installed.
    """
    _check_sizes(embed_dim, num_heads, stages, window_spec, image_size)
    base = _sam2_base()
    model: nn.Module = base(
        image_encoder=_image_encoder(
            embed_dim,
            num_heads,
            stages=tuple(stages),
            global_att_blocks=tuple(global_att_blocks),
            window_pos_embed_bkg_spatial_size=tuple(window_pos_embed_bkg_spatial_size),
            window_spec=tuple(window_spec),
        ),
        memory_attention=_memory_attention(memory_layers, image_size // 16),
        memory_encoder=_memory_encoder(),
        image_size=image_size,
        num_maskmem=7,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        binarize_mask_from_pts_for_mem_enc=True,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        no_obj_embed_spatial=not first_release,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        multimask_output_for_tracking=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_multimask_token_for_obj_ptr=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=not first_release,
        proj_tpos_enc_in_obj_ptrs=not first_release,
        use_signed_tpos_enc_to_obj_ptrs=not first_release,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        use_mlp_for_obj_ptr_proj=True,
        sam_mask_decoder_extra_args={
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
    )
    return model.eval()


def is_sam2(state_dict: Mapping[str, Any]) -> bool:
    """Whether tensors have the names of a SAM2."""
    return {"maskmem_tpos_enc", "image_encoder.trunk.patch_embed.proj.weight"} <= set(state_dict)


def readable_arguments(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The constructor arguments of a SAM2 that its shapes tell.

    Raises:
        KeyError, IndexError: tensors are missing.
    """
    trunk = "image_encoder.trunk."
    blocks = _count(state_dict, trunk + "blocks.{}.norm1.weight")
    starts = [
        0,
        *(index for index in range(blocks) if f"{trunk}blocks.{index}.proj.weight" in state_dict),
        blocks,
    ]
    return {
        "embed_dim": state_dict[f"{trunk}patch_embed.proj.weight"].shape[0],
        "stages": [end - start for start, end in pairwise(starts)],
        "window_pos_embed_bkg_spatial_size": list(state_dict[f"{trunk}pos_embed"].shape[2:]),
        "memory_layers": _count(state_dict, "memory_attention.layers.{}.norm1.weight"),
        "first_release": "no_obj_embed_spatial" not in state_dict,
    }


def sam2_arguments(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any] | None:
    """Constructor arguments of the official SAM2 that a state dict belongs to; None when it is no such."""
    try:
        found = readable_arguments(state_dict)
    except (KeyError, IndexError):
        return None
    defaults: dict[str, Any] = {"memory_layers": 4}
    for arguments in VARIANTS.values():
        if all((defaults | arguments)[name] == value for name, value in found.items()):
            return dict(arguments)
    return None


def variant_name(arguments: Mapping[str, Any]) -> str | None:
    """The official variant with these constructor arguments, for example "sam2.1_tiny"; None for another."""
    given = {name: _plain(value) for name, value in arguments.items()}
    return next((name for name, wanted in VARIANTS.items() if given == wanted), None)


def _sam2_base() -> Any:
    try:
        from sam2.modeling.sam2_base import SAM2Base
    except ImportError as error:
        raise MissingExtraError("sam2", "sam2", INSTALL) from error
    return SAM2Base


def _image_encoder(embed_dim: int, num_heads: int, **trunk: Any) -> nn.Module:
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder

    encoder: nn.Module = ImageEncoder(
        scalp=1,
        trunk=Hiera(embed_dim=embed_dim, num_heads=num_heads, **trunk),
        neck=FpnNeck(
            position_encoding=_sine_positions(HIDDEN),
            d_model=HIDDEN,
            backbone_channel_list=[embed_dim * factor for factor in (8, 4, 2, 1)],
            fpn_top_down_levels=[2, 3],
            fpn_interp_model="nearest",
        ),
    )
    return encoder


def _memory_attention(layers: int, grid: int) -> nn.Module:
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.sam.transformer import RoPEAttention

    shared: dict[str, Any] = {
        "rope_theta": 10000.0,
        "feat_sizes": (grid, grid),
        "embedding_dim": HIDDEN,
        "num_heads": 1,
        "downsample_rate": 1,
        "dropout": 0.1,
    }
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=2048,
        dropout=0.1,
        d_model=HIDDEN,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=RoPEAttention(**shared),
        cross_attention=RoPEAttention(rope_k_repeat=True, kv_in_dim=MEMORY, **shared),
    )
    attention: nn.Module = MemoryAttention(HIDDEN, pos_enc_at_input=True, layer=layer, num_layers=layers)
    return attention


def _memory_encoder() -> nn.Module:
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder

    encoder: nn.Module = MemoryEncoder(
        out_dim=MEMORY,
        position_encoding=_sine_positions(MEMORY),
        mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(dim=HIDDEN, layer_scale_init_value=1e-6), num_layers=2),
    )
    return encoder


def _sine_positions(channels: int) -> nn.Module:
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    # Nothing is computed on a GPU, whether there is one or not.
    positions: nn.Module = PositionEmbeddingSine(channels, warmup_cache=False)
    return positions


def _count(tensors: Mapping[str, torch.Tensor], pattern: str) -> int:
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _check_sizes(
    embed_dim: int, num_heads: int, stages: Sequence[int], window_spec: Sequence[int], image_size: int
) -> None:
    if len(stages) != 4 or len(window_spec) != 4 or min(stages) < 1:
        raise BadInputError("a SAM2 has four stages of one block or more, and a window for each")
    if any(side % 2 for side in window_spec[:3]):
        raise BadInputError("the windows of the first three stages are pooled by 2: their sides must be even")
    multiple = max(32, 4 * window_spec[0])
    if image_size < 1 or image_size % multiple or image_size % 32:
        raise BadInputError(f"image_size {image_size} must be a multiple of {multiple}")
    if num_heads < 1 or embed_dim % num_heads:
        raise BadInputError(f"embed_dim {embed_dim} must be a multiple of num_heads, which is {num_heads}")
