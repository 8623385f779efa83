"""Candidates take turns, warm-up is apart, and Ctrl-C keeps what was measured."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from seg_bench import latency as latency_module
from seg_bench.latency import Rule, Samples, Timings, is_stable, measure_interleaved, noise_note
from seg_bench.records import Latency
from seg_runtime.errors import InferenceError

NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing spins here that a pause would let settle."""
    monkeypatch.setattr(latency_module, "_SETTLE_S", 0)


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


def test_the_machine_settles_before_it_is_judged_and_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads of the runtime that ran last would slow the calibration down, and every row would be noisy."""
    events: list[str] = []
    monkeypatch.setattr(latency_module.time, "sleep", lambda seconds: events.append("pause"))
    monkeypatch.setattr(latency_module, "_calibration_ms", lambda: events.append("calibration") or 1.0)

    def call(name: str, number: int) -> dict[str, float]:
        events.append("call")
        return {"preprocess": 0.1, "infer": 1.0, "postprocess": 0.2, "total": 1.3}

    measure_interleaved(("a",), call, repeats=2, warm_up=1)
    assert events == ["pause", "call", *["pause", "calibration", "call"] * 2]


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


def test_a_candidate_that_breaks_off_keeps_its_samples_and_the_others_go_on() -> None:
    def call(name: str, number: int) -> dict[str, float]:
        if name == "b" and number == 2:
            raise InferenceError("out of memory")
        calls.append((name, number))
        return {"preprocess": 0.0, "infer": 1.0, "postprocess": 0.0, "total": 1.0}

    calls: list[tuple[str, int]] = []
    timings = measure_interleaved(NAMES, call, repeats=4, warm_up=1)
    assert timings.complete
    assert {name: len(latency.total) for name, latency in latencies(timings).items()} == {
        "a": 4,
        "b": 1,
        "c": 4,
    }
    assert [number for name, number in calls if name == "b"] == [0, 1]
    assert str(timings.samples["b"].error) == "out of memory"
    assert timings.samples["a"].error is None


def test_a_warm_up_until_stable_ends_for_each_candidate_when_its_times_change_no_more() -> None:
    def call(name: str, number: int) -> dict[str, float]:
        total = {"a": 10.0, "b": 100.0 - 10 * min(number, 4), "c": 2.0**number}[name]
        return {"preprocess": 0.0, "infer": total, "postprocess": 0.0, "total": total}

    timings = measure_interleaved(NAMES, call, repeats=1, warm_up=14, until_stable=True)
    # "b" falls from 100 to 60 in four calls: two windows of five calls agree from the eleventh on.
    assert {name: len(samples.warm_up_ms) for name, samples in timings.samples.items()} == {
        "a": 10,
        "b": 12,
        "c": 14,
    }
    assert timings.samples["c"].noise and "not stable after 14 warm-up calls" in timings.samples["c"].noise
    assert [timings.samples[name].stable for name in NAMES] == [True, True, False]


def test_stable_means_that_two_medians_of_five_calls_agree_within_5_percent() -> None:
    assert not is_stable([10.0] * 9)
    assert is_stable([99.0, *[10.0] * 5, *[10.5] * 5])
    assert not is_stable([*[10.0] * 5, *[10.6] * 5])
    assert is_stable([10.0, 10.0, 50.0, 10.0, 10.0, 10.0, 9.9, 80.0, 10.1, 10.0])


def test_only_the_row_whose_calls_met_a_busy_machine_is_called_noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Recorder()
    # The loop is slow before every other call of "b".
    busy = iter([5.0, 9.0] * 10)
    monkeypatch.setattr(latency_module, "_calibration_ms", lambda: next(busy) if turn["b"] else 5.0)
    turn = {"b": False}
    original = latency_module._Turns.time

    def time_one(turns: object, name: str, number: int) -> None:
        turn["b"] = name == "b"
        original(turns, name, number)  # type: ignore[arg-type]

    monkeypatch.setattr(latency_module._Turns, "time", time_one)
    samples = measure_interleaved(NAMES, record, repeats=20, warm_up=0).samples
    assert samples["b"].noise == "a fixed loop before this row's calls varied by 57% (p10 to p90)"
    assert samples["a"].noise is samples["c"].noise is None


def test_a_stage_that_some_calls_could_not_tell_is_left_out() -> None:
    samples = Samples({"preprocess": [1, 1], "infer": [2, 2], "postprocess": [1, 1], "total": [4, 4]})
    samples.stages["transfer"] = [0.5]
    assert samples.latency and samples.latency.transfer is None
    samples.stages["transfer"].append(0.25)
    assert samples.latency and samples.latency.transfer == (0.5, 0.25)


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


class Clocked(Recorder):
    """Calls that take a time of their own on a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
        super().__init__()
        self.now, self.seconds = 0.0, seconds
        monkeypatch.setattr(latency_module.time, "monotonic", lambda: self.now)

    def __call__(self, name: str, number: int) -> dict[str, float]:
        self.calls.append((name, number))
        self.now += self.seconds[name]
        return {"total": 1000 * self.seconds[name]}

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)


def test_a_rule_asks_for_calls_and_for_seconds_and_turns_last(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Clocked(monkeypatch, {"fast": 0.01, "slow": 0.5})
    timings = measure_interleaved(
        ("fast", "slow"), call, repeats=8, warm_up=0, rule=Rule(min_s=2.0, turn_s=0.1)
    )
    # 2 s of the fast one are 200 calls, and 8 calls of the slow one 4 s.
    assert call.count("fast") == pytest.approx(200, abs=1)
    assert call.count("slow") == 8
    assert all(samples.early is None for samples in timings.samples.values())
    fast = [position for position, (name, _) in enumerate(call.calls) if name == "fast"]
    turns = 1 + sum(after - before > 1 for before, after in pairwise(fast))
    assert turns >= 4
    assert len(timings.samples["fast"].calibration_ms) == pytest.approx(200 / 10, abs=2)


def test_a_deadline_ends_it_after_the_least_calls_and_says_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = Clocked(monkeypatch, {"a": 0.5, "b": 0.5})
    rule = Rule(min_s=10.0, deadline=4.0)
    samples = measure_interleaved(("a", "b"), call, repeats=64, warm_up=0, rule=rule).samples
    assert call.count("a") == call.count("b") == 5
    assert samples["a"].early == "5 of 64 calls, 2.5 of 10 s"
    call = Clocked(monkeypatch, {"a": 0.5, "b": 0.5})
    rule = Rule(min_s=10.0, deadline=-1.0, least=3)
    samples = measure_interleaved(("a", "b"), call, repeats=64, warm_up=0, rule=rule).samples
    assert call.count("a") == call.count("b") == 3


def test_enough_calls_and_too_few_seconds_lack_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Clocked(monkeypatch, {"a": 0.1})
    rule = Rule(min_s=10.0, turn_s=1.0, deadline=3.0)
    samples = measure_interleaved(("a",), call, repeats=4, warm_up=0, rule=rule).samples
    assert samples["a"].early and samples["a"].early.endswith(" of 10 s")
    assert "calls" not in samples["a"].early
