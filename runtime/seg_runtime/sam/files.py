"""Segments an image file with SAM into a folder: masks, an overlay and annotations in COCO's format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.files.doubts import input_doubts, mask_doubts
from seg_runtime.files.images import write_mask, write_png
from seg_runtime.files.overlay import distinct_colors, draw_overlay
from seg_runtime.files.results import check_out, to_json_text
from seg_runtime.sam.mask_generator import SamAutomaticMaskGenerator
from seg_runtime.sam.objects import ObjectPrompts
from seg_runtime.sam.predictor import SamPredictor, best_first
from seg_runtime.sam.rle import coco_annotation, rle_to_mask

__all__ = ["draw_masks", "segment_everything", "segment_prompts"]


def segment_prompts(
    predictor: SamPredictor,
    image: NDArray[np.uint8],
    path: Path,
    prompts: ObjectPrompts,
    out: Path,
    *,
    multimask: bool = False,
    overlay: bool = True,
    logits: bool = False,
    read: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write one mask per object, or three candidates of each, the best first.

    `out` receives `<name>_mask_<object>.png` (with candidates `..._<object>_<rank>.png`),
    `<name>_overlay.png` of the best of each, `<name>_masks.json` and, on request,
    `<name>_logits_<object>.npy` for `--mask`.

    Args:
        predictor: with the image set.
        image: (H, W, 3) RGB uint8, for the overlay.
        path: the image's file, for names.
        prompts: of the objects, in the encoder's frame.
        out: the folder to write to; made when missing.
        multimask: write three candidates for each object.
        overlay: write an overlay too.
        logits: write the low-resolution logits of the best candidates too.
        read: how the image was read, for the record; as `LoadedImage.to_json`.

    Returns:
        What was written to `<name>_masks.json`.

    Raises:
        BadInputError: `out` cannot be written to or holds the image.
        InferenceError, ServerError: as from `Session.infer`.
    """
    writer = _Writer(path, image.shape[:2], out, read or {}, input_doubts(predictor.encoder, image))
    annotations, best = [], []
    for number, (masks, scores, low_res) in enumerate(_objects(predictor, prompts, multimask), start=1):
        for rank, (mask, score) in enumerate(zip(masks, scores, strict=True), start=1):
            name = f"mask_{number}_{rank}.png" if multimask else f"mask_{number}.png"
            file = writer.mask(name, mask)
            annotations.append(
                coco_annotation(mask) | {"score": float(score), "object": number, "mask": file}
            )
        best.append(annotations[-len(scores)]["segmentation"])
        if logits:
            writer.array(f"logits_{number}.npy", low_res[0])
    if overlay:
        writer.overlay(draw_masks(image, (rle_to_mask(rle) for rle in best)))
    return writer.annotations("masks.json", annotations, predictor.engine)


def segment_everything(
    generator: SamAutomaticMaskGenerator,
    image: NDArray[np.uint8],
    path: Path,
    out: Path,
    *,
    overlay: bool = True,
    masks: bool = True,
    read: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write every mask that is found in an image, the largest first.

    `out` receives `<name>_mask_<number>.png`, `<name>_overlay.png` and `<name>_masks.json`.

    Args:
        generator: with `output_mode` "coco_rle".
        image: (H, W, 3) RGB uint8.
        path: the image's file, for names.
        out: the folder to write to; made when missing.
        overlay: write an overlay too.
        masks: write a file per mask too.
        read: how the image was read, for the record; as `LoadedImage.to_json`.

    Returns:
        What was written to `<name>_masks.json`.

    Raises:
        BadInputError: another output mode, or `out` cannot be written to or holds the image.
        InferenceError, ServerError: as from `Session.infer`.
    """
    if generator.output_mode != "coco_rle":
        raise BadInputError(f"the generator's output_mode is '{generator.output_mode}': make it 'coco_rle'")
    doubts = input_doubts(generator.predictor.encoder, image)
    writer = _Writer(path, image.shape[:2], out, read or {}, doubts)
    records = sorted(generator.generate(image), key=lambda record: -int(record["area"]))
    if masks:
        for number, record in enumerate(records, start=1):
            record["mask"] = writer.mask(f"mask_{number}.png", rle_to_mask(record["segmentation"]))
    if overlay:
        writer.overlay(draw_masks(image, (rle_to_mask(record["segmentation"]) for record in records)))
    annotations = [{**record, "score": record["predicted_iou"]} for record in records]
    return writer.annotations("masks.json", annotations, generator.predictor.engine)


def draw_masks(image: NDArray[np.uint8], masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Tint masks over an image (H, W, 3), contours around each; later ones lie on top.

    Neighbours have different colours, as far as there are enough.
    """
    masks = list(masks)
    colors = distinct_colors(((mask, (0, 0)) for mask in masks), (image.shape[0], image.shape[1]))
    canvas = image
    for mask, color in zip(masks, colors, strict=True):
        canvas = draw_overlay(canvas, mask.astype(np.uint8), [color])
    return canvas


def _objects(
    predictor: SamPredictor, prompts: ObjectPrompts, multimask: bool
) -> Iterator[tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]]:
    chunks = predictor.predict_chunks(
        prompts.points, prompts.labels, prompts.boxes, prompts.masks, multimask_output=multimask
    )
    for masks, scores, low_res in chunks:
        for candidates in zip(masks, scores, low_res, strict=True):
            yield best_first(*candidates)


class _Writer:
    """Files of one image, all named after it; the folder is made with the first of them."""

    def __init__(
        self,
        path: Path,
        size_hw: tuple[int, ...],
        out: Path,
        read: dict[str, Any],
        doubts: Sequence[str] = (),
    ) -> None:
        check_out(out, [path])
        self._path = path
        self._size_hw = (size_hw[0], size_hw[1])
        self._out = out
        self._read = read
        self._doubts = doubts

    def mask(self, name: str, mask: NDArray[np.bool_]) -> str:
        file = self._file(name)
        write_mask(file, mask.astype(np.uint8), binary=True)
        return str(file)

    def overlay(self, overlay: NDArray[np.uint8]) -> None:
        write_png(self._file("overlay.png"), overlay)

    def array(self, name: str, values: NDArray[np.float32]) -> None:
        file = self._file(name)
        try:
            np.save(file, values)
        except OSError as error:
            raise BadInputError(f"cannot write '{file}': {error.strerror or error}") from error

    def annotations(self, name: str, annotations: list[dict[str, Any]], engine: str) -> dict[str, Any]:
        """COCO's format, readable by pycocotools, with what computed it and warnings."""
        height, width = self._size_hw
        warnings = [*self._doubts, *([] if annotations else ["no object was found"])]
        for number, annotation in enumerate(annotations, start=1):
            warnings += mask_doubts(int(annotation["area"]), (height, width), f"mask {number}")
        written = {
            "info": {"engine": engine},
            "warnings": warnings,
            "images": [
                {"id": 1, "file_name": str(self._path), "height": height, "width": width, **self._read}
            ],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [
                {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, **annotation}
                for number, annotation in enumerate(annotations, start=1)
            ],
        }
        file = self._file(name)
        try:
            file.write_text(to_json_text(written), encoding="utf-8")
        except OSError as error:
            raise BadInputError(f"cannot write '{file}': {error.strerror or error}") from error
        return written

    def _file(self, name: str) -> Path:
        try:
            self._out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"cannot write '{self._out}': {error.strerror or error}") from error
        return self._out / f"{self._path.stem}_{name}"
