"""What is left to do for each row, and about how long it takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from seg_bench.reproduce.catalogue import TableRow
from seg_bench.reproduce.device import Device
from seg_runtime.sam2.models import VIDEO_PARTS

__all__ = [
    "LEAST_CALLS",
    "LEFT_OUT",
    "MIN_CALLS",
    "MIN_S",
    "PRECISIONS",
    "PlannedRow",
    "plan_rows",
    "share_s",
]

MIN_CALLS, MIN_S = 64, 10.0
"""Calls and seconds that a row is timed for if the budget allows; MLPerf's single stream has such a rule."""

LEAST_CALLS = 8
"""A row is called as often as this at least, or left for the next time."""

PRECISIONS = ("fp32", "fp16")
LEFT_OUT = frozenset({("fp16", "onnxruntime")})
"""ONNX Runtime computes fp16 on a processor in fp32, with conversions between: nobody deploys that."""

_WARM_UP = 3
_OPEN_S = 4.0
"""Seconds from a process to its first call, besides that call."""
_COMPILE_S = 60.0
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
        note: why it cannot run, else empty.
    """

    row: TableRow
    state: State
    precisions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ways: int = 0
    call_s: float = 0.0
    compiles: bool = False
    note: str = ""

    @property
    def candidates(self) -> int:
        """How many rows of a run take turns: one for each way and model."""
        return self.ways * len(self.row.measured("fp32"))

    @property
    def prepare_s(self) -> float:
        """Seconds until the first timed call."""
        frames_before = sum(self.row.memories) * self.row.most_images
        calls = self.candidates * (_WARM_UP + 1) + self.ways * frames_before
        opened = self.candidates * _OPEN_S + calls * self.call_s
        compiled_s = self.compiles * len(self.row.measured("fp32")) * _COMPILE_S
        return len(self.missing) * self.row.export_s + opened + compiled_s

    @property
    def least_s(self) -> float:
        """Seconds without which the row is not begun."""
        return self.prepare_s + self.candidates * LEAST_CALLS * self.call_s

    @property
    def estimate_s(self) -> float:
        """Seconds that the row takes when it is timed for as long as it should be."""
        return self.prepare_s + self.candidates * max(MIN_CALLS * self.call_s, MIN_S)


def plan_rows(
    rows: Iterable[TableRow], device: Device, built: Collection[str], measured: Collection[str], export: bool
) -> tuple[PlannedRow, ...]:
    """Decide for each row.

    Args:
        rows: that are asked for.
        device: what there is to compute with.
        built: models that the repository has.
        measured: keys of the rows that have records.
        export: whether models that are not built may be exported.
    """
    return tuple(_plan(row, device, built, row.key in measured, export) for row in rows)


def share_s(planned: Sequence[PlannedRow], remaining_s: float) -> float:
    """Of the remaining seconds those that the first row gets, no more than it needs.

    Each row gets the least that it can do with, and what is left is shared by what they need besides.
    """
    first = planned[0]
    spare_s = max(0.0, remaining_s - sum(each.least_s for each in planned))
    wanted_s = sum(each.estimate_s - each.least_s for each in planned)
    wanted_by_first_s = first.estimate_s - first.least_s
    return first.least_s + min(wanted_by_first_s, spare_s * wanted_by_first_s / max(wanted_s, 1e-9))


def _plan(row: TableRow, device: Device, built: Collection[str], measured: bool, export: bool) -> PlannedRow:
    if measured:
        return PlannedRow(row, "measured")
    if not device.engines:
        return _impossible(row, "no engine is installed: pip install 'edgeseg[cpu]' or 'edgeseg[gpu]'")
    wanted = tuple(precision for precision in PRECISIONS if _ways(device, precision))
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
    )


def _impossible(row: TableRow, note: str) -> PlannedRow:
    return PlannedRow(row, "cannot run here", note=note)


def _ways(device: Device, precision: str) -> int:
    return sum((precision, engine) not in LEFT_OUT for engine in device.engines)


def _is_built(row: TableRow, precision: str, built: Collection[str]) -> bool:
    name = row.model(precision)
    several = (("encoder", "decoder"), VIDEO_PARTS)
    return name in built or any({f"{name}_{part}" for part in parts} <= set(built) for parts in several)
