"""Percentiles of latency with confidence intervals that assume no distribution. NumPy only.

Source: order statistics, Conover, "Practical Nonparametric Statistics" (3rd edition, 1999), section 3.2: of n
independent samples the number at or below the true percentile is binomial, so that two of the sorted samples
enclose it with a probability that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["CONFIDENCE", "PERCENTS", "Percentile", "calls_needed", "percentile_of"]

CONFIDENCE = 0.95
PERCENTS = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class Percentile:
    """A percentile of some samples, in their unit.

    Attributes:
        value: interpolated linearly; None where the samples are too few to enclose it from above, which would
            make it a fiction. The median is never None: it invents no tail.
        low, high: samples that enclose the true percentile with at least `CONFIDENCE`; None where the samples
            are too few for that end.
    """

    value: float | None
    low: float | None
    high: float | None


def percentile_of(samples: Sequence[float], percent: float) -> Percentile:
    """A percentile with its interval.

    Args:
        samples: (N,) numbers, N >= 1, taken as independent; where calls slow each other down
            the interval is too narrow.
        percent: between 0 and 100.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    low_rank, high_rank = _ranks(len(ordered), percent)
    low = float(ordered[low_rank - 1]) if low_rank >= 1 else None
    high = float(ordered[high_rank - 1]) if high_rank <= len(ordered) else None
    known = high is not None or percent <= 50
    return Percentile(float(np.percentile(ordered, percent)) if known else None, low, high)


def calls_needed(percent: float) -> int:
    """The fewest samples that enclose a percentile from above."""
    return int(np.ceil(np.log((1 - CONFIDENCE) / 2) / np.log(percent / 100)))


@lru_cache(maxsize=256)
def _ranks(count: int, percent: float) -> tuple[int, int]:
    """Ranks, from 1 on, of the two samples; 0 and count + 1 stand for "none"."""
    outside = (1 - CONFIDENCE) / 2
    at_most = _binomial_cdf(count, percent / 100)
    low = int(np.count_nonzero(at_most <= outside))
    high = int(np.argmax(at_most >= 1 - outside)) + 1
    return low, high


def _binomial_cdf(count: int, chance: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """P(B <= k) for k in 0..count."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    k = np.arange(count + 1)
    log_ways = log_factorial[count] - log_factorial - log_factorial[::-1]
    return np.cumsum(np.exp(log_ways + k * np.log(chance) + (count - k) * np.log1p(-chance)))
