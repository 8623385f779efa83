"""Chooses the probability from which on a pixel is foreground, on images that nothing was trained on.

A network's probabilities are not calibrated (Guo et al., 2017, "On Calibration of Modern Neural Networks"),
and 0.5 is a habit. Every threshold of a grid is scored at once: pixels are sorted into the grid by their
probability, and cumulative sums give the areas of each mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.check import check_class_names, check_sizes, check_truths
from seg_bench.data.classes import class_names, has_classes
from seg_bench.data.find import AnySample
from seg_bench.data.samples import Truth
from seg_runtime import connect
from seg_runtime.engines import AUTO
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.semantic import SemanticSegmenter

__all__ = ["THRESHOLDS", "Calibration", "Score", "calibrate", "choose", "dice_by_threshold"]

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(5, 96))

_AS_GOOD = 0.0005
"""Thresholds whose mean Dice is this near the best are as good: few images tell no more."""


@dataclass(frozen=True)
class Score:
    """A threshold and what it gives: mean Dice over the images, and the lowest of them."""

    threshold: float
    dice: float
    worst: float


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        model: its name.
        images: their names.
        current: the threshold of the contract, and its score.
        chosen: of those as good as the best, the one nearest to the current one.
        best: the one with the highest mean Dice.
        curve: all of them, from the lowest threshold on.
    """

    model: str
    images: tuple[str, ...]
    current: Score
    chosen: Score
    best: Score
    curve: tuple[Score, ...]


def calibrate(
    repo: Path,
    model: str,
    data: Path,
    samples: Sequence[AnySample],
    *,
    engine: str = AUTO,
    on_image: Callable[[], object] = lambda: None,
) -> Calibration:
    """Score every threshold of a published model on images with ground truth, through its own session.

    Args:
        repo: the model repository.
        model: a semantic model of one class.
        data: the folder that the samples are from, for the names of its classes.
        samples: images that the model was not trained on.
        engine: what computes, as for `seg_runtime.connect`.
        on_image: called after each image.

    Raises:
        BadInputError: another kind of model, or ground truth that does not fit it.
        ModelNotFoundError: no such model.
    """
    with connect(repo, engine=engine) as session:
        segmenter = SemanticSegmenter(session, model)
        if len(segmenter.spec.class_names) > 1:
            raise BadInputError(
                f"'{model}' has several classes, of which the likeliest wins: it has no threshold to choose"
            )
        names = class_names(data) if has_classes(data) else ()
        check_class_names(names, segmenter.spec.class_names, model)
        check_sizes(samples)
        check_truths(samples)
        thresholds = (*THRESHOLDS, segmenter.spec.threshold)
        dice = []
        for sample in samples:
            image = read_image(sample.image_path, segmenter.spec.channels, gray=True)
            (probabilities,) = segmenter.segment(image).probabilities
            truth = sample.load_truth()
            sample.check_size(probabilities.shape, truth.mask.shape)
            dice.append(dice_by_threshold(probabilities, truth, thresholds))
            on_image()
    return choose(model, tuple(sample.name for sample in samples), np.stack(dice), segmenter.spec.threshold)


def dice_by_threshold(
    probabilities: NDArray[np.float32], truth: Truth, thresholds: Sequence[float]
) -> NDArray[np.float64]:
    """Dice of the mask that each threshold cuts out.

    Args:
        probabilities: (H, W) float32 in 0..1.
        truth: of the same size; what does not count is left out.
        thresholds: in any order; a probability at or above one is foreground.

    Returns:
        (thresholds,) Dice; 1 where mask and truth are both empty.

    Example:
        >>> truth = Truth(np.array([[True, False]]), np.array([[False, False]]))
        >>> dice_by_threshold(np.array([[0.8, 0.4]], np.float32), truth, (0.3, 0.5, 0.9)).round(3).tolist()
        [0.667, 1.0, 0.0]
    """
    order = np.argsort(thresholds)
    cuts = np.asarray(thresholds, np.float32)[order]
    counted = ~truth.ignored
    reached = np.searchsorted(cuts, probabilities[counted], side="right")
    target = truth.mask[counted]
    # Of a pixel that reaches n thresholds the first n masks have it.
    both, found = (
        np.bincount(reached[chosen], minlength=len(cuts) + 1)[::-1].cumsum()[::-1][1:]
        for chosen in (target, np.ones_like(target))
    )
    total = found + np.count_nonzero(target)
    dice = np.empty(len(cuts))
    dice[order] = np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)
    return dice


def choose(model: str, images: tuple[str, ...], dice: NDArray[np.float64], current: float) -> Calibration:
    """The threshold to take.

    Args:
        model: its name.
        images: their names.
        dice: (images, thresholds) of `THRESHOLDS` and, last, of the current one.
        current: that of the contract.
    """
    every = [
        Score(threshold, float(values.mean()), float(values.min()))
        for threshold, values in zip((*THRESHOLDS, current), dice.T, strict=True)
    ]
    curve, now = tuple(every[:-1]), every[-1]
    best = max(every, key=lambda score: score.dice)
    as_good = [score for score in every if score.dice >= best.dice - _AS_GOOD]
    chosen = min(as_good, key=lambda score: (abs(score.threshold - current), -score.dice))
    return Calibration(model, images, now, chosen, best, curve)
