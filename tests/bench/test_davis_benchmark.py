"""The committed benchmark of DAVIS' boundary measure runs and writes a complete record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from microbench import davis_f
from seg_bench.json_fields import from_json, to_json
from seg_runtime.errors import BadInputError

MASKS = Path(__file__).parents[1] / "data" / "judo" / "masks"


def test_the_benchmark_records_raw_samples_of_both_ways_and_reads_back() -> None:
    result = davis_f.measure(MASKS, repeats=2)
    assert [pair.mask for pair in result.pairs] == [
        f"000{place}.png#{number}" for number, place in enumerate(("00", "05", "08", "13"), start=1)
    ]
    assert all(len(pair.published_s) == len(pair.ours_s) == len(pair.j_s) == 2 for pair in result.pairs)
    assert all(0.5 < pair.f <= 1 for pair in result.pairs)
    assert from_json(davis_f.DavisBenchmark, json.loads(json.dumps(to_json(result)))) == result


def test_the_benchmark_refuses_a_folder_without_objects(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no indexed PNG masks"):
        davis_f.measure(tmp_path)
