"""Semantic segmentation: an image in, one class per pixel out, in the image's own frame."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.postprocess import PostProcess, apply_postprocess
from seg_runtime.preprocess import (
    check_batch_size,
    check_clahe,
    check_image,
    probabilities_to_frame,
    to_batch,
)
from seg_runtime.session import Session
from seg_runtime.spec import ClaheSpec, ModelSpec
from seg_runtime.tiling import check_overlap, segment_tiles

__all__ = ["SemanticResult", "SemanticSegmenter"]

_INPUT, _OUTPUT = "image", "probabilities"


@dataclass(frozen=True)
class SemanticResult:
    """What was found in one image.

    Attributes:
        mask: (H, W) uint8 of class ids in the frame of the image: 0 and 1 for a model of one
            class, the index of the most probable class otherwise.
        probabilities: (C, H, W) float32 in 0..1 in the frame of the image, before postprocessing.
        timings_ms: milliseconds spent in "preprocess", "infer" and "postprocess"; an image of a
            batch carries an equal share of the batch's preprocess and infer.
    """

    mask: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    timings_ms: Mapping[str, float]


class SemanticSegmenter:
    """Runs a semantic model of a session on images of any size.

    Args:
        session: from `seg_runtime.connect`.
        model: its name in the session.
        threshold: a probability at or above it is foreground, instead of the model's own; only
            for models of one class.
        clahe: "model" for the contrast equalisation the model was trained with, other settings,
            or None for none.
        postprocess: morphology or dense CRF to run on each mask, or None.
        tile_overlap: None stretches every image to the model's input size. A share of 0 up to 0.9
            slides a window of that size over images larger than it, at their own resolution.

    Raises:
        ModelNotFoundError: the session has no such model.
        BadInputError: the model is not semantic, or a setting does not fit it.
    """

    def __init__(
        self,
        session: Session,
        model: str,
        *,
        threshold: float | None = None,
        clahe: ClaheSpec | Literal["model"] | None = "model",
        postprocess: PostProcess | None = None,
        tile_overlap: float | None = None,
    ) -> None:
        self.session = session
        self.spec = session.spec(model)
        _check_model(self.spec)
        if threshold is not None:
            _check_threshold(self.spec, threshold)
        if tile_overlap is not None:
            check_overlap(tile_overlap)
        self.threshold = self.spec.threshold if threshold is None else threshold
        self.clahe = self.spec.clahe if clahe == "model" else clahe
        check_clahe(self.spec.channels, self.clahe)
        self.postprocess = None if postprocess == PostProcess() else postprocess
        if postprocess is not None and postprocess.crf and self.spec.channels not in (1, 3):
            raise BadInputError(
                f"the CRF follows edges of gray and RGB images, and model '{model}' takes "
                f"{self.spec.channels} bands: leave it out"
            )
        self.tile_overlap = tile_overlap

    @property
    def engine(self) -> str:
        """What computes the model, as `Session.engine`."""
        return self.session.engine(self.spec.name)

    def segment(self, image: NDArray[np.uint8]) -> SemanticResult:
        """Segment one image.

        Args:
            image: uint8, (H, W) for a model of one channel, (H, W, 3) RGB for one of three, (H, W, C) for
                one of C bands.

        Raises:
            BadInputError: another dtype, shape or number of channels.
            InferenceError, ServerError: as from `Session.infer`.
        """
        return next(self.stream([image]))

    def stream(self, images: Iterable[NDArray[np.uint8]], batch_size: int = 1) -> Iterator[SemanticResult]:
        """Segment images as they come, holding no more than one batch of them.

        Args:
            images: as for `segment`; their sizes may differ.
            batch_size: how many to run together; tiles of one image are always batched.

        Yields:
            One result per image, in order.

        Raises:
            BadInputError: as from `segment`, or a batch larger than the model takes.
        """
        check_batch_size(self.spec, batch_size)
        return self._stream(images, batch_size)

    def _stream(self, images: Iterable[NDArray[np.uint8]], batch_size: int) -> Iterator[SemanticResult]:
        source = iter(images)
        while batch := list(islice(source, batch_size)):
            for image in batch:
                check_image(image, self.spec.channels)
            clock = _Clock()
            predicted = self._predict(batch, clock)
            shares = {step: spent / len(batch) for step, spent in clock.spent_ms.items()}
            # Popped, so that a result the caller has dropped does not live as long as its batch.
            predicted.reverse()
            for image in batch:
                yield self._result(image, predicted.pop(), shares)

    def _predict(self, images: list[NDArray[np.uint8]], clock: _Clock) -> list[NDArray[np.float32]]:
        """Probabilities of each image, (C, h, w): at the model's size, or the image's when tiled."""
        if self.tile_overlap is None:
            return list(self._run(images, clock))
        return [self._predict_tiled(image, self.tile_overlap, clock) for image in images]

    def _predict_tiled(self, image: NDArray[np.uint8], overlap: float, clock: _Clock) -> NDArray[np.float32]:
        tile_hw = self.spec.input_size_hw
        if all(side <= tile for side, tile in zip(image.shape[:2], tile_hw, strict=True)):
            return np.asarray(self._run([image], clock)[0], dtype=np.float32)
        batch_size = max(1, self.spec.max_batch_size)
        return segment_tiles(image, lambda tiles: self._run(tiles, clock), tile_hw, overlap, batch_size)

    def _run(self, images: Sequence[NDArray[np.uint8]], clock: _Clock) -> NDArray[np.float32]:
        """(N, C, h, w) float32 at the model's input size."""
        with clock.measure("preprocess"):
            batch = to_batch(images, self.spec.input_size_hw, self.spec.channels, self.clahe)
        with clock.measure("infer"):
            if self.spec.max_batch_size:
                output = self.session.infer(self.spec.name, {_INPUT: batch})[_OUTPUT]
            else:
                outputs = [self.session.infer(self.spec.name, {_INPUT: image})[_OUTPUT] for image in batch]
                output = np.stack(outputs)
        return np.asarray(output, dtype=np.float32)

    def _result(
        self, image: NDArray[np.uint8], predicted: NDArray[np.float32], shares: Mapping[str, float]
    ) -> SemanticResult:
        clock = _Clock()
        with clock.measure("postprocess"):
            frame_hw = (image.shape[0], image.shape[1])
            blended = self.tile_overlap is not None and predicted.shape[1:] == frame_hw
            probabilities = predicted if blended else probabilities_to_frame(predicted, frame_hw)
            mask = self._mask(probabilities)
            if self.postprocess is not None:
                mask = apply_postprocess(
                    self.postprocess, probabilities, mask, image, threshold=self.threshold
                )
        return SemanticResult(mask, probabilities, {**shares, **clock.spent_ms})

    def _mask(self, probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
        if len(probabilities) == 1:
            return np.asarray(probabilities[0] >= np.float32(self.threshold), dtype=np.uint8)
        return np.asarray(np.argmax(probabilities, axis=0), dtype=np.uint8)


class _Clock:
    """Adds up milliseconds per step; `with clock.measure(step)` times one block at a time."""

    def __init__(self) -> None:
        self.spent_ms: dict[str, float] = {}
        self._step = ""
        self._start = 0.0

    def measure(self, step: str) -> _Clock:
        self._step = step
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = 1000.0 * (time.perf_counter() - self._start)
        self.spent_ms[self._step] = self.spent_ms.get(self._step, 0.0) + spent


def _check_model(spec: ModelSpec) -> None:
    if spec.task != "semantic" or spec.input(_INPUT) is None or spec.output(_OUTPUT) is None:
        raise BadInputError(
            f"model '{spec.name}' is a model for '{spec.task}' and gives no class probabilities of an image: "
            "choose a semantic model (seg-run models lists them)"
        )


def _check_threshold(spec: ModelSpec, threshold: float) -> None:
    if len(spec.class_names) > 1:
        raise BadInputError(
            f"model '{spec.name}' has {len(spec.class_names)} classes, of which the most probable wins: "
            "leave out the threshold"
        )
    if not 0.0 <= threshold <= 1.0:
        raise BadInputError(f"the threshold must lie between 0 and 1, not {threshold}")
