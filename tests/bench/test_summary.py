"""Mean, standard deviation and bootstrap interval, against NumPy and scipy."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from seg_bench.metrics import MetricSummary, summarize, worst_decile
from seg_runtime.errors import BadInputError


def test_mean_and_population_deviation_equal_numpys():
    values = np.random.default_rng(0).random(50)

    summary = summarize(values)

    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.std == pytest.approx(np.std(values))
    assert (summary.count, summary.infinite_count) == (50, 0)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_agrees_with_scipys_percentile_bootstrap(confidence):
    values = np.random.default_rng(1).beta(30, 2, 40)
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, method="percentile", random_state=2
    ).confidence_interval

    summary = summarize(values, confidence)

    # Two independent sets of 10,000 resamples differ by a few hundredths of the interval.
    tolerance = 0.05 * (expected.high - expected.low)
    assert summary.ci_low == pytest.approx(expected.low, abs=tolerance)
    assert summary.ci_high == pytest.approx(expected.high, abs=tolerance)


def test_one_seed_gives_one_interval():
    values = np.random.default_rng(3).random(20)

    assert summarize(values, seed=5) == summarize(values, seed=5)
    assert summarize(values, seed=5).ci_low != summarize(values, seed=6).ci_low


def test_infinite_values_are_counted_and_left_out():
    summary = summarize([2.0, math.inf, 4.0, math.inf])

    assert summary.mean == 3.0
    assert (summary.count, summary.infinite_count) == (4, 2)
    assert "2 of 4 infinite" in summary.text()


def test_only_infinite_values_have_no_mean():
    summary = summarize([math.inf, math.inf])

    assert summary == MetricSummary(None, None, None, None, 0.95, 2, 2)
    assert summary.text() == "infinite for all 2"


def test_one_value_is_its_own_interval():
    summary = summarize([0.97])

    assert (summary.mean, summary.std, summary.ci_low, summary.ci_high) == (0.97, 0.0, 0.97, 0.97)
    assert summary.text(2) == "0.97 ± 0.00 [0.97, 0.97]"


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [-math.inf], [[1.0, 2.0]]])
def test_values_that_cannot_be_summarised_are_refused(values):
    with pytest.raises(BadInputError, match="one number per image"):
        summarize(values)


@pytest.mark.parametrize("setting", [{"confidence": 1.0}, {"confidence": 0.0}, {"resamples": 0}])
def test_bad_settings_are_refused(setting):
    with pytest.raises(BadInputError, match="confidence"):
        summarize([1.0], **setting)


@pytest.mark.parametrize(("count", "worst"), [(1, 1), (9, 1), (10, 1), (11, 2), (22, 3), (30, 3), (101, 11)])
def test_the_worst_decile_is_the_mean_of_a_tenth_rounded_up(count, worst):
    values = np.random.default_rng(count).random(count)

    assert worst_decile(values) == pytest.approx(np.mean(sorted(values)[:worst]))
    assert worst_decile(values[::-1]) == worst_decile(values)


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [math.inf], [[1.0, 2.0]]])
def test_values_without_a_worst_decile_are_refused(values):
    with pytest.raises(BadInputError, match="one finite number per image"):
        worst_decile(values)


def test_metrics_import_neither_torch_nor_scipy():
    code = "import sys, seg_bench.metrics; sys.exit(bool({'torch', 'scipy'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
