"""What the weights of a semantic network leave open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from seg_export.checkpoints.assumption import (
    Assumption,
    channels,
    classes,
    fixed,
    input_size,
    size_text,
    stated,
    statistics,
)
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["left_open", "semantic_assumptions"]


def left_open(checkpoint: Checkpoint) -> Iterable[str]:
    """What must be said of one, by the names of `Claims`; the network's channels and classes decide."""
    channels = len(checkpoint.preprocessing.mean)
    yield from ("mean", "std", "scale", "class_names")
    if channels == 3:
        yield "channel_order"
    if channels in (1, 3):
        yield "clahe"
    if len(checkpoint.class_names) == 1:
        yield "threshold"
    if "image_size" not in checkpoint.arguments:
        yield "size_hw"


def semantic_assumptions(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    """Images, classes and what becomes of the logits."""
    preprocessing, claim = checkpoint.preprocessing, stated(checkpoint)
    yield claim("scale", "pixel scale", f"pixels / {preprocessing.scale:g}", "--scale")
    yield from statistics(checkpoint)
    if spec.channels in (1, 3):
        clahe = "equalised" if preprocessing.clahe else "none"
        yield claim("clahe", "CLAHE", clahe, "--clahe or --no-clahe")
    yield channels(spec)
    if spec.channels == 3:
        order = preprocessing.channel_order.upper()
        yield claim("channel_order", "channel order", order, "--channel-order")
    yield from classes(checkpoint)
    if "image_size" in checkpoint.arguments:
        yield Assumption("input size", size_text(spec), "file")
        yield Assumption("attention heads", "one per 64 channels", "assumed")
    else:
        yield input_size(spec, size_given)
    yield fixed("resize", spec.resize)
    if len(checkpoint.class_names) == 1:
        yield fixed("activation", "sigmoid")
        yield claim("threshold", "threshold", f"{spec.threshold:g}", "--threshold")
    else:
        yield fixed("activation", "softmax, the likeliest class wins")
