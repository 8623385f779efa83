"""The tables that every report shows: one row per record, per level of load, and Dice per condition."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from seg_bench.records import LoadPoint, Record, Run
from seg_bench.report.cells import ABSENT, DATA, PAGES, Cell, Column, Table, number_cell, percentile_cell
from seg_bench.report.columns import COLUMNS, NAMES, MakeCell, data_set_columns, hd95_columns
from seg_bench.report.grouping import device_of
from seg_bench.report.names import data_of, engines_differ, row_key

__all__ = ["ROW_NAMES", "brief", "build_table", "condition_table", "load_name", "load_table"]

ROW_NAMES = ("machine", "measured", "data", "model", "where", "engine", "batch", "load", "class")
"""Keys of the columns that tell rows apart, as far as a table has them."""

_DECISIVE = (
    "precision",
    "dice",
    "iou",
    "mean_dice",
    "mask_iou",
    "ap",
    "p50_ms",
    "times_as_fast",
    "images_per_s",
    "note",
)
"""Besides those; throughput is only needed where it tells batches apart."""

_ALWAYS = frozenset(
    {"dice", "iou", "parameters", "images_per_s", "peak_memory_mib"}
    | {"p50_ms", "p90_ms", "p99_ms", "p99_9_ms"}
)
"""Columns that are there even if no row has anything in them; others are there when any row has."""

_DECILE = "dice_worst_decile"
"""The column that HD95 stands before, and Dice on further data sets after."""


def build_table(runs: Sequence[Run], *, every_column: bool = False) -> Table:
    """Make the table of one or several runs.

    Several machines, data sets, engines in process, batch sizes and dates of the same row get a column that
    tells them apart.

    Args:
        runs: what to show.
        every_column: keep the columns that hold nothing.
    """
    pairs = [(run, record) for run in runs for record in run.records]
    records = [record for _, record in pairs]
    columns, distances = [*NAMES, *COLUMNS], hd95_columns(records)
    place = [column.key for column, _ in columns].index(_DECILE)
    columns[place + 1 : place + 1] = data_set_columns(records)
    columns[place:place] = distances
    table = _fill(columns, pairs)
    if every_column:
        return table
    always = _ALWAYS | {column.key for column, _ in distances}
    return table.without((table.empty_columns() - always) | _needless_names(pairs))


def brief(table: Table) -> Table:
    """The columns that decide, of those that hold anything; the short form of "where" names the engine."""
    keys = {column.key for column in table.columns}
    needless = {"engine"} if "batch" in keys else {"engine", "images_per_s"}
    return table.without(keys - {*ROW_NAMES, *_DECISIVE} | needless | table.empty_columns())


def load_table(runs: Sequence[Run]) -> Table | None:
    """One row per level of load, or None when nothing was measured under load."""
    points = [(run, record, point) for run in runs for record in run.records for point in record.loads or ()]
    if not points:
        return None
    needless = _needless_names([(run, record) for run in runs for record in run.records])
    names = _fill(NAMES, [(run, record) for run, record, _ in points]).without(needless)
    rows = tuple((*row, *_load_cells(point)) for row, (_, _, point) in zip(names.rows, points, strict=True))
    return Table((*names.columns, *_LOAD_COLUMNS), rows, names.records)


def condition_table(runs: Sequence[Run]) -> Table | None:
    """Mean Dice of every record under every condition, or None when no record has any."""
    pairs = [(run, record) for run in runs for record in run.records if record.conditions]
    if not pairs:
        return None
    needless = _needless_names([(run, record) for run in runs for record in run.records])
    names = _fill(NAMES, pairs).without(needless)
    kinds = dict.fromkeys(it.name for _, record in pairs for it in record.conditions or ())
    rows = tuple(
        (*row, _clean(record), *(_condition(record, name) for name in kinds))
        for row, record in zip(names.rows, names.records, strict=True)
    )
    columns = (Column("dice", "Dice"), *(Column(f"dice_{name}", name) for name in kinds))
    return Table((*names.columns, *columns), rows, names.records)


def load_name(point: LoadPoint) -> str:
    """A level of load in words."""
    return f"{point.concurrency} at once" if point.rate_per_s is None else f"{point.rate_per_s:g} per s due"


def _fill(columns: Iterable[tuple[Column, MakeCell]], pairs: Sequence[tuple[Run, Record]]) -> Table:
    columns = tuple(columns)
    rows = tuple(tuple(cell(run, record) for _, cell in columns) for run, record in pairs)
    return Table(tuple(column for column, _ in columns), rows, tuple(record for _, record in pairs))


def _needless_names(pairs: Sequence[tuple[Run, Record]]) -> set[str]:
    """Keys of the names that are the same in all rows, or tell nothing more apart."""
    needless = set()
    if len({device_of(run.machine) for run, _ in pairs}) < 2:
        needless.add("machine")
    if len({data_of(record) for _, record in pairs}) < 2:
        needless.add("data")
    if not engines_differ(record for _, record in pairs):
        needless.add("engine")
    if len({record.settings.batch for _, record in pairs}) < 2:
        needless.add("batch")
    same = Counter((device_of(run.machine), *row_key(record)) for run, record in pairs)
    if max(same.values(), default=0) < 2:
        needless.add("measured")
    return needless


_LOAD_COLUMNS = (
    Column("load", "load", numeric=False),
    Column("images_per_s", "images/s"),
    Column("p50_ms", "p50", "ms"),
    Column("p90_ms", "p90", "ms"),
    Column("p99_ms", "p99", "ms"),
    Column("p99_9_ms", "p99.9", "ms", shown=PAGES),
    Column("calls", "calls", shown=DATA),
    Column("failures", "failures"),
)


def _load_cells(point: LoadPoint) -> tuple[Cell, ...]:
    return (
        Cell(load_name(point)),
        number_cell(point.images_per_s, ".1f"),
        *(percentile_cell(point.latency_ms, percent) for percent in (50, 90, 99, 99.9)),
        number_cell(len(point.latency_ms), "d"),
        number_cell(point.failures, "d"),
    )


def _clean(record: Record) -> Cell:
    summary = record.accuracy.dice_summary if record.accuracy else None
    return number_cell(summary.mean if summary else None, ".4f")


def _condition(record: Record, name: str) -> Cell:
    for condition in record.conditions or ():
        if condition.name == name:
            return number_cell(statistics.fmean(condition.dice), ".4f")
    return Cell(ABSENT)
