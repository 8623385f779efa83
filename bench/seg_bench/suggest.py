"""Which measured row to deploy within limits of latency, accuracy, memory and energy, and why not the others.

The rule. Of the rows that keep every limit the one with the highest mean Dice is chosen; rows within
`EQUAL_DICE` of it count as equally good, and the fastest of those is taken. A row that lacks a figure that
a limit is on falls out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from seg_bench.percentiles import calls_needed, percentile_of
from seg_bench.records import Record, Run
from seg_bench.report.names import data_of, engines_differ, is_baseline, row_name
from seg_runtime.errors import BadInputError

__all__ = ["EQUAL_DICE", "Limits", "Rejected", "Suggested", "Suggestion", "suggest"]

EQUAL_DICE = 0.001


@dataclass(frozen=True)
class Limits:
    """What a deployment must keep; None is no limit.

    Attributes:
        max_ms: of one call, at `percentile`.
        min_dice: of the mean over the images.
        max_mb: peak memory of the process or server in MiB, and of the accelerator where the record has it.
        max_joules: per image.
        percentile: 50, 90, 99 or 99.9: which latency is judged and shown.
    """

    max_ms: float | None = None
    min_dice: float | None = None
    max_mb: float | None = None
    max_joules: float | None = None
    percentile: float = 50.0


@dataclass(frozen=True)
class Suggested:
    """A row that can be deployed; figures that its record lacks are None."""

    name: str
    precision: str
    machine: str
    engine: str
    dice: float
    latency_ms: float | None
    peak_memory_mib: float | None
    joules_per_image: float | None
    noise: str | None


@dataclass(frozen=True)
class Rejected:
    """A row that falls out, with one reason per limit it does not keep, or why it cannot be judged at all."""

    name: str
    precision: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Suggestion:
    """The choice and everything else.

    Attributes:
        chosen: None when no row keeps every limit.
        reason: one line: why it was chosen, or what the nearest row would have needed.
        runners_up: other rows that keep every limit, in the order they would be chosen.
        rejected: all other rows.
    """

    chosen: Suggested | None
    reason: str
    runners_up: tuple[Suggested, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class _Miss:
    """A limit that is not kept: by what share, None when the figure is not there."""

    reason: str
    share: float | None


def suggest(runs: Sequence[Run], limits: Limits) -> Suggestion:
    """Choose among all rows of these runs.

    Raises:
        BadInputError: no row that can be deployed has a Dice of trained weights, or these are of several data
            sets.
    """
    pairs = [(run, record) for run in runs for record in run.records]
    differ = engines_differ(record for _, record in pairs)
    _one_data_set(record for _, record in pairs)
    fitting: list[Suggested] = []
    rejected: list[Rejected] = []
    nearest: list[tuple[float, str, str]] = []
    scored = False
    for run, record in pairs:
        name, precision = row_name(record, differ), record.model.precision
        unfit = _cannot_be_judged(record)
        scored = scored or unfit is None
        misses = [_Miss(unfit, None)] if unfit else list(_misses(record, limits))
        if not misses:
            fitting.append(_suggested(run, record, name, limits))
            continue
        reasons = tuple(miss.reason for miss in misses)
        rejected.append(Rejected(name, precision, reasons))
        shares = [miss.share for miss in misses if miss.share is not None]
        if len(shares) == len(misses):
            nearest.append((max(shares), f"{name}, {precision}", "; ".join(reasons)))
    if not scored:
        raise BadInputError(
            "no row that can be deployed has a Dice: measure trained models on images with masks, "
            "seg-bench run --data FOLDER"
        )
    if not fitting:
        return Suggestion(None, _nothing(nearest), (), tuple(rejected))
    ranked = _ranked(fitting)
    return Suggestion(ranked[0], _why(ranked, limits), tuple(ranked[1:]), tuple(rejected))


def _one_data_set(records: Iterable[Record]) -> None:
    sets = sorted({data_of(record) for record in records if not _cannot_be_judged(record)})
    if len(sets) > 1:
        raise BadInputError(
            f"records of several data sets ({'; '.join(sets)}): their Dice cannot be compared, give one's"
        )


def _cannot_be_judged(record: Record) -> str | None:
    if is_baseline(record):
        return "it is there to be compared with, not to be deployed"
    if record.failure:
        return f"it failed: {record.failure}"
    if record.model.weights == "random":
        return "random weights"
    if record.accuracy is None or record.accuracy.dice_summary.mean is None:
        return "its Dice was not measured"
    return None


def _misses(record: Record, limits: Limits) -> Iterator[_Miss]:
    dice = _dice(record)
    if limits.min_dice is not None and dice < limits.min_dice:
        yield _Miss(f"Dice {dice:.4f} is below {limits.min_dice:g}", limits.min_dice / max(dice, 1e-9) - 1)
    if limits.max_ms is not None:
        latency = _latency_ms(record, limits.percentile)
        if latency is None:
            yield _Miss(_unknown_latency(record, limits.percentile), None)
        elif latency > limits.max_ms:
            words = f"p{limits.percentile:g} {latency:.1f} ms is above {limits.max_ms:g} ms"
            yield _Miss(words, latency / limits.max_ms - 1)
    if limits.max_mb is not None:
        yield from _over("peak memory", record.peak_memory_mib, limits.max_mb, "MiB")
        if record.device_memory_mib is not None:
            yield from _over("device memory", record.device_memory_mib, limits.max_mb, "MiB")
    if limits.max_joules is not None:
        joules = record.energy.joules_per_image if record.energy else None
        yield from _over("energy", joules, limits.max_joules, "J per image")


def _over(what: str, value: float | None, limit: float, unit: str) -> Iterator[_Miss]:
    if value is None:
        yield _Miss(f"{what} was not measured", None)
    elif value > limit:
        yield _Miss(f"{what} {value:.4g} {unit} is above {limit:g}", value / limit - 1)


def _dice(record: Record) -> float:
    mean = record.accuracy.dice_summary.mean if record.accuracy else None
    return mean if mean is not None else 0.0


def _latency_ms(record: Record, percentile: float) -> float | None:
    return percentile_of(record.latency.total, percentile).value if record.latency else None


def _unknown_latency(record: Record, percentile: float) -> str:
    if record.latency is None:
        return "its latency was not measured"
    calls = len(record.latency.total)
    return f"p{percentile:g} is not known from {calls} calls: it takes {calls_needed(percentile)}"


def _suggested(run: Run, record: Record, name: str, limits: Limits) -> Suggested:
    return Suggested(
        name=name,
        precision=record.model.precision,
        machine=run.machine.cpu if not run.machine.gpu else f"{run.machine.cpu}, {run.machine.gpu}",
        engine=record.engine or record.runtime,
        dice=_dice(record),
        latency_ms=_latency_ms(record, limits.percentile),
        peak_memory_mib=record.peak_memory_mib,
        joules_per_image=record.energy.joules_per_image if record.energy else None,
        noise=record.noise,
    )


def _ranked(fitting: Sequence[Suggested]) -> list[Suggested]:
    """As they would be chosen one after the other."""
    left, ranked = list(fitting), []
    while left:
        best = max(row.dice for row in left)
        equal = [row for row in left if row.dice >= best - EQUAL_DICE]
        chosen = min(equal, key=lambda row: (row.latency_ms is None, row.latency_ms or 0.0, -row.dice))
        left.remove(chosen)
        ranked.append(chosen)
    return ranked


def _why(ranked: Sequence[Suggested], limits: Limits) -> str:
    others = ranked[1:]
    best = max(row.dice for row in ranked)
    equal = [row for row in others if row.dice >= best - EQUAL_DICE]
    if not others:
        return "the only row that keeps every limit"
    if not equal:
        return f"the highest Dice of the {len(ranked)} rows that keep every limit"
    return (
        f"the fastest (p{limits.percentile:g}) of the {len(equal) + 1} rows that keep every limit and whose "
        f"Dice is within {EQUAL_DICE:g} of the best of these, {best:.4f}"
    )


def _nothing(nearest: Sequence[tuple[float, str, str]]) -> str:
    if not nearest:
        return "no row keeps every limit, and none has all figures that the limits are on"
    share, name, reasons = min(nearest)
    return f"no row keeps every limit; the nearest, by {share:.1%}, is {name}: {reasons}"
