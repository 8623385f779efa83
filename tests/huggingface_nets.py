"""Small networks of transformers for images of 64x64, with the image processors that go with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

SIDE = 64
NAMES = ("road", "car", "sky", "tree", "person")

_SQUARE = {"size": {"height": SIDE, "width": SIDE}}
_CROP = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
_STAGES = {"depths": [1, 1, 1, 1], "out_features": ["stage1", "stage2", "stage3", "stage4"]}
_LAYERS = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}

AS_IS = {"input_data_format": "channels_last", "return_tensors": "pt"}
"""How image processors take an array (H, W, C)."""

Made = tuple[Any, Any]


def segformer(**config: Any) -> Made:
    sizes = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16}
    made = transformers.SegformerConfig(depths=[1, 1, 1, 1], **sizes, **_labels(config))
    return transformers.SegformerForSemanticSegmentation(made), transformers.SegformerImageProcessor(
        **_SQUARE
    )


def upernet_convnext() -> Made:
    return _upernet(transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], **_STAGES), 16)


def upernet_swin() -> Made:
    return _upernet(_swin(), 32)


def _upernet(backbone: Any, channels: int) -> Made:
    sizes = {"hidden_size": 16, "auxiliary_in_channels": channels, "auxiliary_channels": 8}
    made = transformers.UperNetConfig(backbone_config=backbone, **sizes, **_labels({}))
    return transformers.UperNetForSemanticSegmentation(made), transformers.SegformerImageProcessor(**_SQUARE)


def dpt() -> Made:
    sizes = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8, "image_size": SIDE}
    made = transformers.DPTConfig(backbone_out_indices=[0, 1, 2, 3], **sizes, **_LAYERS, **_labels({}))
    return transformers.DPTForSemanticSegmentation(made), transformers.DPTImageProcessor(**_SQUARE)


def beit() -> Made:
    made = transformers.BeitConfig(**_of_beit([0, 1, 2, 3]))
    return transformers.BeitForSemanticSegmentation(made), transformers.BeitImageProcessor(**_SQUARE)


def data2vec() -> Made:
    made = transformers.Data2VecVisionConfig(**_of_beit([1, 2, 3, 4]))
    return transformers.Data2VecVisionForSemanticSegmentation(made), transformers.BeitImageProcessor(
        **_SQUARE
    )


def _of_beit(layers: list[int]) -> dict[str, Any]:
    more = {"use_relative_position_bias": True, "auxiliary_channels": 8}
    return {"image_size": SIDE, "out_indices": layers, **more, **_LAYERS, **_labels({})}


def mobilevit() -> Made:
    sizes = {"hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [8, 8, 8, 8, 16, 16, 16]}
    more = {"num_attention_heads": 2, "aspp_out_channels": 16, "output_stride": 8}
    made = transformers.MobileViTConfig(image_size=SIDE, **sizes, **more, **_labels({}))
    return transformers.MobileViTForSemanticSegmentation(made), transformers.MobileViTImageProcessor(**_CROP)


def mobilenet() -> Made:
    made = transformers.MobileNetV2Config(depth_multiplier=0.25, output_stride=8, **_labels({}))
    network = transformers.MobileNetV2ForSemanticSegmentation(made)
    return network, transformers.MobileNetV2ImageProcessor(**_CROP)


def mask2former() -> Made:
    sizes = {"feature_size": 32, "mask_feature_size": 16, "hidden_dim": 16, "dim_feedforward": 32}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_feedforward_dim": 32}
    made = transformers.Mask2FormerConfig(
        backbone_config=_swin(), num_attention_heads=2, num_queries=7, **sizes, **layers, **_labels({})
    )
    network = transformers.Mask2FormerForUniversalSegmentation(made)
    return network, transformers.Mask2FormerImageProcessor(**_SQUARE)


def maskformer() -> Made:
    names = ("encoder_layers", "decoder_layers"), ("encoder_attention_heads", "decoder_attention_heads")
    layers = dict.fromkeys(names[0], 1) | dict.fromkeys(names[1], 2)
    ends = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 7}
    made = transformers.MaskFormerConfig(
        backbone_config=_swin(),
        decoder_config=transformers.DetrConfig(**layers, **ends),
        fpn_feature_size=32,
        mask_feature_size=16,
        **_labels({}),
    )
    network = transformers.MaskFormerForInstanceSegmentation(made)
    return network, transformers.MaskFormerImageProcessor(**_SQUARE)


NETWORKS: Mapping[str, Callable[[], Made]] = {
    each.__name__: each
    for each in (
        segformer, upernet_convnext, upernet_swin, dpt, beit, data2vec, mobilevit, mobilenet, mask2former,
        maskformer,
    )
}  # fmt: skip


def save(made: Made, folder: Path, **how: Any) -> Path:
    """Save a network whose weights are spread so that it finds several classes, and its image processor."""
    network, processor = made
    spread(network, processor(images=picture(channels_of(network)), **AS_IS)["pixel_values"])
    network.save_pretrained(folder, **how)
    processor.save_pretrained(folder)
    return folder


def picture(channels: int = 3) -> NDArray[np.uint8]:
    """(SIDE, SIDE, channels) uint8 with smooth structures, the same each time."""
    coarse = np.random.default_rng(1).integers(0, 256, (16, 16, channels), dtype=np.uint8)
    smooth = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, dtype=np.uint8).reshape(SIDE, SIDE, channels)


def channels_of(network: Any) -> int:
    """Of its input."""
    return int(getattr(network.config, "num_channels", 3))


def spread(network: Any, pixels: torch.Tensor) -> None:
    """Weights that keep the variance of what passes them, and classes of which none wins everywhere."""
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = noise / weight[0].numel() ** 0.5 if weight.ndim > 1 else weight.data + noise / 10
    if hasattr(network, "class_predictor"):
        network.class_predictor.weight.data *= 30
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1  # takes the statistics of one batch
    with torch.inference_mode():
        network.train()(torch.cat([pixels, pixels.flip(2)]))
        found = network.eval()(pixels)
    logits = found.logits.mean((0, 2, 3)) if "logits" in found else found.class_queries_logits.mean((0, 1))
    for name, bias in network.named_parameters():
        if bias.shape == logits.shape and not name.startswith("auxiliary"):
            bias.data -= logits


def _swin() -> Any:
    return transformers.SwinConfig(
        image_size=SIDE, embed_dim=8, num_heads=[1, 1, 2, 2], window_size=4, **_STAGES
    )


def _labels(config: dict[str, Any]) -> dict[str, Any]:
    """What a configuration says of its classes, if it does not say it."""
    names = dict(enumerate(NAMES))
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}} | config
