"""Suppression with fixed shapes keeps the boxes that torchvision's keeps."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import nms

from seg_export.families.maskrcnn.fixed_nms import BLOCK, ROUNDS, fixed_nms


def random_boxes(count: int, side: float, seed: int) -> torch.Tensor:
    """(count, 4) boxes in a square of 500: the larger, the more they overlap."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 500
    sides = side * (0.5 + torch.rand(count, 2, generator=generator))
    return torch.cat((corners, corners + sides), dim=1)


def kept_by_torchvision(boxes: torch.Tensor, threshold: float) -> list[int]:
    scores = torch.linspace(1, 0.01, len(boxes))
    return sorted(nms(boxes, scores, threshold).tolist())


def kept(boxes: torch.Tensor, threshold: float, **options: int) -> list[int]:
    return fixed_nms(boxes, torch.ones(len(boxes)), threshold, **options).nonzero().flatten().tolist()


@pytest.mark.parametrize("side", [20, 80, 200, 600])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_keeps_what_torchvision_keeps(side: float, threshold: float) -> None:
    for seed in range(3):
        boxes = random_boxes(1000, side, seed)
        assert kept(boxes, threshold) == kept_by_torchvision(boxes, threshold)


def test_sliding_boxes_whose_order_makes_long_chains() -> None:
    """Each box suppresses the next one only: every second one stays, and each depends on all before it."""
    boxes = torch.tensor([[10.0 * index, 0, 10.0 * index + 40, 40] for index in range(1000)])
    expected = kept_by_torchvision(boxes, 0.5)
    assert len(expected) == 500
    assert kept(boxes, 0.5, block=ROUNDS) == expected
    assert kept(boxes, 0.5, rounds=BLOCK) == expected


def test_a_grid_of_anchors_in_any_order() -> None:
    """What a region proposal network suppresses: neighbours on a grid, of three shapes."""
    places = torch.arange(0, 320, 16.0)
    y, x = torch.meshgrid(places, places, indexing="ij")
    centers = torch.stack((x, y), dim=-1).reshape(-1, 1, 2)
    halves = torch.tensor([[45.0, 22.0], [32.0, 32.0], [22.0, 45.0]])
    boxes = torch.cat((centers - halves, centers + halves), dim=-1).reshape(-1, 4)
    for seed in range(5):
        order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
        assert kept(boxes[order], 0.7) == kept_by_torchvision(boxes[order], 0.7)
        assert kept(boxes[order], 0.4) == kept_by_torchvision(boxes[order], 0.4)


def test_rows_that_fill_up_suppress_nothing_and_are_not_kept() -> None:
    boxes = random_boxes(300, 100, 0)
    alive = (torch.arange(300) % 3 > 0).float()
    result = fixed_nms(boxes, alive, 0.5).nonzero().flatten()
    rows = alive.nonzero().flatten()
    assert result.tolist() == rows[torch.tensor(kept_by_torchvision(boxes[rows], 0.5))].tolist()


def test_groups_do_not_see_one_another() -> None:
    groups = torch.stack([random_boxes(250, 100, seed) for seed in range(6)]).reshape(2, 3, 250, 4)
    result = fixed_nms(groups, torch.ones(2, 3, 250), 0.5)
    for image in range(2):
        for level in range(3):
            expected = kept_by_torchvision(groups[image, level], 0.5)
            assert result[image, level].nonzero().flatten().tolist() == expected
