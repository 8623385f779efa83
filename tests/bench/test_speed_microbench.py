"""The committed speed benchmarks run, on a small scale, and record what they say they do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from microbench.overhead import SIDES, measure_overhead
from microbench.sam_decode import EMBEDDINGS, PROMPTS, measure_calls, measure_second_prompt
from microbench.sam_speed import answer_difference
from microbench.startup import COMMANDS, measure_startup
from microbench.unet_speed import measure_unet
from seg_bench.json_fields import to_json
from seg_runtime.errors import BadInputError


@pytest.mark.slow
def test_unet_speed_compares_the_medians_of_the_model_alone() -> None:
    result = measure_unet(features=(4, 8), size_hw=(64, 64), threads=1, repeats=3, warm_up=1)
    medians = {}
    for record in result.run.records:
        assert record.latency is not None
        assert len(record.latency.infer) == 3
        medians[record.runtime] = sorted(record.latency.infer)[1]
    assert result.ratio == pytest.approx(medians["PyTorch eager"] / medians["ONNX Runtime"])
    assert result.upsampling == "transposed"
    json.dumps(to_json(result), allow_nan=False)


def test_unet_speed_refuses_what_cannot_be_measured() -> None:
    with pytest.raises(BadInputError):
        measure_unet(features=(4, 8), size_hw=(1, 1))


@pytest.mark.slow
def test_overhead_records_both_ways_at_every_size() -> None:
    result = measure_overhead(repeats=4)
    assert [size.size_hw for size in result.sizes] == [(side, side) for side in SIDES]
    assert all(len(size.bare_ms) == len(size.session_ms) == 4 for size in result.sizes)
    json.dumps(to_json(result), allow_nan=False)


@pytest.mark.slow
def test_startup_records_every_command_and_the_memory_of_imports() -> None:
    result = measure_startup(repeats=1)
    whats = [entry.what for entry in result.startups]
    assert whats[: len(COMMANDS)] == [f"{name} --help" for name in COMMANDS]
    assert all(entry.seconds[0] == entry.median_s > 0 for entry in result.startups)
    json.dumps(to_json(result), allow_nan=False)


def test_sam_speed_reports_the_worst_mask_and_the_largest_difference() -> None:
    expected = np.full((2, 4, 8, 8), -1.0, np.float32)
    expected[:, :, :4] = 2.0
    got = expected.copy()
    got[1, 3, :2] = -1.0
    difference = answer_difference("decode", expected, got)
    assert difference == {"max_relative_difference": 1.5, "lowest_mask_iou": 0.5}
    assert answer_difference("encode", expected, expected) == {"max_relative_difference": 0.0}


@pytest.mark.full
@pytest.mark.server
def test_sam_decode_records_every_way_and_a_second_prompt(small_sam_repo: Path) -> None:
    pytest.importorskip("pytriton")
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    calls = measure_calls(small_sam_repo, image, repeats=3, variant="small")
    assert len(calls) == 3 * len(EMBEDDINGS) * len(PROMPTS)
    assert {entry.prompts for entry in calls} == set(PROMPTS)
    for entry in calls:
        assert sorted(entry.milliseconds)[1] == entry.median_ms
        assert (entry.above_in_process_ms == 0) == (entry.where == "in process")
    second = measure_second_prompt(small_sam_repo, "small", image, repeats=3)
    assert (second.weights, second.size_hw, len(second.milliseconds)) == ("random", (60, 90), 3)
    json.dumps([to_json(entry) for entry in (*calls, second)], allow_nan=False)
