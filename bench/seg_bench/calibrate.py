"""Chooses from which probability on a pixel is foreground, or from which score on an object counts.

A network's probabilities are not calibrated (Guo et al., 2017, "On Calibration of Modern Neural Networks"),
and 0.5 is a habit. Every threshold of a grid is scored at once, on images that nothing was trained on: pixels
and objects are sorted into the grid, and cumulative sums give what each threshold leaves.
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
from seg_bench.data.nuclei import InstanceSample
from seg_bench.data.samples import Truth
from seg_bench.metrics.objects import paired_dice
from seg_runtime import connect
from seg_runtime.engines import AUTO
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.instances import InstanceSegmenter
from seg_runtime.semantic import SemanticSegmenter
from seg_runtime.session import Session

__all__ = [
    "THRESHOLDS",
    "Calibration",
    "Score",
    "calibrate",
    "choose",
    "dice_by_threshold",
    "objects_by_threshold",
]

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(5, 96))

_AS_GOOD = {"mean Dice": 0.0005, "F1 of objects": 0.005}
"""Thresholds this near the best are as good: few images tell no more."""

OnImage = Callable[[], object]


@dataclass(frozen=True)
class Score:
    """A threshold and what it gives.

    Attributes:
        threshold: in 0..1.
        value: of the metric, in 0..1.
        count_error: mean over the images of objects found minus true ones; None for pixels.
    """

    threshold: float
    value: float
    count_error: float | None = None


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        model: its name.
        what: "threshold" of probabilities, or "score_threshold" of objects, as `ModelSpec` calls them.
        metric: "mean Dice" over the images, or "F1 of objects" over all of them, at a mask IoU of 0.5.
        images: their names.
        current: the threshold of the contract.
        chosen: of those as good as the best, the one nearest to the current one.
        best: the one with the highest value.
        curve: all of them, from the lowest threshold on.
    """

    model: str
    what: str
    metric: str
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
    on_image: OnImage = lambda: None,
) -> Calibration:
    """Score every threshold of a published model on images with ground truth, through its own session.

    Args:
        repo: the model repository.
        model: a semantic model of one class, or one that finds objects.
        data: the folder that the samples are from, for the names of its classes.
        samples: images that the model was not trained on.
        engine: what computes, as for `seg_runtime.connect`.
        on_image: called after each image.

    Raises:
        BadInputError: another kind of model, or ground truth that does not fit it.
        ModelNotFoundError: no such model.
    """
    with connect(repo, engine=engine) as session:
        spec = session.spec(model)
        check_sizes(samples)
        check_truths(samples)
        if spec.task == "instances":
            thresholds = (*THRESHOLDS, spec.score_threshold)
            scores = _score_objects(session, model, samples, thresholds, on_image)
            return choose(model, "score_threshold", "F1 of objects", _names(samples), scores)
        if len(spec.class_names) > 1:
            raise BadInputError(
                f"'{model}' has several classes, of which the likeliest wins: it has no threshold to choose"
            )
        names = class_names(data) if has_classes(data) else ()
        check_class_names(names, spec.class_names, model)
        thresholds = (*THRESHOLDS, spec.threshold)
        dice = _score_pixels(session, model, samples, thresholds, on_image)
    scores = [Score(*pair) for pair in zip(thresholds, dice.tolist(), strict=True)]
    return choose(model, "threshold", "mean Dice", _names(samples), scores)


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
    target = truth.mask[~truth.ignored]
    both, found = _reaching(probabilities[~truth.ignored], target, thresholds)
    total = found + np.count_nonzero(target)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)


def objects_by_threshold(
    scores: NDArray[np.float32], paired: NDArray[np.bool_], thresholds: Sequence[float]
) -> NDArray[np.int64]:
    """How many objects each threshold leaves.

    Args:
        scores: (N,) of the objects of an image.
        paired: (N,) whether each is one of the true ones. The best choose first, so that those of lower
            scores change nothing.
        thresholds: in any order.

    Returns:
        (2, thresholds): those that are true, and all.
    """
    return np.stack(_reaching(scores, paired, thresholds))


def choose(
    model: str, what: str, metric: str, images: tuple[str, ...], scores: Sequence[Score]
) -> Calibration:
    """The threshold to take.

    Args:
        model, what, metric, images: as those of `Calibration`.
        scores: of `THRESHOLDS` and, last, of the current one.
    """
    current = scores[-1]
    best = max(scores, key=lambda score: score.value)
    as_good = [score for score in scores if score.value >= best.value - _AS_GOOD[metric]]
    chosen = min(as_good, key=lambda score: (abs(score.threshold - current.threshold), -score.value))
    return Calibration(model, what, metric, images, current, chosen, best, tuple(scores[:-1]))


def _score_pixels(
    session: Session,
    model: str,
    samples: Sequence[AnySample],
    thresholds: Sequence[float],
    on_image: OnImage,
) -> NDArray[np.float64]:
    """(thresholds,) mean Dice over the images."""
    segmenter = SemanticSegmenter(session, model)
    dice = []
    for sample in samples:
        image = read_image(sample.image_path, segmenter.spec.channels, gray=True)
        (probabilities,) = segmenter.segment(image).probabilities
        truth = sample.load_truth()
        sample.check_size(probabilities.shape, truth.mask.shape)
        dice.append(dice_by_threshold(probabilities, truth, thresholds))
        on_image()
    return np.asarray(np.mean(dice, axis=0), np.float64)


def _score_objects(
    session: Session,
    model: str,
    samples: Sequence[AnySample],
    thresholds: Sequence[float],
    on_image: OnImage,
) -> list[Score]:
    """F1 over the objects of all images, and how many are too many in an image."""
    segmenter = InstanceSegmenter(session, model)
    counts, true_objects = np.zeros((2, len(thresholds)), np.int64), 0
    for sample in samples:
        if not isinstance(sample, InstanceSample):
            raise BadInputError(
                f"'{model}' finds objects: give a folder with images/ and labels/ (maps of ids)"
            )
        labels = sample.load_labels()
        found = segmenter.segment(read_image(sample.image_path, 3, gray=True))
        paired = ~np.isnan(paired_dice(found.masks(), labels))
        counts += objects_by_threshold(found.scores, paired, thresholds)
        true_objects += np.count_nonzero(np.unique(labels))
        on_image()
    both, every = counts
    f1 = 2 * both / np.maximum(every + true_objects, 1)
    errors = (every - true_objects) / len(samples)
    return [Score(*each) for each in zip(thresholds, f1.tolist(), errors.tolist(), strict=True)]


def _reaching(
    values: NDArray[np.float32], chosen: NDArray[np.bool_], thresholds: Sequence[float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many values are at or above each threshold: of the chosen ones, and of all."""
    order = np.argsort(thresholds)
    cuts = np.asarray(thresholds, np.float32)[order]
    reached = np.searchsorted(cuts, values, side="right")
    counts = np.empty((2, len(cuts)), np.int64)
    # What reaches n thresholds is above each of the first n.
    for row, of in zip(counts, (reached[chosen], reached), strict=True):
        row[order] = np.bincount(of, minlength=len(cuts) + 1)[::-1].cumsum()[::-1][1:]
    return counts[0], counts[1]


def _names(samples: Sequence[AnySample]) -> tuple[str, ...]:
    return tuple(sample.name for sample in samples)
