"""Dice against latency as inline SVG, with the Pareto front: the rows that no other row beats in both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby

from seg_bench.report.frame import TOP, LegendEntry, Size, frame, legend
from seg_bench.report.names import baseline_name, is_baseline, place_of
from seg_bench.report.plotted import PlottedRow
from seg_bench.report.svg import Axis, line, log_axis, mark, path, score_axis, svg, text, text_width

__all__ = ["dice_against_latency", "pareto_front"]

_GREY = "dominated"
_RADIUS = 6.0
_LABEL_HEIGHT = 13.0
_GAP = 10.0
"""Pixels between a mark and its label."""
_FARTHEST = 5
"""Lines away from its mark that a label is taken for the mark's."""


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


@dataclass(frozen=True)
class _Box:
    """A rectangle that something is drawn in."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: _Box) -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


def dice_against_latency(rows: Sequence[PlottedRow], size: Size) -> str:
    """Dice (with its bootstrap interval) over median latency.

    Rows on the Pareto front have colours and a line through them; the others, and the baselines, which
    nobody deploys, are grey. The rows of a model are joined by a line and share a label.

    Args:
        rows: of one data set.
        size: of the picture.

    Returns:
        An SVG element, or "" when no trained model has both figures.
    """
    points = _points(rows)
    if not points:
        return ""
    x = log_axis([point.p50_ms for point in points], size.left, size.end)
    dice = [value for it in points for value in ((it.low, it.high) if it.on_front else (it.dice,))]
    y = score_axis(dice, size.height - size.bottom, TOP)
    models = _by_model(points)
    parts = frame(size, x, y, "median latency of one call (ms)", "Dice")
    parts += _front_line([point for point in points if point.on_front], x, y)
    parts += [_join(model, x, y) for model in models if len(model) > 1]
    # The front is drawn last, so that no grey mark hides it.
    parts += [part for point in sorted(points, key=lambda it: it.on_front) for part in _mark(point, x, y)]
    parts += _labels(models, x, y)
    explained, height = legend(_shapes(points), size, size.height + 8)
    return svg(size.width, height, "Dice against median latency", parts + explained)


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
    """Whether no other row that can be deployed beats it."""
    if is_baseline(point.row.record):
        return False
    figures = [(rival.p50_ms, rival.dice) for rival in points if not is_baseline(rival.row.record)]
    return pareto_front(figures)[figures.index((point.p50_ms, point.dice))]


def _by_model(points: Iterable[_Point]) -> list[list[_Point]]:
    """The points of each model, the fastest first."""

    def name(point: _Point) -> str:
        return point.row.record.model.name

    ordered = sorted(points, key=lambda point: (name(point), point.p50_ms))
    return [list(group) for _, group in groupby(ordered, name)]


def _front_line(front: Sequence[_Point], x: Axis, y: Axis) -> list[str]:
    """Steps: until the next point is fast enough, the one before is the best there is."""
    corners = sorted({(x.pixel(point.p50_ms), y.pixel(point.dice)) for point in front})
    if not corners:
        return []
    start = f"M{corners[0][0]:.1f},{corners[0][1]:.1f}"
    steps = "".join(f"H{at:.1f}V{height:.1f}" for at, height in corners[1:])
    return [path(f"{start}{steps}H{x.end:.1f}", "front")]


def _join(model: Sequence[_Point], x: Axis, y: Axis) -> str:
    spots = (f"{x.pixel(point.p50_ms):.1f},{y.pixel(point.dice):.1f}" for point in model)
    return path("M" + " ".join(spots), "join")


def _mark(point: _Point, x: Axis, y: Axis) -> list[str]:
    at = x.pixel(point.p50_ms)
    tip = (
        f"{point.row.name}, {point.row.record.model.precision}: "
        f"Dice {point.dice:.4f} [{point.low:.4f}, {point.high:.4f}], p50 {point.p50_ms:.1f} ms"
    )
    marked = mark(at, y.pixel(point.dice), point.row.shape, point.css, title=tip, radius=_RADIUS)
    if not point.on_front:
        return [marked]
    return [line(at, y.pixel(point.low), at, y.pixel(point.high), f"{point.css} interval"), marked]


def _labels(models: Iterable[Sequence[_Point]], x: Axis, y: Axis) -> list[str]:
    """Each model's name at its best mark, where it hides no mark and no other name; none without room."""
    ordered = sorted(models, key=lambda model: not any(point.on_front for point in model))
    taken = [_around(x.pixel(it.p50_ms), y.pixel(it.dice)) for it in chain.from_iterable(ordered)]
    area = _Box(x.start, y.end - TOP, x.end, y.start)
    parts = []
    for model in ordered:
        point = next((point for point in model if point.on_front), model[0])
        words = point.row.record.model.name
        for box in _places(x.pixel(point.p50_ms), y.pixel(point.dice), text_width(words)):
            if box.within(area) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                parts.append(text(box.left, box.bottom - 3, words, "start", f"label {point.css}-label"))
                break
    return parts


def _places(at: float, height: float, width: float) -> Iterator[_Box]:
    """Where a name may stand, the nearest first: right or left of the mark, above or below, then farther."""
    for step in range(_FARTHEST):
        for side in (1, -1) if step else (0,):
            top = height - _LABEL_HEIGHT / 2 - side * step * _LABEL_HEIGHT
            for left in (at + _GAP, at - _GAP - width, *([at - width / 2] if step else ())):
                yield _Box(left, top, left + width, top + _LABEL_HEIGHT)


def _around(at: float, height: float) -> _Box:
    return _Box(at - _RADIUS, height - _RADIUS, at + _RADIUS, height + _RADIUS)


def _shapes(points: Iterable[_Point]) -> list[LegendEntry]:
    """What the marks stand for; empty where all are alike."""
    shapes: dict[str, int] = {}
    for point in points:
        record = point.row.record
        shapes.setdefault(baseline_name(record) if is_baseline(record) else place_of(record), point.row.shape)
    return [LegendEntry(name, _GREY, shape) for name, shape in shapes.items()] if len(shapes) > 1 else []
