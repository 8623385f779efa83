"""Timing several candidates fairly: warm-up apart, calls taking turns in a shuffled order.

Only `time.perf_counter` measures here, which never goes backwards; dates are for the head of a record.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from seg_bench.records import Latency
from seg_runtime.errors import EdgesegError

__all__ = [
    "MOST_WARM_UP",
    "NOISY_SPREAD",
    "Rule",
    "Samples",
    "Timings",
    "is_stable",
    "measure_interleaved",
    "noise_note",
]

NOISY_SPREAD = 0.2
"""Spread of the calibration loop above which small differences between rows mean nothing."""

MOST_WARM_UP = 50
"""Calls after which a warm-up until stable ends in any case."""

_STABLE_CALLS, _STABLE_WITHIN = 5, 0.05

_LOOP = 300_000

_SETTLE_S = 0.05
"""Pause before each call and its calibration: threads of the runtime that ran last spin for tens of ms."""

Call = Callable[[str, int], Mapping[str, float]]
"""(candidate, number of the call) -> milliseconds per stage, as the fields of `records.Latency`."""


@dataclass(frozen=True)
class Rule:
    """When a candidate has been timed for long enough, as MLPerf's single stream asks for.

    Attributes:
        min_s: seconds of calls, besides the number of calls.
        turn_s: calls follow one another for so long before the next candidate's turn; 0 for one call.
        deadline: of `time.monotonic`; no round begins after it.
        least: calls of every candidate that are made even after that.
    """

    min_s: float = 0.0
    turn_s: float = 0.0
    deadline: float = math.inf
    least: int = 1


@dataclass
class Samples:
    """What was timed of one candidate.

    Attributes:
        stages: raw samples in milliseconds per stage, in the order they were taken.
        warm_up_ms: totals of the calls before those.
        calibration_ms: time of a fixed loop before each timed call.
        stable: False when a warm-up until stable ended without becoming so.
        error: why it broke off, or None; the samples until then are kept.
        early: what it has of what the rule asks for, when time was up before; else None.
    """

    stages: dict[str, list[float]] = field(default_factory=dict)
    warm_up_ms: list[float] = field(default_factory=list)
    calibration_ms: list[float] = field(default_factory=list)
    stable: bool = True
    error: EdgesegError | None = None
    early: str | None = None

    @property
    def latency(self) -> Latency | None:
        """None without a single sample; a stage that some calls could not tell is left out."""
        calls = len(self.stages.get("total", ()))
        whole = {stage: tuple(values) for stage, values in self.stages.items() if len(values) == calls}
        return Latency(**whole) if calls else None

    @property
    def noise(self) -> str | None:
        """One line when the figures are not to be trusted, else None."""
        notes = []
        spread = _spread(self.calibration_ms)
        if spread is not None and spread > NOISY_SPREAD:
            notes.append(f"a fixed loop before this row's calls varied by {spread:.0%} (p10 to p90)")
        if not self.stable:
            notes.append(f"not stable after {len(self.warm_up_ms)} warm-up calls")
        return "; ".join(notes) or None


@dataclass(frozen=True)
class Timings:
    """What was timed.

    Attributes:
        samples: per candidate.
        complete: False when Ctrl-C ended it early.
    """

    samples: Mapping[str, Samples]
    complete: bool


def measure_interleaved(
    candidates: Sequence[str],
    call: Call,
    *,
    repeats: int,
    warm_up: int,
    until_stable: bool = False,
    seed: int = 0,
    rule: Rule | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Timings:
    """Time every candidate `repeats` times, all of them once per round, each round in a new order.

    Slow drifts of the machine (heat, other work) so fall on all candidates alike. A candidate that raises
    drops out, the others go on. Ctrl-C ends the measurement and keeps what there is.

    Args:
        candidates: their names.
        call: runs one call and says how long each stage took.
        repeats: rounds; with a rule the fewest calls of a candidate.
        warm_up: calls per candidate before the first round, not counted.
        until_stable: end the warm-up of a candidate as soon as it `is_stable`.
        seed: of the order.
        rule: makes rounds until every candidate has been timed for long enough, or there is no more time.
        on_step: called with (done, total) after each turn, warm-up included.
    """
    turns = _Turns(candidates, call, repeats, rule or Rule())
    generator = np.random.default_rng(seed)
    progress = _Progress(len(candidates) * (warm_up + repeats), on_step)
    complete = True
    try:
        for number in range(warm_up):
            for position in generator.permutation(len(candidates)):
                time.sleep(_SETTLE_S)
                turns.warm_up(candidates[position], number, until_stable)
                progress.step()
        number = warm_up
        while unfinished := turns.unfinished(number - warm_up):
            for position in generator.permutation(len(unfinished)):
                time.sleep(_SETTLE_S)
                turns.time(unfinished[position], number)
                progress.step()
            number += 1
    except KeyboardInterrupt:
        complete = False
    turns.note_early()
    if until_stable:
        turns.judge_warm_up()
    return Timings(turns.samples, complete)


class _Progress:
    def __init__(self, total: int, on_step: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._on_step = 0, total, on_step

    def step(self) -> None:
        self._done += 1
        if self._on_step:
            # With a rule nobody knows how many turns there will be.
            self._on_step(self._done, max(self._total, self._done))


class _Turns:
    """Makes the calls of one turn and keeps their times; a candidate that raised is not called again."""

    def __init__(self, candidates: Sequence[str], call: Call, repeats: int, rule: Rule) -> None:
        self.samples = {name: Samples() for name in candidates}
        self._call, self._repeats, self._rule = call, repeats, rule

    def unfinished(self, rounds: int) -> list[str]:
        """Who takes a turn in the next round; nobody once time is up."""
        if time.monotonic() > self._rule.deadline:
            return [name for name, samples in self.samples.items() if not self._has_least(samples)]
        if self._rule.min_s == 0:
            return list(self.samples) if rounds < self._repeats else []
        return [name for name, samples in self.samples.items() if not self._is_enough(samples)]

    def warm_up(self, name: str, number: int, until_stable: bool) -> None:
        samples = self.samples[name]
        if not (until_stable and is_stable(samples.warm_up_ms)):
            spent = self._spent_ms(name, number)
            if spent:
                samples.warm_up_ms.append(spent["total"])

    def time(self, name: str, number: int) -> None:
        samples = self.samples[name]
        if samples.error:
            return
        calibration_ms = _calibration_ms()
        end = time.monotonic() + self._rule.turn_s
        for called in count(number):
            spent = self._spent_ms(name, called)
            if spent and called == number:
                samples.calibration_ms.append(calibration_ms)
            for stage, milliseconds in spent.items():
                samples.stages.setdefault(stage, []).append(milliseconds)
            if not spent or time.monotonic() >= end or self._is_enough(samples):
                return

    def judge_warm_up(self) -> None:
        for samples in self.samples.values():
            samples.stable = is_stable(samples.warm_up_ms)

    def note_early(self) -> None:
        for samples in self.samples.values():
            if not self._is_enough(samples):
                samples.early = self._lacking(samples.stages.get("total", []))

    def _has_least(self, samples: Samples) -> bool:
        least = min(self._rule.least, self._repeats)
        return samples.error is not None or len(samples.stages.get("total", ())) >= least

    def _is_enough(self, samples: Samples) -> bool:
        total_ms = samples.stages.get("total", ())
        enough = len(total_ms) >= self._repeats and sum(total_ms) >= 1000 * self._rule.min_s
        return samples.error is not None or enough

    def _lacking(self, total_ms: Sequence[float]) -> str:
        calls, seconds = len(total_ms), sum(total_ms) / 1000
        lacking = [f"{calls} of {self._repeats} calls"] if calls < self._repeats else []
        lacking += [f"{seconds:.1f} of {self._rule.min_s:g} s"] if seconds < self._rule.min_s else []
        return ", ".join(lacking)

    def _spent_ms(self, name: str, number: int) -> Mapping[str, float]:
        """Milliseconds per stage; empty for a candidate that broke off, now or before."""
        samples = self.samples[name]
        if samples.error:
            return {}
        try:
            return self._call(name, number)
        except EdgesegError as error:
            samples.error = error
            return {}


def is_stable(total_ms: Sequence[float]) -> bool:
    """Whether the median of the last calls is within 5 % of that of as many calls before them."""
    before, last = total_ms[-2 * _STABLE_CALLS : -_STABLE_CALLS], total_ms[-_STABLE_CALLS:]
    if len(before) < _STABLE_CALLS:
        return False
    reference = statistics.median(before)
    return abs(statistics.median(last) - reference) <= _STABLE_WITHIN * reference


def noise_note(calibration_ms: Sequence[float]) -> str:
    """One line on how steady the machine was, from the times of the calibration loop."""
    spread = _spread(calibration_ms)
    if spread is None:
        return "not known: too few calls"
    measured = f"a fixed loop between the calls varied by {spread:.0%} (p10 to p90)"
    return (
        f"noisy: {measured}; trust large differences only" if spread > NOISY_SPREAD else f"quiet: {measured}"
    )


def _spread(calibration_ms: Sequence[float]) -> float | None:
    """Distance of the 10th and the 90th percentile as a share of the median; None for too few."""
    if len(calibration_ms) < 2:
        return None
    low, middle, high = np.percentile(calibration_ms, (10, 50, 90))
    return float((high - low) / middle)


def _calibration_ms() -> float:
    start = time.perf_counter()
    sum(range(_LOOP))
    return 1000 * (time.perf_counter() - start)
