"""U-Net (Ronneberger et al., 2015) with the module names of the article's `best_unet.pth`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_runtime.errors import BadInputError

__all__ = ["DoubleConv", "DownBlock", "UNet", "UpBlock", "padded_to", "unet_arguments"]


class DoubleConv(nn.Module):
    """Conv-BN-ReLU twice, 3x3 with padding 1: keeps height and width."""

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None) -> None:
        super().__init__()
        mid_channels = mid_channels or out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.double_conv(x)
        return out


class DownBlock(nn.Module):
    """2x2 max pooling, then `DoubleConv`: (N, C, H, W) to (N, out_channels, H // 2, W // 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.maxpool_conv(x)
        return out


class UpBlock(nn.Module):
    """Upsample twofold, pad to the skip connection, concatenate, `DoubleConv`.

    Args:
        below_channels: channels of the deeper feature map.
        skip_channels: channels of the encoder's feature map at this level.
        out_channels: channels that leave the block.
        bilinear: interpolate (no parameters) instead of a learned transposed convolution, which
            also halves `below_channels`.
    """

    def __init__(self, below_channels: int, skip_channels: int, out_channels: int, bilinear: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            joined = below_channels + skip_channels
            self.conv = DoubleConv(joined, out_channels, joined // 2)
        else:
            self.up = nn.ConvTranspose2d(below_channels, below_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(below_channels // 2 + skip_channels, out_channels)

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        below = padded_to(self.up(below), skip)
        out: torch.Tensor = self.conv(torch.cat([skip, below], dim=1))
        return out


def padded_to(below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """`below` with zeros around it up to the height and width of `skip`.

    Max pooling drops the last row or column of an odd size.
    """
    missing_h = skip.size(2) - below.size(2)
    missing_w = skip.size(3) - below.size(3)
    return F.pad(
        below, [missing_w // 2, missing_w - missing_w // 2, missing_h // 2, missing_h - missing_h // 2]
    )


class UNet(nn.Module):
    """U-Net for binary or multi-class segmentation, of any number of levels.

    `features` are the channels per resolution level, from full resolution to the bottleneck: the
    first belongs to `inc`, every further one to a `down`. The default has four downs, as in the
    article; the article's lighter `features=[32, 64, 128, 256]` is read as `inc` with 32 channels
    and three downs with 64, 128 and 256. With `bilinear` the bottleneck and all up blocks but the
    last have half of their level's channels, as in the article.

    Args:
        in_channels: 1 (gray) or 3 (RGB).
        num_classes: output channels; 1 for a binary mask.
        bilinear: bilinear upsampling (17.3M parameters with the defaults) instead of transposed
            convolutions (31.0M).
        features: at least two even channel counts.

    Raises:
        BadInputError: a channel count that cannot be built.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 1,
        bilinear: bool = True,
        features: Sequence[int] = (64, 128, 256, 512, 1024),
    ) -> None:
        super().__init__()
        _check(in_channels, num_classes, features)
        self.levels = len(features) - 1
        factor = 2 if bilinear else 1
        self.inc = DoubleConv(in_channels, features[0])
        for level in range(1, self.levels + 1):
            out_channels = features[level] // (factor if level == self.levels else 1)
            self.add_module(f"down{level}", DownBlock(features[level - 1], out_channels))
        for step in range(1, self.levels + 1):
            level = self.levels - step
            out_channels = features[level] // (factor if level > 0 else 1)
            below_channels = features[level + 1] // factor
            self.add_module(f"up{step}", UpBlock(below_channels, features[level], out_channels, bilinear))
        self.out = nn.Conv2d(features[0], num_classes, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Segment a batch.

        Args:
            x: (N, in_channels, H, W) float32, normalised; H and W at least 2 ** levels.

        Returns:
            (N, num_classes, H, W) logits.
        """
        skips = [self.inc(x)]
        for level in range(1, self.levels + 1):
            skips.append(self.get_submodule(f"down{level}")(skips[-1]))
        y = skips.pop()
        for step in range(1, self.levels + 1):
            y = self.get_submodule(f"up{step}")(y, skips.pop())
        logits: torch.Tensor = self.out(y)
        return logits


def _check(in_channels: int, num_classes: int, features: Sequence[int]) -> None:
    if in_channels < 1 or num_classes < 1:
        raise BadInputError(
            f"U-Net got in_channels={in_channels} and num_classes={num_classes}: both must be at least 1"
        )
    if len(features) < 2 or any(count < 2 or count % 2 for count in features):
        raise BadInputError(
            f"U-Net got features={list(features)}: expected two or more even channel counts, "
            "for example 16,32,64,128,256"
        )


def unet_arguments(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any] | None:
    """Read the constructor's arguments off the tensor shapes of a plain state dict.

    Returns:
        Keyword arguments of `UNet`, or None when the tensors are not those of a U-Net.
    """
    first, last = state_dict.get("inc.double_conv.0.weight"), state_dict.get("out.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        return None
    bilinear = "up1.up.weight" not in state_dict
    features = [int(first.shape[0])]
    while (weight := state_dict.get(f"down{len(features)}.maxpool_conv.1.double_conv.3.weight")) is not None:
        features.append(int(weight.shape[0]))
    if len(features) < 2:
        return None
    if bilinear:
        features[-1] *= 2
    return {
        "in_channels": int(first.shape[1]),
        "num_classes": int(last.shape[0]),
        "bilinear": bilinear,
        "features": features,
    }
