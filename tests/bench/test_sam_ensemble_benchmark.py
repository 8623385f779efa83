"""The benchmark of first and second clicks runs on the tiny SAM, and records what it says it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from microbench.sam_ensemble import SECOND_CLICKS, measure_clicks
from seg_bench.json_fields import to_json

pytest.importorskip("pytriton")


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.server
def test_every_image_is_encoded_once_for_all_its_clicks(tiny_sam_repo: Path) -> None:
    result = measure_clicks(tiny_sam_repo, ["sam_tiny"], images=2)
    (clicks,) = result.models
    assert clicks.encoder_runs == len(clicks.first_ms) == 2
    assert len(clicks.second_ms) == len(clicks.predict_ms) == 2 * SECOND_CLICKS
    assert (clicks.where, clicks.weights) == ("shared-memory", "trained")
    assert clicks.cache_hit_ms > 0 and clicks.cache_miss_ms > 0
    json.dumps(to_json(result), allow_nan=False)
