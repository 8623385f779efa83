"""Two measurements of the same rows: what became slower or less accurate, and what is only noise.

The rule. A row is slower when its median grew by more than the limit **and** the 95 % bootstrap interval
of the ratio of medians lies wholly above 1 and above what the fixed loop, which runs between the calls of
either run, took longer: a machine that was busier is not a slower model. A growth over the limit that the
interval does not bear out is "unsure" and fails nothing. Dice has no noise on the same images: it is worse
when its mean fell by more than its limit.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_bench.records import Machine, Record, Run
from seg_bench.report.names import engines_differ, hd95_of, row_key, row_name
from seg_runtime.errors import BadInputError

__all__ = [
    "BETTER",
    "SAME",
    "UNSURE",
    "WORSE",
    "Comparison",
    "RowComparison",
    "compare_runs",
    "ratio_of_medians",
]

WORSE, UNSURE, SAME, BETTER = "worse", "unsure", "same", "better"
_RESAMPLES = 2000
_FEWEST_CALLS = 6
"""Calls below which no two of them enclose the median with 95 %, see `seg_bench.percentiles`."""


@dataclass(frozen=True)
class RowComparison:
    """One row in both runs; ratios are new over old, None where either has no such figure.

    Attributes:
        name: model, place and what else tells it apart.
        verdict: `WORSE`, `UNSURE`, `SAME` or `BETTER`, of all that was judged.
        reason: why, one line.
        old_p50_ms, new_p50_ms: medians.
        p50_ratio, p50_low, p50_high: of the medians, with the 95 % interval of the ratio.
        dice_change: new mean minus old mean; None also where the images are not the same.
        images_per_s_ratio, memory_ratio: of what the records hold; shown, never judged.
    """

    name: str
    precision: str
    verdict: str
    reason: str
    old_p50_ms: float | None = None
    new_p50_ms: float | None = None
    p50_ratio: float | None = None
    p50_low: float | None = None
    p50_high: float | None = None
    dice_change: float | None = None
    images_per_s_ratio: float | None = None
    memory_ratio: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All rows that both sides have, and what stands beside.

    Attributes:
        rows: in the order of the old records.
        only_old, only_new: names of the rows that the other side lacks.
        loop_ratio: how much longer the fixed loop took in the new run, or None when not known.
        warnings: what makes the comparison doubtful, one line each.
    """

    rows: tuple[RowComparison, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    loop_ratio: float | None
    warnings: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether any row is."""
        return any(row.verdict == WORSE for row in self.rows)


def compare_runs(
    old: Sequence[Run], new: Sequence[Run], *, fail_over: float = 0.1, fail_dice: float = 0.002
) -> Comparison:
    """Compare the rows of the same model, precision, place, engine asked for, batch and data set.

    Args:
        old, new: where either has a row several times, its latest run counts.
        fail_over: growth of the median above which a row is slower, 0.1 for 10 %.
        fail_dice: fall of the mean Dice above which a row is worse.

    Raises:
        BadInputError: no row is in both, or one side holds runs of several machines.
    """
    before, after = _by_key(old), _by_key(new)
    common = [key for key in before if key in after]
    differ = engines_differ([*before.values(), *after.values()])
    if not common:
        raise BadInputError(
            "OLD and NEW have no row in common (model, precision, where, engine, batch and data set): OLD "
            f"has {_listed(before.values(), differ)}; NEW has {_listed(after.values(), differ)}"
        )
    loop = _loop_ratio(old, new)
    return Comparison(
        rows=tuple(
            _compare(row_name(after[key], differ), before[key], after[key], loop, fail_over, fail_dice)
            for key in common
        ),
        only_old=tuple(_full_name(row, differ) for key, row in before.items() if key not in after),
        only_new=tuple(_full_name(row, differ) for key, row in after.items() if key not in before),
        loop_ratio=loop,
        warnings=tuple(_warnings(old, new, loop)),
    )


def ratio_of_medians(
    old: Sequence[float], new: Sequence[float], seed: int = 0
) -> tuple[float, float | None, float | None]:
    """median(new) / median(old) and its 95 % percentile-bootstrap interval (Efron and Tibshirani 1993).

    Both sides are resampled on their own. The interval is None where either has less than six calls.
    """
    ratio = float(np.median(new) / np.median(old))
    if min(len(old), len(new)) < _FEWEST_CALLS:
        return ratio, None, None
    generator = np.random.default_rng(seed)
    ratios = _medians(np.asarray(new), generator) / _medians(np.asarray(old), generator)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return ratio, float(low), float(high)


def _medians(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    medians: NDArray[np.float64] = np.median(
        values[generator.integers(0, values.size, (_RESAMPLES, values.size))], axis=1
    )
    return medians


def _by_key(runs: Sequence[Run]) -> dict[tuple[str, str, str, str, int, str], Record]:
    machines = sorted({_hardware(run.machine) for run in runs})
    if len(machines) > 1:
        raise BadInputError(
            f"records of several machines on one side ({'; '.join(machines)}): give those of one machine"
        )
    latest = sorted(runs, key=lambda run: run.started_utc)
    return {row_key(record): record for run in latest for record in run.records}


def _compare(
    name: str, old: Record, new: Record, loop: float | None, fail_over: float, fail_dice: float
) -> RowComparison:
    if new.failure or old.failure:
        verdict = SAME if new.failure and old.failure else WORSE if new.failure else BETTER
        reason = f"failed: {new.failure}" if new.failure else f"no longer fails ({old.failure})"
        return RowComparison(name, new.model.precision, verdict, reason)
    judged = [SAME]
    reasons = []
    ratio = low = high = old_p50 = new_p50 = None
    if old.latency and new.latency and old.latency.percentile(50) > 0:
        old_p50, new_p50 = old.latency.percentile(50), new.latency.percentile(50)
        ratio, low, high = ratio_of_medians(old.latency.total, new.latency.total)
        verdict, reason = _judge_latency(ratio, low, high, loop or 1.0, fail_over)
        judged.append(verdict)
        reasons.append(reason)
    else:
        reasons.append("latency not measured on both sides")
    change = _dice_change(old, new)
    if change is not None:
        judged.append(WORSE if -change > fail_dice else BETTER if change > fail_dice else SAME)
        reasons += [f"Dice {change:+.4f}"] if judged[-1] != SAME else []
    elif old.accuracy and new.accuracy:
        reasons.append("Dice not compared: not the same images")
    return RowComparison(
        name=name,
        precision=new.model.precision,
        verdict=next(kind for kind in (WORSE, UNSURE, BETTER, SAME) if kind in judged),
        reason="; ".join(reasons),
        old_p50_ms=old_p50,
        new_p50_ms=new_p50,
        p50_ratio=ratio,
        p50_low=low,
        p50_high=high,
        dice_change=change,
        images_per_s_ratio=_ratio(new.images_per_s, old.images_per_s),
        memory_ratio=_ratio(new.peak_memory_mib, old.peak_memory_mib),
    )


def _judge_latency(
    ratio: float, low: float | None, high: float | None, loop: float, fail_over: float
) -> tuple[str, str]:
    if low is None or high is None:
        beyond = ratio > 1 + fail_over or ratio < 1 / (1 + fail_over)
        return UNSURE if beyond else SAME, f"less than {_FEWEST_CALLS} calls tell too little of a latency"
    if ratio > 1 + fail_over:
        if low > max(1.0, loop):
            return WORSE, f"slower by {ratio - 1:.0%}"
        why = f"the fixed loop took {loop:.2f} times as long" if low > 1 else "within the noise of the calls"
        return UNSURE, f"{ratio - 1:.0%} slower, but {why}"
    if ratio < 1 / (1 + fail_over) and high < min(1.0, loop):
        return BETTER, f"{1 / ratio:.2f} times as fast"
    return SAME, "no change of latency beyond the limit"


def _dice_change(old: Record, new: Record) -> float | None:
    before, after = old.accuracy, new.accuracy
    if before is None or after is None or "random" in (old.model.weights, new.model.weights):
        return None
    # The first schema has no names of images: its data set, split and number must do.
    named = before.images is not None and after.images is not None
    same = before.images == after.images if named else old.data == new.data
    if not same or len(before.dice) != len(after.dice):
        return None
    return statistics.fmean(after.dice) - statistics.fmean(before.dice)


def _ratio(new: float | None, old: float | None) -> float | None:
    return new / old if new and old else None


def _loop_ratio(old: Sequence[Run], new: Sequence[Run]) -> float | None:
    times = [[ms for run in runs for ms in run.calibration_ms] for runs in (old, new)]
    return statistics.median(times[1]) / statistics.median(times[0]) if all(times) else None


def _warnings(old: Sequence[Run], new: Sequence[Run], loop: float | None) -> list[str]:
    warnings = []
    before, after = {_hardware(run.machine) for run in old}, {_hardware(run.machine) for run in new}
    if before != after:
        warnings.append(
            f"OLD was measured on {'; '.join(sorted(before))}, NEW on {'; '.join(sorted(after))}: "
            "a change of latency may be the machine's"
        )
    if loop is not None and abs(loop - 1) > 0.1:
        warnings.append(
            f"the fixed loop between the calls took {loop:.2f} times as long in NEW as in OLD: the machine "
            "was not equally busy"
        )
    measured = [_hd95s(runs) for runs in (old, new)]
    if all(measured) and measured[0] != measured[1]:
        warnings.append(
            f"HD95 is {' and '.join(measured[0])} in OLD, {' and '.join(measured[1])} in NEW: it cannot be "
            "compared"
        )
    for side, runs in (("OLD", old), ("NEW", new)):
        if any(not run.complete for run in runs):
            warnings.append(f"{side} was interrupted: it has fewer calls than asked for")
    return warnings


def _hd95s(runs: Sequence[Run]) -> list[str]:
    """Definitions and units, as "pooled (mm)", of all records with accuracy."""
    records = [record for run in runs for record in run.records if record.accuracy]
    return sorted({f"{definition} ({unit})" for definition, unit in map(hd95_of, records)})


def _hardware(machine: Machine) -> str:
    return f"{machine.cpu}, {machine.cores} cores, GPU {machine.gpu or 'none'}"


def _full_name(record: Record, differ: bool) -> str:
    return f"{row_name(record, differ)}, {record.model.precision}"


def _listed(records: Iterable[Record], differ: bool) -> str:
    return "; ".join(_full_name(record, differ) for record in records)
