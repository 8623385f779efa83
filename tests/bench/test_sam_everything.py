"""Pairing of the masks that two sides found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microbench.sam_everything import SIDES, paired
from seg_runtime.sam.rle import encode_counts, uncompressed_rle


def record(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "segmentation": uncompressed_rle(encode_counts(mask), mask.shape),
        "area": int(np.count_nonzero(mask)),
    }


def square(side: int, start: int = 0) -> NDArray[np.bool_]:
    mask = np.zeros((200, 200), np.bool_)
    mask[start : start + side, start : start + side] = True
    return mask


def test_masks_pair_from_an_iou_of_98_percent_on() -> None:
    nearly, too_small = square(100), square(100)
    nearly[0, :] = False
    too_small[:3, :] = False
    assert paired([record(square(100))], [record(nearly)]) == 1
    assert paired([record(square(100))], [record(too_small)]) == 0
    # As large, and elsewhere.
    assert paired([record(square(100))], [record(square(100, 5))]) == 0


def test_the_share_counts_the_masks_of_both_sides() -> None:
    first, second = record(square(100)), record(square(50))
    assert paired([first, second], [first]) == pytest.approx(2 / 3)
    assert paired([first], [first, second]) == pytest.approx(2 / 3)
    assert paired([], [first]) == 0
    assert paired([], []) == 1


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_pages_quote_the_record(page: str) -> None:
    root = Path(__file__).parents[2]
    record = json.loads((root / "bench" / "results" / "sam_everything.json").read_text(encoding="utf-8"))
    lines = (root / page).read_text(encoding="utf-8").splitlines()
    (number,) = (number for number, line in enumerate(lines) if "sam_everything.json" in line)
    quoted = " ".join(lines[number - 2 : number + 2])
    for side in SIDES:
        assert f"{record['median_seconds'][side]:.0f} s" in quoted
