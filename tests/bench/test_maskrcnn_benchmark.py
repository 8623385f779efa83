"""The comparison with torchvision: three forms, each of which finds as many objects as were asked for."""

from __future__ import annotations

import json
from statistics import median

import pytest

from microbench import maskrcnn_speed
from microbench.maskrcnn_speed import FORMS, measure_maskrcnn
from seg_runtime.errors import EdgesegError


@pytest.mark.full
def test_three_forms_find_as_many_objects_as_were_asked_for() -> None:
    told: list[str] = []
    result = measure_maskrcnn(
        "maskrcnn_light_fpn",
        (128, 160),
        counts=(3,),
        turns=1,
        repeats=2,
        on_turn=lambda what, done, total: told.append(what),
    )
    assert told == ["export", *(f"{form}, 3 objects" for form in FORMS)]
    assert [(form.form, form.detections) for form in result.forms] == [(form, 3) for form in FORMS]
    assert all(len(form.samples_ms) == 2 and form.peak_memory_mib > 0 for form in result.forms)
    eager, exported, ours = (median(form.samples_ms) for form in result.forms)
    assert result.times_as_fast_as_eager["3"] == eager / ours
    assert result.times_as_fast_as_torchvision_export["3"] == exported / ours


def test_forms_take_turns_and_keep_the_samples_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that answer at once; each turn is slower, and needs less memory, than the one before."""
    calls: list[tuple[str, int]] = []

    def child(module: str, what: str, folder: str, *rest: str, threads: int) -> str:
        if what == "prepare":
            return ""
        form, count = rest[0], int(rest[1])
        calls.append((form, count))
        number = calls.count((form, count))
        samples = [10.0 * number + count, 10.0 * number + FORMS.index(form)]
        return json.dumps({"samples_ms": samples, "peak_memory_mib": 100 - number, "detections": count})

    monkeypatch.setattr(maskrcnn_speed, "run_child", child)
    result = measure_maskrcnn("any", (64, 64), counts=(0, 5), turns=2, repeats=2)
    rows = [(form, count) for count in (0, 5) for form in FORMS]
    assert calls == [*rows, *rows]
    assert [(form.form, form.detections) for form in result.forms] == rows
    ours = result.forms[5]
    assert (ours.samples_ms, ours.median_ms, ours.peak_memory_mib) == ([15, 12, 25, 22], 18.5, 99)
    assert result.times_as_fast_as_eager["5"] == median([15, 10, 25, 20]) / 18.5
    assert result.times_as_fast_as_torchvision_export["5"] == median([15, 11, 25, 21]) / 18.5


@pytest.mark.full
def test_more_objects_than_are_found_cannot_be_asked_for() -> None:
    with pytest.raises(EdgesegError, match="101 objects were asked for and"):
        measure_maskrcnn("maskrcnn_light_fpn", (64, 64), counts=(101,), turns=1, repeats=1)
