"""`Sam2VideoPredictor` against sam2's own, on the same weights and the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2_clips import FolderSource, moving_shapes, write_jpegs
from sam2_flows import FLOWS, assert_steps_equal, steps
from sam2_small import small_sam2
from sam2_torch_session import TorchSam2Session

from seg_runtime.sam2 import Sam2VideoPredictor

RELATIVE, MIN_IOU = 1e-3, 0.999


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sam21() -> SAM2VideoPredictor:
    return small_sam2()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jpegs(moving_shapes(10), tmp_path_factory.mktemp("shapes"))


def run_both(original: SAM2VideoPredictor, folder: Path, flow: str, **options: Any) -> tuple[list, list]:
    source = FolderSource(folder)
    arguments = source.frame_count, source.size_hw
    for name, value in options.items():
        setattr(original, name, value)
    try:
        wanted = steps(FLOWS[flow](original, original.init_state(str(folder)), *arguments))
    finally:
        for name in options:
            setattr(original, name, False)
    with Sam2VideoPredictor(TorchSam2Session(original), "sam2", **options) as ours:
        got = steps(FLOWS[flow](ours, ours.init_state(source), *arguments))
    return got, wanted


@pytest.mark.full
@pytest.mark.parametrize("flow", FLOWS)
def test_masks_on_every_frame_equal_sam2s(sam21: SAM2VideoPredictor, shapes: Path, flow: str) -> None:
    got, wanted = run_both(sam21, shapes, flow)
    assert_steps_equal(got, wanted, RELATIVE, MIN_IOU)


@pytest.mark.full
def test_the_first_release_is_tracked_as_well(shapes: Path) -> None:
    got, wanted = run_both(small_sam2(first_release=True), shapes, "three_objects")
    assert_steps_equal(got, wanted, RELATIVE, MIN_IOU)


@pytest.mark.full
def test_objects_that_may_not_overlap_share_the_pixels_as_in_sam2(
    shapes: Path, sam21: SAM2VideoPredictor
) -> None:
    got, wanted = run_both(sam21, shapes, "three_objects", non_overlap_masks=True)
    # Pixels at a tie may go to another object, and a mask here has some two thousand pixels.
    assert_steps_equal(got, wanted, RELATIVE, 0.998, ties=1e-3)
    assert all(np.sum(masks > 0, axis=0).max() <= 1 for _, _, masks in got)


@pytest.mark.full
def test_corrections_count_as_first_prompts_do_when_asked_for(
    shapes: Path, sam21: SAM2VideoPredictor
) -> None:
    got, wanted = run_both(sam21, shapes, "correction", add_all_frames_to_correct_as_cond=True)
    assert_steps_equal(got, wanted, RELATIVE, MIN_IOU)


@pytest.mark.full
def test_clearing_memory_around_prompts_does_what_it_was_meant_to_do_in_sam2(
    shapes: Path, sam21: SAM2VideoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clear(self: SAM2VideoPredictor, state: Any, frame: int, obj_idx: int) -> None:
        """What sam2 1.1.0 calls and forgot to bring along, after its method for all objects."""
        outputs = state["output_dict_per_obj"][obj_idx]["non_cond_frame_outputs"]
        for t in range(frame - self.num_maskmem, frame + self.num_maskmem + 1):
            outputs.pop(t, None)

    monkeypatch.setattr(SAM2VideoPredictor, "_clear_obj_non_cond_mem_around_input", clear, raising=False)
    got, wanted = run_both(sam21, shapes, "three_objects", clear_non_cond_mem_around_input=True)
    assert_steps_equal(got, wanted, RELATIVE, MIN_IOU)


def test_the_small_sam2_proves_something(shapes: Path, sam21: SAM2VideoPredictor) -> None:
    """Masks have edges and differ between frames and objects; objects come and go."""
    state = sam21.init_state(str(shapes))
    found = [masks for _, _, masks in steps(FLOWS["three_objects"](sam21, state, 10, (120, 200)))[4:]]
    there = np.array([masks.max(axis=(1, 2, 3)) > 0 for masks in found])
    shares = np.array([np.mean(masks > 0, axis=(1, 2, 3)) for masks in found])[there]
    assert 0.3 < there.mean() < 0.9
    assert there.any(axis=0).all()
    assert (shares > 0.1).all()
    assert (shares < 0.9).all()
    assert len(np.unique(shares.round(3))) > there.sum() / 2


@pytest.mark.full
def test_holes_of_tracked_masks_are_filled_for_the_user_and_not_for_the_memory(
    shapes: Path, sam21: SAM2VideoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sam2.sam2_video_predictor as module

    filled: list[int] = []

    def fill(mask: torch.Tensor, area: int) -> torch.Tensor:
        """sam2 has a CUDA kernel for it and leaves masks alone without."""
        from scipy import ndimage

        result = mask.clone()
        for index in range(len(mask)):
            labels, count = ndimage.label(mask[index, 0].numpy() <= 0, structure=np.ones((3, 3)))
            sizes = np.bincount(labels.ravel(), minlength=count + 1)
            small = (sizes <= area) & (np.arange(count + 1) > 0)
            result[index, 0][torch.from_numpy(small[labels])] = 0.1
            filled.append(int(small[labels].sum()))
        return result

    monkeypatch.setattr(module, "fill_holes_in_mask_scores", fill)
    monkeypatch.setattr(sam21, "fill_hole_area", 60)
    source = FolderSource(shapes)
    arguments = source.frame_count, source.size_hw
    wanted = steps(FLOWS["correction"](sam21, sam21.init_state(str(shapes)), *arguments))
    assert sum(filled) > 0
    with Sam2VideoPredictor(TorchSam2Session(sam21), "sam2", fill_hole_area=60) as ours:
        got = steps(FLOWS["correction"](ours, ours.init_state(source), *arguments))
    assert_steps_equal(got, wanted, RELATIVE, MIN_IOU)
