"""What a MONAI bundle does to its images, as claims and as steps inside the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from seg_export.checkpoints.claims import Claims
from seg_export.checkpoints.folders.intensity import applied_first, applied_last
from seg_export.checkpoints.folders.monai_intensity import IntensityStep, as_statistics
from seg_export.checkpoints.folders.monai_transforms import Images
from seg_runtime.errors import CheckpointError

__all__ = ["prepare"]

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def prepare(
    network: nn.Module, images: Images, channels: int, folder: Path
) -> tuple[Claims, tuple[str, ...]]:
    """Have a network see images as it was trained.

    Args:
        network: as the bundle describes it; gets steps in front and behind.
        images: what is done to them.
        channels: of the images.
        folder: for messages.

    Returns:
        What is done outside of the graph, and what there is to say of the rest, for people.

    Raises:
        CheckpointError: images of other values than 0 to 255, or steps by an image's own statistics next to
            others that are not known.
    """
    statistics = as_statistics(images.steps, channels)
    _check(images, statistics, folder)
    inside = () if images.unknown or statistics else tuple(images.steps)
    if images.by_columns:
        applied_last(network, _swapped)
    if images.by_columns or inside:
        applied_first(network, _Steps(inside, images.by_columns))
    claims = Claims() if images.unknown else _claims(statistics, channels)
    return claims, tuple(_notes(images, inside))


def _check(images: Images, statistics: Statistics | None, folder: Path) -> None:
    first = images.steps[0] if images.steps else None
    if first is not None and any(not 0 <= value <= 255 for value in first.values()):
        shown = ", ".join(f"{value:g}" for value in first.values())
        raise CheckpointError(
            f"'{folder}' is not for images of 8 bits, 0 to 255: its {type(first).__name__} has {shown}"
        )
    if images.unknown and statistics is None:
        raise CheckpointError(
            f"'{folder}' prepares images by {images.unknown[0]}, which is not understood, and by their own "
            "statistics: name a factory that does both, as PACKAGE.MODULE:FACTORY"
        )


def _claims(statistics: Statistics | None, channels: int) -> Claims:
    mean, std = statistics or ((0.0,) * channels, (1.0,) * channels)
    return Claims(
        mean=mean,
        std=std,
        scale=255.0 if statistics else 1.0,
        channel_order="rgb" if channels == 3 else None,
        clahe=False if channels in (1, 3) else None,
    )


def _notes(images: Images, inside: Sequence[IntensityStep]) -> list[str]:
    notes = []
    if images.swapped is None:
        notes.append("nothing loads its images: their axes are taken to be as MONAI's LoadImage has them")
    if images.by_columns:
        notes.append("MONAI has images as (C, W, H): the graph transposes them, and its outputs back")
    if images.unknown:
        notes.append(f"not understood, so that mean and std are open: {', '.join(images.unknown)}")
    if inside:
        notes.append(f"inside the graph, for each image: {', '.join(type(step).__name__ for step in inside)}")
    return notes


@dataclass(frozen=True)
class _Steps:
    """From images (N, C, H, W) as the graph has them to those that the network was trained with."""

    steps: Sequence[IntensityStep]
    swapped: bool

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            pixels = step(pixels)
        return pixels.transpose(2, 3) if self.swapped else pixels


def _swapped(maps: torch.Tensor) -> torch.Tensor:
    return maps.transpose(2, 3)
