"""Candidates take turns, warm-up is apart, and Ctrl-C keeps what was measured."""

from __future__ import annotations

from collections import Counter

import pytest

from seg_bench.latency import Timings, measure_interleaved, noise_note
from seg_bench.records import Latency

NAMES = ("a", "b", "c")


class Recorder:
    """A call that takes as many milliseconds as its number, and notes the order."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self.interrupt_at = interrupt_at

    def __call__(self, name: str, number: int) -> dict[str, float]:
        if len(self.calls) == self.interrupt_at:
            raise KeyboardInterrupt
        self.calls.append((name, number))
        return {"preprocess": 0.1, "infer": float(number), "postprocess": 0.2, "total": number + 0.4}


def latencies(timings: Timings) -> dict[str, Latency]:
    return {name: samples.latency for name, samples in timings.samples.items() if samples.latency}


def test_each_round_has_every_candidate_once_in_a_new_order() -> None:
    record = Recorder()
    measure_interleaved(NAMES, record, repeats=12, warm_up=2)
    rounds = [record.calls[start : start + 3] for start in range(0, len(record.calls), 3)]
    assert len(rounds) == 14
    assert all({name for name, _ in turn} == set(NAMES) for turn in rounds)
    assert all({number for _, number in turn} == {index} for index, turn in enumerate(rounds))
    assert len({tuple(name for name, _ in turn) for turn in rounds}) > 2


def test_the_seed_fixes_the_order() -> None:
    first, again, other = Recorder(), Recorder(), Recorder()
    measure_interleaved(NAMES, first, repeats=8, warm_up=0, seed=1)
    measure_interleaved(NAMES, again, repeats=8, warm_up=0, seed=1)
    measure_interleaved(NAMES, other, repeats=8, warm_up=0, seed=2)
    assert first.calls == again.calls != other.calls


def test_warm_up_calls_are_not_among_the_samples() -> None:
    timings = measure_interleaved(NAMES, Recorder(), repeats=3, warm_up=2)
    assert timings.complete
    assert {name: latency.infer for name, latency in latencies(timings).items()} == dict.fromkeys(
        NAMES, (2.0, 3.0, 4.0)
    )
    assert latencies(timings)["a"].total == (2.4, 3.4, 4.4)
    assert [samples.warm_up_ms for samples in timings.samples.values()] == [[0.4, 1.4]] * 3
    assert [len(samples.calibration_ms) for samples in timings.samples.values()] == [3] * 3


def test_every_call_is_told_as_a_step() -> None:
    steps: list[tuple[int, int]] = []
    measure_interleaved(
        NAMES, Recorder(), repeats=2, warm_up=1, on_step=lambda done, total: steps.append((done, total))
    )
    assert steps == [(done, 9) for done in range(1, 10)]


def test_ctrl_c_keeps_the_samples_so_far_and_leaves_out_candidates_without_any() -> None:
    # 3 warm-up calls, one whole round, and one call of the next.
    timings = measure_interleaved(NAMES, Recorder(interrupt_at=7), repeats=5, warm_up=1)
    assert not timings.complete
    counts = Counter(len(latency.total) for latency in latencies(timings).values())
    assert counts == {1: 2, 2: 1}
    early = measure_interleaved(NAMES, Recorder(interrupt_at=4), repeats=5, warm_up=1)
    assert len(latencies(early)) == 1
    assert latencies(measure_interleaved(NAMES, Recorder(interrupt_at=1), repeats=5, warm_up=1)) == {}


@pytest.mark.parametrize(
    ("calibration_ms", "start"),
    [
        ((5.0,) * 20, "quiet: a fixed loop between the calls varied by 0%"),
        ((5.0, 9.0) * 10, "noisy: "),
        ((5.0,), "not"),
    ],
)
def test_the_note_tells_how_steady_the_machine_was(calibration_ms: tuple[float, ...], start: str) -> None:
    assert noise_note(calibration_ms).startswith(start)
