"""What a MONAI bundle says of its images and its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seg_export.checkpoints.folders.folder import Activation, part
from seg_export.checkpoints.folders.monai_config import class_name, resolved
from seg_export.checkpoints.folders.monai_transforms import (
    WITHOUT_EFFECT,
    Images,
    array_name,
    concerning,
    read_transforms,
)
from seg_runtime.errors import CheckpointError

__all__ = ["Outputs", "class_names", "format_of", "input_size", "read_images", "read_outputs"]

_AFTER = WITHOUT_EFFECT | {"Invert", "SaveImage"}
"""What a client does, or nobody."""


def format_of(
    metadata: Mapping[str, Any], path: Path, what: str, usual: str
) -> tuple[str, Mapping[str, Any]]:
    """The name and the format of the one input or output that counts.

    Args:
        metadata: of `metadata.json`.
        path: that file, for messages.
        what: "inputs" or "outputs".
        usual: its usual name, which is taken where there are several.

    Raises:
        CheckpointError: metadata of another form.
    """
    formats = part(part(metadata, "network_data_format", path), what, path)
    name = usual if usual in formats else next(iter(formats), usual)
    return name, part(formats, name, path)


def read_images(config: Mapping[str, Any], key: str) -> Images:
    """What is done to images at inference.

    Args:
        config: of the bundle.
        key: of the image in its transforms.
    """
    transforms = _transforms(config, "preprocessing")
    return Images(unknown=["preprocessing"]) if transforms is None else read_transforms(transforms, key)


@dataclass
class Outputs:
    """What becomes of a network's outputs.

    Attributes:
        activation: what makes probabilities of them; None for unsaid.
        threshold: from which on they are foreground; None for unsaid, or where the largest wins.
        unknown: names of what follows besides.
    """

    activation: Activation | None = None
    threshold: float | None = None
    unknown: list[str] = field(default_factory=list)


def read_outputs(config: Mapping[str, Any], key: str, folder: Path) -> Outputs:
    """What is done to the outputs at inference.

    Args:
        config: of the bundle.
        key: of the outputs in its transforms.
        folder: for messages.

    Raises:
        CheckpointError: code makes probabilities of them.
    """
    outputs = Outputs()
    largest = False
    for transform in concerning(_transforms(config, "postprocessing") or [], key):
        name = array_name(class_name(transform))
        if name == "Activations":
            if _first(transform.get("other")) is not None:
                raise CheckpointError(
                    f"'{folder}' makes probabilities by code, {transform['other']!s:.40}, which is not run: "
                    "name a factory that does so, as PACKAGE.MODULE:FACTORY"
                )
            sigmoid, softmax = (_first(transform.get(each)) is True for each in ("sigmoid", "softmax"))
            outputs.activation = "sigmoid" if sigmoid else "softmax" if softmax else None
        elif name == "AsDiscrete":
            argmax, value = (_first(transform.get(each)) for each in ("argmax", "threshold"))
            largest |= argmax is True
            outputs.activation = outputs.activation or ("softmax" if argmax is True else None)
            outputs.threshold = value if isinstance(value, float) else outputs.threshold
        elif name not in _AFTER:
            outputs.unknown.append(class_name(transform) or str(transform)[:40])
    return Outputs(outputs.activation, None if largest else outputs.threshold, outputs.unknown)


def input_size(
    config: Mapping[str, Any], images: Images, image: Mapping[str, Any]
) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """(height, width) in pixels of the input, and what is to be said of it.

    Args:
        config: of the bundle.
        images: what is done to them.
        image: their format.
    """
    inferer = resolved(config, config.get("inferer"))
    window = inferer.get("roi_size") if isinstance(inferer, Mapping) else None
    if images.size is not None:
        step = f"images are resized by OpenCV, where MONAI interpolates ({images.resized})"
        return _hw(images.size, images), (step,)
    if _are_sides(window):
        step = "images are resized to the window that MONAI slides: seg-run segment --tile slides it too"
        return _hw(window, images), (step,)
    shape = image.get("spatial_shape")
    return (_hw(shape, images) if _are_sides(shape) else None), ()


def class_names(prediction: Mapping[str, Any], classes: Any) -> tuple[str, ...] | None:
    """Those of an output's format, where there is one for each of that many classes.

    Example:
        >>> class_names({"channel_def": {"0": "background", "1": "tool"}}, 2)
        ('background', 'tool')
    """
    named = prediction.get("channel_def")
    if not isinstance(named, Mapping) or not isinstance(classes, int):
        return None
    names = tuple(str(named.get(str(index), "")).strip() for index in range(classes))
    return names if all(names) and len(set(names)) == classes == len(named) else None


def _transforms(config: Mapping[str, Any], name: str) -> list[Any] | None:
    """Those for inference, or else for validation; None where they are not written as a list."""
    for reference in (f"@{name}", f"@validate#{name}"):
        found = resolved(config, reference)
        found = found.get("transforms") if isinstance(found, Mapping) else found
        if isinstance(found, list):
            return found
    return None


def _first(value: Any) -> Any:
    """Of an argument that may have one value per key: the prediction comes before the label."""
    return value[0] if isinstance(value, list) and value else value


def _are_sides(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(type(each) is int and each > 0 for each in value)
    )


def _hw(sides: Any, images: Images) -> tuple[int, int]:
    return (sides[1], sides[0]) if images.by_columns else (sides[0], sides[1])
