"""The table as plain numbers, for JSON and CSV."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from seg_bench.json_fields import to_json
from seg_bench.percentiles import PERCENTS, percentile_of
from seg_bench.records import Condition, LoadPoint, Record, Run
from seg_bench.report.cells import Cell, Column
from seg_bench.report.class_table import classes_of, confusion_of
from seg_bench.report.names import hd95_of
from seg_bench.report.table import build_table

__all__ = ["data_rows", "interval_key"]


def data_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per record: a number, text or None per column, intervals, and what stands beside the table.

    A percentile that the calls are too few for is None, and its interval has no upper end. Only records with
    classes have the keys "classes" and "confusion".
    """
    table = build_table(runs, every_column=True)
    rows = []
    for record, cells in zip(table.records, table.rows, strict=True):
        row: dict[str, Any] = {}
        for column, cell in zip(table.columns, cells, strict=True):
            row |= _entries(column, cell)
        rows.append({**row, **_beside(record)})
    return rows


def interval_key(column_key: str) -> str:
    """ "p50_ms" -> "p50_interval": ends are in the unit of the column."""
    return column_key.removesuffix("_ms").removesuffix("_px") + "_interval"


def _entries(column: Column, cell: Cell) -> dict[str, Any]:
    if not column.numeric:
        return {column.key: cell.text}
    entries: dict[str, Any] = {column.key: None if cell.bound else cell.value}
    if column.interval:
        entries[interval_key(column.key)] = list(cell.interval) if cell.interval else None
    return entries


def _beside(record: Record) -> dict[str, Any]:
    classes = [to_json(each) for each in classes_of(record).values()]
    definition, unit = hd95_of(record)
    return {
        "hd95_definition": definition if record.accuracy else None,
        "hd95_unit": unit if record.accuracy else None,
        "where": record.where,
        "runtime": record.runtime,
        "engine": record.engine,
        "weights": record.model.weights,
        "calls": len(record.latency.total) if record.latency else 0,
        "checkpoint_sha256": record.model.checkpoint_sha256,
        "graph_sha256": record.model.graph_sha256,
        "energy_source": record.energy.source if record.energy else None,
        "failure": record.failure,
        "noise": record.noise,
        "conditions": [_condition(condition) for condition in record.conditions or ()],
        "loads": [_load(point) for point in record.loads or ()],
        **({"classes": classes, "confusion": confusion_of(record)} if classes else {}),
    }


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "name": condition.name,
        "kind": condition.kind,
        "images": len(condition.images),
        "dice": statistics.fmean(condition.dice),
        "dice_interval": [condition.summary.ci_low, condition.summary.ci_high],
    }


def _load(point: LoadPoint) -> dict[str, Any]:
    row: dict[str, Any] = {
        "concurrency": point.concurrency,
        "rate_per_s": point.rate_per_s,
        "images_per_s": point.images_per_s,
        "calls": len(point.latency_ms),
        "failures": point.failures,
    }
    for percent in PERCENTS:
        key = f"p{percent:g}".replace(".", "_")
        found = percentile_of(point.latency_ms, percent) if point.latency_ms else None
        row[f"{key}_ms"] = found.value if found else None
        row[f"{key}_interval"] = [found.low, found.high] if found else None
    return row
