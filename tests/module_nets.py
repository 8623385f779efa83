"""Small networks such as users bring, and their factories."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class SmallNet(nn.Module):
    """Two convolutions at half the size. It returns logits, or those of two depths as a tuple."""

    def __init__(
        self, channels: int = 3, classes: int = 2, deep: bool = False, full_size: bool = True
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.head = nn.Conv2d(8, classes, 3, padding=1)
        self.deep, self.full_size = deep, full_size

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        low = 8 * self.head(self.features(pixels))
        if not self.full_size:
            return low
        high = F.interpolate(low, pixels.shape[2:], mode="bilinear")
        return (high, low) if self.deep else high


class InstanceNorms(nn.Module):
    """As MONAI's and nnU-Net's: norms over the maps of one image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.InstanceNorm2d(16, affine=True),
            nn.LeakyReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.LeakyReLU(),
            nn.Conv2d(16, 2, 1),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels)


class Amplifying(nn.Module):
    """As a deep network that was never trained: differences of the last digits become large ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 7, padding=3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = self.layer(pixels)
        return 1e3 * (features - features.roll(1, dims=1) + features.roll(2, dims=1)).sum(1, keepdim=True)


class InFloat32(nn.Module):
    """Its weights follow `double()`, and what it makes itself does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels + torch.ones(1, dtype=torch.float32)).matmul(torch.eye(64))


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels)


class Branching(nn.Module):
    """What it computes depends on the values of its input, which no graph can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels) if pixels.mean() > 0 else pixels


class LabelMap(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels).argmax(dim=1, keepdim=True)


class Dictionary(nn.Module):
    """As HuggingFace's models: logits at a part of the size, among other things."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet(full_size=False)

    def forward(self, pixels: torch.Tensor) -> dict[str, object]:
        return {"logits": self.net(pixels), "hidden_states": (pixels,)}


def small(**arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return SmallNet(**arguments)  # type: ignore[arg-type]


def raises(message: str = "no weights") -> nn.Module:
    raise RuntimeError(message)


def no_module() -> str:
    return "a string"


NUMBER = 3
