"""What is left to do for each row, and about how long it takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from seg_bench.reproduce.catalogue import TableRow
from seg_bench.reproduce.device import Device
from seg_runtime.sam2.models import VIDEO_PARTS

__all__ = [
    "LEAST_CALLS",
    "MIN_CALLS",
    "MIN_S",
    "PRECISIONS",
    "PlannedRow",
    "fitting_rows",
    "plan_rows",
    "share_s",
]

MIN_CALLS, MIN_S = 64, 10.0
"""Calls and seconds that a row is timed for if the budget allows; MLPerf's single stream has such a rule."""

LEAST_CALLS = 8
"""A row is called as often as this at least, or left for the next time."""

PRECISIONS = ("fp32", "fp16", "int8")
_INT8_FAMILIES = ("unet", "unetpp", "transunet")
"""Networks whose published int8 was tried."""

_WARM_UP = 3
_OPEN_S = 4.0
"""Seconds from a process to its first call, besides that call."""
_COMPILE_S = 60.0
_BUILD_S = 90.0
"""Of a TensorRT engine."""
_SERVER_S = 15.0
_BATCHES_S = 3.0
"""Until the best batch of a row is found."""
_SLOWDOWN = 2.0
"""Times as long as products alone take: nothing reaches a processor's peak."""


State = Literal["measured", "to do", "cannot run here"]


@dataclass(frozen=True)
class PlannedRow:
    """One row and what is to be done for it.

    Attributes:
        row: of the catalogue.
        state: whether there is anything to do.
        precisions: that are measured.
        missing: precisions that must be exported first.
        ways: how many engines and baselines there are.
        call_s: seconds of one call, about.
        compiles: whether compiled PyTorch is one of them.
        served: whether Triton on this machine is one of them.
        builds: how many TensorRT engines are built, if they are not there.
        note: why it cannot run, else empty.
        train_s: seconds that its training takes before it is exported, about; 0 for none.
    """

    row: TableRow
    state: State
    precisions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ways: int = 0
    call_s: float = 0.0
    compiles: bool = False
    served: bool = False
    builds: int = 0
    note: str = ""
    train_s: float = 0.0

    @property
    def candidates(self) -> int:
        """How many rows of a run take turns: one for each way and model."""
        return self.ways * len(self.row.measured("fp32"))

    @property
    def prepare_s(self) -> float:
        """Seconds until the first timed call, without training."""
        frames_before = sum(self.row.memories) * self.row.most_images
        calls = self.candidates * (_WARM_UP + 1) + self.ways * frames_before
        opened = self.candidates * _OPEN_S + calls * self.call_s
        compiled_s = self.compiles * len(self.row.measured("fp32")) * _COMPILE_S
        made = len(self.missing) * self.row.export_s + self.builds * _BUILD_S
        return made + opened + compiled_s + self.served * _SERVER_S

    @property
    def least_s(self) -> float:
        """Seconds without which the row is not begun; training can be paused."""
        return self.prepare_s + self.candidates * LEAST_CALLS * self.call_s

    @property
    def estimate_s(self) -> float:
        """Seconds that the row takes when it is timed for as long as it should be."""
        timed_s = self.candidates * (_BATCHES_S + max(MIN_CALLS * self.call_s, MIN_S))
        return self.train_s + self.prepare_s + timed_s


def plan_rows(
    rows: Iterable[TableRow],
    device: Device,
    built: Collection[str],
    measured: Collection[str],
    *,
    export: bool,
    build: bool = True,
    precisions: Sequence[str] = PRECISIONS,
    serve: bool = True,
) -> tuple[PlannedRow, ...]:
    """Decide for each row.

    Args:
        rows: that are asked for.
        device: what there is to compute with.
        built: models that the repository has.
        measured: keys of the rows that have records.
        export: whether models that are not there may be exported.
        build: whether engines may be built for TensorRT.
        precisions: that are measured, of those that a row may have.
        serve: whether Triton is measured, where it is.
    """
    device = replace(device, server=device.server and serve)
    planned = [
        PlannedRow(row, "measured") if row.key in measured else _plan(row, device, built, export, precisions)
        for row in rows
    ]
    builds = build and "tensorrt" in device.engines
    return tuple(replace(each, builds=len(each.precisions)) if builds else each for each in planned)


