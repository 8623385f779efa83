"""Percentiles have intervals that hold, and are not invented where there are too few calls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, lognorm

from seg_bench.percentiles import PERCENTS, calls_needed, percentile_of


@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize("count", [1, 5, 6, 20, 40, 368, 1000, 5000])
def test_ranks_of_the_interval_are_those_of_scipys_binomial(count: int, percent: float) -> None:
    samples = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))  # the value is the rank
    low = int(binom.ppf(0.025, count, percent / 100))
    while low and binom.cdf(low - 1, count, percent / 100) > 0.025:
        low -= 1
    high = int(binom.ppf(0.975, count, percent / 100)) + 1
    found = percentile_of(samples.tolist(), percent)
    assert found.low == (low or None)
    assert found.high == (high if high <= count else None)


@pytest.mark.parametrize(("percent", "count"), [(50, 30), (90, 100), (99, 500)])
def test_intervals_hold_the_true_percentile_of_skewed_latencies_95_times_in_100(
    percent: float, count: int
) -> None:
    generator = np.random.default_rng(1)
    truth = float(lognorm.ppf(percent / 100, 0.6, scale=np.exp(3)))
    held = 0
    for samples in generator.lognormal(3, 0.6, (1000, count)):
        found = percentile_of(samples, percent)
        assert found.low is not None and found.high is not None
        held += found.low <= truth <= found.high
    assert 0.935 <= held / 1000 <= 0.995  # at least 95 %, discreteness gives a little more


def test_a_p99_of_20_calls_is_a_lower_bound_and_no_number() -> None:
    found = percentile_of([float(value) for value in range(20)], 99)
    assert (found.value, found.high) == (None, None)
    assert found.low == 18.0


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9])
def test_as_many_calls_as_are_said_to_be_needed_are_enough_and_one_less_is_not(percent: float) -> None:
    needed = calls_needed(percent)
    assert percentile_of(range(needed), percent).value is not None
    assert percentile_of(range(needed - 1), percent).value is None
    assert calls_needed(99) == 368


def test_the_median_of_few_calls_is_shown_without_an_interval() -> None:
    found = percentile_of([3.0, 1.0, 2.0], 50)
    assert (found.value, found.low, found.high) == (2.0, None, None)
