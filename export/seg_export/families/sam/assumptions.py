"""What the weights of a SAM leave open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from seg_export.checkpoints.assumption import Assumption, arguments_of, channels, fixed, size_text, text
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["sam_assumptions"]


def sam_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Its statistics, heads and resizing."""
    from seg_export.families.sam.network import build_sam

    argument = arguments_of(build_sam, checkpoint)
    for name, what, values in (("pixel_mean", "mean", spec.mean), ("pixel_std", "std", spec.std)):
        own = name in checkpoint.arguments
        yield argument(name, what, f"--variant-config ({name})") if own else fixed(what, text(values))
    yield argument("decoder_num_heads", "heads of the decoder", "--variant-config (decoder_num_heads)")
    yield channels(spec)
    yield fixed("channel order", "RGB")
    yield Assumption("input size", size_text(spec), "file")
    yield fixed("resize", spec.resize)
    yield fixed("mask threshold", f"{spec.threshold:g} (logit)")
