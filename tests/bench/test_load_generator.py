"""Callers that wait for their answers, and arrivals that do not."""

from __future__ import annotations

import threading
import time

import pytest

from seg_bench.run.load_generator import closed_loop, open_loop
from seg_runtime.errors import InferenceError

NEVER = threading.Event()


def test_callers_run_at_the_same_time_and_share_out_the_numbers() -> None:
    together = threading.Barrier(3, timeout=10)
    numbers: list[int] = []

    def call(number: int) -> None:
        if number < 3:
            together.wait()  # passes only when all three are in flight
        numbers.append(number)
        time.sleep(0.001)

    load = closed_loop([call] * 3, 0.1, NEVER)
    assert load.most_in_flight == 3
    assert (load.failures, load.failure) == (0, None)
    assert len(load.latency_ms) == len(numbers) == len(set(numbers))
    assert load.duration_s >= 0.1


def test_a_stall_counts_for_every_call_that_was_due_meanwhile() -> None:
    """The first call takes 0.3 s; a closed loop would show one slow call, an open one shows them all."""

    def call(number: int) -> None:
        time.sleep(0.3 if number == 0 else 0)

    load = open_loop([call], rate_per_s=20, duration_s=0.25, stop=NEVER)
    assert len(load.latency_ms) == 5
    # The call of number n was due after n / 20 seconds and could not begin before 0.3 s.
    for number, latency_ms in enumerate(load.latency_ms):
        assert latency_ms >= 300 - 50 * number


def test_calls_are_not_made_before_they_are_due() -> None:
    begun: list[float] = []
    start = time.perf_counter()
    open_loop([lambda number: begun.append(time.perf_counter())] * 2, 50, 0.2, NEVER)
    assert len(begun) == 10
    assert all(when - start >= number / 50 for number, when in enumerate(sorted(begun)))


def test_arrivals_that_come_too_fast_for_ever_are_given_up_and_counted() -> None:
    load = open_loop([lambda number: time.sleep(0.05)], rate_per_s=1000, duration_s=0.1, stop=NEVER)
    assert 1 <= len(load.latency_ms) < 100
    assert len(load.latency_ms) + load.failures == 100
    assert load.failure == "calls came faster than they were answered"


def test_calls_without_an_answer_are_counted_with_the_first_reason() -> None:
    def call(number: int) -> None:
        if number % 2:
            raise InferenceError(f"call {number}\nfailed")

    load = open_loop([call], rate_per_s=1000, duration_s=0.01, stop=NEVER)
    assert (len(load.latency_ms), load.failures, load.failure) == (5, 5, "call 1 failed")
    assert load.result()["failures"] == 5


def test_an_error_of_another_kind_comes_through() -> None:
    def call(number: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        closed_loop([call], 10, NEVER)


def test_a_load_that_is_stopped_ends_with_the_calls_in_flight() -> None:
    for loop in (closed_loop, lambda calls, seconds, stop: open_loop(calls, 1000, seconds, stop)):
        stop = threading.Event()

        def call(number: int, stop: threading.Event = stop) -> None:
            if number == 3:
                stop.set()

        load = loop([call], 3600, stop)
        assert len(load.latency_ms) == 4
