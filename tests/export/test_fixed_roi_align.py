"""RoIAlign on one packed map gives torchvision's numbers, for boxes of every level and at every border."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from seg_export.families.maskrcnn.fixed_roi_align import FixedRoIAlign, PackedPyramid

SIZES_HW = ((64, 96), (32, 48), (16, 24), (8, 12))
SCALES = (0.25, 0.125, 0.0625, 0.03125)
IMAGE_HW = (256, 384)


def features(batch: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 5, *size_hw, generator=generator) for size_hw in SIZES_HW]


def boxes(count: int) -> torch.Tensor:
    """Boxes of all sizes, some of them at or over the borders, and empty ones."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([384.0, 256.0])
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 6)
    found = torch.cat((corners, corners + sides), dim=1)
    limits = torch.tensor([384.0, 256.0, 384.0, 256.0])
    extremes = torch.tensor(
        [[0, 0, 384, 256], [383.5, 255.5, 384, 256], [0, 0, 0.2, 0.2], [384, 256, 384, 256], [0.0, 0, 0, 0]]
    )
    return torch.cat((torch.minimum(found, limits), extremes))


@pytest.mark.parametrize("size", [7, 14])
def test_equals_torchvisions_module(size: int) -> None:
    maps = features(2)
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], size, sampling_ratio=2)
    rows = torch.stack((boxes(200), boxes(200).flip(0)))
    named = {str(level): level_map for level, level_map in enumerate(maps)}
    expected = pool(named, list(rows), [IMAGE_HW, IMAGE_HW]).reshape(2, -1, 5, size, size)
    pyramid = PackedPyramid(SIZES_HW)
    result = FixedRoIAlign(pool, pyramid, SCALES)(pyramid(maps), rows).transpose(1, 2)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
    assert (result - expected).abs().mean() < 1e-6


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling", [1, 2, 3])
def test_equals_torchvisions_function_on_one_level(aligned: bool, sampling: int) -> None:
    maps = features(1)[:1]
    rows = boxes(100)[None]
    pool = MultiScaleRoIAlign(["0"], 7, sampling_ratio=sampling)
    expected = roi_align(maps[0], list(rows), 7, spatial_scale=0.25, sampling_ratio=sampling, aligned=aligned)
    pyramid = PackedPyramid(SIZES_HW[:1])
    result = FixedRoIAlign(pool, pyramid, SCALES[:1], aligned)(pyramid(maps), rows)[0].transpose(0, 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_boxes_fall_on_torchvisions_levels_at_the_limits() -> None:
    """Squares of 112, 224 and 448 pixels are where the level changes."""
    sides = torch.tensor([base + step for base in (112.0, 224.0, 448.0) for step in (-0.01, 0.0, 0.01)])
    rows = torch.stack((torch.zeros(9), torch.zeros(9), sides, sides), dim=1)
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, sampling_ratio=2)
    # Every level holds its own number.
    maps = [torch.full((1, 1, *size_hw), float(level)) for level, size_hw in enumerate(SIZES_HW)]
    named = {str(level): level_map for level, level_map in enumerate(maps)}
    expected = pool(named, [rows], [IMAGE_HW])[:, 0, 0, 0]
    pyramid = PackedPyramid(SIZES_HW)
    result = FixedRoIAlign(pool, pyramid, SCALES)(pyramid(maps), rows[None])[0, 0, :, 0, 0]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    assert expected.tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3]
