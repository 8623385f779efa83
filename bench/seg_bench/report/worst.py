"""The masks that scored lowest, computed again and drawn over their images for the HTML page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.candidate import ENGINE, Candidate
from seg_bench.data.find import AnySample, find_samples
from seg_bench.data.splits import select
from seg_bench.records import Record, Run
from seg_runtime.errors import BadInputError

__all__ = ["WorstCase", "agreement_overlay", "draw_worst", "worst_images"]

_KINDS = {"sam": "sam", "sam2": "sam2", "maskrcnn": "instances"}
# Differences are thin, so they are drawn strongly, and without outlines, which would hide them.
_BOTH = ((64, 192, 96), 0.25)
_MODEL = ((240, 40, 40), 0.8)
_TRUTH = ((40, 110, 255), 0.8)
_SIDE = 360
"""Longest side of a picture in the page, in pixels."""


@dataclass(frozen=True)
class WorstCase:
    """One picture.

    Attributes:
        model, image: their names.
        words: its Dice, in the record and now.
        uri: a JPEG as a data URI.
        width, height: of it in pixels.
    """

    model: str
    image: str
    words: str
    uri: str
    width: int
    height: int


def worst_images(record: Record, count: int) -> list[tuple[str, float]]:
    """(name, Dice) of the images of a record with the lowest Dice, the lowest first; empty without names."""
    accuracy = record.accuracy
    if accuracy is None or accuracy.images is None:
        return []
    return sorted(zip(accuracy.images, accuracy.dice, strict=True), key=lambda pair: pair[1])[:count]


def draw_worst(runs: Sequence[Run], images: Path, repo: Path, count: int) -> list[WorstCase]:
    """Compute and draw the worst masks of every trained model, in process.

    Args:
        runs: whose records name the images and their Dice.
        images: the data folder that was measured.
        repo: the model repository.
        count: pictures per model.

    Raises:
        BadInputError: no record has names of images, or the folder lacks one.
        EdgesegError: as `seg_runtime.connect` and the model do.
    """
    records: dict[str, Record] = {}
    for run in runs:
        for record in run.records:
            if record.model.weights != "random" and worst_images(record, 1):
                records.setdefault(record.model.name, record)
    if not records:
        raise BadInputError(
            "no record has a Dice with the names of its images: measure again with this version"
        )
    samples = find_samples(images)
    return [case for record in records.values() for case in _draw(record, samples, images, repo, count)]


def _draw(
    record: Record, samples: tuple[AnySample, ...], images: Path, repo: Path, count: int
) -> Iterator[WorstCase]:
    from seg_bench.metrics import dice_score
    from seg_bench.pipelines import open_pipeline
    from seg_runtime.files.images import read_image

    worst = worst_images(record, count)
    names = tuple(name for name, _ in worst)
    kind = _KINDS.get(record.model.family, "semantic")
    candidate = Candidate(record.model.name, "in-process", ENGINE, str(repo), str(images), names, kind=kind)
    chosen = select(samples, names)
    with open_pipeline(candidate) as pipeline:
        for sample, (name, recorded) in zip(chosen, worst, strict=True):
            (mask,) = pipeline.run([pipeline.load(sample)]).masks
            truth = sample.load_mask()
            sample.check_size(mask.shape, truth.shape)
            now = dice_score(mask, truth)
            rgb = agreement_overlay(read_image(sample.image_path, 3, gray=True), mask, truth)
            yield _picture(record.model.name, name, recorded, now, rgb)


def agreement_overlay(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Green where a mask and the truth agree, red where only the mask is, blue where only the truth is.

    Args:
        image: (H, W, 3) RGB.
        mask, truth: (H, W).

    Returns:
        (H, W, 3) RGB.
    """
    drawn = image.astype(np.float32)
    for where, color, alpha in ((mask & truth, *_BOTH), (mask & ~truth, *_MODEL), (truth & ~mask, *_TRUTH)):
        drawn[where] += alpha * (np.asarray(color, np.float32) - drawn[where])
    return np.rint(drawn).astype(np.uint8)


def _picture(model: str, image: str, recorded: float, now: float, rgb: NDArray[np.uint8]) -> WorstCase:
    import cv2

    scale = min(1.0, _SIDE / max(rgb.shape[:2]))
    size: Any = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    uri = "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
    words = f"Dice {recorded:.4f}"
    if abs(recorded - now) > 0.001:
        words += f" in the record, {now:.4f} with the model that is in the repository now"
    return WorstCase(model, image, words, uri, *size)
