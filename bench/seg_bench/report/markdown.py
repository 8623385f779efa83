"""The tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.records import Run
from seg_bench.report.cells import PAGES, Table
from seg_bench.report.class_table import class_table, class_tables
from seg_bench.report.notes import legend_lines, run_facts
from seg_bench.report.table import build_table, condition_table, load_table

__all__ = ["to_markdown"]


def to_markdown(runs: Sequence[Run], columns: Sequence[str] = ()) -> str:
    """The tables and, below them, how each run was measured; ends with a newline.

    Args:
        runs: what to show.
        columns: keys of the columns of one table and nothing else, of the table of classes where "class" is
            the first; empty for all.

    Raises:
        BadInputError: a key that no column has.
    """
    if columns:
        classes = class_table(runs) if columns[0] == "class" else None
        table = classes or build_table(runs, every_column=True)
        return "\n".join(_table_lines(table.only(columns))) + "\n"
    lines = _table_lines(build_table(runs).shown_in(PAGES))
    for name, table in class_tables(runs):
        lines += ["", f"Classes of {name}:", "", *_table_lines(table)]
    for further in (condition_table(runs), load_table(runs)):
        lines += ["", *_table_lines(further.shown_in(PAGES))] if further else []
    for run in runs:
        lines += ["", *(_fact(name, value) for name, value in run_facts(run))]
    lines += ["", *legend_lines(runs)]
    return "\n".join(lines) + "\n"


def _table_lines(table: Table) -> list[str]:
    """One table, a line per row."""
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [_row([column.heading for column in table.columns]), _row(rules)]
    return lines + [_row([cell.text for cell in row]) for row in table.rows]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _fact(name: str, value: str) -> str:
    # Backticks keep the shell's characters as they are.
    return f"- {name}: `{value}`" if name == "command" else f"- {name}: {value}"
