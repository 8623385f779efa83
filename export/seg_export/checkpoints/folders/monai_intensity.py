"""MONAI's transforms of an image's values, as they compute: fixed ones, and those by its own statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seg_export.checkpoints.folders.intensity import mean_and_deviation

__all__ = ["IntensityStep", "as_statistics", "intensity_step"]

Line = tuple[NDArray[np.float64], NDArray[np.float64]]
"""A factor and what is added, each of shape () or (C,)."""


@dataclass(frozen=True)
class ScaleIntensityRange:
    """From [a_min, a_max] to [b_min, b_max], or to [0, 1] without them."""

    a_min: float
    a_max: float
    b_min: float | None = None
    b_max: float | None = None
    clip: bool = False

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = (pixels - self.a_min) / (self.a_max - self.a_min)
        if self.b_min is not None and self.b_max is not None:
            scaled = scaled * (self.b_max - self.b_min) + self.b_min
        bounded = self.clip and (self.b_min, self.b_max) != (None, None)
        return scaled.clamp(min=self.b_min, max=self.b_max) if bounded else scaled

    def line(self, lowest: float, highest: float) -> Line | None:
        """The same without the clipping; None where values from `lowest` to `highest` are clipped."""
        start, end = (0.0, 1.0) if self.b_min is None or self.b_max is None else (self.b_min, self.b_max)
        factor = (end - start) / (self.a_max - self.a_min)
        added = start - self.a_min * factor
        ends = torch.tensor([lowest, highest], dtype=torch.float64)
        if not torch.allclose(self(ends), factor * ends + added, rtol=0, atol=1e-9):
            return None
        return np.array(factor), np.array(added)

    def values(self) -> tuple[float, ...]:
        """What its images are expected to hold."""
        return self.a_min, self.a_max


@dataclass(frozen=True)
class NormalizeIntensity:
    """Subtracts and divides, by what is given or else by mean and standard deviation of the image."""

    subtrahend: tuple[float, ...] | None = None
    divisor: tuple[float, ...] | None = None
    nonzero: bool = False
    channel_wise: bool = False

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        counted = pixels != 0 if self.nonzero else None
        mean, deviation = mean_and_deviation(pixels, (2, 3) if self.channel_wise else (1, 2, 3), counted)
        subtrahend = mean if self.subtrahend is None else _per_channel(self.subtrahend, pixels)
        divisor = deviation if self.divisor is None else _per_channel(self.divisor, pixels)
        normalised = (pixels - subtrahend) / torch.where(divisor == 0, 1, divisor)
        return normalised if counted is None else torch.where(counted, normalised, pixels)

    def line(self, lowest: float, highest: float) -> Line | None:
        """None where it depends on the image."""
        if self.subtrahend is None or self.divisor is None or self.nonzero:
            return None
        divisor = np.where(np.array(self.divisor) == 0, 1, self.divisor)
        return 1 / divisor, -np.array(self.subtrahend) / divisor

    def values(self) -> tuple[float, ...]:
        """What its images are expected to hold."""
        return self.subtrahend or ()


@dataclass(frozen=True)
class ScaleIntensity:
    """From the least and the largest value of the image to `minv` and `maxv`."""

    minv: float | None = 0.0
    maxv: float | None = 1.0
    channel_wise: bool = False

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        axes = (2, 3) if self.channel_wise else (1, 2, 3)
        lowest, highest = pixels.amin(axes, keepdim=True), pixels.amax(axes, keepdim=True)
        flat = lowest == highest
        scaled = (pixels - lowest) / torch.where(flat, 1, highest - lowest)
        if self.minv is not None and self.maxv is not None:
            scaled = scaled * (self.maxv - self.minv) + self.minv
        return torch.where(flat, pixels if self.minv is None else pixels * self.minv, scaled)

    def line(self, lowest: float, highest: float) -> Line | None:
        """It always depends on the image."""

    def values(self) -> tuple[float, ...]:
        """Any."""
        return ()


IntensityStep = ScaleIntensityRange | NormalizeIntensity | ScaleIntensity


def intensity_step(name: str, arguments: Mapping[str, Any]) -> IntensityStep | None:
    """A step as a configuration describes it; None for one that is not known.

    Args:
        name: of the transform for arrays, such as "ScaleIntensity".
        arguments: plain values.

    Example:
        >>> intensity_step("NormalizeIntensity", {"subtrahend": 120, "divisor": 60})
        NormalizeIntensity(subtrahend=(120.0,), divisor=(60.0,), nonzero=False, channel_wise=False)
    """
    made = _MADE.get(name)
    try:
        return made(arguments) if made else None
    except (KeyError, TypeError, ValueError):
        return None


def as_statistics(
    steps: Sequence[IntensityStep], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std, per channel, of pixels divided by 255 that do what fixed steps do in turn.

    Args:
        steps: applied to pixels of 0 to 255.
        channels: of the images.

    Returns:
        None where a step depends on the image or clips it, or where there are no such values.

    Example:
        >>> as_statistics([ScaleIntensityRange(0, 255, -1, 1, clip=True)], 1)
        ((0.5,), (0.5,))
    """
    factor, added = np.ones(channels), np.zeros(channels)
    for step in steps:
        ends = np.concatenate([added, 255 * factor + added])
        line = step.line(float(ends.min()), float(ends.max()))
        if line is None:
            return None
        factor, added = factor * line[0], added * line[0] + line[1]
    if factor.min() <= 0:
        return None
    mean, std = -added / (255 * factor), 1 / (255 * factor)
    # Without the sign of a zero.
    return (tuple((mean + 0.0).tolist()), tuple(std.tolist())) if np.abs(mean).max() <= 1 else None


def _per_channel(values: tuple[float, ...], pixels: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=pixels.dtype)[:, None, None]


def _range(arguments: Mapping[str, Any]) -> IntensityStep | None:
    a_min, a_max = float(arguments["a_min"]), float(arguments["a_max"])
    b_min, b_max = _number(arguments.get("b_min")), _number(arguments.get("b_max"))
    clip = bool(arguments.get("clip", False))
    return None if a_min == a_max else ScaleIntensityRange(a_min, a_max, b_min, b_max, clip)


def _normalize(arguments: Mapping[str, Any]) -> IntensityStep:
    return NormalizeIntensity(
        _numbers(arguments.get("subtrahend")),
        _numbers(arguments.get("divisor")),
        bool(arguments.get("nonzero", False)),
        bool(arguments.get("channel_wise", False)),
    )


def _scale(arguments: Mapping[str, Any]) -> IntensityStep | None:
    if arguments.get("factor") is not None:
        return None
    minv, maxv = _number(arguments.get("minv", 0.0)), _number(arguments.get("maxv", 1.0))
    return ScaleIntensity(minv, maxv, bool(arguments.get("channel_wise", False)))


_MADE: dict[str, Callable[[Mapping[str, Any]], IntensityStep | None]] = {
    "ScaleIntensityRange": _range,
    "NormalizeIntensity": _normalize,
    "ScaleIntensity": _scale,
}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _numbers(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    return tuple(float(each) for each in value) if isinstance(value, list) else (float(value),)
