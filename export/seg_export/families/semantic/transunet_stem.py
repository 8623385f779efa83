"""The convolutional stem of TransUNet: BiT's ResNetV2 (Kolesnikov et al., 2020) up to 1/16 of the size.

Convolutions have standardised weights and GroupNorm follows them, so that nothing depends on the
batch. The tensors are named as in TransUNet's official code (github.com/Beckschen/TransUNet).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Bottleneck", "ResNetV2", "StdConv2d"]


class StdConv2d(nn.Conv2d):
    """A convolution without bias whose weights have mean 0 and variance 1 per output channel."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, centred / torch.sqrt(variance + 1e-5), None, self.stride, self.padding)


def _group_norm(channels: int) -> nn.GroupNorm:
    """32 groups, as in the official code, or fewer where that left one channel in each."""
    return nn.GroupNorm(math.gcd(32, channels // 2), channels, eps=1e-6)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        middle = out_channels // 4
        self.gn1 = _group_norm(middle)
        self.conv1 = StdConv2d(in_channels, middle, 1)
        self.gn2 = _group_norm(middle)
        self.conv2 = StdConv2d(middle, middle, 3, stride)
        self.gn3 = _group_norm(out_channels)
        self.conv3 = StdConv2d(middle, out_channels, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = StdConv2d(in_channels, out_channels, 1, stride)
            self.gn_proj = nn.GroupNorm(out_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.gn_proj(self.downsample(x))
        x = self.relu(self.gn1(self.conv1(x)))
        x = self.relu(self.gn2(self.conv2(x)))
        out: torch.Tensor = self.relu(shortcut + self.gn3(self.conv3(x)))
        return out


def _block(in_channels: int, out_channels: int, units: int, stride: int) -> nn.Sequential:
    """Bottlenecks in a row, of which the first changes the channels and the size."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(unit1=Bottleneck(in_channels, out_channels, stride))
    for unit in range(2, units + 1):
        layers[f"unit{unit}"] = Bottleneck(out_channels, out_channels)
    return nn.Sequential(layers)


class ResNetV2(nn.Module):
    """Root and three blocks of bottlenecks.

    Args:
        width: channels of the root, 64 in the original; even. The blocks have 4, 8 and 16 times as many.
        units: bottlenecks per block, three numbers.
    """

    def __init__(self, width: int, units: Sequence[int]) -> None:
        super().__init__()
        self.root = nn.Sequential(
            OrderedDict(conv=StdConv2d(3, width, 7, 2), gn=_group_norm(width), relu=nn.ReLU(inplace=True))
        )
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)
        self.body = nn.ModuleDict(
            {
                "block1": _block(width, 4 * width, units[0], stride=1),
                "block2": _block(4 * width, 8 * width, units[1], stride=2),
                "block3": _block(8 * width, 16 * width, units[2], stride=2),
            }
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Features of a batch.

        Args:
            x: (N, 3, H, W) float32; H and W multiples of 16.

        Returns:
            (N, 16 * width, H / 16, W / 16), and what the decoder takes beside it, from 1/8 to 1/2 of
            the size: 8, 4 and 1 times `width` channels.
        """
        height, width = x.shape[2:]
        root = self.root(x)
        quarter = self.body["block1"](self.pool(root))
        eighth = self.body["block2"](quarter)
        # The pooling has no padding and is a row and a column short of a quarter of the size.
        missing = height // 4 - quarter.shape[2], width // 4 - quarter.shape[3]
        padded = F.pad(quarter, [0, missing[1], 0, missing[0]])
        return self.body["block3"](eighth), [eighth, padded, root]
