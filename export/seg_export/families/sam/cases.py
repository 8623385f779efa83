"""Inputs to verify SAM's graphs with: images of several shapes, and prompts of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_export.verification.cases import VerificationCase
from seg_runtime.files.images import list_images, read_image
from seg_runtime.sam.prompts import NOT_A_POINT, PADDING
from seg_runtime.spec import ModelSpec

__all__ = [
    "decoder_cases",
    "encoder_case",
    "encoder_cases",
    "prompt_cases",
    "synthetic_images",
]

Prompt = Sequence[tuple[float, float, int]]
"""Points as (x, y, label), x and y as shares of the image's side."""

POINT: Prompt = ((0.35, 0.5, 1), (0, 0, NOT_A_POINT))
POINTS: Prompt = ((0.3, 0.4, 1), (0.7, 0.5, 1), (0.5, 0.1, 0), (0, 0, NOT_A_POINT))
BOX: Prompt = ((0.1, 0.15, 2), (0.85, 0.8, 3))
BOX_AND_POINT: Prompt = ((0.5, 0.3, 0), *BOX)
MASK_ALONE: Prompt = ()

_CASES: tuple[tuple[str, tuple[Prompt, ...], tuple[int, ...]], ...] = (
    ("one point", (POINT,), ()),
    ("points, box", (POINTS, BOX), ()),
    ("box and point, point with mask, mask", (BOX_AND_POINT, POINT, MASK_ALONE), (1, 2)),
    ("five prompts", (POINT, BOX, POINTS, BOX_AND_POINT, POINT), (1, 4)),
)
"""Name, prompts, and the indices of those that come with a mask."""


def encoder_cases(spec: ModelSpec, images: Path | None) -> tuple[VerificationCase, ...]:
    """Single images: wide, tall and square, each with noise in the part that does not count.

    Args:
        spec: the encoder's.
        images: a folder whose first three images are used; None for synthetic ones.

    Raises:
        BadInputError: the folder has no images.
        BadImageError: one of them cannot be read.
    """
    side = spec.input_size_hw[0]
    if images is None:
        return (
            _encoder_case("noise", _noise((side, side, 3)), side),
            _encoder_case("wide gradient", _gradient(side * 2 // 3, side), side),
            _encoder_case("tall blobs", _blobs(side, side // 2 + 1), side),
        )
    return tuple(encoder_case(spec, file) for file in list_images([images])[:3])


def synthetic_images(height: int, width: int) -> tuple[tuple[str, NDArray[np.uint8]], ...]:
    """Noise, a gradient and blobs, each (H, W, 3), with their names."""
    return (
        ("noise", _noise((height, width, 3))),
        ("gradient", _gradient(height, width)),
        ("blobs", _blobs(height, width)),
    )


def encoder_case(spec: ModelSpec, file: Path) -> VerificationCase:
    """One image, scaled to the encoder's side. Raises BadImageError."""
    side = spec.input_size_hw[0]
    return _encoder_case(file.name, _resized(read_image(file, 3, gray=False), side), side)


def decoder_cases(sam: Any, spec: ModelSpec, images: Path | None) -> tuple[VerificationCase, ...]:
    """Prompts of every kind, alone and together, on the first image of `encoder_cases`.

    Args:
        sam: `segment_anything.modeling.Sam`, which encodes the image.
        spec: the decoder's.
        images: as for `encoder_cases`.
    """
    import torch

    from seg_export.families.sam.reference import EncoderReference
    from seg_export.verification.allocator import memory_kept

    case = encoder_cases(spec, images)[0 if images else -1]
    with memory_kept(), torch.inference_mode():
        embedding = EncoderReference(sam)(*(torch.from_numpy(array) for array in case.inputs.values()))
    return prompt_cases(spec, embedding.numpy(), case.name)


def prompt_cases(spec: ModelSpec, embedding: NDArray[Any], image: str) -> tuple[VerificationCase, ...]:
    """Prompts of every kind, alone and together, on an encoded image.

    Args:
        spec: the decoder's.
        embedding: (1, C, G, G) of the image.
        image: what to call it.
    """
    return tuple(
        _decoder_case(f"{name} on {image}", prompts, with_mask, embedding, spec)
        for name, prompts, with_mask in _CASES
    )


def _encoder_case(name: str, image: NDArray[np.uint8], side: int) -> VerificationCase:
    height, width = image.shape[:2]
    canvas = _noise((side, side, 3))
    canvas[:height, :width] = image
    inputs: dict[str, NDArray[Any]] = {
        "image": canvas[None],
        "valid_hw": np.array([[height, width]], np.int32),
    }
    return VerificationCase(name, inputs, 1)


def _decoder_case(
    name: str, prompts: Sequence[Prompt], with_mask: Sequence[int], embedding: NDArray[Any], spec: ModelSpec
) -> VerificationCase:
    side, count = spec.input_size_hw[0], len(prompts)
    length = max(len(prompt) for prompt in prompts)
    coords = np.full((count, length, 2), 7.0, np.float32)
    labels = np.full((count, length), PADDING, np.int32)
    for row, prompt in enumerate(prompts):
        for column, (x, y, label) in enumerate(prompt):
            coords[row, column] = (0, 0) if label == NOT_A_POINT else (x * side, y * side)
            labels[row, column] = label
    mask_side = 4 * embedding.shape[-1]
    ramp = np.linspace(-8, 8, mask_side, dtype=np.float32)
    masks = np.stack([(ramp[None] + ramp[:, None] * (row - 1))[None] for row in range(count)])
    has_mask = np.isin(np.arange(count), with_mask).astype(np.float32)
    inputs = {
        "image_embeddings": embedding,
        "point_coords": coords,
        "point_labels": labels,
        # One row serves all prompts, which is how clients send no mask at all.
        "mask_input": masks if with_mask else masks[:1],
        "has_mask_input": has_mask,
    }
    return VerificationCase(name, inputs, count)


def _noise(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _gradient(height: int, width: int) -> NDArray[np.uint8]:
    row, column = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    return np.asarray(255 * (row + column) / 2 * np.array([1, 0.5, 0.8]), np.uint8)


def _blobs(height: int, width: int) -> NDArray[np.uint8]:
    row, column = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    return np.asarray(127 * (1 + np.sin(20 * row) * np.cos(15 * column)) * np.array([1, 0.9, 0.6]), np.uint8)


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(H, W, 3), its longer side `side` pixels long; any resampling does to verify a graph."""
    import cv2

    scale = side / max(image.shape[:2])
    height, width = (max(1, int(length * scale + 0.5)) for length in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
