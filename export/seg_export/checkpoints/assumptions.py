"""What the export of a plain state dict takes for granted, since weights say nothing about the images.

A U-Net trained on `pixels / 255` and published with another mean passes verification, which compares the
graph with the module and not with what the module was trained on, and finds less than it did.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from seg_export.checkpoints.pretrained import PRETRAINED, pretrained_path
from seg_export.checkpoints.types import Checkpoint
from seg_export.families.maskrcnn import checkpoints as maskrcnn_checkpoints
from seg_export.families.maskrcnn.network import build_maskrcnn
from seg_export.families.sam import checkpoints as sam_checkpoints
from seg_export.families.sam.network import build_sam
from seg_export.families.sam2 import checkpoints as sam2_checkpoints
from seg_runtime.hashing import file_sha256
from seg_runtime.spec import ModelSpec

__all__ = ["Assumption", "assumed_values", "assumptions", "assumptions_text"]

_SIZE = "--size"
_SAVED = "Checkpoint.preprocessing"
_BUILT = "Checkpoint.arguments"
_NAMED = "Checkpoint.class_names"


@dataclass(frozen=True)
class Assumption:
    """One value that an export used.

    Attributes:
        what: for example "mean".
        value: as text, for example "0.485".
        origin: "assumed" for a default, "file" for what names and shapes of the weights say, "option" for
            what the user said.
        set_by: the option that sets it, or the field of `Checkpoint`; "" where none does.
    """

    what: str
    value: str
    origin: Literal["assumed", "file", "option"]
    set_by: str = ""


def assumptions(checkpoint: Checkpoint, spec: ModelSpec, *, size_given: bool) -> tuple[Assumption, ...]:
    """What the export of a checkpoint used, and where each value came from.

    Args:
        checkpoint: loaded weights.
        spec: of the first model that is made of it.
        size_given: whether the input's size was asked for.

    Returns:
        Nothing for a checkpoint that says how its images are to be prepared, for official weights and those
        of the package, of which it is known, and for random ones.
    """
    if checkpoint.described or _is_official(checkpoint.sha256) or _is_packaged(checkpoint.sha256):
        return ()
    return tuple(_ROWS[checkpoint.family](checkpoint, spec, size_given))


def assumed_values(found: Iterable[Assumption]) -> dict[str, str]:
    """The values that nobody stated, by what they are: for the contract."""
    return {each.what: each.value for each in found if each.origin == "assumed"}


def assumptions_text(found: Sequence[Assumption]) -> str:
    """One block for people, of a line per value; "" when there is nothing."""
    if not found:
        return ""
    widths = [max(len(getattr(each, name)) for each in found) for name in ("what", "value", "origin")]
    rows = [
        f"  {each.what:{widths[0]}}  {each.value:{widths[1]}}  {each.origin:{widths[2]}}  "
        + ("" if each.origin == "file" else f"set by {each.set_by}" if each.set_by else "nothing sets it")
        for each in found
    ]
    count = len(assumed_values(found))
    return "\n".join(
        line.rstrip()
        for line in (
            f"the checkpoint holds weights alone: {count} of the {len(found)} values below are assumed",
            *rows,
            "Verification proves that the graph equals the module; only labelled images prove that these "
            "values are those of the training: seg-bench run --data FOLDER",
            'How to set the fields of a Checkpoint: docs/models.md, "Plain state dicts"',
        )
    )


def _is_official(sha256: str) -> bool:
    """Whether these are weights whose preprocessing is published with them."""
    modules = (maskrcnn_checkpoints, sam_checkpoints, sam2_checkpoints)
    known = [beginning for module in modules for _, beginning in module.OFFICIAL.values()]
    return bool(sha256) and sha256.startswith(tuple(known))


def _is_packaged(sha256: str) -> bool:
    return any(file_sha256(pretrained_path(name)) == sha256 for name in PRETRAINED)


def _semantic(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    preprocessing = checkpoint.preprocessing
    yield Assumption("pixel scale", "pixels / 255", "assumed", "mean and std")
    yield Assumption("mean", _text(preprocessing.mean), "assumed", _SAVED)
    yield Assumption("std", _text(preprocessing.std), "assumed", _SAVED)
    yield Assumption("CLAHE", "none", "assumed", _SAVED)
    yield from _channels(spec)
    yield from _classes(len(checkpoint.class_names), checkpoint.class_names)
    if "image_size" in checkpoint.arguments:
        yield Assumption("input size", _hw(spec), "file")
        yield Assumption("attention heads", "one per 64 channels", "assumed")
    else:
        yield _size(spec, size_given)
    yield Assumption("resize", spec.resize, "assumed")
    if len(checkpoint.class_names) == 1:
        yield Assumption("activation", "sigmoid", "assumed")
        yield Assumption("threshold", f"{spec.threshold:g}", "assumed", "seg-run segment --threshold")
    else:
        yield Assumption("activation", "softmax, the likeliest class wins", "assumed")


def _maskrcnn(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    yield from _fixed_scale(checkpoint)
    yield from _channels(spec)
    yield from _classes(len(spec.class_names), spec.class_names, " and the background")
    # torchvision's min_size and max_size: the client scales to the graph's one size instead.
    yield _size(spec, size_given)
    yield Assumption("resize", spec.resize, "assumed")
    argument = _arguments_of(build_maskrcnn, checkpoint)
    yield argument("anchor_sizes", "anchor sizes", _BUILT, (32, 64, 128, 256, 512))
    yield Assumption("anchor aspect ratios", "0.5, 1, 2", "assumed")
    yield argument("proposals", "proposals", _BUILT)
    yield argument("max_detections", "detections at most", "--max-detections")
    yield argument("score_threshold", "score threshold", _BUILT)
    yield argument("nms_threshold", "NMS threshold", _BUILT)
    if "norm" in checkpoint.arguments:
        yield argument("norm_eps", "epsilon of the norms", "--norm-eps")
    yield Assumption("mask threshold", f"{spec.threshold:g}", "assumed")


def _sam(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    argument = _arguments_of(build_sam, checkpoint)
    yield argument("pixel_mean", "mean", "--variant-config (pixel_mean)")
    yield argument("pixel_std", "std", "--variant-config (pixel_std)")
    yield argument("decoder_num_heads", "heads of the decoder", "--variant-config (decoder_num_heads)")
    yield from _channels(spec)
    yield Assumption("input size", _hw(spec), "file")
    yield Assumption("resize", spec.resize, "assumed")
    yield Assumption("mask threshold", f"{spec.threshold:g} (logit)", "assumed")


def _sam2(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    yield from _fixed_scale(checkpoint)
    yield from _channels(spec)
    origin: Literal["assumed", "option"] = "option" if "image_size" in checkpoint.arguments else "assumed"
    yield Assumption("input size", _hw(spec), origin, "--variant-config (image_size)")
    yield Assumption("resize", spec.resize, "assumed")
    yield Assumption("mask threshold", f"{spec.threshold:g} (logit)", "assumed")


_ROWS: dict[str, Callable[[Checkpoint, ModelSpec, bool], Iterable[Assumption]]] = {
    "maskrcnn": _maskrcnn,
    "sam": _sam,
    "sam2": _sam2,
    "transunet": _semantic,
    "unet": _semantic,
    "unetpp": _semantic,
}


def _fixed_scale(checkpoint: Checkpoint) -> Iterable[Assumption]:
    """Of families that are always built with ImageNet's statistics."""
    yield Assumption("pixel scale", "pixels / 255", "assumed")
    yield Assumption("mean", _text(checkpoint.preprocessing.mean), "assumed")
    yield Assumption("std", _text(checkpoint.preprocessing.std), "assumed")


