"""What the weights of a semantic network leave open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from seg_export.checkpoints.assumption import (
    SAVED,
    Assumption,
    channels,
    classes,
    input_size,
    size_text,
    text,
)
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["semantic_assumptions"]


def semantic_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Images, classes and what becomes of the logits."""
    preprocessing = checkpoint.preprocessing
    yield Assumption("pixel scale", "pixels / 255", "assumed", "mean and std")
    yield Assumption("mean", text(preprocessing.mean), "assumed", SAVED)
    yield Assumption("std", text(preprocessing.std), "assumed", SAVED)
    yield Assumption("CLAHE", "none", "assumed", SAVED)
    yield from channels(spec)
    yield from classes(len(checkpoint.class_names), checkpoint.class_names)
    if "image_size" in checkpoint.arguments:
        yield Assumption("input size", size_text(spec), "file")
        yield Assumption("attention heads", "one per 64 channels", "assumed")
    else:
        yield input_size(spec, size_given)
    yield Assumption("resize", spec.resize, "assumed")
    if len(checkpoint.class_names) == 1:
        yield Assumption("activation", "sigmoid", "assumed")
        yield Assumption("threshold", f"{spec.threshold:g}", "assumed", "seg-run segment --threshold")
    else:
        yield Assumption("activation", "softmax, the likeliest class wins", "assumed")
