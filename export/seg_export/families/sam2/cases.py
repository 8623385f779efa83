"""Inputs to verify SAM2's graphs with: images, prompts of every kind, memories and object pointers.

What a graph takes from another is made by sam2's own modules, of the first image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seg_export.families.sam.cases import synthetic_images
from seg_export.verification.cases import VerificationCase
from seg_runtime.files.images import list_images, read_image
from seg_runtime.sam.prompts import NOT_A_POINT, PADDING
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    import torch

__all__ = [
    "Sam2Frame",
    "decoder_cases",
    "encode_frame",
    "encoder_cases",
    "mask_prompt_cases",
    "memory_attention_cases",
    "memory_encoder_cases",
    "seeded_cases",
]

Prompt = Sequence[tuple[float, float, int]]
"""Points as (x, y, label), x and y as shares of the image's side."""

POINT: Prompt = ((0.35, 0.5, 1),)
POINTS: Prompt = ((0.3, 0.4, 1), (0.7, 0.5, 1), (0.5, 0.1, 0))
BOX: Prompt = ((0.1, 0.15, 2), (0.85, 0.8, 3))
BOX_AND_POINT: Prompt = (*BOX, (0.5, 0.3, 0))
TRACKED: Prompt = ((0, 0, NOT_A_POINT),)
MASK_ALONE: Prompt = ()

_PROMPTS: tuple[tuple[str, tuple[Prompt, ...], tuple[int, ...], float], ...] = (
    ("one point", (POINT,), (), 1),
    ("no prompt, tracked", (TRACKED,), (), 0),
    ("points, box", (POINTS, BOX), (), 1),
    ("box and point, point with mask, mask", (BOX_AND_POINT, POINT, MASK_ALONE), (1, 2), 0),
    ("five prompts", (POINT, BOX, POINTS, BOX_AND_POINT, TRACKED), (1, 4), 1),
)
"""Name, prompts, the indices of those that come with a mask, and whether there is no memory."""

_MEMORIES = (
    ("one memory", (6,), (1,)),
    ("two memories, 3 pointers", (6, 0), (2, 1, -3)),
    ("seven memories, 16 pointers", (6, 5, 4, 3, 2, 1, 0), tuple(range(16))),
)
"""Name, slots of the memories, distances of the object pointers."""


class Sam2Frame:
    """One encoded image.

    Attributes:
        name: of the image.
        embedding: (1, 256, H, W) float32.
        fine: (1, 32, 4H, 4W) float32.
        middle: (1, 64, 2H, 2W) float32.
    """

    def __init__(self, name: str, embedding: torch.Tensor, fine: torch.Tensor, middle: torch.Tensor) -> None:
        self.name, self.embedding, self.fine, self.middle = name, embedding, fine, middle


def encoder_cases(spec: ModelSpec, images: Path | None) -> tuple[VerificationCase, ...]:
    """Single images: noise, a gradient and blobs, or the first three of a folder.

    Raises:
        BadInputError: the folder has no images.
        BadImageError: one of them cannot be read.
    """
    side = spec.input_size_hw[0]
    if images is None:
        return tuple(
            VerificationCase(name, {"image": image[None]}, 1) for name, image in synthetic_images(side, side)
        )
    return tuple(
        VerificationCase(file.name, {"image": _stretched(read_image(file, 3, gray=False), side)[None]}, 1)
        for file in list_images([images])[:3]
    )


def encode_frame(sam2: Any, spec: ModelSpec, images: Path | None) -> Sam2Frame:
    """The first image of `encoder_cases`, or the last of the synthetic ones, encoded by sam2."""
    import torch

    from seg_export.families.sam2.reference import EncoderReference
    from seg_export.verification.allocator import memory_kept

    case = encoder_cases(spec, images)[0 if images else -1]
    with memory_kept(), torch.inference_mode():
        return Sam2Frame(case.name, *EncoderReference(sam2)(torch.from_numpy(case.inputs["image"])))


def decoder_cases(frame: Sam2Frame, spec: ModelSpec) -> tuple[VerificationCase, ...]:
    """Prompts of every kind, alone and together."""
    image = {
        "image_embeddings": frame.embedding.numpy(),
        "high_res_features_0": frame.fine.numpy(),
        "high_res_features_1": frame.middle.numpy(),
    }
    return prompt_cases(spec, image, frame.name)


def prompt_cases(
    spec: ModelSpec, image: dict[str, NDArray[np.float32]], name: str
) -> tuple[VerificationCase, ...]:
    """Prompts of every kind on an encoded image, by the names of the encoder's outputs."""
    return tuple(
        VerificationCase(
            f"{what} on {name}",
            {
                **image,
                **_prompts(spec, prompts, with_mask),
                "no_memory": np.array([no_memory], np.float32),
            },
            len(prompts),
        )
        for what, prompts, with_mask, no_memory in _PROMPTS
    )


def mask_prompt_cases(spec: ModelSpec) -> tuple[VerificationCase, ...]:
    """A disc, noise, a mask that touches all edges, and an empty one."""
    side = spec.input_size_hw[0]
    row, column = np.mgrid[:side, :side] / side
    disc = np.hypot(row - 0.4, column - 0.55) < 0.23
    noise = np.random.default_rng(0).random((side, side)) < 0.5
    edges = np.hypot(row - 0.5, column - 0.5) > 0.4
    masks = {"disc": disc, "noise": noise, "edges": edges, "empty": np.zeros_like(disc)}
    return tuple(
        VerificationCase(name, {"mask": mask.astype(np.uint8)[None]}, 1) for name, mask in masks.items()
    )


