"""Surface distances against scipy's directed_hausdorff and brute force over all pairs of pixels."""

from __future__ import annotations

import builtins
import math

import cv2
import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage
from scipy.spatial.distance import cdist, directed_hausdorff

from microbench.hausdorff import perturbed
from seg_bench.metrics import average_surface_distance, hausdorff_95, hausdorff_distance
from seg_bench.metrics.farthest import MAX_SIDE
from seg_runtime.errors import BadInputError, MissingExtraError

ALL = (hausdorff_distance, hausdorff_95, average_surface_distance)


def _article_hausdorff(pred, target, spacing_hw=(1.0, 1.0)):
    pred_points, target_points = np.argwhere(pred) * spacing_hw, np.argwhere(target) * spacing_hw
    return max(
        directed_hausdorff(pred_points, target_points)[0], directed_hausdorff(target_points, pred_points)[0]
    )


def _brute_force_surface(pred, target, spacing_hw):
    """HD95 and average surface distance from the distances between all pairs of surface pixels."""
    cross = ndimage.generate_binary_structure(2, 1)
    surfaces = [mask & ~ndimage.binary_erosion(mask, cross) for mask in (pred, target)]
    points = [np.argwhere(surface) * spacing_hw for surface in surfaces]
    pairs = cdist(*points)
    forth, back = pairs.min(axis=1), pairs.min(axis=0)
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    return hd95, (forth.sum() + back.sum()) / (forth.size + back.size)


