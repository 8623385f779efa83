"""Finds objects in image files, into a folder of overlays and one file in COCO's format."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seg_runtime.errors import BadInputError
from seg_runtime.files.bit_depth import check_bit_depth
from seg_runtime.files.doubts import input_doubts
from seg_runtime.files.each import ReadImage, each_file
from seg_runtime.files.images import load_image, write_png
from seg_runtime.files.instance_overlay import draw_instances
from seg_runtime.files.results import FileResult, check_out, to_json_text, unwritable
from seg_runtime.instances import InstanceResult, InstanceSegmenter
from seg_runtime.preprocess import check_batch_size

__all__ = ["COCO_FILE", "InstanceFileResult", "find_instances_model", "segment_instance_files"]

COCO_FILE = "instances.json"


@dataclass(frozen=True)
class InstanceFileResult:
    """What was found in one image file.

    Attributes:
        path: the image as it was given.
        result: boxes, classes and masks.
        overlay_path: the overlay, or None when none was asked for.
        engine: what computed it, as `Session.engine`.
        read: the bit depth that the image was read by, as `BitDepth.to_json`.
        error: None, as for every image that could be read.
        warnings: as of a `FileResult`.
    """

    path: Path
    result: InstanceResult
    overlay_path: Path | None
    engine: str
    read: dict[str, Any]
    error: None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A row for `results.jsonl`: how many objects of each class, and the limit where it was met."""
        result = self.result
        names, counts = np.unique(np.array(result.class_names, dtype=object), return_counts=True)
        return {
            "path": str(self.path),
            "height": result.size_hw[0],
            "width": result.size_hw[1],
            "objects": len(result),
            "classes": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
            "found": result.found,
            "truncated": result.truncated,
            "overlay": str(self.overlay_path) if self.overlay_path else None,
            "timings_ms": {step: round(spent, 3) for step, spent in result.timings_ms.items()},
            "engine": self.engine,
            **self.read,
            "warnings": list(self.warnings),
        }


@dataclass
class _Coco:
    """The contents of the COCO file, image by image."""

    segmenter: InstanceSegmenter
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, path: Path, result: InstanceResult) -> None:
        number = len(self.images) + 1
        height, width = result.size_hw
        annotations = result.coco(number, len(self.annotations) + 1)
        self.images.append({"id": number, "file_name": str(path), "height": height, "width": width})
        self.annotations += annotations

    def write(self, out: Path) -> None:
        names = self.segmenter.spec.class_names
        document = {
            "info": {"model": self.segmenter.spec.name, "engine": self.segmenter.engine},
            "images": self.images,
            "categories": [{"id": label, "name": name} for label, name in enumerate(names, start=1)],
            "annotations": self.annotations,
        }
        temporary = out / f".{uuid.uuid4().hex}.partial"
        try:
            temporary.write_text(to_json_text(document), encoding="utf-8")
            temporary.replace(out / COCO_FILE)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise unwritable(out / COCO_FILE, error) from error


def segment_instance_files(
    segmenter: InstanceSegmenter,
    paths: Sequence[Path],
    out: str | Path,
    *,
    bit_depth: int | None = None,
    overlay: bool = True,
    batch_size: int = 1,
) -> Iterator[InstanceFileResult | FileResult]:
    """Find objects in image files, writing as it goes and holding one batch of images at a time.

    `out` receives `<name>_overlay.png` and, once the iteration ends for whatever reason, `results.jsonl`
    with a line per file and `instances.json` in COCO's format with boxes and run-length encoded masks.
    Nothing is created before the first image was segmented, and a file that is there is complete.

    Args:
        segmenter: what to run.
        paths: image files, from `seg_runtime.files.images.list_images`.
        out: the folder to write to; made when missing.
        bit_depth: how many bits of 16-bit pixels count, whatever the files state.
        overlay: write overlays too.
        batch_size: how many images to run together.

    Yields:
        One result per path, in order; a file that fails in whatever way is a `FileResult` with an error.

    Raises:
        BadInputError: `out` cannot be written to or holds one of the images, or the batch is too large.
        ServerError: as from `Session.infer`.
    """
    out = Path(out)
    check_out(out, paths)
    check_bit_depth(bit_depth)
    check_batch_size(segmenter.spec, batch_size)
    return _segment(segmenter, paths, out, bit_depth, overlay, batch_size)


def _segment(
    segmenter: InstanceSegmenter,
    paths: Sequence[Path],
    out: Path,
    bit_depth: int | None,
    overlay: bool,
    batch_size: int,
) -> Iterator[InstanceFileResult | FileResult]:
    coco = _Coco(segmenter)
    try:
        yield from each_file(
            paths,
            out,
            read=lambda path: load_image(path, 3, gray=True, bit_depth=bit_depth),
            stream=lambda images: segmenter.stream(images, batch_size),
            write=lambda read, result: _write(coco, read, result, out, overlay),
            batch_size=batch_size,
        )
    finally:
        if coco.images:
            coco.write(out)


def _write(
    coco: _Coco, read: ReadImage, result: InstanceResult, out: Path, overlay: bool
) -> InstanceFileResult:
    overlay_path = out / f"{read.name}_overlay.png" if overlay else None
    if overlay_path is not None:
        write_png(overlay_path, draw_instances(read.image, result))
    coco.add(read.path, result)
    warnings = (*read.loaded.warnings, *input_doubts(coco.segmenter.spec, read.image), *_doubts(result))
    depth = read.loaded.depth.to_json()
    return InstanceFileResult(
        read.path, result, overlay_path, coco.segmenter.engine, depth, warnings=warnings
    )


def _doubts(result: InstanceResult) -> list[str]:
    if not len(result):
        return ["no object was found"]
    pixels = result.size_hw[0] * result.size_hw[1]
    full = sum(np.count_nonzero(crop.mask) == pixels for crop in result.crops)
    return [f"the masks of {full} objects cover the whole image"] if full else []


def find_instances_model(models: Mapping[str, str]) -> str:
    """The one model for instances among names and their tasks.

    Raises:
        BadInputError: there is none, or there are several.
    """
    names = sorted(name for name, task in models.items() if task == "instances")
    if len(names) != 1:
        raise BadInputError(
            f"there are several instance models ({', '.join(names)}): choose one with --model"
            if names
            else "there is no instance model: publish one with  seg-export maskrcnn"
        )
    return names[0]
