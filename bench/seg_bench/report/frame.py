"""The frame of a plot: its place on the picture, grid lines, labels and a legend."""

from __future__ import annotations

from collections.abc import Sequence

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
    "frame",
    "legend",
    "vertical_lines",
]

WIDTH, HEIGHT = 760.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 70.0, 20.0, 16.0, 50.0
NAMES_WIDTH = 300.0
"""Left part of the plots that have one line per row."""

_LEGEND_COLUMN, _LEGEND_LINE = 350.0, 22.0


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


def legend(
    rows: Sequence[tuple[PlottedRow, str]], top: float, numbers: bool = True
) -> tuple[list[str], float]:
    """Two (row, CSS class) entries per line, and the y below the last one."""
    parts, height = [], top
    for position, (row, css) in enumerate(rows):
        left = LEFT - 50 + (position % 2) * _LEGEND_COLUMN
        height = top + (position // 2) * _LEGEND_LINE
        if numbers:
            parts.append(text(left + 16, height + 4, str(row.number), "end", "label quiet-label"))
        parts.append(mark(left + 30, height, row.shape, css))
        parts.append(text(left + 44, height + 4, row.name, "start"))
    return parts, height + 16
