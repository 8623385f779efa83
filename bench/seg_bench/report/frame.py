"""The frame of a plot: its size, grid lines, the names of rows, and a legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from seg_bench.report.svg import Axis, line, mark, text, text_width

__all__ = ["NARROW", "TOP", "WIDE", "LegendEntry", "Size", "frame", "legend", "name_above", "vertical_lines"]

TOP = 16.0
_LINE = 16.0
_LEGEND_LINE = 22.0


@dataclass(frozen=True)
class Size:
    """Of a plot, in the pixels of its picture; a page shows the one that its window has room for.

    Attributes:
        width: of the whole picture.
        height: of a plot with two axes.
        left, right, bottom: room for the labels around it.
    """

    width: float
    height: float
    left: float
    right: float = 14.0
    bottom: float = 50.0

    @property
    def end(self) -> float:
        """Where the horizontal axis ends."""
        return self.width - self.right


WIDE, NARROW = Size(760.0, 400.0, 70.0), Size(370.0, 330.0, 56.0)


@dataclass(frozen=True)
class LegendEntry:
    """A mark of a plot, `css` and `shape` as of `seg_bench.report.svg.mark`, and what it stands for."""

    name: str
    css: str
    shape: int


def frame(size: Size, x: Axis, y: Axis, x_label: str, y_label: str) -> list[str]:
    """Grid lines at the ticks of both axes, and what the axes are."""
    parts = vertical_lines(x, y.end, y.start)
    for tick in y.ticks:
        at = y.pixel(tick)
        parts.append(line(x.start, at, x.end, at, "grid"))
        parts.append(text(x.start - 8, at + 4, f"{tick:.4g}", "end"))
    parts.append(text((x.start + x.end) / 2, size.height - 10, x_label))
    middle = (y.start + y.end) / 2
    parts.append(f'<g transform="rotate(-90 14 {middle:.1f})">{text(14, middle, y_label)}</g>')
    return parts


def vertical_lines(x: Axis, top: float, bottom: float) -> list[str]:
    """Grid lines at the ticks of the horizontal axis; those with room for it are labelled below."""
    parts, end = [], -10.0
    for tick in x.ticks:
        at, label = x.pixel(tick), f"{tick:g}"
        parts.append(line(at, top, at, bottom, "grid"))
        half = text_width(label) / 2
        if at - half > end + 6:
            parts.append(text(at, bottom + 18, label))
            end = at + half
    return parts


def name_above(name: str, size: Size, top: float) -> tuple[list[str], float]:
    """The whole name of a strip from `top` on, in as many lines as it takes, and where they end."""
    lines = textwrap.wrap(name, int(size.width / text_width("m")))
    parts = [text(4, top + _LINE * number - 3, words, "start") for number, words in enumerate(lines, 1)]
    return parts, top + _LINE * len(lines)


def legend(entries: Sequence[LegendEntry], size: Size, top: float) -> tuple[list[str], float]:
    """The entries, as many in a line as there is room for, and the y below the last line."""
    parts: list[str] = []
    left, height = 10.0, top
    for entry in entries:
        width = text_width(entry.name) + 40
        if left > 10 and left + width > size.width:
            left, height = 10.0, height + _LEGEND_LINE
        parts.append(mark(left + 8, height, entry.shape, entry.css))
        parts.append(text(left + 22, height + 4, entry.name, "start"))
        left += width
    return parts, height + _LEGEND_LINE if entries else top
