"""What the five models of a SAM2 take and give: the contract with its clients."""

from __future__ import annotations

from seg_runtime.spec import TensorSpec

__all__ = ["Tensors", "sam2_tensors"]

Tensors = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
"""Inputs and outputs."""

_FINE, _MIDDLE, _HIDDEN, _MEMORY = 32, 64, 256, 64
"""Channels of the levels at strides 4, 8 and 16, and of a memory."""


def sam2_tensors(part: str, side: int) -> Tensors:
    """The tensors of a part, for example "mask_decoder", of a SAM2 that takes images of this side."""
    grid = side // 16
    embedding = (_HIDDEN, grid, grid)
    low_res = (1, 4 * grid, 4 * grid)
    if part == "image_encoder":
        image = TensorSpec("image", "uint8", (side, side, 3))
        return (image,), tuple(_float(name, *shape) for name, shape in _levels(grid))
    if part == "mask_decoder":
        return _decoder(grid)
    if part == "mask_prompt":
        return (TensorSpec("mask", "uint8", (1, side, side)),), (
            _float("mask_input", 1, *low_res),
            _float("low_res_masks", 1, *low_res),
            _float("no_object_pointer", 1, _HIDDEN),
        )
    if part == "memory_encoder":
        inputs = (
            _float("image_embeddings", 1, *embedding),
            _float("low_res_masks", 1, *low_res),
            _float("from_prompt", 1),
            _float("object_score_logits", 1, 1),
        )
        return inputs, (_float("memory", 1, _MEMORY, grid, grid),)
    attention = (
        _float("image_embeddings", 1, *embedding),
        TensorSpec("memories", "float32", (-1, _MEMORY, grid, grid), ("memories",)),
        TensorSpec("memory_slots", "int32", (-1,), ("memories",)),
        TensorSpec("object_pointers", "float32", (-1, _HIDDEN), ("pointers",)),
        TensorSpec("pointer_distances", "float32", (-1,), ("pointers",)),
        _float("pointer_range", 1),
    )
    return attention, (_float("image_embeddings_with_memory", 1, *embedding),)


def _decoder(grid: int) -> Tensors:
    inputs = (
        *(_float(name, 1, *shape) for name, shape in _levels(grid)),
        TensorSpec("point_coords", "float32", (-1, -1, 2), ("prompts", "points")),
        TensorSpec("point_labels", "int32", (-1, -1), ("prompts", "points")),
        # One mask for all prompts, or one for each.
        TensorSpec("mask_input", "float32", (-1, 1, 4 * grid, 4 * grid), ("masks",)),
        TensorSpec("has_mask_input", "float32", (-1,), ("prompts",)),
        _float("no_memory", 1),
    )
    outputs = (
        TensorSpec("low_res_masks", "float32", (-1, 4, 4 * grid, 4 * grid), ("prompts",)),
        TensorSpec("iou_predictions", "float32", (-1, 4), ("prompts",)),
        TensorSpec("object_score_logits", "float32", (-1, 1), ("prompts",)),
        TensorSpec("object_pointers", "float32", (-1, 4, _HIDDEN), ("prompts",)),
    )
    return inputs, outputs


def _levels(grid: int) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    return (
        ("image_embeddings", (_HIDDEN, grid, grid)),
        ("high_res_features_0", (_FINE, 4 * grid, 4 * grid)),
        ("high_res_features_1", (_MIDDLE, 2 * grid, 2 * grid)),
    )


def _float(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "float32", shape)
