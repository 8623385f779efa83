"""Outputs that may overlap: the largest score is the label that the libraries paint."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from seg_export.checkpoints.folders.regions import paint_likeliest, paint_over


def noise(regions: int) -> torch.Tensor:
    """Logits (2, regions, 8, 8)."""
    return torch.randn(2, regions, 8, 8, generator=torch.Generator().manual_seed(regions))


@pytest.mark.parametrize("labels", [*itertools.permutations([1, 2, 3]), (2, 1), (4, 1, 3, 2)])
def test_regions_are_painted_over_as_nnunet_does(labels: tuple[int, ...]) -> None:
    logits = noise(len(labels))
    # convert_probabilities_to_segmentation in nnunetv2/utilities/label_handling/label_handling.py
    probabilities = torch.sigmoid(logits).numpy()
    wanted = np.zeros((2, 8, 8), np.int64)
    for region, label in enumerate(labels):
        wanted[probabilities[:, region] > 0.5] = label
    network = nn.Identity()
    paint_over(network, labels)
    scores = network(logits)
    assert len(np.unique(wanted)) == 1 + len(labels)
    assert np.array_equal(scores.argmax(1).numpy(), wanted)
    assert scores.min() >= 0 and scores.max() <= 1


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.9])
def test_what_reaches_no_threshold_is_background(threshold: float) -> None:
    logits = noise(3)
    probabilities = torch.sigmoid(logits)
    above = (probabilities > threshold).any(1)
    wanted = torch.where(above, 1 + probabilities.argmax(1), 0)
    network = nn.Identity()
    paint_likeliest(network, threshold)
    assert above.any() and not above.all()
    assert torch.equal(network(logits).argmax(1), wanted)
