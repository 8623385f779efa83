"""`Sam2VideoPredictor` against sam2's own, on the same weights and the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module", params=[False, True], ids=["sam2.1", "sam2"])
def original(request: pytest.FixtureRequest) -> SAM2VideoPredictor:
    return small_sam2(first_release=request.param)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jpegs(moving_shapes(), tmp_path_factory.mktemp("shapes"))


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


@pytest.mark.parametrize("flow", FLOWS)
def test_masks_on_every_frame_equal_sam2s(original: SAM2VideoPredictor, shapes: Path, flow: str) -> None:
    got, wanted = run_both(original, shapes, flow)
    assert_steps_equal(got, wanted, RELATIVE, MIN_IOU)
