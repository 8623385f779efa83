"""Puts load on a model from several threads: callers that wait for their answers, or arrivals on time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from seg_runtime.errors import EdgesegError

__all__ = ["MOST_IN_FLIGHT", "Load", "closed_loop", "open_loop"]

MOST_IN_FLIGHT = 16
"""Threads of an open loop; a call that finds all of them busy waits, and its clock runs since it was due."""

_GIVE_UP_AFTER = 2
"""Durations after which arrivals that have not begun count as failures: the server cannot keep up."""

Call = Callable[[int], object]
"""Makes the call of this number; raises EdgesegError when there is no answer."""


@dataclass
class Load:
    """What came of one level of load; safe to add to from several threads.

    Attributes:
        latency_ms: of every answered call, in the order they ended.
        failures: calls without an answer.
        failure: why the first of them failed, or None.
        most_in_flight: calls that were running at the same time, at most.
        duration_s: from the first call to the last answer.
    """

    latency_ms: list[float] = field(default_factory=list)
    failures: int = 0
    failure: str | None = None
    most_in_flight: int = 0
    duration_s: float = 0.0
    _start: float = field(default_factory=time.perf_counter)
    _in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def result(self) -> dict[str, Any]:
        """The attributes above as plain values."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def run(self, call: Call, number: int, since: float | None = None) -> None:
        """Make one call; its latency counts from `since` (of `time.perf_counter`), or from now."""
        with self._lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        begun = time.perf_counter() if since is None else since
        failure = None
        try:
            call(number)
        except EdgesegError as error:
            failure = " ".join(str(error).split())
        end = time.perf_counter()
        with self._lock:
            self._in_flight -= 1
            self.duration_s = max(self.duration_s, end - self._start)
            if failure is None:
                self.latency_ms.append(1000 * (end - begun))
            else:
                self.failures += 1
                self.failure = self.failure or failure

    def miss(self) -> None:
        """Count an arrival that was never begun."""
        with self._lock:
            self.failures += 1
            self.failure = self.failure or "calls came faster than they were answered"


def closed_loop(calls: Sequence[Call], duration_s: float, stop: threading.Event) -> Load:
    """Callers that each wait for their answer before they call again.

    Args:
        calls: one per caller.
        duration_s: no call begins later than that.
        stop: ends it early; calls in flight are waited for.
    """
    load = Load()
    deadline = time.perf_counter() + duration_s

    def caller(place: int) -> None:
        number = place
        while time.perf_counter() < deadline and not stop.is_set():
            load.run(calls[place], number)
            number += len(calls)

    _in_threads(caller, len(calls))
    return load


def open_loop(calls: Sequence[Call], rate_per_s: float, duration_s: float, stop: threading.Event) -> Load:
    """Calls that are due at fixed times, whether or not earlier ones were answered.

    Latency counts from the time a call was due. A closed loop stops asking while the server stalls, and so
    leaves out of its percentiles just the calls that would have waited (coordinated omission).

    Args:
        calls: one per thread; so many run at the same time at most.
        rate_per_s: calls that are due per second, the first at once.
        duration_s: no call is due later than that.
        stop: ends it early; calls in flight are waited for.
    """
    load = Load()
    start = time.perf_counter()
    arrivals = iter(range(max(1, round(rate_per_s * duration_s))))
    lock = threading.Lock()

    def server(place: int) -> None:
        while not stop.is_set():
            with lock:
                number = next(arrivals, None)
            if number is None:
                return
            due = start + number / rate_per_s
            if time.perf_counter() > start + _GIVE_UP_AFTER * duration_s:
                load.miss()
            elif not stop.wait(max(0.0, due - time.perf_counter())):
                load.run(calls[place], number, since=due)

    _in_threads(server, len(calls))
    return load


def _in_threads(work: Callable[[int], None], count: int) -> None:
    """Run `work(0)` to `work(count - 1)` at the same time; an error that is none of ours comes through."""
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(work, place) for place in range(count)]:
            future.result()
