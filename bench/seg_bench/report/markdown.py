"""The table as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.records import Run
from seg_bench.report.notes import legend_lines, run_facts
from seg_bench.report.table import build_table

__all__ = ["to_markdown"]


def to_markdown(runs: Sequence[Run]) -> str:
    """A table and, below it, how each run was measured; ends with a newline."""
    table = build_table(runs)
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [_row([column.heading for column in table.columns]), _row(rules)]
    lines += [_row([cell.text for cell in row]) for row in table.rows]
    for run in runs:
        lines += ["", *(_fact(name, value) for name, value in run_facts(run))]
    lines += ["", *legend_lines(runs)]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _fact(name: str, value: str) -> str:
    # Backticks keep the shell's characters as they are.
    return f"- {name}: `{value}`" if name == "command" else f"- {name}: {value}"