def memory_encoder_cases(frame: Sam2Frame) -> tuple[VerificationCase, ...]:
    """Masks of clicks and of tracking, and a frame without the object."""
    side = frame.fine.shape[-1]
    return tuple(
        VerificationCase(
            f"{name} on {frame.name}",
            {
                "image_embeddings": frame.embedding.numpy(),
                "low_res_masks": logits[None, None],
                "from_prompt": np.array([from_prompt], np.float32),
                "object_score_logits": np.array([[score]], np.float32),
            },
            1,
        )
        for name, logits, from_prompt, score in (
            ("clicks", _disc_logits(side, 0.4), 1, 8.0),
            ("tracked", _disc_logits(side, 0.6), 0, 5.0),
            ("absent", np.full((side, side), -1024, np.float32), 0, -4.0),
        )
    )


def memory_attention_cases(sam2: Any, frame: Sam2Frame) -> tuple[VerificationCase, ...]:
    """One, two and seven memories, as sam2 makes them of the shifted image, with 1 to 16 object pointers."""
    return tuple(
        VerificationCase(
            f"{name} on {frame.name}",
            {
                "image_embeddings": frame.embedding.numpy(),
                "memories": _memories(sam2, frame, len(slots)),
                "memory_slots": np.array(slots, np.int32),
                "object_pointers": _noise((len(distances), frame.embedding.shape[1])),
                "pointer_distances": np.array(distances, np.float32),
                "pointer_range": np.array([15], np.float32),
            },
            len(slots),
        )
        for name, slots, distances in _MEMORIES
    )


def seeded_cases(spec: ModelSpec) -> tuple[VerificationCase, ...]:
    """Inputs of noise for any of SAM2's graphs but the encoder; needs no weights."""
    if spec.task == "sam2-image-encoder":
        return encoder_cases(spec, None)
    if spec.task == "sam2-mask-prompt":
        return mask_prompt_cases(spec)
    if spec.task == "sam2-mask-decoder":
        image = {tensor.name: _noise(tensor.shape) for tensor in spec.inputs[:3]}
        return prompt_cases(spec, image, "noise")
    embedding = {"image_embeddings": _noise(spec.inputs[0].shape)}
    if spec.task == "sam2-memory-encoder":
        logits = _disc_logits(spec.inputs[1].shape[-1], 0.5)[None, None]
        rest = {"from_prompt": np.zeros(1, np.float32), "object_score_logits": np.ones((1, 1), np.float32)}
        return (VerificationCase("noise", {**embedding, "low_res_masks": logits, **rest}, 1),)
    return tuple(
        VerificationCase(
            name,
            {
                **embedding,
                "memories": _noise((len(slots), *spec.inputs[1].shape[1:])),
                "memory_slots": np.array(slots, np.int32),
                "object_pointers": _noise((len(distances), spec.inputs[3].shape[1])),
                "pointer_distances": np.array(distances, np.float32),
                "pointer_range": np.array([15], np.float32),
            },
            len(slots),
        )
        for name, slots, distances in _MEMORIES
    )


def _memories(sam2: Any, frame: Sam2Frame, count: int) -> NDArray[np.float32]:
    """(K, 64, H, W): the image shifted from frame to frame, with a disc that grows."""
    import torch

    from seg_export.families.sam2.reference import MemoryEncoderReference

    encode = MemoryEncoderReference(sam2).eval()
    one, score = torch.ones(1), torch.ones(1, 1)
    memories = []
    with torch.inference_mode():
        for index in range(count):
            shifted = frame.embedding.roll((index, 2 * index), (2, 3))
            logits = torch.from_numpy(_disc_logits(frame.fine.shape[-1], 0.3 + 0.05 * index))[None, None]
            memories.append(encode(shifted, logits, one * (index == 0), score))
    return torch.cat(memories).numpy()


def _prompts(spec: ModelSpec, prompts: Sequence[Prompt], with_mask: Sequence[int]) -> dict[str, Any]:
    side, count = spec.input_size_hw[0], len(prompts)
    length = max(1, *(len(prompt) for prompt in prompts))
    coords = np.full((count, length, 2), 7.0, np.float32)
    labels = np.full((count, length), PADDING, np.int32)
    for row, prompt in enumerate(prompts):
        for column, (x, y, label) in enumerate(prompt):
            coords[row, column] = (x * side, y * side)
            labels[row, column] = label
    ramp = np.linspace(-8, 8, side // 4, dtype=np.float32)
    masks = np.stack([(ramp[None] + ramp[:, None] * (row - 1))[None] for row in range(count)])
    return {
        "point_coords": coords,
        "point_labels": labels,
        # One row serves all prompts, which is how clients send no mask at all.
        "mask_input": masks if with_mask else masks[:1],
        "has_mask_input": np.isin(np.arange(count), with_mask).astype(np.float32),
    }


def _disc_logits(side: int, radius: float) -> NDArray[np.float32]:
    """(side, side) logits, 10 inside of a disc and -10 outside; its radius as a share of half the side."""
    row, column = np.mgrid[:side, :side] / side - 0.5
    return np.asarray(10 * np.tanh(20 * (radius / 2 - np.hypot(row, column))), np.float32)


def _noise(shape: Sequence[int]) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(tuple(shape)).astype(np.float32)


def _stretched(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(side, side, 3); any resampling does to verify a graph."""
    import cv2

    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
