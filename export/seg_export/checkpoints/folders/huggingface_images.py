"""How the image processor of a folder of transformers prepares images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from seg_export.checkpoints.claims import Claims, check_statistics
from seg_export.checkpoints.folders.folder import in_short, read_json
from seg_export.checkpoints.types import Preprocessing
from seg_runtime.contract import LARGEST_SIDE
from seg_runtime.errors import BadInputError, CheckpointError

__all__ = ["Images", "read_images"]

_FILE = "preprocessor_config.json"

_REMOVE = "move it away and give --mean, --std, --scale and --channel-order"


@dataclass(frozen=True)
class Images:
    """What a folder says of images.

    Attributes:
        claims: how they are normalised.
        size_hw: (height, width) in pixels that they are brought to; None where they keep their size.
        steps: what transformers does otherwise, for people.
    """

    claims: Claims = field(default_factory=Claims)
    size_hw: tuple[int, int] | None = None
    steps: tuple[str, ...] = ()


def read_images(transformers: ModuleType, folder: Path, channels: int) -> Images:
    """What the image processor of a folder does, checked with an image that it prepares.

    Args:
        transformers: the library, in `offline_and_quiet`.
        folder: without a `preprocessor_config.json` nothing is said of images.
        channels: of the network's input.

    Raises:
        CheckpointError: a file that the library cannot use, or images that are prepared in another way than
            with a mean and std per channel.
    """
    path = folder / _FILE
    if not path.is_file():
        return Images()
    if "auto_map" in read_json(path):
        raise CheckpointError(f"'{path}' names code (auto_map), which is not run: {_REMOVE}")
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # Values of a file that nobody checked can make the library raise anything.
        raise CheckpointError(f"'{path}' cannot be used: {in_short(error)}") from error
    prepared = _prepared(path, processor, channels)
    _check(path, processor, prepared)
    claims = Claims(
        mean=prepared.mean,
        std=prepared.std,
        scale=prepared.scale,
        channel_order=prepared.channel_order if channels == 3 else None,
        clahe=False if channels in (1, 3) else None,
    )
    size_hw, steps = _size(path, processor)
    if size_hw is not None:
        _check_size(path, processor, (*size_hw, channels))
    return Images(claims, size_hw, steps)


def _prepared(path: Path, processor: Any, channels: int) -> Preprocessing:
    """Mean, std, scale and order of channels. Raises CheckpointError for values that cannot be."""
    mean, std, scale = (0.0,) * channels, (1.0,) * channels, 1.0
    if getattr(processor, "do_normalize", False):
        mean = _numbers(path, "image_mean", processor.image_mean, channels, -math.inf)
        std = _numbers(path, "image_std", processor.image_std, channels, 0)
    if getattr(processor, "do_rescale", False):
        (factor,) = _numbers(path, "rescale_factor", processor.rescale_factor, 1, 0)
        scale = 1 / factor
        if math.isclose(scale, round(scale)):
            scale = float(round(scale))  # the inverse of a rounded 1 / 255
    flipped = channels == 3 and getattr(processor, "do_flip_channel_order", False)
    prepared = Preprocessing(mean, std, scale=scale, channel_order="bgr" if flipped else "rgb")
    try:
        check_statistics(prepared)
    except BadInputError as error:
        raise CheckpointError(
            f"'{path}' has the image_mean {list(mean)} for pixels / {scale:g}, which do not belong together: "
            "correct it"
        ) from error
    return prepared


def _numbers(path: Path, name: str, value: Any, count: int, above: float) -> tuple[float, ...]:
    """Finite numbers above a limit; one is for all. Raises CheckpointError."""
    values = value if isinstance(value, list | tuple) else [value] * count
    right = [isinstance(each, int | float) and above < each < math.inf for each in values]
    if len(right) != count or not all(right):
        expected = (f"{count} numbers" if count > 1 else "a number") + (" above 0" if above == 0 else "")
        raise CheckpointError(f"'{path}' has the {name} {value}, expected {expected}: correct it")
    return tuple(map(float, values))


def _check(path: Path, processor: Any, prepared: Preprocessing) -> None:
    """Refuse an image processor that does other to an image of the right size than `prepared` says."""
    mean, std = np.array(prepared.mean), np.array(prepared.std)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, len(mean)), dtype=np.uint8)
    kept = {name: False for name in ("do_resize", "do_center_crop", "do_pad") if hasattr(processor, name)}
    try:
        made = processor(images=image, input_data_format="channels_last", return_tensors="pt", **kept)
        found = made["pixel_values"][0].numpy().transpose(1, 2, 0)
    except Exception as error:
        raise CheckpointError(
            f"'{path}' cannot prepare images of {len(mean)} channels: {in_short(error)}"
        ) from error
    ordered = image[..., ::-1] if prepared.channel_order == "bgr" else image
    wanted = (ordered / prepared.scale - mean) / std
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=1e-4, atol=1e-4):
        raise CheckpointError(
            f"'{path}' prepares images with a {type(processor).__name__}, which does other than its mean and "
            f"std say: {_REMOVE}"
        )


def _check_size(path: Path, processor: Any, image_hwc: tuple[int, int, int]) -> None:
    """Refuse an image processor that brings an image of the input's size to another, as padding does."""
    if max(image_hwc) > LARGEST_SIDE:
        return  # refused with all that are too large
    try:
        image = np.zeros(image_hwc, np.uint8)
        made = processor(images=image, input_data_format="channels_last", return_tensors="pt")
        height, width = made["pixel_values"].shape[2:]
    except Exception as error:
        raise CheckpointError(f"'{path}' cannot prepare images: {in_short(error)}") from error
    if (height, width) != image_hwc[:2]:
        raise CheckpointError(
            f"'{path}' makes {height}x{width} of an image of {image_hwc[0]}x{image_hwc[1]}, as with do_pad: "
            "give it the size of the result, without padding"
        )


def _size(path: Path, processor: Any) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """(height, width) in pixels of the network's input, and how the library gets to it otherwise."""
    if getattr(processor, "do_center_crop", False):
        height, width = _sides_hw(path, "crop_size", processor.crop_size)
        middle = (
            f"transformers cuts {height}x{width} out of the middle of an image; here all of it is resized"
        )
        return (height, width), (middle,)
    if not getattr(processor, "do_resize", False):
        return None, ()
    keeps = "height" not in dict(processor.size or {}) or getattr(processor, "keep_aspect_ratio", False)
    stretched = "transformers keeps the proportions of images; here they are stretched to the input's size"
    return _sides_hw(path, "size", processor.size), (stretched,) if keeps else ()


def _sides_hw(path: Path, name: str, sides: Mapping[str, Any] | None) -> tuple[int, int]:
    """(height, width) in pixels; of a size by one edge a square. Raises CheckpointError."""
    given = dict(sides or {})
    edge = given.get("shortest_edge", given.get("longest_edge"))
    height, width = given.get("height", edge), given.get("width", edge)
    if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
        return height, width
    raise CheckpointError(f"'{path}' has the {name} {given}, expected a height and width: correct it")
