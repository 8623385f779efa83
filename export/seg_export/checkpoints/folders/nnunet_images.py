"""How nnU-Net v2 normalises images, channel by channel, as its plans name it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.folders.intensity import ImageStep, mean_and_deviation
from seg_runtime.errors import CheckpointError

__all__ = ["Normalisation", "normalisation"]

_LEAST = 1e-6
"""To divide by. nnU-Net's is 1e-8, which fp16 cannot hold; what varies in images of 8 bits varies by more."""

_ELSE = "name a factory, as PACKAGE.MODULE:FACTORY"


@dataclass(frozen=True)
class Normalisation:
    """What is done to images of 0 to 255.

    Attributes:
        std: per channel, what pixels are divided by first.
        step: what follows inside the graph; None for nothing.
    """

    std: tuple[float, ...]
    step: ImageStep | None


def normalisation(settings: Mapping[str, Any], channels: int, folder: Path) -> Normalisation:
    """That of a configuration.

    Args:
        settings: the configuration of the plans.
        channels: of the images.
        folder: for messages.

    Raises:
        CheckpointError: one that images of 8 bits cannot have, that a graph cannot compute, or that is not
            known.
    """
    schemes, masked = settings.get("normalization_schemes") or (), settings.get("use_mask_for_norm") or ()
    if not channels or len(schemes) != channels or len(masked) != channels:
        raise CheckpointError(
            f"'{folder}': {channels} channels in dataset.json and {len(schemes)} of normalization_schemes in "
            "plans.json: expected as many"
        )
    for scheme, mask in zip(schemes, masked, strict=True):
        if reason := _refusal(str(scheme), bool(mask)):
            raise CheckpointError(f"'{folder}' is trained with {scheme}, {reason}: {_ELSE}")
    std = tuple(255.0 if scheme == "RGBTo01Normalization" else 1.0 for scheme in schemes)
    return Normalisation(std, _PerImage(tuple(schemes)) if set(schemes) & _OF_IMAGE.keys() else None)


def _refusal(scheme: str, masked: bool) -> str:
    """Why it cannot be done; "" where it can."""
    if scheme == "CTNormalization":
        return "of Hounsfield units, which images of 8 bits do not have"
    if scheme == "ZScoreNormalization" and masked:
        return "of what is not black with its holes filled, which no graph can find"
    if scheme in _OF_IMAGE or scheme in {"RGBTo01Normalization", "NoNormalization"}:
        return ""
    return "which is none of nnU-Net's own"


@dataclass(frozen=True)
class _PerImage:
    """Normalisation by an image's own statistics, of the channels that have such a scheme."""

    schemes: tuple[str, ...]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        inside = _inside(pixels)
        normalised = []
        for channel, scheme in enumerate(self.schemes):
            part = pixels[:, channel : channel + 1]
            normalised.append(_OF_IMAGE[scheme](part, inside) if scheme in _OF_IMAGE else part)
        # nnU-Net pads what it has cut with zeros.
        return torch.cat(normalised, dim=1) * inside


def _inside(pixels: torch.Tensor) -> torch.Tensor:
    """Where an image is without its black border, which nnU-Net cuts off first: (N, 1, H, W) bool."""
    seen = (pixels != 0).any(1, keepdim=True)
    return _between(seen.any(3, keepdim=True), 2) & _between(seen.any(2, keepdim=True), 3)


def _between(seen: torch.Tensor, axis: int) -> torch.Tensor:
    """From the first to the last place on an axis that is True."""
    ones = seen.float()
    passed = ones.cumsum(axis)
    return (passed > 0) & (passed - ones < ones.sum(axis, keepdim=True))


def _z_score(pixels: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    mean, deviation = mean_and_deviation(pixels, (1, 2, 3), inside)
    return (pixels - mean) / deviation.clamp(min=_LEAST)


def _rescaled(pixels: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    # Outside all are 0, which is no more than the largest inside.
    lowest = torch.where(inside, pixels, 255).amin((1, 2, 3), keepdim=True)
    highest = pixels.amax((1, 2, 3), keepdim=True)
    return (pixels - lowest) / (highest - lowest).clamp(min=_LEAST)


_OF_IMAGE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ZScoreNormalization": _z_score,
    "RescaleTo01Normalization": _rescaled,
}
"""Schemes by an image's own statistics: a channel (N, 1, H, W), and where it counts."""