def _random_mask(generator, size_hw):
    kind = generator.integers(4)
    mask = np.zeros(size_hw, np.uint8)
    if kind == 0:
        return generator.random(size_hw) < generator.choice([0.01, 0.1, 0.5, 0.99])
    if kind == 1:
        return cv2.GaussianBlur(generator.standard_normal(size_hw), (0, 0), 4) > 0.02
    if kind == 2:
        axes, angle = generator.integers(1, 40, 2).tolist(), int(generator.integers(180))
        return cv2.ellipse(mask, (size_hw[1] // 2, size_hw[0] // 3), axes, angle, 0, 360, 1, -1) > 0
    mask[tuple(generator.integers(0, size_hw))] = 1
    return mask > 0


def _random_pairs(count, seed=0):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        size_hw = tuple(generator.integers(1, 90, 2).tolist())
        pred, target = _random_mask(generator, size_hw), _random_mask(generator, size_hw)
        if pred.any() and target.any():
            yield pred, target


def test_hausdorff_equals_scipy_exactly_on_random_masks():
    for pred, target in _random_pairs(300):
        assert hausdorff_distance(pred, target) == _article_hausdorff(pred, target)


def test_hausdorff_equals_scipy_exactly_on_large_noise_where_nothing_can_be_pruned():
    generator = np.random.default_rng(1)
    pred, target = generator.random((2, 300, 280)) < 0.02

    assert hausdorff_distance(pred, target) == _article_hausdorff(pred, target)


@pytest.mark.slow
def test_hausdorff_equals_scipy_exactly_on_real_lungs(xray_folder):
    generator = np.random.default_rng(2)
    for index, path in enumerate(sorted((xray_folder / "masks").glob("*.png"))):
        target = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127
        for pred in (
            perturbed(target, (2, 4, 8, 20)[index % 4], generator),
            np.roll(target, (9, -30), (0, 1)),
        ):
            assert hausdorff_distance(pred, target) == _article_hausdorff(pred, target)


@pytest.mark.parametrize("side", [MAX_SIDE - 1, MAX_SIDE, MAX_SIDE + 1])
def test_hausdorff_equals_scipy_exactly_across_masks_as_large_as_the_fast_path_takes(side):
    generator = np.random.default_rng(side)
    pred, target = np.zeros((2, side, side), bool)
    pred[0, 0] = target[-1, -1] = True
    pred.ravel()[generator.integers(0, side**2, 200)] = True
    target.ravel()[generator.integers(0, side**2, 3000)] = True

    assert hausdorff_distance(pred, target) == _article_hausdorff(pred, target)


def test_hausdorff_finds_a_farthest_point_inside_a_region():
    disc = cv2.circle(np.zeros((101, 101), np.uint8), (50, 50), 40, 1, -1)
    ring = disc - cv2.circle(np.zeros((101, 101), np.uint8), (50, 50), 38, 1, -1)

    assert hausdorff_distance(ring, disc) == _article_hausdorff(ring, disc) > 38


@pytest.mark.parametrize("spacing_hw", [(0.5, 0.5), (0.3, 0.7)])
def test_hausdorff_in_mm_equals_scipy_on_scaled_points(spacing_hw):
    for pred, target in _random_pairs(60, seed=3):
        expected = _article_hausdorff(pred, target, spacing_hw)
        assert hausdorff_distance(pred, target, spacing_hw) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spacing_hw", [None, (0.4, 0.4), (0.3, 0.7)])
def test_hd95_and_average_surface_distance_equal_brute_force(spacing_hw):
    for pred, target in _random_pairs(60, seed=4):
        hd95, average = _brute_force_surface(pred, target, spacing_hw or (1.0, 1.0))
        assert hausdorff_95(pred, target, spacing_hw) == pytest.approx(hd95, rel=1e-12)
        assert average_surface_distance(pred, target, spacing_hw) == pytest.approx(average, rel=1e-12)


@pytest.mark.parametrize("spacing_hw", [None, (0.4, 0.4), (0.3, 0.7)])
def test_pooled_hd95_equals_medpys_formula(spacing_hw):
    cross = ndimage.generate_binary_structure(2, 1)
    differ = 0
    for pred, target in _random_pairs(60, seed=5):
        borders = [mask ^ ndimage.binary_erosion(mask, cross) for mask in (pred, target)]
        away = [ndimage.distance_transform_edt(~border, sampling=spacing_hw) for border in borders]
        expected = np.percentile(np.hstack((away[1][borders[0]], away[0][borders[1]])), 95)
        found = hausdorff_95(pred, target, spacing_hw, "pooled")
        assert found == pytest.approx(expected, rel=1e-12)
        differ += found != pytest.approx(hausdorff_95(pred, target, spacing_hw))
    assert differ > 30


@pytest.mark.filterwarnings("ignore:monai:FutureWarning")
@pytest.mark.parametrize("spacing_hw", [None, (0.4, 0.4), (0.3, 0.7)])
def test_directed_hd95_equals_monai(spacing_hw):
    for pred, target in _random_pairs(20, seed=6):
        pair = (torch.from_numpy(mask)[None, None].float() for mask in (pred, target))
        expected = compute_hausdorff_distance(*pair, True, percentile=95, spacing=spacing_hw).item()
        assert hausdorff_95(pred, target, spacing_hw) == pytest.approx(expected, rel=1e-5)


def test_a_shift_by_three_columns_of_a_square_has_known_distances():
    target = np.zeros((60, 60), bool)
    target[10:50, 10:50] = True
    pred = np.roll(target, 3, axis=1)

    assert hausdorff_distance(pred, target) == 3.0
    assert hausdorff_95(pred, target) == 3.0
    assert hausdorff_distance(pred, target, (2.0, 0.5)) == 1.5


@pytest.mark.parametrize("metric", ALL)
def test_equal_masks_have_distance_zero(metric):
    mask = np.zeros((20, 20), np.uint8)
    mask[3:9, 4:15] = 255

    assert metric(mask, mask) == 0.0


@pytest.mark.parametrize("metric", ALL)
def test_a_distance_to_an_empty_mask_is_infinite(metric):
    empty, full = np.zeros((8, 8), bool), np.ones((8, 8), bool)

    assert metric(empty, full) == metric(full, empty) == metric(empty, empty) == math.inf


@pytest.mark.parametrize("metric", ALL)
def test_masks_that_do_not_fit_are_refused(metric):
    with pytest.raises(BadInputError, match="masks of one shape"):
        metric(np.ones((4, 4)), np.ones((4, 5)))
    with pytest.raises(BadInputError, match="masks of one shape"):
        metric(np.ones((1, 4, 4)), np.ones((1, 4, 4)))


@pytest.mark.parametrize("spacing_hw", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)])
def test_a_spacing_that_is_no_length_is_refused(spacing_hw):
    with pytest.raises(BadInputError, match="spacing_hw"):
        hausdorff_distance(np.ones((4, 4)), np.ones((4, 4)), spacing_hw)


def test_without_scipy_distances_work_and_those_of_uneven_pixels_name_the_extra(monkeypatch):
    original = builtins.__import__

    def no_scipy(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_scipy)
    mask = np.eye(8, dtype=bool)

    assert hausdorff_distance(mask, mask) == hausdorff_95(mask, mask) == 0.0
    with pytest.raises(MissingExtraError, match=r"edgeseg\[bench\]"):
        hausdorff_95(mask, mask, spacing_hw=(1.0, 2.0))
