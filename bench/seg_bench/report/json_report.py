"""The table as JSON: plain numbers per row, for other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from seg_bench.json_fields import to_json
from seg_bench.metrics.summary import MetricSummary
from seg_bench.records import Record, Run
from seg_bench.report.notes import run_facts
from seg_bench.report.table import build_table

__all__ = ["to_json_report"]


def to_json_report(runs: Sequence[Run]) -> str:
    """Rows with one number (or null) per column, the bootstrap intervals, and how each run was measured."""
    table = build_table(runs)
    rows = []
    for record, cells in zip(table.records, table.rows, strict=True):
        row: dict[str, Any] = {}
        for column, cell in zip(table.columns, cells, strict=True):
            row[column.key] = cell.value if column.numeric else cell.text
        rows.append({**row, **_beside(record)})
    document = {"rows": rows, "runs": [dict(run_facts(run)) for run in runs]}
    return json.dumps(to_json(document), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _interval(summary: MetricSummary) -> list[float | None]:
    return [summary.ci_low, summary.ci_high]


def _beside(record: Record) -> dict[str, Any]:
    accuracy, random = record.accuracy, record.model.weights == "random"
    measured = accuracy if accuracy and not random else None
    return {
        "where": record.where,
        "runtime": record.runtime,
        "engine": record.engine,
        "weights": record.model.weights,
        "dice_interval": _interval(measured.dice_summary) if measured else None,
        "iou_interval": _interval(measured.iou_summary) if measured else None,
        "hd95_interval": _interval(measured.hd95_summary) if measured else None,
        "calls": len(record.latency.total) if record.latency else 0,
        "checkpoint_sha256": record.model.checkpoint_sha256,
        "graph_sha256": record.model.graph_sha256,
    }
