"""Inputs to verify a Mask R-CNN with: images of several shapes, alone and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_export.verification.cases import VerificationCase
from seg_runtime.files.images import list_images, read_image
from seg_runtime.spec import ModelSpec

__all__ = ["detection_cases"]

Images = NDArray[np.uint8]


def detection_cases(spec: ModelSpec, images: Path | None) -> tuple[VerificationCase, ...]:
    """Single images and a batch of two, with noise where there is no image: it must not count.

    Args:
        spec: the model's.
        images: a folder whose first three images are used; None for synthetic ones.

    Raises:
        BadInputError: the folder has no images.
        BadImageError: one of them cannot be read.
    """
    height, width = spec.input_size_hw
    if images is not None:
        files = list_images([images])
        read = [
            _fit(read_image(files[index % len(files)], 3, gray=True), (height, width)) for index in range(3)
        ]
    else:
        read = [
            _blobs(height, width, 0),
            _blobs(height, width * 2 // 3, 1),
            _blobs(height // 2 + 9, width, 2),
        ]
    if spec.max_batch_size < 2:
        return tuple(_case(spec, f"image {number}", [image]) for number, image in enumerate(read, start=1))
    return _case(spec, "one image", read[:1]), _case(spec, "two images", read[1:])


def _case(spec: ModelSpec, name: str, images: Sequence[Images]) -> VerificationCase:
    canvas = np.random.default_rng(0).integers(0, 256, (len(images), *spec.input_size_hw, 3), dtype=np.uint8)
    for slot, image in zip(canvas, images, strict=True):
        slot[: image.shape[0], : image.shape[1]] = image
    valid = np.array([image.shape[:2] for image in images], dtype=np.int32)
    return VerificationCase(name, {"image": canvas, "valid_hw": valid}, len(images))


def _fit(image: Images, size_hw: tuple[int, int]) -> Images:
    import cv2

    scale = min(limit / side for limit, side in zip(size_hw, image.shape[:2], strict=True))
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _blobs(height: int, width: int, seed: int) -> Images:
    """Bright and dark discs of many sizes on a soft background."""
    import cv2

    generator = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    canvas = (90 + 60 * rows * columns * generator.uniform(0.5, 1, 3)).astype(np.uint8)
    for _ in range(24):
        center = (int(generator.integers(0, width)), int(generator.integers(0, height)))
        radius = int(generator.uniform(0.02, 0.15) * min(height, width)) + 1
        cv2.circle(canvas, center, radius, tuple(int(value) for value in generator.integers(0, 256, 3)), -1)
    noise = generator.integers(-8, 9, canvas.shape)
    return np.asarray(np.clip(canvas.astype(np.int16) + noise, 0, 255), dtype=np.uint8)
