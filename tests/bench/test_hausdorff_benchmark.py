"""The committed benchmark of the Hausdorff distance runs and writes a complete record."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from microbench import hausdorff
from seg_bench.json_fields import from_json, to_json
from seg_runtime.errors import BadInputError


def test_the_benchmark_records_raw_samples_of_both_and_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(hausdorff, "BOUNDARY_NOISE_PX", (6.0,))
    mask = cv2.ellipse(np.zeros((256, 256), np.uint8), (120, 130), (50, 80), 0, 0, 360, 255, -1)
    cv2.imwrite(str(tmp_path / "mask.png"), mask)

    result = hausdorff.measure(tmp_path, repeats=2)

    (pair,) = result.pairs
    assert (pair.mask, len(pair.scipy_s), len(pair.ours_s)) == ("mask.png", 2, 2)
    assert result.ratios == {"6.0": pair.ratio}
    assert from_json(hausdorff.HausdorffBenchmark, json.loads(json.dumps(to_json(result)))) == result


@pytest.mark.parametrize("content", [None, b"", b"not a picture"])
def test_the_benchmark_refuses_a_folder_without_readable_masks(tmp_path, content):
    if content is not None:
        (tmp_path / "mask.png").write_bytes(content)

    with pytest.raises(BadInputError, match=r"no PNG masks|cannot read mask"):
        hausdorff.measure(tmp_path)
