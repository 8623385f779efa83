"""The table as JSON: plain numbers per row, for other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from seg_bench.json_fields import to_json
from seg_bench.records import Run
from seg_bench.report.data_rows import data_rows
from seg_bench.report.notes import run_facts

__all__ = ["to_json_report"]


def to_json_report(runs: Sequence[Run]) -> str:
    """Rows with one number (or null) per column, 95 % intervals, and how each run was measured."""
    document = {"rows": data_rows(runs), "runs": [run_facts_by_name(run) for run in runs]}
    return json.dumps(to_json(document), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def run_facts_by_name(run: Run) -> dict[str, str]:
    """Facts of one name, as those of several rows that failed, become one of several lines."""
    facts: dict[str, str] = {}
    for name, value in run_facts(run):
        facts[name] = f"{facts[name]}\n{value}" if name in facts else value
    return facts
