"""J, F and J&F against a second implementation in plain NumPy and scipy, and values known by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import judo_folder
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from seg_bench.metrics.davis import (
    boundary_measure,
    combine_sequences,
    measure_sequence,
    region_similarity,
)
from seg_runtime.errors import BadInputError


def reference_boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """davis2017-evaluation's `_seg2bmap` as it is defined: compare with the right, lower and diagonal pixel.

    In the last row and column only the neighbour along the edge counts, and the last corner is no boundary.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] != mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def reference_f(pred: NDArray[Any], target: NDArray[Any], void: NDArray[np.bool_] | None = None) -> float:
    """`f_measure`: dilate each boundary by a disc, count what of the other falls into it."""
    keep = np.ones(pred.shape, bool) if void is None else ~void
    radius = math.ceil(0.008 * np.linalg.norm(pred.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = y**2 + x**2 <= radius**2
    edges = [reference_boundary((mask != 0) & keep) for mask in (pred, target)]
    wide = [binary_dilation(edge, disc) for edge in edges]
    counts = [int(edge.sum()) for edge in edges]
    if 0 in counts:
        precision, recall = (1.0, float(counts == [0, 0])) if counts[0] == 0 else (0.0, 1.0)
    else:
        precision = (edges[0] & wide[1]).sum() / counts[0]
        recall = (edges[1] & wide[0]).sum() / counts[1]
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def reference_j(pred: NDArray[Any], target: NDArray[Any], void: NDArray[np.bool_] | None = None) -> float:
    keep = np.ones(pred.shape, bool) if void is None else ~void
    union = np.sum(((pred != 0) | (target != 0)) & keep)
    return float(np.sum((pred != 0) & (target != 0) & keep) / union) if union else 1.0


def blob(generator: np.random.Generator, size_hw: tuple[int, int], threshold: float) -> NDArray[np.bool_]:
    noise = cv2.GaussianBlur(generator.standard_normal(size_hw), (0, 0), generator.uniform(1, 8))
    return np.asarray(noise / noise.std() > threshold)


@pytest.mark.parametrize("seed", range(40))
def test_j_and_f_equal_a_second_implementation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size_hw = (int(generator.integers(2, 150)), int(generator.integers(2, 200)))
    target = blob(generator, size_hw, 0.5)
    shift_px = generator.integers(-6, 7, 2)
    pred = np.roll(target, shift_px, (0, 1)) if seed % 2 else blob(generator, size_hw, 0.8)
    void = blob(generator, size_hw, 1.5) if seed % 3 == 0 else None
    assert boundary_measure(pred, target, void) == pytest.approx(reference_f(pred, target, void), abs=1e-12)
    assert region_similarity(pred, target, void) == pytest.approx(reference_j(pred, target, void), abs=1e-12)


@pytest.mark.parametrize("shift", [0, 3, 8, 9, 20])
def test_f_equals_the_second_implementation_at_480p(shift: int) -> None:
    mask = cv2.ellipse(np.zeros((480, 854), np.uint8), (400, 250), (140, 90), 20, 0, 360, 1, -1)
    pred = np.roll(mask, shift, 1)
    value = boundary_measure(pred, mask)
    assert value == pytest.approx(reference_f(pred, mask), abs=1e-12)
    assert (value == 1) == (shift <= 8)


def test_the_tolerance_is_eight_pixels_at_480p_and_round() -> None:
    point, other = np.zeros((480, 854), np.uint8), np.zeros((480, 854), np.uint8)
    point[100:140, 100:140] = 1
    for shift_xy, same in (((8, 0), True), ((9, 0), False), ((5, 6), True), ((6, 6), False)):
        other[:] = 0
        other[100 + shift_xy[1] : 140 + shift_xy[1], 100 + shift_xy[0] : 140 + shift_xy[0]] = 1
        # The corners are that far apart; along the sides the other square's edge is nearer.
        assert (boundary_measure(other, point) == 1) == same, shift_xy


def test_values_known_by_hand() -> None:
    square, half = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    square[10:20, 10:20] = 1
    half[10:20, 10:15] = 1
    empty = np.zeros((40, 40), np.uint8)
    assert region_similarity(half, square) == 0.5
    assert region_similarity(empty, empty) == boundary_measure(empty, empty) == 1
    assert region_similarity(empty, square) == boundary_measure(empty, square) == 0
    assert boundary_measure(square, square) == boundary_measure(square * 7, square > 0) == 1
    # Everything is foreground: there is no boundary, neither here nor there.
    assert boundary_measure(empty + 1, empty) == 1
    # 1 pixel of tolerance. The square's boundary is a ring of 40 pixels from (9, 9) to (19, 19), the half's
    # one of 30 up to column 14. There the half's rows 11 to 17 are farther than 1 from the ring: 7 miss.
    # Of the ring, columns 9 to 14 are the half's own: 21, and 2 more lie beside them.
    precision, recall = 23 / 30, 23 / 40
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_measure(half, square) == pytest.approx(reference_f(half, square))
    assert boundary_measure(half, square) == pytest.approx(expected)


def test_void_pixels_count_nowhere() -> None:
    target = np.zeros((40, 40), np.uint8)
    target[10:20, 10:20] = 1
    pred = target.copy()
    pred[30:35, 30:35] = 1
    void = np.zeros((40, 40), bool)
    void[28:38, 28:38] = True
    assert region_similarity(pred, target) < 1
    assert region_similarity(pred, target, void) == boundary_measure(pred, target, void) == 1


def test_ends_are_left_out_and_objects_count_the_same() -> None:
    target = np.zeros((60, 80), np.uint8)
    target[10:30, 10:30], target[35:55, 40:70] = 1, 2
    good, bad = target, np.where(target == 2, 0, target).astype(np.uint8)
    pairs = [(bad, target), (good, target), (bad, target), (good, target), (bad, target)]
    scores = measure_sequence("cats", iter(pairs))
    assert scores.object_ids == (1, 2)
    assert scores.j_frames.tolist() == [[1, 1, 1], [1, 0, 1]]
    summary = combine_sequences([scores, measure_sequence("dogs", pairs[1:2], [1], skip_ends=False)])
    assert summary.objects == {"cats_1": (1, 1), "cats_2": (2 / 3, 2 / 3), "dogs_1": (1, 1)}
    assert summary.j == summary.f == summary.j_and_f == pytest.approx(8 / 9)
    assert measure_sequence("cats", pairs, skip_ends=False).j_frames.shape == (2, 5)


def test_j_and_f_is_their_mean() -> None:
    target = np.zeros((120, 160), np.uint8)
    target[20:80, 30:90] = 1
    pred = np.roll(target, 5, 1)
    (j, f) = combine_sequences([measure_sequence("a", [(pred, target)] * 3)]).objects["a_1"]
    summary = combine_sequences([measure_sequence("a", [(pred, target)] * 3)])
    assert 0 < f < 1 and 0 < j < 1 and j != f
    assert summary.j_and_f == pytest.approx((j + f) / 2)


def test_void_in_annotations_is_no_object() -> None:
    target = np.zeros((40, 60), np.uint8)
    target[5:15, 5:15], target[20:30, 20:30] = 3, 255
    pred = np.where(target == 255, 3, target).astype(np.uint8)
    scores = measure_sequence("a", [(pred, target)] * 3)
    assert scores.object_ids == (3,)
    assert scores.j_frames.tolist() == scores.f_frames.tolist() == [[1]]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "0 objects and 0 frames"),
        ([(np.ones((4, 4), np.uint8),) * 2] * 2, "1 objects and 0 frames"),
        ([(np.zeros((4, 4), np.uint8),) * 2] * 3, "0 objects and 1 frames"),
        ([(np.ones((4, 5), np.uint8), np.ones((4, 4), np.uint8))] * 3, "masks of one shape"),
    ],
)
def test_what_cannot_be_measured_is_said(pairs: list[Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        measure_sequence("a", pairs)
    with pytest.raises(BadInputError, match="no sequence"):
        combine_sequences([])


def test_a_mask_of_judo_equals_the_second_implementation(tmp_path: Path) -> None:
    from seg_bench.data.davis import load_davis

    (sequence,) = load_davis(judo_folder(tmp_path))
    target = sequence.annotation(0) == 1
    pred = np.roll(target, (3, 6), (0, 1))
    assert boundary_measure(pred, target) == pytest.approx(reference_f(pred, target), abs=1e-12)
