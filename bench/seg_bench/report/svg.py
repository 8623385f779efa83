"""Axes and marks for the small inline SVG plots of the HTML page; colours are CSS classes of the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "line", "linear_axis", "log_axis", "mark", "path", "svg", "text"]


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels.

    Attributes:
        low, high: the values at the two ends.
        start, end: the pixels of the two ends; start > end for a vertical axis.
        ticks: values to label.
        logarithmic: equal distances are equal ratios.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def pixel(self, value: float) -> float:
        """Where a value lies, in pixels."""
        bend = math.log10 if self.logarithmic else float
        value = max(value, self.low) if self.logarithmic else value
        part = (bend(value) - bend(self.low)) / (bend(self.high) - bend(self.low))
        return self.start + part * (self.end - self.start)


def linear_axis(values: Sequence[float], start: float, end: float, highest: float = math.inf) -> Axis:
    """An axis with room around the values and round ticks, never beyond `highest`."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.12, abs(high) * 0.002, 1e-6)
    low, high = low - room, min(high + room, highest)
    raw = (high - low) / 5
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, start, end, tuple(i * step for i in range(first, last + 1)))


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic axis with ticks at 1, 2 and 5 times the powers of ten; anything else is at its start."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / 1.3, max(positive) * 1.3
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return Axis(low, high, start, end, tuple(tick for tick in ticks if low <= tick <= high), logarithmic=True)


def text(x: float, y: float, words: str, anchor: str = "middle", css: str = "label", title: str = "") -> str:
    """A text element, escaped; `y` is its baseline, `title` a tooltip."""
    tip = f"<title>{html.escape(title)}</title>" if title else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}"'
    return f"<text {place}>{tip}{html.escape(words)}</text>"


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def path(steps: str, css: str, title: str = "") -> str:
    """A path of SVG's own path commands, with a tooltip; "" without steps."""
    tip = f"<title>{html.escape(title)}</title>" if title else ""
    return f'<path d="{steps}" class="{css}">{tip}</path>' if steps else ""


def mark(x: float, y: float, shape: int, css: str, *, title: str = "", radius: float = 6) -> str:
    """A circle, square, triangle or diamond (shape 0 to 3) centred at (x, y), with a tooltip."""
    tip = f"<title>{html.escape(title)}</title>" if title else ""
    if shape % 4 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{css}">{tip}</circle>'
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
        3: ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    }[shape % 4]
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" class="{css}">{tip}</polygon>'


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """The whole picture; `label` is read out by screen readers."""
    body = "\n".join(parts)
    name = html.escape(label, quote=True)
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{name}">\n{body}\n</svg>'
