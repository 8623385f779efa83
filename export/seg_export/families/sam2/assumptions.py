"""What the weights of a SAM2 leave open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from seg_export.checkpoints.assumption import Assumption, channels, fixed_scale, size_text
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["sam2_assumptions"]


def sam2_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Its statistics, size and resizing."""
    yield from fixed_scale(checkpoint)
    yield from channels(spec)
    origin: Literal["assumed", "option"] = "option" if "image_size" in checkpoint.arguments else "assumed"
    yield Assumption("input size", size_text(spec), origin, "--variant-config (image_size)")
    yield Assumption("resize", spec.resize, "assumed")
    yield Assumption("mask threshold", f"{spec.threshold:g} (logit)", "assumed")
