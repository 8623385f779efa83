"""What the weights of a SAM2 leave open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from seg_export.checkpoints.assumption import Assumption, channels, fixed, size_text, text
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["sam2_assumptions"]


def sam2_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Its statistics, size and resizing."""
    yield fixed("pixel scale", f"pixels / {spec.scale:g}")
    yield fixed("mean", text(spec.mean))
    yield fixed("std", text(spec.std))
    yield channels(spec)
    yield fixed("channel order", "RGB")
    yield Assumption("input size", size_text(spec), _size_origin(checkpoint), "--variant-config (image_size)")
    yield fixed("resize", spec.resize)
    yield fixed("mask threshold", f"{spec.threshold:g} (logit)")


def _size_origin(checkpoint: Checkpoint) -> Literal["assumed", "file", "option"]:
    if "size_hw" in checkpoint.carried:
        return "file"
    return "option" if "image_size" in checkpoint.arguments else "assumed"
