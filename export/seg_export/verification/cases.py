"""Inputs to verify a graph with: real images where there are some, and seeded synthetic ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.files.images import list_images, read_image
from seg_runtime.preprocess import to_batch
from seg_runtime.spec import ModelSpec

__all__ = [
    "VerificationCase",
    "extreme_cases",
    "image_cases",
    "semantic_case",
    "semantic_cases",
    "synthetic_cases",
]

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class VerificationCase:
    """One call of the model.

    Attributes:
        name: what the inputs are.
        inputs: one array per input of the model, batch axis first.
        batch: its length.
    """

    name: str
    inputs: dict[str, NDArray[Any]]
    batch: int


def semantic_cases(
    spec: ModelSpec, images: Path | None, *, flat: bool = True
) -> tuple[VerificationCase, ...]:
    """Batches of images: those of a folder, or synthetic ones. Arguments and errors as `image_cases`."""
    return image_cases(spec, images, flat=flat) if images else synthetic_cases(spec, flat=flat)


def synthetic_cases(spec: ModelSpec, *, flat: bool = True) -> tuple[VerificationCase, ...]:
    """Batches of 1, 2 and 3 seeded images: noise, a smooth gradient, blobs, all black, all white.

    Args:
        spec: the contract.
        flat: False for some noise in black and white, for networks with norms over an image's own maps.
            Where they sum a whole map in one go, they make of a flat image what rounding makes of it.
    """
    height, width = spec.input_size_hw
    shape = (height, width, spec.channels)
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, shape, dtype=np.uint8)
    row, column = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    gradient = np.broadcast_to(255 * (row + column) / 2, shape).astype(np.uint8)
    blobs = np.broadcast_to(127 * (1 + np.sin(20 * row) * np.cos(15 * column)), shape).astype(np.uint8)
    black: Images = np.zeros(shape, np.uint8) if flat else noise >> np.uint8(5)
    white = np.invert(black)
    return (
        _case(spec, "noise", [noise]),
        _case(spec, "gradient, blobs", [gradient, blobs]),
        _case(spec, "black, white, noise", [black, white, noise[::-1]]),
    )


def extreme_cases(case: VerificationCase) -> tuple[VerificationCase, ...]:
    """A case with all-black and with all-white images; none where its model takes no images."""
    images = {name: array for name, array in case.inputs.items() if array.dtype == np.uint8}
    extremes = (("black", 0), ("white", 255)) if images else ()
    return tuple(
        VerificationCase(
            what,
            case.inputs | {name: np.full_like(array, value) for name, array in images.items()},
            case.batch,
        )
        for what, value in extremes
    )


def image_cases(spec: ModelSpec, folder: Path, *, flat: bool = True) -> tuple[VerificationCase, ...]:
    """Batches of 1, 2 and 3 images of a folder, then the extremes among the synthetic ones.

    Images pass through the client's own reading, resizing and equalising. The first six are used;
    with fewer they repeat.

    Raises:
        BadInputError: the folder has no images.
        BadImageError: one of them cannot be read.
    """
    images = [_read(spec, file) for file in list_images([folder])[:6]]
    batch = [images[index % len(images)] for index in range(6)]
    real = (
        _case(spec, "images", batch[:1]),
        _case(spec, "images", batch[1:3]),
        _case(spec, "images", batch[3:]),
    )
    return (*real, synthetic_cases(spec, flat=flat)[-1])


def semantic_case(spec: ModelSpec, file: Path) -> VerificationCase:
    """One image, read as `image_cases` does. Raises BadImageError."""
    return _case(spec, file.name, [_read(spec, file)])


def _read(spec: ModelSpec, file: Path) -> Images:
    """(H, W, C) as the graph takes it."""
    image = read_image(file, spec.channels, gray=True)
    pixels: Images = to_batch([image], spec.input_size_hw, spec.channels, spec.clahe)[0]
    return pixels


def _case(spec: ModelSpec, name: str, images: Sequence[Images]) -> VerificationCase:
    return VerificationCase(name, {spec.inputs[0].name: np.stack(images)}, len(images))
