"""Dice against latency as inline SVG, with the Pareto front: the rows that no other row beats in both."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

from seg_bench.article import ArticleFigures, article_figures
from seg_bench.report.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, LegendEntry, frame, legend
from seg_bench.report.names import is_baseline
from seg_bench.report.plotted import PlottedRow
from seg_bench.report.svg import Axis, line, linear_axis, log_axis, mark, path, svg, text

__all__ = ["dice_against_latency", "pareto_front"]

_GREY, _HOLLOW = "dominated", "hollow"
_DIAMOND = 3
_CROWDED = 18.0
"""Pixels between marks below which their labels are written above each other."""


@dataclass(frozen=True)
class _Point:
    row: PlottedRow
    dice: float
    low: float
    high: float
    p50_ms: float
    on_front: bool = False

    @property
    def css(self) -> str:
        return self.row.css if self.on_front else _GREY


def dice_against_latency(rows: Sequence[PlottedRow]) -> str:
    """Dice (with its bootstrap interval) over median latency; the article's points are hollow.

    Rows on the Pareto front of their data set have colours and a line through them; the others, and the
    baselines, which nobody deploys, are grey.

    Returns:
        An SVG element, or "" when no trained model has both figures.
    """
    points = _points(rows)
    if not points:
        return ""
    families = dict.fromkeys(point.row.record.model.family for point in points)
    article = [figures for family in families if (figures := article_figures(family))]
    milliseconds = [point.p50_ms for point in points] + [figures.inference_ms for figures in article]
    dice = [value for point in points for value in (point.low, point.high)]
    x = log_axis(milliseconds, LEFT, WIDTH - RIGHT)
    y = linear_axis(dice + [figures.dice for figures in article], HEIGHT - BOTTOM, TOP, highest=1.0)
    parts = frame(x, y, "median latency of one call (ms)", "Dice")
    for data in dict.fromkeys(point.row.data for point in points):
        parts += _front_line([point for point in points if point.on_front and point.row.data == data], x, y)
    # The front is drawn last, so that no grey mark hides it.
    parts += [part for point in sorted(points, key=lambda it: it.on_front) for part in _mark(point, x, y)]
    parts += [_article(figures, x, y) for figures in article]
    spots = [(point.p50_ms, point.dice, str(point.row.number)) for point in points]
    letters = dict(zip(string.ascii_uppercase, article, strict=False))
    spots += [(figures.inference_ms, figures.dice, letter) for letter, figures in letters.items()]
    parts += _labels([(x.pixel(ms), y.pixel(dice), label) for ms, dice, label in spots])
    entries = [LegendEntry(str(it.row.number), it.row.name, it.css, it.row.shape) for it in points]
    entries += [
        LegendEntry(letter, f"article: {figures.model}", _HOLLOW, _DIAMOND)
        for letter, figures in letters.items()
    ]
    explained, height = legend(entries, HEIGHT + 8)
    return svg(WIDTH, height, "Dice against median latency", parts + explained)


def pareto_front(figures: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of these (latency, Dice) pairs no other one beats: as fast and as good, and better in one."""
    return [
        not any(
            ms <= own_ms and dice >= own_dice and (ms, dice) != (own_ms, own_dice) for ms, dice in figures
        )
        for own_ms, own_dice in figures
    ]


def _points(rows: Sequence[PlottedRow]) -> list[_Point]:
    points = []
    for row in rows:
        record = row.record
        if record.accuracy is None or record.latency is None or record.model.weights == "random":
            continue
        dice = record.accuracy.dice_summary
        if dice.mean is not None and dice.ci_low is not None and dice.ci_high is not None:
            p50_ms = record.latency.percentile(50)
            points.append(_Point(row, dice.mean, dice.ci_low, dice.ci_high, p50_ms))
    return [replace(point, on_front=_on_front(point, points)) for point in points]


def _on_front(point: _Point, points: Sequence[_Point]) -> bool:
    """Whether no other row of the same images that can be deployed beats it."""
    if is_baseline(point.row.record):
        return False
    rivals = [it for it in points if it.row.data == point.row.data and not is_baseline(it.row.record)]
    figures = [(rival.p50_ms, rival.dice) for rival in rivals]
    return pareto_front(figures)[figures.index((point.p50_ms, point.dice))]


def _front_line(front: Sequence[_Point], x: Axis, y: Axis) -> list[str]:
    """Steps: until the next point is fast enough, the one before is the best there is."""
    corners = sorted({(x.pixel(point.p50_ms), y.pixel(point.dice)) for point in front})
    if not corners:
        return []
    start = f"M{corners[0][0]:.1f},{corners[0][1]:.1f}"
    steps = "".join(f"H{at:.1f}V{height:.1f}" for at, height in corners[1:])
    return [path(f"{start}{steps}H{x.end:.1f}", "front")]


def _mark(point: _Point, x: Axis, y: Axis) -> list[str]:
    at = x.pixel(point.p50_ms)
    tip = (
        f"{point.row.number}: {point.row.name}, {point.row.record.model.precision}: "
        f"Dice {point.dice:.4f} [{point.low:.4f}, {point.high:.4f}], p50 {point.p50_ms:.1f} ms"
    )
    return [
        line(at, y.pixel(point.low), at, y.pixel(point.high), f"{point.css} interval"),
        mark(at, y.pixel(point.dice), point.row.shape, point.css, title=tip),
    ]


def _labels(spots: Sequence[tuple[float, float, str]]) -> list[str]:
    """A label above each mark (x, y, label); those of marks that touch stand above each other."""
    parts: list[str] = []
    placed: list[tuple[float, float]] = []
    for at, mark_height, label in sorted(spots):
        height = mark_height - 11
        while any(abs(at - other) < _CROWDED and abs(height - above) < 12 for other, above in placed):
            height -= 12
        placed.append((at, height))
        parts.append(text(at, height, label, css="label quiet-label"))
    return parts


def _article(figures: ArticleFigures, x: Axis, y: Axis) -> str:
    tip = f"article: {figures.model}, Dice {figures.dice:g}, {figures.inference_ms:g} ms"
    return mark(x.pixel(figures.inference_ms), y.pixel(figures.dice), _DIAMOND, _HOLLOW, title=tip)
