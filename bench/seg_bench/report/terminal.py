"""The tables in a terminal: the columns that decide; the others are in every other form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from seg_bench.records import Run
from seg_bench.report.cells import EVERYWHERE, Cell, Column, Table
from seg_bench.report.notes import legend_lines, run_facts
from seg_bench.report.table import build_table, condition_table, load_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

Justify = Literal["left", "right"]

__all__ = ["full_width", "print_report", "rich_tables", "table_parts", "to_plain_text"]

_FULL_WIDTH = 240
"""Characters per line of output that goes to a pipe or file and has no width of its own."""

_ROW_NAMES = ("machine", "measured", "data", "model", "where", "engine", "batch", "load")
_GAP = 3
_LONG_TITLE = 9


def rich_tables(runs: Sequence[Run], width: int) -> list[RichTable]:
    """The tables as rich renderables, each as several below each other where `width` is too small for it.

    Each of them begins with the names of the rows, and no cell is ever cut or wrapped.
    """
    tables = (build_table(runs), condition_table(runs), load_table(runs))
    return [part for table in tables if table for part in table_parts(table.shown_in(EVERYWHERE), width)]


def table_parts(table: Table, width: int) -> list[RichTable]:
    """One table as several below each other where `width` is too small for it."""
    names = [number for number, column in enumerate(table.columns) if column.key in _ROW_NAMES]
    others = [number for number in range(len(table.columns)) if number not in names]
    groups: list[list[int]] = []
    for number in others:
        used = sum(_width(table, member) for member in [*names, *(groups[-1] if groups else []), number])
        if groups and used <= width:
            groups[-1].append(number)
        else:
            groups.append([number])
    return [_rich_table(table, sorted([*names, *group])) for group in groups]


def _heading(column: Column) -> str:
    """Units, and all words but the first, on lines of their own keep columns narrow."""
    title = column.title.replace(" ", "\n", 1) if len(column.title) > _LONG_TITLE else column.title
    return f"{title}\n({column.unit})" if column.unit else title


def _short(cell: Cell) -> str:
    return cell.short or cell.text


def _width(table: Table, number: int) -> int:
    lines = [*_heading(table.columns[number]).split("\n"), *(_short(row[number]) for row in table.rows)]
    return max(map(len, lines)) + _GAP


def _rich_table(table: Table, numbers: Sequence[int]) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in (table.columns[number] for number in numbers):
        style = "dim" if column.key.startswith("article") else None
        justify: Justify = "right" if column.numeric else "left"
        shown.add_column(_heading(column), justify=justify, style=style, no_wrap=True, overflow="fold")
    for row in table.rows:
        shown.add_row(*(_short(row[number]) for number in numbers))
    return shown


def print_report(runs: Sequence[Run], console: Console) -> None:
    """Print the table, then how it was measured."""
    from rich.markup import escape

    for table in rich_tables(runs, full_width(console)):
        console.print(table)
    for run in runs:
        for name, value in run_facts(run):
            console.print(f"[dim]{name}:[/dim] {escape(value)}", highlight=False, soft_wrap=True)
    for line in legend_lines(runs):
        console.print(escape(line), style="dim", highlight=False, soft_wrap=True)


def full_width(console: Console) -> int:
    """The width of a console; of one that is no terminal it is set to one that everything fits into."""
    if not console.is_terminal:
        console.width = _FULL_WIDTH
    return console.width


def to_plain_text(runs: Sequence[Run]) -> str:
    """The report as text without colours, for a file."""
    import io

    from rich.console import Console

    text = io.StringIO()
    print_report(runs, Console(file=text, color_system=None, force_terminal=False))
    return text.getvalue()
