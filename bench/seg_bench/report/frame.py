"""The frame of a plot: its place on the picture, grid lines, labels and a legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from seg_bench.report.plotted import PlottedRow
from seg_bench.report.svg import Axis, line, mark, text

__all__ = [
    "BOTTOM",
    "HEIGHT",
    "LEFT",
    "NAMES_WIDTH",
    "RIGHT",
    "TOP",
    "WIDTH",
    "LegendEntry",
    "frame",
    "legend",
    "row_label",
    "vertical_lines",
]

WIDTH, HEIGHT = 760.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 70.0, 20.0, 16.0, 50.0
NAMES_WIDTH = 300.0
"""Left part of the plots that have one line per row."""

_LEGEND_COLUMN, _LEGEND_LINE = 350.0, 22.0
_COLUMN_CHARACTERS, _NAME_CHARACTERS = 46, 44
"""Of the page's font at most, in a column of the legend and left of a plot."""


@dataclass(frozen=True)
class LegendEntry:
    """One mark of a plot in its legend.

    Attributes:
        label: what stands beside the mark in the plot, "" for nothing.
        css, shape: of the mark, see `seg_bench.report.svg.mark`.
    """

    label: str
    name: str
    css: str
    shape: int


def frame(x: Axis, y: Axis, x_label: str, y_label: str) -> list[str]:
    """Grid lines at the ticks of both axes, and what the axes are."""
    parts = vertical_lines(x, y.end, y.start)
    for tick in y.ticks:
        at = y.pixel(tick)
        parts.append(line(x.start, at, x.end, at, "grid"))
        parts.append(text(x.start - 8, at + 4, f"{tick:.4g}", "end"))
    parts.append(text((x.start + x.end) / 2, y.start + 40, x_label))
    middle = (y.start + y.end) / 2
    parts.append(f'<g transform="rotate(-90 16 {middle:.1f})">{text(16, middle, y_label)}</g>')
    return parts


def vertical_lines(x: Axis, top: float, bottom: float) -> list[str]:
    """Grid lines at the ticks of the horizontal axis, labelled below."""
    parts = []
    for tick in x.ticks:
        at = x.pixel(tick)
        parts.append(line(at, top, at, bottom, "grid"))
        parts.append(text(at, bottom + 18, f"{tick:g}"))
    return parts


def row_label(row: PlottedRow, middle: float) -> list[str]:
    """The row's name to the left of its line of a plot, in two lines when it is long."""
    lines = textwrap.wrap(row.name, _NAME_CHARACTERS, max_lines=2, placeholder=" …")
    first = middle + 4 - 7 * (len(lines) - 1)
    whole = "" if " ".join(lines) == row.name else row.name
    return [
        text(NAMES_WIDTH - 12, first + 14 * number, words, "end", title=whole)
        for number, words in enumerate(lines)
    ]


def legend(entries: Sequence[LegendEntry], top: float) -> tuple[list[str], float]:
    """The entries in two columns, or in one when a name is long, and the y below the last one."""
    columns = 1 if any(len(entry.name) > _COLUMN_CHARACTERS for entry in entries) else 2
    parts, height = [], top
    for position, entry in enumerate(entries):
        left = LEFT - 50 + (position % columns) * _LEGEND_COLUMN
        height = top + (position // columns) * _LEGEND_LINE
        if entry.label:
            parts.append(text(left + 16, height + 4, entry.label, "end", "label quiet-label"))
        parts.append(mark(left + 30, height, entry.shape, entry.css))
        parts.append(text(left + 44, height + 4, entry.name, "start"))
    return parts, height + 16
