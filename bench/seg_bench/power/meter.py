"""What every power meter offers, and how a row's energy is measured with one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from seg_bench.records import Energy

__all__ = ["Integrator", "PowerMeter", "measure_energy"]

_LEAD_IN_S = 0.3
"""Calls before the measured ones: clocks rise, and what a meter averages holds no idle time any more."""

_STALE_S = 2.0
"""A source that was silent for longer no longer tells what the device draws."""


class PowerMeter(Protocol):
    """A source of energy readings.

    Attributes:
        source: as `records.Energy.source`.
        covers: what it measures, in words: "VDD_IN" or "package-0".
    """

    source: str
    covers: str

    def energy_j(self) -> float | None:
        """Joules since some fixed moment, never falling; None when the source no longer tells."""

    def close(self) -> None:
        """Stop reading; calling it again does nothing."""


class Integrator:
    """Turns power samples into energy: each sample holds until the next one.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._energy_j = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, power_w: float) -> None:
        """Take a sample in watts, of this moment."""
        with self._lock:
            now = self._clock()
            self._energy_j += self._since_last_j(now)
            self._last = now, power_w

    def energy_j(self) -> float | None:
        """Joules since the first sample; None before it, and when samples stopped coming."""
        with self._lock:
            now = self._clock()
            if self._last is None or now - self._last[0] > _STALE_S:
                return None
            return self._energy_j + self._since_last_j(now)

    def _since_last_j(self, now: float) -> float:
        if self._last is None:
            return 0.0
        then, power_w = self._last
        return power_w * (now - then)


def measure_energy(
    run_for: Callable[[float], int],
    images_per_call: int,
    meter: PowerMeter,
    seconds: float = 2.0,
    idle_seconds: float = 1.0,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy | None:
    """Mean power with nothing to do, then during calls back to back.

    Args:
        run_for: makes calls one after another for so many seconds, at least one; returns how many.
        images_per_call: images in each.
        meter: what measures.
        seconds: how long the measured calls go on.
        idle_seconds: how long it waits for the idle power.
        clock: seconds.
        sleep: waits so many seconds.

    Returns:
        None when the meter did not tell, or showed no energy at all: 0 is never a measurement.
    """

    def power_w(during: Callable[[], object]) -> tuple[float | None, float]:
        before_j, start = meter.energy_j(), clock()
        during()
        after_j, spent_s = meter.energy_j(), clock() - start
        if before_j is None or after_j is None or after_j <= before_j or spent_s <= 0:
            return None, spent_s
        return (after_j - before_j) / spent_s, spent_s

    idle_w, _ = power_w(lambda: sleep(idle_seconds))
    run_for(_LEAD_IN_S)
    calls = 0

    def measured_calls() -> None:
        nonlocal calls
        calls = run_for(seconds)

    mean_w, spent_s = power_w(measured_calls)
    if mean_w is None or calls < 1:
        return None
    return Energy(meter.source, mean_w, idle_w, mean_w * spent_s / (calls * images_per_call))
