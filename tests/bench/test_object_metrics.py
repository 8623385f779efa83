"""Average precision, and Dice of the objects that were found, on cases whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from seg_bench.metrics.average_precision import Found, labelled_objects, mask_average_precision
from seg_bench.metrics.objects import matched_dice
from seg_runtime.sam.rle import coco_rle, encode_counts

SIZE_HW = (40, 60)


def square(x: int, y: int, side: int = 10) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def found(*objects: tuple[float, NDArray[np.bool_]], label: int = 1) -> Found:
    rles = [coco_rle(encode_counts(mask), SIZE_HW) for _, mask in objects]
    return Found([score for score, _ in objects], [label] * len(objects), rles)


def test_what_is_found_exactly_has_an_average_precision_of_one() -> None:
    truth = found((1, square(0, 0)), (1, square(30, 20)))
    result = mask_average_precision([truth], [found((0.9, square(0, 0)), (0.2, square(30, 20)))])
    assert (result.ap, result.ap50) == (1.0, 1.0)


def test_average_precision_follows_cocos_definition() -> None:
    """One of two objects, shifted by one pixel of ten: IoU 9/11 = 0.818, so it counts up to 0.80."""
    truth = found((1, square(0, 0)), (1, square(30, 20)))
    result = mask_average_precision([truth], [found((0.9, square(1, 0)))])
    # Recall 0.5 at precision 1: 51 of COCO's 101 recall levels, at 7 of its 10 thresholds.
    assert result.ap50 == pytest.approx(51 / 101)
    assert result.ap == pytest.approx(0.7 * 51 / 101)


def test_a_wrong_object_that_scores_higher_halves_the_precision() -> None:
    truth = found((1, square(0, 0)))
    result = mask_average_precision([truth], [found((0.9, square(30, 20)), (0.8, square(0, 0)))])
    assert result.ap == pytest.approx(0.5)


def test_the_limit_cuts_the_list_and_an_image_without_objects_counts_only_what_is_wrong_in_it() -> None:
    truth = [found((1, square(0, 0))), found()]
    guess = [found((0.7, square(30, 20)), (0.6, square(0, 0))), found((0.9, square(5, 5)))]
    assert mask_average_precision(truth, guess, max_detections=1).ap == 0
    assert mask_average_precision(truth, guess, max_detections=2).ap == pytest.approx(1 / 3)
    nothing = mask_average_precision([found()], [found((0.9, square(0, 0)))])
    assert (nothing.ap, nothing.ap50) == (None, None)


def test_objects_of_a_map_of_ids_are_its_ids() -> None:
    labels = np.where(square(3, 4), 7, 0) + np.where(square(40, 20), 300, 0)
    objects = labelled_objects(labels.astype(np.int32))
    assert mask_average_precision([objects], [found((1, square(3, 4)), (1, square(40, 20)))]).ap == 1


def test_dice_of_objects_is_that_of_pairs_and_the_better_score_chooses_first() -> None:
    labels = (np.where(square(0, 0), 1, 0) + np.where(square(30, 20), 5, 0)).astype(np.int32)
    masks = np.stack([square(1, 0), square(0, 0), square(30, 20), square(50, 0)])
    # The first takes object 1 (IoU 0.818, Dice 0.9); the second finds it taken; the last hits nothing.
    assert matched_dice(masks, labels).tolist() == pytest.approx([0.9, 1.0])
    assert matched_dice(masks[3:], labels).tolist() == []
    assert matched_dice(np.zeros((0, *SIZE_HW), np.bool_), labels).tolist() == []
    assert matched_dice(masks, np.zeros(SIZE_HW, np.int32)).tolist() == []
