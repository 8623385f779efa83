"""What the weights of a SAM leave open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from seg_export.checkpoints.assumption import Assumption, arguments_of, channels, size_text
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["sam_assumptions"]


def sam_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Its statistics, heads and resizing."""
    from seg_export.families.sam.network import build_sam

    argument = arguments_of(build_sam, checkpoint)
    yield argument("pixel_mean", "mean", "--variant-config (pixel_mean)")
    yield argument("pixel_std", "std", "--variant-config (pixel_std)")
    yield argument("decoder_num_heads", "heads of the decoder", "--variant-config (decoder_num_heads)")
    yield from channels(spec)
    yield Assumption("input size", size_text(spec), "file")
    yield Assumption("resize", spec.resize, "assumed")
    yield Assumption("mask threshold", f"{spec.threshold:g} (logit)", "assumed")
