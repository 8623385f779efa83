"""Boxes around the objects of a ground truth, against scipy's labelling."""

from __future__ import annotations

import numpy as np
import pytest

from seg_bench.data.objects import object_boxes


def test_boxes_are_the_outer_edges_of_each_connected_part() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = np.zeros((90, 120), bool)
    mask[5:40, 10:30] = True
    mask[50:85, 100:120] = True
    mask[40:45, 30:60] = True  # touches the first part by a corner only
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    wanted = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]
    assert count == 2
    assert sorted(map(tuple, object_boxes(mask).tolist())) == sorted(wanted)


def test_stray_pixels_of_the_annotation_are_no_objects() -> None:
    mask = np.zeros((100, 100), bool)
    mask[10:60, 10:60] = True
    mask[90, 90] = True
    assert object_boxes(mask).tolist() == [[10, 10, 60, 60]]


def test_an_empty_mask_has_no_objects() -> None:
    assert object_boxes(np.zeros((8, 8), bool)).shape == (0, 4)
