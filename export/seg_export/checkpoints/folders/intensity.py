"""What libraries do to each image before a network, and to its outputs behind it, inside the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

__all__ = ["ImageStep", "applied_first", "applied_last", "mean_and_deviation"]

ImageStep = Callable[[torch.Tensor], torch.Tensor]
"""From images (N, C, H, W) in float to images of that shape, or from maps of classes to maps."""


def applied_first(network: nn.Module, step: ImageStep) -> None:
    """Have a network apply a step to its images; the names of its weights stay those of their file.

    Args:
        network: takes (N, C, H, W).
        step: without weights; its constants follow the type of the images.

    Example:
        >>> network = nn.Identity()
        >>> applied_first(network, lambda pixels: pixels / 255)
        >>> network(torch.full((1, 1, 1, 2), 51.0)).tolist()
        [[[[0.20000000298023224, 0.20000000298023224]]]]
    """
    network.register_forward_pre_hook(partial(_apply, step))


def applied_last(network: nn.Module, step: ImageStep) -> None:
    """Have a network apply a step to its maps (N, classes, h, w), in whatever they are returned.

    Args:
        network: returns a tensor, or several in a list, a tuple or a mapping.
        step: without weights.

    Example:
        >>> network = nn.Identity()
        >>> applied_last(network, torch.neg)
        >>> network({"maps": torch.ones(1, 1, 1, 1), "losses": None})
        {'maps': tensor([[[[-1.]]]]), 'losses': None}
    """
    network.register_forward_hook(partial(_apply_behind, step))


def mean_and_deviation(
    pixels: torch.Tensor, axes: tuple[int, ...], counted: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each image.

    Args:
        pixels: (N, C, H, W).
        axes: over which they are taken, without the first.
        counted: where pixels count, in a shape that broadcasts to that of `pixels`; None for everywhere.

    Returns:
        Both in the shape of `pixels` with those axes of length 1; 0 where no pixel counts.
    """
    if counted is None:
        mean = pixels.mean(axes, keepdim=True)
        return mean, (pixels - mean).square().mean(axes, keepdim=True).sqrt()
    counted = counted.to(pixels.dtype).expand_as(pixels)
    # At least 1: a sum of none is 0.
    number = counted.sum(axes, keepdim=True).clamp(min=1)
    mean = (pixels * counted).sum(axes, keepdim=True) / number
    variance = ((pixels - mean).square() * counted).sum(axes, keepdim=True) / number
    return mean, variance.sqrt()


def _apply(step: ImageStep, network: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (step(arguments[0]), *arguments[1:])


def _apply_behind(step: ImageStep, network: nn.Module, arguments: Any, outputs: Any) -> Any:
    if isinstance(outputs, Mapping):
        return {name: _apply_behind(step, network, arguments, each) for name, each in outputs.items()}
    if isinstance(outputs, list | tuple):
        return [_apply_behind(step, network, arguments, each) for each in outputs]
    return step(outputs) if isinstance(outputs, torch.Tensor) and outputs.ndim == 4 else outputs
