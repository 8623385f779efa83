"""The report as one HTML page that needs no network: sortable tables, plots, and how it was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from seg_bench.records import Record, Run
from seg_bench.report.cells import Cell, Column, Table
from seg_bench.report.load_plot import load_curves
from seg_bench.report.notes import legend_lines, run_facts
from seg_bench.report.plots import dice_against_latency
from seg_bench.report.plotted import plotted_rows
from seg_bench.report.row_plots import energy_bars, latency_samples
from seg_bench.report.table import build_table, condition_table, load_table

if TYPE_CHECKING:
    from seg_bench.report.worst import WorstCase

__all__ = ["to_html"]


def to_html(
    runs: Sequence[Run],
    title: str = "Segmentation models: accuracy and latency",
    worst: Sequence[WorstCase] = (),
) -> str:
    """The whole page, light or dark as the reader's browser prefers.

    Args:
        runs: what to show.
        title: the page's.
        worst: images with the masks that scored lowest, see `seg_bench.report.worst`.
    """
    page = Template((files("seg_bench.report") / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escape(title),
        results=_table(build_table(runs).decisive_first(), "results"),
        legend="<br>".join(escape(line) for line in legend_lines(runs)),
        sections=_sections(runs),
        worst=_worst_cases(worst),
        runs="\n".join(_facts(run) for run in runs),
    )


def _sections(runs: Sequence[Run]) -> str:
    """Plots and the smaller tables; what no record has is left out."""
    rows = plotted_rows(runs)
    conditions, load = condition_table(runs), load_table(runs)
    parts = (
        _figure("Dice against latency", dice_against_latency(rows), _DICE_CAPTION),
        _figure("Every timed call", latency_samples(rows), _CALLS_CAPTION),
        _figure("Energy per image", energy_bars(rows), "Of the whole device while the row was timed."),
        f"<h2>Dice under other conditions</h2>\n{_table(conditions, 'conditions')}" if conditions else "",
        _figure("Under load", load_curves(rows), _LOAD_CAPTION),
        _table(load, "load") if load else "",
    )
    return "\n".join(filter(None, parts))


def _figure(title: str, plot: str, caption: str) -> str:
    if not plot:
        return ""
    return (
        f'<h2>{title}</h2>\n<figure>\n<div class="scroll">{plot}</div>\n'
        f"<figcaption>{caption}</figcaption>\n</figure>"
    )


def _table(table: Table, name: str) -> str:
    headings = "".join(_heading(column) for column in table.columns)
    rows = "\n".join(
        _row(table.columns, row, record) for row, record in zip(table.rows, table.records, strict=True)
    )
    return (
        f'<div class="scroll">\n<table id="{name}">\n<thead><tr>{headings}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _css(column: Column) -> str:
    kinds = {
        "numeric": column.numeric,
        "article": column.key.startswith("article"),
        "note": column.key == "note",
    }
    names = [name for name, holds in kinds.items() if holds]
    return f' class="{" ".join(names)}"' if names else ""


def _heading(column: Column) -> str:
    return f'<th scope="col"{_css(column)}><button type="button">{escape(column.heading)}</button></th>'


def _row(columns: Sequence[Column], cells: Sequence[Cell], record: Record) -> str:
    css = ' class="failed"' if record.failure else ' class="noisy"' if record.noise else ""
    return (
        f"<tr{css}>{''.join(_cell(column, cell) for column, cell in zip(columns, cells, strict=True))}</tr>"
    )


def _cell(column: Column, cell: Cell) -> str:
    attributes = ""
    if cell.value is not None:
        # JavaScript spells infinity in full.
        attributes = (
            f' data-value="{cell.value!r}"' if math.isfinite(cell.value) else ' data-value="Infinity"'
        )
    if column.interval and cell.interval:
        low, high = ("?" if end is None else f"{end:.4g}" for end in cell.interval)
        attributes += f' title="95 % confidence interval: {low} to {high}"'
    return f"<td{_css(column)}{attributes}>{escape(cell.text)}</td>"


def _worst_cases(worst: Sequence[WorstCase]) -> str:
    if not worst:
        return ""
    figures = "\n".join(_picture(case) for case in worst)
    heading = f'<h2>Worst cases</h2>\n<p class="quiet">{_WORST_CAPTION}</p>'
    return f'{heading}\n<div class="worst">\n{figures}\n</div>'


def _picture(case: WorstCase) -> str:
    image, model = escape(case.image, quote=True), escape(case.model)
    size = f'width="{case.width}" height="{case.height}"'
    return (
        f'<figure><img src="{case.uri}" alt="{image}" {size}>'
        f"<figcaption>{model}: {image}<br>{escape(case.words)}</figcaption></figure>"
    )


def _facts(run: Run) -> str:
    return f"<dl>{''.join(_fact(name, value) for name, value in run_facts(run))}</dl>"


def _fact(name: str, value: str) -> str:
    css = ' class="command"' if name == "command" else ""
    return f"<dt>{escape(name)}</dt><dd{css}>{escape(value)}</dd>"


_DICE_CAPTION = (
    "Up and to the left is better. The dashed line is the Pareto front of a data set; rows that another one "
    "beats in both, and the baselines, are grey. Bars: 95 % bootstrap interval of the mean. Hollow: the "
    "article's figure, on its own machine."
)
_CALLS_CAPTION = (
    "One dot per call, or the outline of their distribution where there are many (its height is the root of "
    "the count). The long line is the median (p50), the short one p99 where there are calls enough."
)
_LOAD_CAPTION = "To the right and down is better. One mark per level of load; solid: p50, dashed: p99."
_WORST_CAPTION = (
    "The images with the lowest Dice in the records. Green: both agree; red: the model alone; blue: the "
    "ground truth alone. Masks were computed anew for this page, in process."
)
