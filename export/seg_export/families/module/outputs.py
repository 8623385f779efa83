"""What a module returns: one tensor, or several of which one is the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from seg_runtime.errors import BadInputError

__all__ = ["chosen", "named_outputs", "pick", "shape_text"]

MOST_CLASSES = 255


def named_outputs(result: Any) -> tuple[dict[str, Any], bool]:
    """What a module returned by name or index, and whether it was a tensor alone.

    Example:
        >>> sorted(named_outputs({"out": torch.zeros(1), "aux": torch.zeros(1)})[0])
        ['aux', 'out']
    """
    if isinstance(result, torch.Tensor):
        return {"": result}, True
    if isinstance(result, Mapping):
        _refuse_queries(result)
        return {str(name): value for name, value in result.items()}, False
    if isinstance(result, list | tuple):
        _refuse_detections(result)
        return {str(index): value for index, value in enumerate(result)}, False
    raise BadInputError(
        f"the module returns a {type(result).__name__}, expected a tensor, a tuple, a list or a dict: "
        "wrap it in a module that does"
    )


def pick(result: Any, name: str) -> torch.Tensor:
    """The output of a name that `chosen` returned."""
    if isinstance(result, torch.Tensor):
        return result
    if not isinstance(result, Mapping):
        result = dict(enumerate(result))
    # Names may be numbers.
    picked: torch.Tensor = next(value for key, value in result.items() if str(key) == name)
    return picked


def chosen(outputs: Mapping[str, Any], wanted: str | int | None, plain: bool) -> str:
    """The name of the output that counts.

    Args:
        outputs: of `named_outputs`.
        wanted: a name, or an index into them; None where there is but one.
        plain: whether the module returns a tensor alone.

    Raises:
        BadInputError: none or no such one was named, or it is no tensor (1, classes, h, w).
    """
    if plain:
        if wanted is not None:
            raise BadInputError(f"--output {wanted}: the module returns one tensor; leave it out")
        name = ""
    else:
        name = _named(outputs, wanted)
    _check(name, outputs[name])
    return name


def shape_text(shape: tuple[int, ...]) -> str:
    """For example "1x3x64x64"."""
    return "x".join(map(str, shape))


def _named(outputs: Mapping[str, Any], wanted: str | int | None) -> str:
    there = ", ".join(f"{name} ({_what(value)})" for name, value in outputs.items())
    if wanted is None:
        if len(outputs) == 1:
            return next(iter(outputs))
        raise BadInputError(f"the module has {len(outputs)} outputs: choose with --output one of {there}")
    if str(wanted) in outputs:
        return str(wanted)
    if str(wanted).isdecimal() and int(wanted) < len(outputs):
        return list(outputs)[int(wanted)]
    raise BadInputError(f"--output {wanted}: the module has no such output; there are {there}")


def _refuse_queries(result: Mapping[Any, Any]) -> None:
    """Refuse what transformers' MaskFormer and its like return. Raises BadInputError."""
    if {"class_queries_logits", "masks_queries_logits"} <= result.keys():
        raise BadInputError(
            "the module gives a class and a mask per query: export the folder that its save_pretrained "
            "writes with  seg-export module FOLDER, or wrap it in a module that returns a map per class"
        )


def _refuse_detections(result: Sequence[Any]) -> None:
    """Refuse what torchvision's detectors return. Raises BadInputError."""
    if result and isinstance(result[0], Mapping) and "boxes" in result[0]:
        step = (
            "its checkpoint is for  seg-export maskrcnn"
            if "masks" in result[0]
            else "a Mask R-CNN is expected"
        )
        raise BadInputError(f"the module is a detector, which gives {', '.join(result[0])}: {step}")


def _what(value: Any) -> str:
    return shape_text(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def _check(name: str, value: Any) -> None:
    what = f"output '{name}'" if name else "the output"
    if not isinstance(value, torch.Tensor):
        raise BadInputError(f"{what} is a {type(value).__name__}, expected a tensor (N, classes, H, W)")
    shape = shape_text(tuple(value.shape))
    if value.ndim == 5:
        raise BadInputError(f"{what} is {shape}: a 3-D network; only 2-D ones can be exported")
    if value.ndim == 2:
        raise BadInputError(
            f"{what} is {shape}, as of a classifier: expected (1, classes, height, width), with maps"
        )
    if value.ndim != 4 or value.shape[0] != 1:
        raise BadInputError(f"{what} is {shape} for one image, expected (1, classes, height, width)")
    if not value.is_floating_point():
        raise BadInputError(
            f"{what} is {str(value.dtype).removeprefix('torch.')}, expected logits or probabilities per class"
        )
    if not 1 <= value.shape[1] <= MOST_CLASSES:
        raise BadInputError(f"{what} has {value.shape[1]} classes; a mask can hold 1 to {MOST_CLASSES}")
