"""The comparison with torchvision: three forms, each of which finds as many objects as were asked for."""

from __future__ import annotations

from statistics import median

import pytest

from seg_bench.microbench.maskrcnn_speed import FORMS, measure_maskrcnn
from seg_runtime.errors import EdgesegError


def test_three_forms_take_turns_at_equal_work() -> None:
    told: list[str] = []
    result = measure_maskrcnn(
        "maskrcnn_light_fpn",
        (128, 160),
        counts=(3,),
        turns=2,
        repeats=1,
        on_turn=lambda what, done, total: told.append(what),
    )
    rows = [f"{form}, 3 objects" for form in FORMS]
    assert told == ["export", *rows, *rows]
    assert [(form.form, form.detections) for form in result.forms] == [(form, 3) for form in FORMS]
    assert all(len(form.samples_ms) == 2 and form.peak_memory_mib > 0 for form in result.forms)
    eager, exported, ours = (median(form.samples_ms) for form in result.forms)
    assert result.times_as_fast_as_eager["3"] == eager / ours
    assert result.times_as_fast_as_torchvision_export["3"] == exported / ours


def test_more_objects_than_are_found_cannot_be_asked_for() -> None:
    with pytest.raises(EdgesegError, match="101 objects were asked for and"):
        measure_maskrcnn("maskrcnn_light_fpn", (64, 64), counts=(101,), turns=1, repeats=1)
