"""Both predictors on the exported graphs, in process, against sam2's own with the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2_clips import FolderSource, moving_shapes, video_frames, write_jpegs
from sam2_flows import FLOWS, assert_steps_equal, steps
from sam2_small import GRID, SIDE, small_sam2

from seg_runtime.connection import connect
from seg_runtime.sam2 import Sam2ImagePredictor, Sam2VideoPredictor
from seg_runtime.session import Session

RELATIVE, MIN_IOU = 1e-3, 0.999


@pytest.fixture(scope="module")
def original() -> Iterator[SAM2VideoPredictor]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield small_sam2()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def session(small_sam2_folder: Path) -> Iterator[Session]:
    with connect(small_sam2_folder / "repo") as session:
        yield session


def compare(original: SAM2VideoPredictor, session: Session, folder: Path, flow: str) -> None:
    source = FolderSource(folder)
    arguments = source.frame_count, source.size_hw
    wanted = steps(FLOWS[flow](original, original.init_state(str(folder)), *arguments))
    with Sam2VideoPredictor(session, "sam2") as ours:
        got = steps(FLOWS[flow](ours, ours.init_state(source), *arguments))
    there = [masks.max() > 0 for _, _, masks in wanted]
    assert any(there)
    assert_steps_equal(got, wanted, RELATIVE, MIN_IOU)


@pytest.mark.full
@pytest.mark.parametrize("flow", ["three_objects", "correction", "no_object_in_a_mask", "reverse"])
def test_shapes_are_tracked_as_by_sam2(
    original: SAM2VideoPredictor, session: Session, tmp_path: Path, flow: str
) -> None:
    compare(original, session, write_jpegs(moving_shapes(10), tmp_path), flow)


@pytest.mark.full
@pytest.mark.parametrize("flow", ["three_objects", "correction", "reverse", "box_and_points"])
@pytest.mark.parametrize("clip", ["bedroom.mp4", "cups.mp4"])
def test_40_frames_of_a_clip_are_tracked_as_by_sam2(
    original: SAM2VideoPredictor, session: Session, tmp_path: Path, clip: str, flow: str
) -> None:
    compare(original, session, write_jpegs(video_frames(clip, 40), tmp_path), flow)


def test_masks_of_an_image_equal_sam2s(original: SAM2VideoPredictor, session: Session) -> None:
    image = np.ascontiguousarray(next(moving_shapes(3, (SIDE, SIDE))))
    with warnings.catch_warnings():
        # sam2 scripts its transforms, which torch advises against.
        warnings.simplefilter("ignore", FutureWarning)
        theirs = SAM2ImagePredictor(original)
    # sam2 fixes these for 1024 pixels.
    theirs._bb_feat_sizes = [(4 * GRID, 4 * GRID), (2 * GRID, 2 * GRID), (GRID, GRID)]
    y, x = np.mgrid[-1 : 1 : 4 * GRID * 1j, -1 : 1 : 4 * GRID * 1j]
    hill = (10 - 40 * ((x + 0.2) ** 2 + y**2))[None].astype(np.float32)
    prompts = [
        {"point_coords": [[60, 128]], "point_labels": [1]},
        {"point_coords": [[60, 128], [30, 20]], "point_labels": [1, 0], "box": [20, 90, 100, 200]},
        {"mask_input": hill},
        {"box": [[20, 90, 100, 200], [5, 5, 250, 250]]},
    ]
    with Sam2ImagePredictor(session, "sam2") as ours:
        for predictor in (ours, theirs):
            predictor.set_image(image)
        for prompt in prompts:
            for multimask in (True, False):
                arguments = {key: np.array(value) for key, value in prompt.items()}
                got = ours.predict(**arguments, multimask_output=multimask)
                wanted = theirs.predict(**arguments, multimask_output=multimask)
                largest = np.abs(wanted[2]).max()
                np.testing.assert_allclose(got[1], wanted[1], atol=1e-4)
                np.testing.assert_allclose(got[2], wanted[2], atol=1e-4 * largest)
                masks = wanted[0] > 0
                union, both = np.sum(got[0] | masks), np.sum(got[0] & masks)
                assert both >= MIN_IOU * union
