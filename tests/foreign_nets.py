"""Factories of networks whose arguments are no JSON, as users write them; the libraries are not ours."""

from __future__ import annotations

from typing import Any

from torch import nn

STAGES = ["stage1", "stage2", "stage3", "stage4"]
WIDE = {"initializer_range": 0.2}
"""With the usual 0.02 a small network that was never trained makes the same of every image."""
LAYERS = {
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 32,
    **WIDE,
}


def transformer(kind: str) -> nn.Module:
    """A small network of transformers with random weights, by its class."""
    import transformers

    config = CONFIGS[kind](transformers)
    network: nn.Module = getattr(transformers, kind)(config)
    return network


def _segformer(transformers: Any) -> Any:
    return transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 1, 1, 2],
        decoder_hidden_size=16,
        num_labels=3,
        **WIDE,
    )


def _upernet(transformers: Any) -> Any:
    backbone = transformers.ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], out_features=STAGES, **WIDE
    )
    return transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        auxiliary_in_channels=24,
        auxiliary_channels=8,
        num_labels=3,
        **WIDE,
    )


def _beit(transformers: Any) -> Any:
    return transformers.BeitConfig(image_size=64, out_indices=[1, 2, 3, 4], num_labels=3, **LAYERS)


def _dpt(transformers: Any) -> Any:
    return transformers.DPTConfig(
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        num_labels=3,
        **LAYERS,
    )


def _mask2former(transformers: Any) -> Any:
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], out_features=STAGES
    )
    return transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=10,
    )


CONFIGS = {
    "SegformerForSemanticSegmentation": _segformer,
    "SegformerForImageClassification": _segformer,
    "UperNetForSemanticSegmentation": _upernet,
    "BeitForSemanticSegmentation": _beit,
    "DPTForSemanticSegmentation": _dpt,
    "Mask2FormerForUniversalSegmentation": _mask2former,
}
"""What makes the configuration of each class."""


def nnunet(kind: str = "PlainConvUNet", deep_supervision: bool = False, dimensions: int = 2) -> nn.Module:
    from dynamic_network_architectures.architectures import unet

    convolution, norm = (nn.Conv2d, nn.InstanceNorm2d) if dimensions == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    network: nn.Module = getattr(unet, kind)(
        1,
        3,
        [8, 16, 32],
        convolution,
        3,
        [1, 2, 2],
        1,
        3,
        1,
        norm_op=norm,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        deep_supervision=deep_supervision,
    )
    return network
