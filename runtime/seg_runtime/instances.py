"""Instance segmentation: an image in, objects with boxes, classes and masks out, in the image's own frame."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.paste import MaskCrop, paste_crops, to_masks
from seg_runtime.preprocess import check_batch_size, check_image
from seg_runtime.sam.rle import coco_rle, encode_counts
from seg_runtime.session import Session
from seg_runtime.spec import ModelSpec

__all__ = ["InstanceResult", "InstanceSegmenter", "resized_hw"]

SHORTEST_SIDE = 32
LARGEST_ASPECT = 20


@dataclass(frozen=True)
class InstanceResult:
    """What was found in one image, the best first.

    Attributes:
        boxes_xyxy: (N, 4) float32 x0, y0, x1, y1 in pixels of the image.
        scores: (N,) float32 in 0..1.
        labels: (N,) int32, from 1 on.
        class_names: one per object.
        mask_logits: (N, 28, 28) float32, the mask of each object in its box.
        size_hw: (height, width) of the image.
        found: how many objects the model found, before any filter of the client.
        truncated: whether that is more than the model can say: then only its best are here.
        threshold: a mask's probability at or above it belongs to the object.
        timings_ms: milliseconds spent in "preprocess", "infer" and "postprocess" (pasting is not part of it,
            and happens when masks are asked for).
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    mask_logits: NDArray[np.float32]
    size_hw: tuple[int, int]
    found: int
    truncated: bool
    threshold: float = 0.5
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def crops(self) -> list[MaskCrop]:
        """The mask of each object where its box is, which is all of it."""
        probabilities = 1 / (1 + np.exp(-self.mask_logits.astype(np.float32)))
        return paste_crops(probabilities, self.boxes_xyxy, self.size_hw, self.threshold)

    def masks(self) -> NDArray[np.bool_]:
        """(N, H, W) bool in the frame of the image."""
        return to_masks(self.crops, self.size_hw)

    def rle(self) -> list[dict[str, Any]]:
        """COCO's compressed run-length encoding of each mask, made from its crop."""
        return [
            coco_rle(encode_counts(crop.mask.view(np.uint8), crop.origin_xy, self.size_hw), self.size_hw)
            for crop in self.crops
        ]

    def polygons(self) -> list[list[list[float]]]:
        """COCO's polygons of each mask: its outlines as x, y, x, y, ... of pixel centres; holes are lost."""
        return [_polygons(crop) for crop in self.crops]

    def coco(self, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """Annotations in COCO's format: bbox is x, y, width, height."""
        annotations = []
        for index, (segmentation, crop) in enumerate(zip(self.rle(), self.crops, strict=True)):
            x0, y0, x1, y1 = (float(value) for value in self.boxes_xyxy[index])
            annotations.append(
                {
                    "id": first_id + index,
                    "image_id": image_id,
                    "category_id": int(self.labels[index]),
                    "segmentation": segmentation,
                    "area": int(np.count_nonzero(crop.mask)),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "iscrowd": 0,
                    "score": float(self.scores[index]),
                }
            )
        return annotations


class InstanceSegmenter:
    """Runs an instance segmentation model of a session on images of any size.

    Args:
        session: from `seg_runtime.connect`.
        model: its name in the session.
        score_threshold: objects below it are left out, also None for that of the contract; the network itself
            gives none below 0.05, as torchvision's.
        classes: names of the classes to keep; None for all.
        shortest_side: images are scaled no further than to this shorter side in pixels, as torchvision's
            `min_size`; None for as large as the model's input allows.

    Raises:
        ModelNotFoundError: the session has no such model.
        BadInputError: the model finds no instances, or a setting does not fit it.
    """

    def __init__(
        self,
        session: Session,
        model: str,
        *,
        score_threshold: float | None = 0.0,
        classes: Collection[str] | None = None,
        shortest_side: int | None = None,
    ) -> None:
        self.session = session
        self.spec = session.spec(model)
        if self.spec.task != "instances":
            raise BadInputError(
                f"model '{model}' is for the task '{self.spec.task}', not for instances: "
                "use `seg-run segment` or `seg-run sam`, or a model published with seg-export maskrcnn"
            )
        if score_threshold is None:
            score_threshold = self.spec.score_threshold
        if not 0 <= score_threshold <= 1:
            raise BadInputError(f"score threshold {score_threshold}: expected 0 to 1")
        if shortest_side is not None and shortest_side < SHORTEST_SIDE:
            raise BadInputError(f"shortest side {shortest_side}: it must be at least {SHORTEST_SIDE} pixels")
        self.score_threshold = score_threshold
        self.shortest_side = shortest_side
        self._labels = None if classes is None else _labels_of(self.spec, classes)

    @property
    def engine(self) -> str:
        """What computes the model, as `Session.engine`."""
        return self.session.engine(self.spec.name)

    def segment(self, image: NDArray[np.uint8]) -> InstanceResult:
        """Find the objects of one image.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            BadInputError: another dtype or shape, a side below 32 pixels, or one side 20 times the other.
            InferenceError, ServerError: as from `Session.infer`.
        """
        return next(self.stream([image]))

    def stream(self, images: Iterable[NDArray[np.uint8]], batch_size: int = 1) -> Iterator[InstanceResult]:
        """Segment images as they come, holding no more than one batch of them.

        Args:
            images: as for `segment`; their sizes may differ.
            batch_size: how many to run together.

        Yields:
            One result per image, in order.

        Raises:
            BadInputError: as from `segment`, or a batch larger than the model takes.
        """
        check_batch_size(self.spec, batch_size)
        return self._stream(images, batch_size)

    def _stream(self, images: Iterable[NDArray[np.uint8]], batch_size: int) -> Iterator[InstanceResult]:
        source = iter(images)
        while batch := list(islice(source, batch_size)):
            yield from self._run(batch)

    def _run(self, images: list[NDArray[np.uint8]]) -> Iterator[InstanceResult]:
        start = time.perf_counter()
        canvas = np.zeros((len(images), *self.spec.input_size_hw, 3), dtype=np.uint8)
        sizes = [self._place(image, slot) for image, slot in zip(images, canvas, strict=True)]
        prepared = time.perf_counter()
        inputs: dict[str, NDArray[Any]] = {"image": canvas, "valid_hw": np.array(sizes, dtype=np.int32)}
        outputs = self.session.infer(self.spec.name, inputs)
        done = time.perf_counter()
        shares = {
            "preprocess": 1000 * (prepared - start) / len(images),
            "infer": 1000 * (done - prepared) / len(images),
        }
        for index, (image, size_hw) in enumerate(zip(images, sizes, strict=True)):
            rows = {name: values[index] for name, values in outputs.items()}
            yield self._result(rows, (image.shape[0], image.shape[1]), size_hw, shares)

    def _place(self, image: NDArray[np.uint8], slot: NDArray[np.uint8]) -> tuple[int, int]:
        """Put a scaled image at the top left; returns its (height, width) there."""
        import cv2

        check_image(image, 3)
        height, width = image.shape[:2]
        if min(height, width) < SHORTEST_SIDE or max(height, width) > LARGEST_ASPECT * min(height, width):
            raise BadInputError(
                f"an image of {width}x{height} pixels: sides must be at least {SHORTEST_SIDE} pixels and one "
                f"at most {LARGEST_ASPECT} times the other; crop it first"
            )
        canvas_hw = self.spec.input_size_hw
        size_hw = canvas_hw
        if self.spec.resize == "longest-side":
            size_hw = resized_hw((height, width), canvas_hw, self.shortest_side)
        scaled = cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
        slot[: size_hw[0], : size_hw[1]] = scaled
        return size_hw

    def _result(
        self,
        rows: Mapping[str, NDArray[Any]],
        image_hw: tuple[int, int],
        size_hw: tuple[int, int],
        shares: Mapping[str, float],
    ) -> InstanceResult:
        start = time.perf_counter()
        found, limit = int(rows["count"][0]), len(rows["scores"])
        kept = np.arange(limit) < min(found, limit)
        kept &= rows["scores"] >= self.score_threshold
        if self._labels is not None:
            kept &= np.isin(rows["labels"], self._labels)
        # As torchvision's resize_boxes: one ratio per axis, in float32.
        ratio_y, ratio_x = (
            np.float32(original) / np.float32(resized)
            for original, resized in zip(image_hw, size_hw, strict=True)
        )
        ratios = np.array([ratio_x, ratio_y, ratio_x, ratio_y], dtype=np.float32)
        boxes = np.asarray(rows["boxes"][kept] * ratios, dtype=np.float32)
        labels = rows["labels"][kept].astype(np.int32)
        names, scores = tuple(self._name(int(label)) for label in labels), rows["scores"][kept]
        logits = np.asarray(rows["mask_logits"][kept], dtype=np.float32)
        timings = {**shares, "postprocess": 1000 * (time.perf_counter() - start)}
        return InstanceResult(
            boxes,
            np.asarray(scores, dtype=np.float32),
            labels,
            names,
            logits,
            image_hw,
            found,
            found > limit,
            self.spec.threshold,
            timings,
        )

    def _name(self, label: int) -> str:
        names = self.spec.class_names
        return names[label - 1] if label <= len(names) else f"class_{label}"


def resized_hw(
    image_hw: tuple[int, int], canvas_hw: tuple[int, int], shortest_side: int | None = None
) -> tuple[int, int]:
    """The (height, width) to which an image is scaled, with torchvision's rounding.

    For a canvas of 800x1333 and an image wider than high that is torchvision's own size for a shorter side
    of 800 and a longer one of at most 1333.

    Args:
        image_hw: (height, width) of the image.
        canvas_hw: (height, width) that it must fit.
        shortest_side: of the result, at most; None for no limit.
    """
    ratios = [limit / side for limit, side in zip(canvas_hw, image_hw, strict=True)]
    if shortest_side is not None:
        ratios.append(shortest_side / min(image_hw))
    scale = min(ratios)
    height, width = (
        min(max(int(side * scale), 1), limit) for side, limit in zip(image_hw, canvas_hw, strict=True)
    )
    return height, width


def _labels_of(spec: ModelSpec, classes: Collection[str]) -> list[int]:
    import difflib

    for name in classes:
        if name not in spec.class_names:
            near = difflib.get_close_matches(name, spec.class_names, n=1, cutoff=0.5)
            hint = f": did you mean '{near[0]}'?" if near else f"; it has {', '.join(spec.class_names[:8])}"
            raise BadInputError(f"model '{spec.name}' has no class '{name}'{hint}")
    return [label for label, name in enumerate(spec.class_names, start=1) if name in classes]


def _polygons(crop: MaskCrop) -> list[list[float]]:
    import cv2

    if not crop.mask.any():
        return []
    contours, _ = cv2.findContours(crop.mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [
        (contour.reshape(-1, 2) + np.array(crop.origin_xy)).astype(float).ravel().tolist()
        for contour in contours
        if len(contour) >= 3
    ]
