"""Where the class of each pixel is written: a map, a mask for each class, or annotations in COCO's format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, MissingExtraError
from seg_runtime.files.images import read_image
from seg_runtime.files.masks import IGNORED, LabelMap, read_labels, read_shape

__all__ = ["ClassMap", "ClassMasks", "ClassTruth", "CocoAnnotations", "truth_from_json"]


@dataclass(frozen=True)
class ClassMap:
    """One image file whose values, or palette indices, are the classes."""

    path: Path

    def read(self) -> LabelMap:
        """The map as it was read. Raises BadImageError."""
        return read_labels(self.path)

    def files(self) -> tuple[Path, ...]:
        """The image files, of which each has the size of the image."""
        return (self.path,)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `truth_from_json`."""
        return {"map": str(self.path)}


@dataclass(frozen=True)
class ClassMasks:
    """A mask for each class; where two meet, the later class lies on top.

    Attributes:
        masks: (class, file) in the order of the classes; a class that an image has not needs no file.
        image_path: of the image, whose size is that of a map without any class.
    """

    masks: tuple[tuple[int, Path], ...]
    image_path: Path

    def read(self) -> LabelMap:
        """One map of all. Raises BadImageError: a mask cannot be read, or they differ in size."""
        found = [(number, read_shape(path)) for number, path in self.masks]
        size_hw = found[0][1].labels.shape if found else read_image(self.image_path, 3, gray=True).shape[:2]
        labels = np.zeros(size_hw, np.int32)
        for number, mask in found:
            if mask.labels.shape != size_hw:
                raise BadImageError(
                    f"mask '{mask.path}' is {mask.labels.shape[1]}x{mask.labels.shape[0]}, and that of "
                    f"another class {size_hw[1]}x{size_hw[0]}: both must have the size of the image"
                )
            labels[mask.ignored & (labels == 0)] = IGNORED
            labels[mask.foreground] = number
        return LabelMap(labels, "labels", "a mask for each class", self.image_path)

    def files(self) -> tuple[Path, ...]:
        """The image files, of which each has the size of the image."""
        return tuple(path for _, path in self.masks)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `truth_from_json`."""
        return {"masks": [[number, str(path)] for number, path in self.masks], "of": str(self.image_path)}


@dataclass(frozen=True)
class CocoAnnotations:
    """Polygons and run lengths; smaller areas lie on top of larger ones.

    Attributes:
        shapes: (class, COCO's `segmentation`) of each annotation.
        size_hw: (height, width) that they were made for.
        path: of the JSON file, for messages.
    """

    shapes: tuple[tuple[int, Any], ...]
    size_hw: tuple[int, int]
    path: Path

    def read(self) -> LabelMap:
        """One map of all.

        Raises:
            BadImageError: a segmentation that is neither polygons nor run lengths of this size.
            MissingExtraError: without pycocotools.
        """
        decoded = [(number, self._decode(shape)) for number, shape in self.shapes]
        labels = np.zeros(self.size_hw, np.int32)
        for number, mask in sorted(decoded, key=lambda each: -int(np.count_nonzero(each[1]))):
            labels[mask] = number
        return LabelMap(labels, "labels", "COCO annotations", self.path)

    def _decode(self, shape: Any) -> NDArray[np.bool_]:
        """(H, W) bool."""
        try:
            from pycocotools import mask as coco
        except ModuleNotFoundError as error:
            raise MissingExtraError("pycocotools, which reads COCO's annotations,", "bench") from error
        height, width = self.size_hw
        try:
            rles = coco.frPyObjects(shape, height, width) if not _is_compressed(shape) else shape
            mask = np.asarray(coco.decode(coco.merge(rles) if isinstance(rles, list) else rles), bool)
        except Exception as error:
            raise BadImageError(
                f"'{self.path}' has a segmentation that is neither polygons nor run lengths: export it again"
            ) from error
        if mask.shape != self.size_hw:
            raise BadImageError(
                f"'{self.path}' has run lengths of {mask.shape[1]}x{mask.shape[0]} for an image of "
                f"{width}x{height}: export it again"
            )
        return mask

    def files(self) -> tuple[Path, ...]:
        """None: the annotations are no image files."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `truth_from_json`."""
        shapes = [list(each) for each in self.shapes]
        return {"shapes": shapes, "size_hw": list(self.size_hw), "path": str(self.path)}


ClassTruth = ClassMap | ClassMasks | CocoAnnotations


def truth_from_json(values: Mapping[str, Any]) -> ClassTruth:
    """The ground truth of what its `to_json` made."""
    if "map" in values:
        return ClassMap(Path(values["map"]))
    if "masks" in values:
        masks = tuple((int(number), Path(mask)) for number, mask in values["masks"])
        return ClassMasks(masks, Path(values["of"]))
    shapes, (height, width) = values["shapes"], values["size_hw"]
    return CocoAnnotations(
        tuple((int(number), shape) for number, shape in shapes), (height, width), Path(values["path"])
    )


def _is_compressed(shape: Any) -> bool:
    return isinstance(shape, dict) and isinstance(shape.get("counts"), str | bytes)
