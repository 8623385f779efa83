"""Images of another size than the model's: sam2's masks of the same bytes, and of its own resizing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sam2_small import small_sam2
from sam2_torch_session import TorchSam2Session

from microbench.sam2_resize import agreement, image_masks
from seg_bench.sam2_trackers import as_image_predictor
from seg_runtime.files.images import read_image
from seg_runtime.sam2 import Sam2ImagePredictor

PHOTOGRAPHS = ("nuclei/images/55f98f43c152.png", "montgomery/images/MCUCXR_0253_1.png")
"""A micrograph of 320x256 pixels and an X-ray of 512x512, for a model of 256x256."""


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield small_sam2()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    folder = Path(__file__).parents[1] / "data"
    return [read_image(folder / name, 3) for name in PHOTOGRAPHS]


def our_masks(session: TorchSam2Session, image: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    """The prompts of `image_masks` on our predictor."""
    height, width = image.shape[:2]
    with Sam2ImagePredictor(session, "sam2") as predictor:
        predictor.set_image(image)
        shares = (0.25, 0.5, 0.75)
        answers = [predictor.predict([[x * width, y * height]], [1])[0] for x in shares for y in shares]
        for box in ([0.1, 0.1, 0.6, 0.7], [0.4, 0.3, 0.9, 0.9]):
            corners = np.array(box) * [width, height, width, height]
            answers.append(predictor.predict(box=corners, multimask_output=False)[0])
    return [mask for answer in answers for mask in answer]


def test_masks_of_an_image_of_another_size_are_sam2s_when_it_gets_the_same_bytes(
    model: Any, images: list[NDArray[np.uint8]]
) -> None:
    theirs, session = as_image_predictor(model), TorchSam2Session(model)
    pairs = [(our_masks(session, image), image_masks(theirs, image, in_bytes=True)) for image in images]
    found = agreement("small", "random", pairs)
    assert found.masks > 40
    assert found.lowest_iou >= 0.999


def test_rounding_the_resized_image_costs_a_few_pixels_of_a_mask(
    model: Any, images: list[NDArray[np.uint8]]
) -> None:
    """As `bench/results/sam2_resize.json` has it for larger models."""
    theirs = as_image_predictor(model)
    pairs = [[image_masks(theirs, image, in_bytes=way) for way in (True, False)] for image in images]
    found = agreement("small", "random", [(ours, others) for ours, others in pairs])
    assert 0.99 <= found.median_iou < 1, "the two resizings differ, by half a level"
    assert found.mean_iou >= 0.98


def test_agreement_leaves_out_masks_that_are_empty_both_times() -> None:
    empty, full, half = np.zeros((2, 2), bool), np.ones((2, 2), bool), np.eye(2, dtype=bool)
    found = agreement("m", "random", [([empty, full], [empty, half]), ([half], [half])])
    assert (found.masks, found.mean_iou, found.lowest_iou, found.share_above_0999) == (2, 0.75, 0.5, 0.5)
