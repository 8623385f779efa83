"""The comparison with torchvision runs all three forms and finds equally many objects with each."""

from __future__ import annotations

from seg_bench.microbench.maskrcnn_speed import FORMS, measure_maskrcnn


def test_three_forms_take_turns_at_equal_work() -> None:
    told: list[str] = []
    result = measure_maskrcnn(
        "maskrcnn_light_fpn",
        (128, 160),
        turns=2,
        repeats=1,
        on_turn=lambda what, done, total: told.append(what),
    )
    assert told == ["export", *FORMS, *FORMS]
    assert [form.form for form in result.forms] == list(FORMS)
    assert all(len(form.samples_ms) == 2 and form.peak_memory_mib > 0 for form in result.forms)
    counts = {form.detections for form in result.forms}
    assert len(counts) == 1 and counts.pop() > 0
    eager, exported, ours = (form.median_ms for form in result.forms)
    assert result.times_as_fast_as_eager == eager / ours
    assert result.times_as_fast_as_torchvision_export == exported / ours
