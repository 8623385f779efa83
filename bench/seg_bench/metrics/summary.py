"""Mean, standard deviation and a bootstrap confidence interval of a metric over images. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["MetricSummary", "summarize", "worst_decile"]

_CHUNK = 1000


@dataclass(frozen=True)
class MetricSummary:
    """A metric over several images.

    An infinite value (a Hausdorff distance to an empty mask) has no place in a mean: it is counted
    in `infinite_count` and left out of everything else. Show the count wherever the mean is shown.

    Attributes:
        mean: of the finite values; None when there are none.
        std: population standard deviation (`ddof` 0, as in the article) of the finite values.
        ci_low, ci_high: ends of the percentile-bootstrap confidence interval of the mean.
        confidence: of that interval, for example 0.95.
        count: all values, finite or not.
        infinite_count: values that were infinite.
    """

    mean: float | None
    std: float | None
    ci_low: float | None
    ci_high: float | None
    confidence: float
    count: int
    infinite_count: int

    def text(self, digits: int = 4) -> str:
        """For people: '0.9712 ± 0.0101 [0.9650, 0.9765]', with a note of the infinite values."""
        if self.mean is None:
            return f"infinite for all {self.count}"
        interval = f"[{self.ci_low:.{digits}f}, {self.ci_high:.{digits}f}]"
        shown = f"{self.mean:.{digits}f} ± {self.std:.{digits}f} {interval}"
        return f"{shown} ({self.infinite_count} of {self.count} infinite)" if self.infinite_count else shown


def summarize(
    values: Sequence[float] | NDArray[Any],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> MetricSummary:
    """Summarise one value per image.

    Args:
        values: (N,) numbers, N >= 1; positive infinity is allowed, see `MetricSummary`.
        confidence: of the interval, between 0 and 1.
        resamples: bootstrap samples (Efron and Tibshirani 1993, percentile interval).
        seed: of the resampling; one seed gives one interval.

    Raises:
        BadInputError: no values, a NaN or minus infinity among them, or a bad confidence.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size or np.isnan(array).any() or np.isneginf(array).any():
        raise BadInputError(
            f"a summary wants one number per image, at least one and no NaN; it got {values!r}"
        )
    if not 0 < confidence < 1 or resamples < 1:
        raise BadInputError(
            "confidence must lie between 0 and 1 and resamples be positive; "
            f"they are {confidence} and {resamples}"
        )
    finite = array[np.isfinite(array)]
    infinite_count = int(array.size - finite.size)
    if not finite.size:
        return MetricSummary(None, None, None, None, confidence, int(array.size), infinite_count)
    means = _bootstrap_means(finite, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return MetricSummary(
        mean=float(finite.mean()),
        std=float(finite.std()),
        ci_low=float(low),
        ci_high=float(high),
        confidence=confidence,
        count=int(array.size),
        infinite_count=infinite_count,
    )


def worst_decile(values: Sequence[float] | NDArray[Any]) -> float:
    """Mean of the lowest tenth of the values, rounded up: of one value at least.

    Args:
        values: (N,) finite numbers of which more is better, one per image, N >= 1.

    Raises:
        BadInputError: no values, or one that is not finite.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise BadInputError(f"the worst decile wants one finite number per image; it got {values!r}")
    worst = -(-array.size // 10)
    return float(np.sort(array)[:worst].mean())


def _bootstrap_means(
    values: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Means of samples drawn with replacement, in chunks so that memory does not grow with `resamples`."""
    sizes = [min(_CHUNK, resamples - start) for start in range(0, resamples, _CHUNK)]
    draws = (values[generator.integers(0, values.size, (size, values.size))] for size in sizes)
    return np.concatenate([draw.mean(axis=1) for draw in draws])
