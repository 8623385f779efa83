"""A table as HTML, sorted by the script of the page that it stands in."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape

from seg_bench.records import Record
from seg_bench.report.cells import Cell, Column, Table
from seg_bench.report.table import brief

__all__ = ["html_table"]


def html_table(table: Table, name: str, all_columns: bool = True) -> str:
    """A table that sorts by its columns.

    Args:
        table: what to show.
        name: the element's id.
        all_columns: show all; else those that decide, and a box to tick for the others.
    """
    decisive = table.columns if all_columns else brief(table).columns
    further = frozenset(column.key for column in table.columns) - {column.key for column in decisive}
    headings = "".join(_heading(column, further) for column in table.columns)
    pairs = zip(table.rows, table.records, strict=True)
    rows = "\n".join(_row(table.columns, row, record, further) for row, record in pairs)
    box = f'<label class="all"><input type="checkbox" id="all-{name}"> all columns</label>\n'
    return (
        f'<section>\n{box if further else ""}<div class="scroll">\n<table id="{name}">\n'
        f"<thead><tr>{headings}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n</section>"
    )


def _css(column: Column, further: Collection[str]) -> str:
    kinds = {
        "further": column.key in further,
        "numeric": column.numeric,
        "article": column.key.startswith("article"),
        "note": column.key == "note",
    }
    names = [name for name, holds in kinds.items() if holds]
    return f' class="{" ".join(names)}"' if names else ""


def _heading(column: Column, further: Collection[str]) -> str:
    button = f'<button type="button">{escape(column.heading)}</button>'
    return f'<th scope="col"{_css(column, further)}>{button}</th>'


def _row(columns: Sequence[Column], cells: Sequence[Cell], record: Record, further: Collection[str]) -> str:
    css = ' class="failed"' if record.failure else ' class="noisy"' if record.noise else ""
    row = "".join(_cell(column, cell, further) for column, cell in zip(columns, cells, strict=True))
    return f"<tr{css}>{row}</tr>"


def _cell(column: Column, cell: Cell, further: Collection[str]) -> str:
    attributes = ""
    if cell.value is not None:
        # JavaScript spells infinity in full.
        attributes = (
            f' data-value="{cell.value!r}"' if math.isfinite(cell.value) else ' data-value="Infinity"'
        )
    if column.interval and cell.interval:
        low, high = ("?" if end is None else f"{end:.4g}" for end in cell.interval)
        attributes += f' title="95 % confidence interval: {low} to {high}"'
    return f"<td{_css(column, further)}{attributes}>{_words(cell)}</td>"


def _words(cell: Cell) -> str:
    """The text, or its short form where only the columns that decide are shown."""
    if not cell.short or cell.short == cell.text:
        return escape(cell.text)
    if cell.text.startswith(cell.short):
        rest = cell.text.removeprefix(cell.short)
        return f'{escape(cell.short)}<span class="further">{escape(rest)}</span>'
    return f'<span class="short">{escape(cell.short)}</span><span class="further">{escape(cell.text)}</span>'