def _channels(spec: ModelSpec) -> Iterable[Assumption]:
    yield Assumption("channels", f"{spec.channels}", "file")
    if spec.channels == 3:
        yield Assumption("channel order", "RGB", "assumed")


def _classes(count: int, names: Sequence[str], more: str = "") -> Iterable[Assumption]:
    yield Assumption("classes", f"{count}{more}", "file")
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    yield Assumption("class names", shown, "assumed", _NAMED)


def _size(spec: ModelSpec, given: bool) -> Assumption:
    return Assumption("input size", _hw(spec), "option" if given else "assumed", _SIZE)


def _arguments_of(builder: Callable[..., Any], checkpoint: Checkpoint) -> Callable[..., Assumption]:
    """Reads arguments that leave no trace in weights: where the checkpoint has one, an option said so."""
    defaults = inspect.signature(builder).parameters

    def argument(name: str, what: str, set_by: str, default: Any = None) -> Assumption:
        if name in checkpoint.arguments:
            return Assumption(what, _text(checkpoint.arguments[name]), "option", set_by)
        value = defaults[name].default if default is None else default
        return Assumption(what, _text(value), "assumed", set_by)

    return argument


def _text(value: Any) -> str:
    return ", ".join(f"{item:g}" for item in value) if isinstance(value, list | tuple) else f"{value:g}"


def _hw(spec: ModelSpec) -> str:
    return f"{spec.input_size_hw[0]}x{spec.input_size_hw[1]}"
