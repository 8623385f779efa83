"""The report as one HTML page that needs no network: sortable table, plots, and how it was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from seg_bench.records import Run
from seg_bench.report.notes import legend_lines, run_facts
from seg_bench.report.plots import dice_against_latency, latency_samples
from seg_bench.report.table import Cell, Column, build_table

__all__ = ["to_html"]


def to_html(runs: Sequence[Run], title: str = "Segmentation models: accuracy and latency") -> str:
    """The whole page, light or dark as the reader's browser prefers."""
    table = build_table(runs)
    page = Template((files("seg_bench.report") / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escape(title),
        headings="".join(_heading(column) for column in table.columns),
        rows="\n".join(_row(table.columns, row) for row in table.rows),
        legend="<br>".join(escape(line) for line in legend_lines(runs)),
        plots=_plots(runs),
        runs="\n".join(_facts(run) for run in runs),
    )


def _css(column: Column) -> str:
    names = ["numeric"] * column.numeric + ["article"] * column.key.startswith("article")
    return f' class="{" ".join(names)}"' if names else ""


def _heading(column: Column) -> str:
    return f'<th scope="col"{_css(column)}><button type="button">{escape(column.heading)}</button></th>'


def _row(columns: Sequence[Column], cells: Sequence[Cell]) -> str:
    return f"<tr>{''.join(_cell(column, cell) for column, cell in zip(columns, cells, strict=True))}</tr>"


def _cell(column: Column, cell: Cell) -> str:
    value = ""
    if cell.value is not None:
        # JavaScript spells infinity in full.
        value = f' data-value="{cell.value!r}"' if math.isfinite(cell.value) else ' data-value="Infinity"'
    return f"<td{_css(column)}{value}>{escape(cell.text)}</td>"


def _plots(runs: Sequence[Run]) -> str:
    records = [record for run in runs for record in run.records]
    figures = (
        ("Dice against latency", dice_against_latency(records), _DICE_CAPTION),
        ("Every timed call", latency_samples(records), "One dot per call; the line is the median (p50)."),
    )
    return "\n".join(
        f"<h2>{title}</h2>\n<figure>\n{plot}\n<figcaption>{caption}</figcaption>\n</figure>"
        for title, plot, caption in figures
        if plot
    )


def _facts(run: Run) -> str:
    return f"<dl>{''.join(_fact(name, value) for name, value in run_facts(run))}</dl>"


def _fact(name: str, value: str) -> str:
    css = ' class="command"' if name == "command" else ""
    return f"<dt>{escape(name)}</dt><dd{css}>{escape(value)}</dd>"


_DICE_CAPTION = (
    "Up and to the left is better. Bars: 95 % bootstrap interval of the mean. Hollow: the article's figure, "
    "on its own machine."
)
