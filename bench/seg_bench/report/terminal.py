"""The tables in a terminal: a few columns that decide, or all that are for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from seg_bench.records import Run
from seg_bench.report.cells import EVERYWHERE, Cell, Column, Table
from seg_bench.report.class_table import class_table, classes_of
from seg_bench.report.grouping import by_data, by_device, device_table
from seg_bench.report.notes import legend_lines, run_facts
from seg_bench.report.table import ROW_NAMES, brief, build_table, condition_table, load_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

Justify = Literal["left", "right"]

__all__ = ["full_width", "print_report", "rich_tables", "table_parts", "to_plain_text"]

_FULL_WIDTH = 240
"""Characters per line of output that goes to a pipe or file and has no width of its own."""

_BRIEF_FACTS = ("machine", "GPU", "data", "noise", "failed", "noisy row")
_BRIEF_LEGEND = (
    "Dice, IoU: means over the images. p50: of the whole call. × PyTorch: as many times as fast. "
    "All columns, spreads, conditions and settings: --wide, or another --format."
)

_GAP = 3
_LONGEST_TITLE = 12


def rich_tables(runs: Sequence[Run], width: int, wide: bool = True) -> list[RichTable]:
    """The tables as rich renderables, each as several below each other where `width` is too small for it.

    Each of them begins with the names of the rows, and no cell is ever cut or wrapped.

    Args:
        runs: what to show.
        width: characters per line.
        wide: all columns, with spreads; else those that decide.
    """
    main = build_table(runs).shown_in(EVERYWHERE)
    if not wide:
        main = brief(main)
    others = (*((class_table(runs), condition_table(runs)) if wide else ()), load_table(runs))
    tables = [main, *(table.shown_in(EVERYWHERE) for table in others if table)]
    return [part for table in tables for part in table_parts(table, width, wide)]


def table_parts(table: Table, width: int, wide: bool = True) -> list[RichTable]:
    """One table as several below each other where `width` is too small for it. Arguments as `rich_tables`."""
    names = [number for number, column in enumerate(table.columns) if column.key in ROW_NAMES]
    others = [number for number in range(len(table.columns)) if number not in names]
    groups: list[list[int]] = []
    for number in others:
        members = [*names, *(groups[-1] if groups else []), number]
        used = sum(_width(table, member, wide) for member in members)
        if groups and used <= width:
            groups[-1].append(number)
        else:
            groups.append([number])
    return [_rich_table(table, sorted([*names, *group]), wide) for group in groups]


def _heading(column: Column) -> str:
    """Several lines, and a line for the unit, keep columns narrow."""
    title = textwrap.fill(column.title, _LONGEST_TITLE, break_long_words=False)
    return f"{title}\n({column.unit})" if column.unit else title


def _shown(column: Column, cell: Cell, wide: bool) -> str:
    """Notes are always short: their lines stand below the table."""
    return cell.text if wide and column.key != "note" else cell.short or cell.text


def _width(table: Table, number: int, wide: bool) -> int:
    column = table.columns[number]
    lines = [*_heading(column).split("\n"), *(_shown(column, row[number], wide) for row in table.rows)]
    return max(map(len, lines)) + _GAP


def _rich_table(table: Table, numbers: Sequence[int], wide: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in (table.columns[number] for number in numbers):
        style = "dim" if column.key.startswith("article") else None
        justify: Justify = "right" if column.numeric else "left"
        shown.add_column(_heading(column), justify=justify, style=style, no_wrap=True, overflow="fold")
    for row in table.rows:
        shown.add_row(*(_shown(table.columns[number], row[number], wide) for number in numbers))
    return shown


def print_report(runs: Sequence[Run], console: Console, wide: bool = False) -> None:
    """Print the table, then how it was measured.

    Args:
        runs: what to show.
        console: a terminal, or a file or pipe, which gets everything on lines of any length.
        wide: all columns and facts in a terminal as well.
    """
    from rich.markup import escape

    wide = wide or not console.is_terminal
    several = device_table(runs)
    for table in table_parts(several, full_width(console), wide) if several else ():
        console.print(table)
    for device, its in by_device(runs).items():
        if several:
            console.print(escape(device), style="bold", highlight=False)
        data_sets = by_data(its)
        for data, measured in data_sets.items():
            if len(data_sets) > 1:
                console.print(escape(data), style="bold", highlight=False)
            for table in rich_tables(measured, full_width(console), wide):
                console.print(table)
        for run in its:
            for name, value in run_facts(run):
                if wide or name in _BRIEF_FACTS:
                    console.print(f"[dim]{name}:[/dim] {escape(value)}", highlight=False, soft_wrap=wide)
    for line in legend_lines(runs) if wide else _brief_legend(runs):
        console.print(escape(line), style="dim", highlight=False, soft_wrap=wide)


def _brief_legend(runs: Sequence[Run]) -> list[str]:
    classes = any(classes_of(record) for run in runs for record in run.records)
    return [_BRIEF_LEGEND, *(["Dice of each class: --wide."] if classes else [])]


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
