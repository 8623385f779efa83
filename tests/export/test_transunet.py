"""TransUNet against the official code's structure, written out here as the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seg_export.checkpoints.checkpoint import build_model
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.families.semantic.transunet import VARIANTS, TransUNet, transunet_arguments
from seg_export.families.semantic.transunet_stem import ResNetV2, StdConv2d
from seg_runtime.errors import BadInputError

TINY: dict[str, Any] = {
    "in_channels": 1,
    "num_classes": 2,
    "image_size": 64,
    "width": 8,
    "units": [1, 2, 1],
    "hidden": 128,
    "layers": 2,
    "mlp": 96,
    "head_channels": 24,
    "decoder_channels": [16, 12, 8, 4],
}


class Reference:
    """The forward pass from the tensors alone, with PyTorch's own attention and GELU."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.weights = weights

    def standardised(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        variance, mean = torch.var_mean(weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        weight = (weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)

    def group_norm(self, name: str, x: torch.Tensor, groups: int, eps: float = 1e-6) -> torch.Tensor:
        return F.group_norm(x, groups, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    def unit(self, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        residual = x
        if f"{name}.downsample.weight" in self.weights:
            residual = self.standardised(f"{name}.downsample", x, stride)
            residual = self.group_norm(f"{name}.gn_proj", residual, residual.shape[1], eps=1e-5)
        for number, step in ((1, 1), (2, stride), (3, 1)):
            x = self.standardised(f"{name}.conv{number}", x, step)
            x = self.group_norm(f"{name}.gn{number}", x, math.gcd(32, x.shape[1] // 2))
            x = x if number == 3 else torch.relu(x)
        return torch.relu(residual + x)

    def layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = self.layer_norm(f"{name}.attention_norm", x)
        heads = [
            self.linear(f"{name}.attn.{part}", y).unflatten(2, (-1, 64)).transpose(1, 2)
            for part in ("query", "key", "value")
        ]
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x = x + self.linear(f"{name}.attn.out", mixed)
        y = self.layer_norm(f"{name}.ffn_norm", x)
        return x + self.linear(f"{name}.ffn.fc2", F.gelu(self.linear(f"{name}.ffn.fc1", y)))

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def layer_norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(
            x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps=1e-6
        )

    def conv_bn(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.weights[f"{name}.0.weight"], padding=1)
        norm = [
            self.weights[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        ]
        return torch.relu(F.batch_norm(x, *norm))

    def __call__(self, gray: torch.Tensor) -> torch.Tensor:
        stem = "transformer.embeddings.hybrid_model"
        x = self.standardised(f"{stem}.root.conv", gray.repeat(1, 3, 1, 1), 2)
        root = x = torch.relu(self.group_norm(f"{stem}.root.gn", x, math.gcd(32, x.shape[1] // 2)))
        x = F.max_pool2d(x, 3, 2)
        ends = []
        for block, units in enumerate(TINY["units"], start=1):
            for unit in range(1, units + 1):
                stride = 2 if block > 1 and unit == 1 else 1
                x = self.unit(f"{stem}.body.block{block}.unit{unit}", x, stride)
            ends.append(x)
        quarter = torch.zeros(len(gray), ends[0].shape[1], 16, 16)
        quarter[:, :, : ends[0].shape[2], : ends[0].shape[3]] = ends[0]
        patches = "transformer.embeddings.patch_embeddings"
        x = F.conv2d(x, self.weights[f"{patches}.weight"], self.weights[f"{patches}.bias"])
        x = x.flatten(2).transpose(1, 2) + self.weights["transformer.embeddings.position_embeddings"]
        for number in range(TINY["layers"]):
            x = self.layer(f"transformer.encoder.layer.{number}", x)
        x = self.layer_norm("transformer.encoder.encoder_norm", x)
        x = self.conv_bn("decoder.conv_more", x.transpose(1, 2).reshape(len(gray), -1, 4, 4))
        for number, skip in enumerate((ends[1], quarter, root, None)):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            x = x if skip is None else torch.cat([x, skip], dim=1)
            x = self.conv_bn(f"decoder.blocks.{number}.conv1", x)
            x = self.conv_bn(f"decoder.blocks.{number}.conv2", x)
        head = "segmentation_head.0"
        return F.conv2d(x, self.weights[f"{head}.weight"], self.weights[f"{head}.bias"], padding=1)


def test_logits_are_those_of_the_official_structure_with_the_official_names() -> None:
    checkpoint = random_checkpoint("transunet", TINY, seed=2)
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = build_model(checkpoint)(image)
        torch.testing.assert_close(logits, Reference(checkpoint.state_dict)(image), rtol=1e-4, atol=1e-5)
    assert logits.std() > 0.05


def test_parameter_count_of_the_default_is_the_official_codes() -> None:
    """105,276,066 is printed for "R50-ViT-B_16" with its two classes at 224x224, three skips."""
    with torch.device("meta"):
        official = TransUNet(num_classes=2)
        assert sum(parameter.numel() for parameter in official.parameters()) == 105_276_066
        assert tuple(official.transformer.embeddings.position_embeddings.shape) == (1, 14 * 14, 768)


def test_small_variant_fits_4_mb_in_half_precision() -> None:
    with torch.device("meta"):
        small = TransUNet(**VARIANTS["small"], image_size=256)
        assert 2 * sum(parameter.numel() for parameter in small.parameters()) < 4_000_000


def test_groups_are_32_at_the_papers_widths_and_never_of_one_channel() -> None:
    for width in (64, 16, 8):
        stem = ResNetV2(width, (1, 1, 1))
        for name, norm in stem.named_modules():
            if isinstance(norm, nn.GroupNorm) and not name.endswith("gn_proj"):
                assert norm.num_channels // norm.num_groups >= 2
                assert width < 64 or norm.num_groups == 32


def test_standardised_weights_make_a_convolution_independent_of_their_scale() -> None:
    torch.manual_seed(0)
    conv, image = StdConv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    first = conv(image)
    with torch.no_grad():
        conv.weight.mul_(7).add_(3)
    torch.testing.assert_close(conv(image), first, rtol=1e-3, atol=1e-3)


def test_constructor_arguments_are_read_off_the_weights() -> None:
    assert transunet_arguments(TransUNet(**TINY).state_dict()) == TINY
    assert transunet_arguments(nn.Linear(2, 2).state_dict()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 100}, "multiple of 16"),
        ({"in_channels": 2}, "1 or 3 channels"),
        ({"width": 6}, "multiple of 4"),
        ({"hidden": 100}, "multiple of 64"),
        ({"units": (1, 2)}, "three counts"),
        ({"decoder_channels": (1, 2, 3)}, "four counts"),
        ({"layers": 0}, "below 1"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        TransUNet(**{**TINY, **changes})
