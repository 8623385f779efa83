"""Segments NIfTI files slice by slice; one mask file for each, in the same space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError
from seg_runtime.files.doubts import class_doubts, input_doubts
from seg_runtime.files.each import ReadImage
from seg_runtime.files.images import MAX_PIXELS, MIN_SIDE, LoadedImage, load_image, read_bytes, replace_file
from seg_runtime.files.nifti import labels_as_nifti, read_nifti, split_slice
from seg_runtime.files.nifti_header import is_nifti
from seg_runtime.files.results import FileResult
from seg_runtime.semantic import SemanticResult, SemanticSegmenter
from seg_runtime.spec import ModelSpec

__all__ = [
    "LoadedStack",
    "StackResult",
    "class_areas",
    "load_image_or_stack",
    "stream_with_stacks",
    "write_stack",
]


@dataclass(frozen=True)
class LoadedStack(LoadedImage):
    """The slices of a file, (N, H, W, C) uint8; `image` is nibabel's."""

    image: Any = None


@dataclass(frozen=True)
class StackResult:
    """The masks of all slices, (N, H, W) uint8 of class ids, and the time that they took together."""

    masks: NDArray[np.uint8]
    classes: int
    timings_ms: dict[str, float]


def load_image_or_stack(path: Path, channels: int, *, gray: bool, bit_depth: int | None) -> LoadedImage:
    """As `load_image`; of a whole NIfTI file a `LoadedStack`, also of one slice."""
    if split_slice(path)[1] is not None:
        return load_image(path, channels, gray=gray, bit_depth=bit_depth)
    try:
        data = read_bytes(path)
        if not is_nifti(data):
            return load_image(path, channels, gray=gray, bit_depth=bit_depth)
        if channels not in (1, 3):
            raise BadImageError(f"the model wants {channels} bands, and slices of NIfTI files are gray")
        stack = read_nifti(data, MAX_PIXELS, bit_depth)
        if min(stack.pixels.shape[1:]) < MIN_SIDE:
            raise BadImageError(
                f"its slices have {stack.pixels.shape[2]}x{stack.pixels.shape[1]} pixels; each side must "
                f"have at least {MIN_SIDE}"
            )
    except BadImageError as error:
        if str(path) in str(error):
            raise
        raise BadImageError(f"cannot read image '{path}': {error}") from error
    pixels = np.broadcast_to(stack.pixels[..., None], (*stack.pixels.shape, channels))
    return LoadedStack(pixels, stack.depth, stack.warnings, stack.image)


def stream_with_stacks(
    segmenter: SemanticSegmenter, images: list[NDArray[np.uint8]], batch_size: int
) -> Iterator[SemanticResult | StackResult]:
    """As `SemanticSegmenter.stream`; of the slices of a stack, (N, H, W, C), one `StackResult`."""
    if not any(image.ndim == 4 for image in images):
        yield from segmenter.stream(images, batch_size)
        return
    for image in images:
        if image.ndim == 4:
            yield _segment_stack(segmenter, image, batch_size)
        else:
            yield from segmenter.stream([image])


def write_stack(
    segmenter: SemanticSegmenter, read: ReadImage, stack: LoadedStack, result: StackResult, out: Path
) -> FileResult:
    """Write `<name>_mask.nii.gz`; its values are class ids, 0 and 1 for a model of one class."""
    path = out / f"{read.name}_mask.nii.gz"
    replace_file(path, labels_as_nifti(result.masks, stack.image))
    count, height, width = result.masks.shape
    areas = class_areas(segmenter.spec, result.masks, result.classes)
    doubts = input_doubts(segmenter.spec, _slice(stack.pixels, count // 2), segmenter.clahe)
    return FileResult(
        read.path,
        size_hw=(height, width),
        mask_path=path,
        area_px=areas,
        timings_ms=result.timings_ms,
        engine=segmenter.engine,
        read=stack.depth.to_json(),
        warnings=(
            *stack.warnings,
            *(f"slice {count // 2}: {doubt}" for doubt in doubts),
            *class_doubts(list(areas), list(areas.values()), (count * height, width)),
        ),
        slices=count,
    )


def class_areas(spec: ModelSpec, mask: NDArray[np.uint8], count: int) -> dict[str, int]:
    """Pixels of each of a model's `count` classes."""
    names = spec.class_names if len(spec.class_names) == count else tuple(f"class_{i}" for i in range(count))
    first_id = 1 if count == 1 else 0
    areas = np.bincount(mask.ravel(), minlength=first_id + count)[first_id:]
    return {name: int(area) for name, area in zip(names, areas, strict=True)}


def _segment_stack(segmenter: SemanticSegmenter, stack: NDArray[np.uint8], batch_size: int) -> StackResult:
    masks = np.empty(stack.shape[:3], np.uint8)
    slices = (_slice(stack, number) for number in range(len(stack)))
    classes, spent = 0, Counter[str]()
    for number, result in enumerate(segmenter.stream(slices, batch_size)):
        masks[number], classes = result.mask, len(result.probabilities)
        spent.update(result.timings_ms)
    return StackResult(masks, classes, dict(spent))


def _slice(stack: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3)."""
    return np.ascontiguousarray(stack[number, ..., 0] if stack.shape[3] == 1 else stack[number])
