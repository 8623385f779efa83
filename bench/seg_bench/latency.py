"""Timing several candidates fairly: warm-up apart, calls taking turns in a shuffled order.

Only `time.perf_counter` measures here, which never goes backwards; dates are for the head of a record.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seg_bench.records import Latency
from seg_runtime.errors import EdgesegError

__all__ = [
    "MOST_WARM_UP",
    "NOISY_SPREAD",
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


@dataclass
class Samples:
    """What was timed of one candidate.

    Attributes:
        stages: raw samples in milliseconds per stage, in the order they were taken.
        warm_up_ms: totals of the calls before those.
        calibration_ms: time of a fixed loop before each timed call.
        stable: False when a warm-up until stable ended without becoming so.
        error: why it broke off, or None; the samples until then are kept.
    """

    stages: dict[str, list[float]] = field(default_factory=dict)
    warm_up_ms: list[float] = field(default_factory=list)
    calibration_ms: list[float] = field(default_factory=list)
    stable: bool = True
    error: EdgesegError | None = None

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
    on_step: Callable[[int, int], None] | None = None,
) -> Timings:
    """Time every candidate `repeats` times, all of them once per round, each round in a new order.

    Slow drifts of the machine (heat, other work) so fall on all candidates alike. A candidate that raises
    drops out, the others go on. Ctrl-C ends the measurement and keeps what there is.

    Args:
        candidates: their names.
        call: runs one call and says how long each stage took.
        repeats: rounds.
        warm_up: calls per candidate before the first round, not counted.
        until_stable: end the warm-up of a candidate as soon as it `is_stable`.
        seed: of the order.
        on_step: called with (done, total) after each call, warm-up included.
    """
    turns = _Turns(candidates, call)
    generator = np.random.default_rng(seed)
    done, total, complete = 0, len(candidates) * (warm_up + repeats), True
    try:
        for number in range(warm_up + repeats):
            for position in generator.permutation(len(candidates)):
                name = candidates[position]
                time.sleep(_SETTLE_S)
                if number >= warm_up:
                    turns.time(name, number)
                else:
                    turns.warm_up(name, number, until_stable)
                done += 1
                if on_step:
                    on_step(done, total)
    except KeyboardInterrupt:
        complete = False
    if until_stable:
        turns.judge_warm_up()
    return Timings(turns.samples, complete)


class _Turns:
    """Makes one call at a time and keeps its times; a candidate that raised is not called again."""

    def __init__(self, candidates: Sequence[str], call: Call) -> None:
        self.samples = {name: Samples() for name in candidates}
        self._call = call

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
        spent = self._spent_ms(name, number)
        if spent:
            samples.calibration_ms.append(calibration_ms)
        for stage, milliseconds in spent.items():
            samples.stages.setdefault(stage, []).append(milliseconds)

    def judge_warm_up(self) -> None:
        for samples in self.samples.values():
            samples.stable = is_stable(samples.warm_up_ms)

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
