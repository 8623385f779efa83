"""`SamPredictor` with a SAM of official size, against segment_anything's with the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sam_answers
from numpy.typing import NDArray

from seg_bench.baseline import TUNED_ALLOCATOR

DATA = Path(__file__).parents[1] / "data"
IMAGES = [min((DATA / "montgomery" / "images").glob("*.png")), DATA / "photographs" / "dog.jpg"]

MIN_IOU, SCORE_TOLERANCE, LOGIT_TOLERANCE = 0.999, 1e-3, 1e-4


def answers(side: str, folder: Path, image: Path, path: Path) -> dict[str, NDArray[np.float32]]:
    call = [sys.executable, sam_answers.__file__, side, str(folder), str(image), str(path)]
    # Large models disturb one another: each has a process of its own.
    subprocess.run(call, check=True, env={**os.environ, **(TUNED_ALLOCATOR if side == "original" else {})})
    with np.load(path) as file:
        return dict(file)


@pytest.mark.full
@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem[:12])
def test_vit_b_answers_every_kind_of_prompt_as_segment_anything_does(
    vit_b_folder: Path, image: Path, tmp_path: Path
) -> None:
    ours, theirs = (
        answers(side, vit_b_folder, image, tmp_path / f"{side}.npz") for side in ("ours", "original")
    )
    assert ours.keys() == theirs.keys()
    for kind in sam_answers.KINDS:
        masks, wanted = ours[f"{kind} masks"], theirs[f"{kind} masks"]
        assert masks.shape == wanted.shape
        assert masks.dtype == wanted.dtype == np.bool_
        low_res, wanted_low_res = ours[f"{kind} low_res"], theirs[f"{kind} low_res"]
        scale = np.abs(wanted_low_res).max()
        assert scale > 5, "logits near the threshold say nothing about masks"
        np.testing.assert_allclose(low_res, wanted_low_res, rtol=0, atol=LOGIT_TOLERANCE * scale)
        np.testing.assert_allclose(ours[f"{kind} scores"], theirs[f"{kind} scores"], atol=SCORE_TOLERANCE)
        union = (masks | wanted).sum(axis=(-2, -1))
        assert union.max() > 1000, "no mask to compare"
        assert ((masks & wanted).sum(axis=(-2, -1)) >= MIN_IOU * union).all(), kind
