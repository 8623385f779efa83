"""Axes and marks for the small inline SVG plots of the HTML page; colours are CSS classes of the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "line", "log_axis", "mark", "path", "score_axis", "svg", "text", "text_width"]

_CHARACTER = 7.5
"""Pixels that a character of the page's font takes, at most on average."""
_FEW_TICKS = 12
"""Ratio of the ends of a logarithmic axis up to which 1, 2 and 5 times the powers of ten are too few."""


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels.

    Attributes:
        low, high: the values at the two ends.
        start, end: the pixels of the two ends; start > end for a vertical axis.
        ticks: values to label.
        logarithmic: equal distances are equal ratios.
        below: of a logarithmic axis: what values are subtracted from, so that ratios of what they lack to it
            are equal distances; None for ratios of the values themselves.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False
    below: float | None = None

    def pixel(self, value: float) -> float:
        """Where a value lies, in pixels; what a logarithmic axis cannot show is at its end."""
        value = min(max(value, self.low), self.high) if self.logarithmic else value
        low, at, high = map(self._bent, (self.low, value, self.high))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def _bent(self, value: float) -> float:
        if not self.logarithmic:
            return value
        return math.log10(value) if self.below is None else -math.log10(self.below - value)


def score_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis for scores up to 1 that tells good ones apart: equal distances are equal ratios of errors."""
    errors = [max(1 - value, 1e-4) for value in values]
    low, high = 1 - max(errors) * 1.15, 1 - min(errors) / 1.15
    steps = (1, 1.5, 2, 3, 4, 5, 7)
    ticks = sorted(1 - step * 10.0**power for power in range(-5, 1) for step in steps)
    shown = tuple(round(tick, 9) for tick in ticks if low <= tick <= high)
    return Axis(low, high, start, end, shown, logarithmic=True, below=1.0)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic axis with ticks at round numbers; what is not positive is at its start."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / 1.3, max(positive) * 1.3
    steps = (1, 2, 5) if high / low > _FEW_TICKS else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [round(factor * 10.0**power, 9) for power in powers for factor in steps]
    return Axis(low, high, start, end, tuple(tick for tick in ticks if low <= tick <= high), logarithmic=True)


def text(x: float, y: float, words: str, anchor: str = "middle", css: str = "label", title: str = "") -> str:
    """A text element, escaped; `y` is its baseline, `title` a tooltip."""
    tip = f"<title>{html.escape(title)}</title>" if title else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}"'
    return f"<text {place}>{tip}{html.escape(words)}</text>"


def text_width(words: str) -> float:
    """Pixels that a text of the size of labels takes, about."""
    return _CHARACTER * len(words)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def path(steps: str, css: str, title: str = "") -> str:
    """A path of SVG's own path commands, with a tooltip; "" without steps."""
    tip = f"<title>{html.escape(title)}</title>" if title else ""
    return f'<path d="{steps}" class="{css}">{tip}</path>' if steps else ""


def mark(x: float, y: float, shape: int, css: str, *, title: str = "", radius: float = 6) -> str:
    """A circle, square, triangle, diamond or triangle on its tip (shape 0 to 4) at (x, y), with a tooltip."""
    tip = f"<title>{html.escape(title)}</title>" if title else ""
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{css}">{tip}</circle>'
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
        3: ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        4: ((0, 1.2), (1.1, -0.9), (-1.1, -0.9)),
    }[shape]
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" class="{css}">{tip}</polygon>'


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """The whole picture; `label` is read out by screen readers."""
    body = "\n".join(parts)
    name = html.escape(label, quote=True)
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{name}">\n{body}\n</svg>'
