"""The plots of the HTML page, as inline SVG: Dice against latency, and every latency sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seg_bench.article import article_figures
from seg_bench.candidate import BASELINES
from seg_bench.records import Latency, Record
from seg_bench.report.svg import Axis, linear_axis, log_axis, mark, svg, text
from seg_bench.report.table import PLACES, engines_differ, row_name

__all__ = ["dice_against_latency", "latency_samples"]

_WIDTH, _HEIGHT = 760.0, 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 20.0, 16.0, 50.0
_SHAPES = {place: number for number, place in enumerate(PLACES)}
_COLOURS = 6
_STRIP = 34.0
_NAMES_WIDTH = 300.0


@dataclass(frozen=True)
class _Point:
    record: Record
    name: str
    dice: float
    low: float
    high: float
    latency: Latency
    css: str

    @property
    def p50_ms(self) -> float:
        return self.latency.percentile(50)


def dice_against_latency(records: Sequence[Record]) -> str:
    """Dice (with its bootstrap interval) over median latency; the article's points are hollow.

    Returns:
        An SVG element, or "" when no trained model has both figures.
    """
    points = [point for row in _named_and_coloured(records) if (point := _point(*row))]
    if not points:
        return ""
    families = dict.fromkeys(point.record.model.family for point in points)
    article = [figures for family in families if (figures := article_figures(family))]
    milliseconds = [point.p50_ms for point in points] + [figures.inference_ms for figures in article]
    dice = [value for point in points for value in (point.low, point.high)]
    x = log_axis(milliseconds, _LEFT, _WIDTH - _RIGHT)
    y = linear_axis(dice + [figures.dice for figures in article], _HEIGHT - _BOTTOM, _TOP, highest=1.0)
    parts = [*_frame(x, y), *(part for point in points for part in _dice_mark(point, x, y))]
    for figures in article:
        at_x, at_y = x.pixel(figures.inference_ms), y.pixel(figures.dice)
        parts.append(
            mark(at_x, at_y, 3, "hollow", title=f"article: {figures.model}, {figures.inference_ms:g} ms")
        )
        parts.append(text(at_x + 12, at_y + 4, f"article: {figures.model}", "start"))
    legend, height = _legend(points, _HEIGHT + 8)
    return svg(_WIDTH, height, "Dice against median latency", parts + legend)


def latency_samples(records: Sequence[Record]) -> str:
    """Every timed call of every row as a dot, its median as a line: shows tails and noise.

    Returns:
        An SVG element, or "" when nothing was timed.
    """
    rows = _named_and_coloured(records)
    timed = [(name, record.latency, css) for record, name, css in rows if record.latency]
    if not timed:
        return ""
    bottom = _TOP + _STRIP * len(timed)
    milliseconds = [value for _, latency, _ in timed for value in latency.total]
    x = log_axis(milliseconds, _NAMES_WIDTH, _WIDTH - _RIGHT)
    parts = _vertical_lines(x, _TOP, bottom)
    parts.append(text((x.start + x.end) / 2, bottom + 38, "latency of one call (ms)"))
    for row, (name, latency, css) in enumerate(timed):
        middle = _TOP + _STRIP * (row + 0.5)
        parts.append(text(_NAMES_WIDTH - 12, middle + 4, name, "end"))
        parts += [
            mark(x.pixel(value), middle, 0, f"{css} faint", title=f"{value:.2f} ms", radius=4)
            for value in latency.total
        ]
        median = x.pixel(latency.percentile(50))
        top, end = middle - _STRIP * 0.36, middle + _STRIP * 0.36
        parts.append(
            f'<line x1="{median:.1f}" x2="{median:.1f}" y1="{top:.1f}" y2="{end:.1f}" class="median"/>'
        )
    return svg(_WIDTH, bottom + _BOTTOM, "Latency of every timed call", parts)


def _point(record: Record, name: str, css: str) -> _Point | None:
    if record.accuracy is None or record.latency is None or record.model.weights == "random":
        return None
    dice = record.accuracy.dice_summary
    if dice.mean is None or dice.ci_low is None or dice.ci_high is None:
        return None
    return _Point(record, name, dice.mean, dice.ci_low, dice.ci_high, record.latency, css)


def _named_and_coloured(records: Sequence[Record]) -> list[tuple[Record, str, str]]:
    """Rows with their names, and a colour for each model, baseline and, where they differ, engine."""
    differ = engines_differ(records)
    keys = [_colour_key(record, differ) for record in records]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [
        (record, row_name(record, differ), f"colour{numbers[key] % _COLOURS}")
        for record, key in zip(records, keys, strict=True)
    ]


def _colour_key(record: Record, differ: bool) -> tuple[str, str | None]:
    if record.runtime in BASELINES:
        return record.model.name, record.runtime
    return record.model.name, record.settings.engine if differ else None


def _vertical_lines(x: Axis, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in x.ticks:
        at = x.pixel(tick)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" class="grid"/>')
        parts.append(text(at, bottom + 18, f"{tick:g}"))
    return parts


def _frame(x: Axis, y: Axis) -> list[str]:
    parts = _vertical_lines(x, y.end, y.start)
    for tick in y.ticks:
        at = y.pixel(tick)
        parts.append(f'<line x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
        parts.append(text(x.start - 8, at + 4, f"{tick:.4g}", "end"))
    parts.append(text((x.start + x.end) / 2, y.start + 40, "median latency of one call (ms)"))
    middle = (y.start + y.end) / 2
    parts.append(f'<g transform="rotate(-90 16 {middle:.1f})">{text(16, middle, "Dice")}</g>')
    return parts


def _dice_mark(point: _Point, x: Axis, y: Axis) -> list[str]:
    at = x.pixel(point.p50_ms)
    low, high = y.pixel(point.low), y.pixel(point.high)
    tip = (
        f"{point.name}, {point.record.model.precision}: "
        f"Dice {point.dice:.4f} [{point.low:.4f}, {point.high:.4f}], p50 {point.p50_ms:.1f} ms"
    )
    return [
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}" class="{point.css} interval"/>',
        mark(at, y.pixel(point.dice), _SHAPES.get(point.record.where, 0), point.css, title=tip),
    ]


def _legend(points: Sequence[_Point], top: float) -> tuple[list[str], float]:
    """Two entries per line, and the y below the last one."""
    parts, height = [], top
    for number, point in enumerate(points):
        left = _LEFT + (number % 2) * 340
        height = top + (number // 2) * 22
        parts.append(mark(left, height, _SHAPES.get(point.record.where, 0), point.css))
        parts.append(text(left + 14, height + 4, point.name, "start"))
    return parts, height + 16