def fitting_rows(
    rows: Sequence[TableRow],
    device: Device,
    built: Collection[str],
    measured: Collection[str],
    budget_s: float,
    *,
    export: bool,
    build: bool = True,
) -> tuple[tuple[PlannedRow, ...], str]:
    """As `plan_rows`, with int8 and Triton, and with fp16, where the budget has room for them.

    Returns:
        The rows, and a line about what was left out; empty for nothing.
    """
    whole = plan = plan_rows(rows, device, built, measured, export=export, build=build)
    for count in (2, 1):
        if sum(each.least_s for each in plan) <= budget_s:
            break
        some = PRECISIONS[:count]
        plan = plan_rows(
            rows, device, built, measured, export=export, build=build, precisions=some, serve=False
        )
    left_out = [*_precisions(whole, plan), *(["Triton"] if _served(whole) and not _served(plan) else ())]
    if not left_out:
        return plan, ""
    return plan, f"the budget has no room for {' and '.join(left_out)}: give a larger one, or fewer --rows"


def _precisions(whole: Iterable[PlannedRow], part: Iterable[PlannedRow]) -> list[str]:
    """Precisions of the first plan that the second has not."""
    kept = {precision for each in part for precision in each.precisions}
    return sorted({precision for each in whole for precision in each.precisions} - kept)


def _served(plan: Iterable[PlannedRow]) -> bool:
    return any(each.served for each in plan)


def share_s(planned: Sequence[PlannedRow], remaining_s: float) -> float:
    """Of the remaining seconds those that the first row gets, no more than it needs.

    Each row gets the least that it can do with, and what is left is shared by what they need besides.
    """
    first = planned[0]
    spare_s = max(0.0, remaining_s - sum(each.least_s for each in planned))
    wanted_s = sum(each.estimate_s - each.least_s for each in planned)
    wanted_by_first_s = first.estimate_s - first.least_s
    return first.least_s + min(wanted_by_first_s, spare_s * wanted_by_first_s / max(wanted_s, 1e-9))


def _plan(
    row: TableRow, device: Device, built: Collection[str], export: bool, precisions: Sequence[str]
) -> PlannedRow:
    if not device.engines:
        return _impossible(row, "no engine is installed: pip install 'edgeseg[cpu]' or 'edgeseg[gpu]'")
    possible = [each for each in precisions if each != "int8" or row.family in _INT8_FAMILIES]
    wanted = tuple(each for each in possible if _ways(device, each))
    missing = tuple(precision for precision in wanted if not _is_built(row, precision, built))
    if missing and not (export and device.pytorch):
        if "fp32" in missing:
            why = "the given models do not have it"
            if export:
                why = "PyTorch is not installed, which exports it: bring models with --bundle or --repo"
            return _impossible(row, why)
        wanted, missing = tuple(each for each in wanted if each not in missing), ()
    baselines = device.pytorch * (1 + device.compiles)
    return PlannedRow(
        row,
        "to do",
        wanted,
        missing,
        sum(_ways(device, precision) for precision in wanted) + baselines,
        _SLOWDOWN * row.gflop / device.gflops,
        device.compiles,
        device.server,
    )


def _impossible(row: TableRow, note: str) -> PlannedRow:
    return PlannedRow(row, "cannot run here", note=note)


def _ways(device: Device, precision: str) -> int:
    ways: tuple[str | None, ...] = (*device.engines, *((None,) if device.server else ()))
    return sum((precision, way) not in device.left_out for way in ways)


def _is_built(row: TableRow, precision: str, built: Collection[str]) -> bool:
    name = row.model(precision)
    several = (("encoder", "decoder"), VIDEO_PARTS)
    return name in built or any({f"{name}_{part}" for part in parts} <= set(built) for parts in several)
