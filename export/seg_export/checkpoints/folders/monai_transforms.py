"""What a list of MONAI's transforms does to an image, as far as it can be understood without running it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seg_export.checkpoints.folders.monai_config import class_name, expression_in
from seg_export.checkpoints.folders.monai_intensity import IntensityStep, intensity_step

__all__ = ["WITHOUT_EFFECT", "Images", "array_name", "concerning", "read_transforms"]

WITHOUT_EFFECT = {
    "AddChannel", "AsChannelFirst", "DeleteItems", "EnsureChannelFirst", "EnsureType", "Identity",
    "SelectItems", "ToDevice", "ToTensor",
}  # fmt: skip
"""Names of arrays' transforms that leave pixels and the order of their axes as they are."""

_BY_ROWS = {"numpyreader"}
_BY_COLUMNS = {"itkreader", "nibabelreader", "pilreader"}
"""Readers that give (W, H), unless they are asked for the contrary."""

_CONVERTER = re.compile(r"\$\s*lambda (\w+): \1\.convert\(([\"'])(RGB|L)\2\)")
"""Of an image as it is read here too."""


@dataclass
class Images:
    """What is done to an image before the network.

    Attributes:
        steps: on its values, in turn.
        swapped: whether the network sees (C, W, H); None where nothing loads the image.
        size: of the image's axes in the order in which the network sees them; None where it is not resized.
        resized: how, as MONAI calls the interpolation; "" for not.
        unknown: names of transforms that were not understood.
    """

    steps: list[IntensityStep] = field(default_factory=list)
    swapped: bool | None = None
    size: tuple[int, int] | None = None
    resized: str = ""
    unknown: list[str] = field(default_factory=list)

    @property
    def by_columns(self) -> bool:
        """Whether the network is taken to see (C, W, H), as it does after LoadImage without options."""
        return self.swapped is not False


def read_transforms(transforms: Sequence[Any], key: str) -> Images:
    """Understand transforms.

    Args:
        transforms: with references resolved; expressions make a transform unknown, where they matter.
        key: of the image, in transforms of dictionaries.

    Example:
        >>> read_transforms([{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "Flipd"}], "image")
        Images(steps=[], swapped=True, size=None, resized='', unknown=['Flipd'])
    """
    images = Images()
    found = concerning(transforms, key)
    for transform in found:
        if not _add(images, array_name(class_name(transform)), transform):
            images.unknown.append(class_name(transform) or str(transform)[:40])
    if transforms and not found:
        images.unknown.append(f"transforms of other than '{key}'")
    return images


def concerning(transforms: Sequence[Any], key: str) -> list[Any]:
    """The transforms that are for a key, or make it of others, and for more than training.

    Example:
        >>> concerning([{"keys": "image"}, {"keys": "label"}, {"keys": ["label", "image"]}], "image")
        [{'keys': 'image'}, {'keys': ['label', 'image']}]
    """
    return [transform for transform in _flat(transforms) if _applies(transform, key)]


def array_name(name: str) -> str:
    """The name of a transform for arrays from that for dictionaries.

    Example:
        >>> array_name("ScaleIntensityd"), array_name("ResizeDict"), array_name("LoadImage")
        ('ScaleIntensity', 'Resize', 'LoadImage')
    """
    return name.removesuffix("Dict").removesuffix("D").removesuffix("d")


def _flat(transforms: Sequence[Any]) -> list[Any]:
    """Without the lists in the list."""
    found: list[Any] = []
    for transform in transforms:
        inner = transform.get("transforms") if class_name(transform) == "Compose" else None
        found += _flat(inner) if isinstance(inner, list) else [transform]
    return found


def _applies(transform: Any, key: str) -> bool:
    """Whether it is for the key, or makes it, and for more than training."""
    if not isinstance(transform, Mapping):
        return True
    if transform.get("_disabled_") is True or class_name(transform).startswith("Rand"):
        return False
    named = [transform.get("keys", key), transform.get("name"), transform.get("names")]
    return any(expression_in(each) or key in (each if isinstance(each, list) else [each]) for each in named)


def _add(images: Images, name: str, transform: Any) -> bool:
    """Note what a transform does; False for one that is not understood."""
    if name in WITHOUT_EFFECT:
        return True
    arguments = {key: value for key, value in transform.items() if key != "keys"} if name else {}
    if name == "LoadImage":
        return _add_loading(images, arguments)
    if expression_in(arguments):
        return False
    if name == "Transpose":
        return _add_transposition(images, arguments.get("indices"))
    if name == "Resize":
        return _add_resizing(images, arguments)
    step = intensity_step(name, arguments)
    if step is not None:
        images.steps.append(step)
    return step is not None


def _add_loading(images: Images, arguments: Mapping[str, Any]) -> bool:
    reader = arguments.get("reader") or "PILReader"
    if isinstance(reader, Mapping):
        arguments, reader = reader, class_name(reader)
    name = str(reader).rpartition(".")[2].lower()
    # PIL's reader swaps the axes of an array by rows, ITK's those of one by columns.
    reverse = arguments.get("reverse_indexing", name != "itkreader")
    converter = arguments.get("converter")
    if name not in _BY_ROWS | _BY_COLUMNS or not isinstance(reverse, bool):
        return False
    if converter is not None and not _CONVERTER.fullmatch(str(converter)):
        return False
    images.swapped = name in _BY_COLUMNS and (name == "nibabelreader" or reverse == (name == "pilreader"))
    return True


def _add_transposition(images: Images, indices: Any) -> bool:
    if indices == [0, 2, 1] and images.swapped is not None:
        images.swapped = not images.swapped
        images.size = images.size and (images.size[1], images.size[0])
        return True
    return bool(indices == [0, 1, 2])


def _add_resizing(images: Images, arguments: Mapping[str, Any]) -> bool:
    size, mode = arguments.get("spatial_size"), arguments.get("mode", "area")
    if not isinstance(size, list) or len(size) != 2 or arguments.get("size_mode", "all") != "all":
        return False
    if not all(isinstance(side, int) and side > 0 for side in size):
        return False
    images.size = (size[0], size[1])
    images.resized = str(mode[0] if isinstance(mode, list) and mode else mode)
    return True
