"""Findings for people and for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from seg_bench.doctor.facts import Facts
from seg_bench.doctor.findings import Findings, State
from seg_bench.json_fields import to_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_findings", "to_json_text"]

WIDTH = 100
"""Characters per line, at most."""

_MARKS: dict[State, str] = {"ok": "[green]ok[/]", "absent": "[dim]-[/]", "fault": "[red]![/]"}


def print_findings(findings: Findings, console: Console) -> None:
    """Print the rows, then what to do; commands stay on one line each, so that they can be copied."""
    from rich.markup import escape
    from rich.table import Table

    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    table = Table(box=None, show_header=False, pad_edge=False)
    for name in ("mark", "name"):
        table.add_column(name, no_wrap=True)
    table.add_column("text", overflow="fold")
    for row in findings.rows:
        table.add_row(_MARKS[row.state], row.name, escape(row.text))
    console.print(table, highlight=False)
    if findings.advice:
        console.print("\n[bold]To do[/]")
    for each in findings.advice:
        console.print(f"- {escape(each.purpose)}", highlight=False)
        for step in each.steps:
            console.print(f"    {escape(step)}", style="cyan", highlight=False, soft_wrap=True)


def to_json_text(facts: Facts, findings: Findings) -> str:
    """The facts (sizes in bytes; {"reason": ...} where one could not be learned) and the findings."""
    return json.dumps({"facts": to_json(facts), "findings": to_json(findings)}, indent=1, ensure_ascii=False)
