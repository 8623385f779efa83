"""The model families that can be exported: one builder each."""

from __future__ import annotations

from collections.abc import Callable

from seg_export.checkpoint import Checkpoint
from seg_export.semantic import semantic_model
from seg_export.traceable import TraceableModel
from seg_runtime.errors import CheckpointError

__all__ = ["FAMILIES", "traceable_model"]

Builder = Callable[[Checkpoint, str, tuple[int, int], int], TraceableModel]


def _unet(checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int) -> TraceableModel:
    levels = len(checkpoint.arguments.get("features", (64, 128, 256, 512, 1024))) - 1
    min_side = max(2**levels, 8)
    return semantic_model(checkpoint, name, size_hw, min_side, max_batch_size)


FAMILIES: dict[str, Builder] = {"unet": _unet}


def traceable_model(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> TraceableModel:
    """Build what the following steps trace, verify and publish.

    Args:
        checkpoint: loaded weights.
        name: the model's name in the repository.
        size_hw: (height, width) in pixels of the graph's image input.
        max_batch_size: largest batch that is served.

    Raises:
        CheckpointError: an unknown family, or weights that do not fit it.
        BadInputError: a size or batch that the model cannot take.
    """
    builder = FAMILIES.get(checkpoint.family)
    if builder is None:
        raise CheckpointError(
            f"cannot export the model family '{checkpoint.family}': known are {', '.join(sorted(FAMILIES))}"
        )
    return builder(checkpoint, name, size_hw, max_batch_size)
