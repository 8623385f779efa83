"""Timing several candidates fairly: warm-up apart, calls taking turns in a shuffled order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seg_bench.records import Latency

__all__ = ["NOISY_SPREAD", "Timings", "measure_interleaved", "noise_note"]

NOISY_SPREAD = 0.2
"""Spread of the calibration loop above which small differences between rows mean nothing."""

_LOOP = 300_000

_SETTLE_S = 0.05
"""Pause before each call: worker threads of the runtime that ran last spin for tens of milliseconds."""

Call = Callable[[str, int], Mapping[str, float]]
"""(candidate, number of the call) -> milliseconds per stage, as the fields of `records.Latency`."""


@dataclass(frozen=True)
class Timings:
    """What was timed.

    Attributes:
        latencies: per candidate, raw samples in the order they were taken; candidates without a
            single sample are left out.
        calibration_ms: time of a fixed loop before each round.
        complete: False when Ctrl-C ended it early.
    """

    latencies: dict[str, Latency]
    calibration_ms: tuple[float, ...]
    complete: bool


def measure_interleaved(
    candidates: Sequence[str],
    call: Call,
    *,
    repeats: int,
    warm_up: int,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Timings:
    """Time every candidate `repeats` times, all of them once per round, each round in a new order.

    Slow drifts of the machine (heat, other work) so fall on all candidates alike. Ctrl-C ends the
    measurement and keeps what there is.

    Args:
        candidates: their names.
        call: runs one call and says how long each stage took.
        repeats: rounds.
        warm_up: calls per candidate before the first round, not counted.
        seed: of the order.
        on_step: called with (done, total) after each call, warm-up included.
    """
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in candidates}
    calibration: list[float] = []
    total = len(candidates) * (warm_up + repeats)
    done, complete = 0, True
    generator = np.random.default_rng(seed)
    try:
        for turn in range(-warm_up, repeats):
            if turn >= 0:
                calibration.append(_calibration_ms())
            for position in generator.permutation(len(candidates)):
                name = candidates[position]
                time.sleep(_SETTLE_S)
                spent = call(name, turn + warm_up)
                for stage, milliseconds in spent.items() if turn >= 0 else ():
                    samples[name].setdefault(stage, []).append(milliseconds)
                done += 1
                if on_step:
                    on_step(done, total)
    except KeyboardInterrupt:
        complete = False
    latencies = {
        name: Latency(**{stage: tuple(values) for stage, values in stages.items()})
        for name, stages in samples.items()
        if stages
    }
    return Timings(latencies, tuple(calibration), complete)


def noise_note(calibration_ms: Sequence[float]) -> str:
    """One line on how steady the machine was, from the times of the calibration loop."""
    if len(calibration_ms) < 2:
        return "not known: too few calls"
    low, middle, high = np.percentile(calibration_ms, (10, 50, 90))
    spread = (high - low) / middle
    measured = f"a fixed loop between the calls varied by {spread:.0%} (p10 to p90)"
    return (
        f"noisy: {measured}; trust large differences only" if spread > NOISY_SPREAD else f"quiet: {measured}"
    )


def _calibration_ms() -> float:
    start = time.perf_counter()
    sum(range(_LOOP))
    return 1000 * (time.perf_counter() - start)
