"""Latency against throughput under growing load, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.percentiles import percentile_of
from seg_bench.report.frame import TOP, LegendEntry, Size, frame, legend
from seg_bench.report.plotted import PlottedRow
from seg_bench.report.svg import log_axis, mark, path, svg
from seg_bench.report.table import load_name

__all__ = ["load_curves"]

_Level = tuple[str, float, float, float | None]
"""Its name, images per second, p50 and p99 in milliseconds (None where there are too few calls)."""


def load_curves(rows: Sequence[PlottedRow], size: Size) -> str:
    """One line per row through its levels of load, p50 solid and p99 dashed.

    Returns:
        An SVG element, or "" when nothing was measured under load.
    """
    curves = [(row, levels) for row in rows if (levels := _levels(row))]
    if not curves:
        return ""
    every = [level for _, levels in curves for level in levels]
    heights = [height for _, _, p50, p99 in every for height in (p50, p99) if height is not None]
    x = log_axis([images for _, images, _, _ in every], size.left, size.end)
    y = log_axis(heights, size.height - size.bottom, TOP)
    parts = frame(size, x, y, "images per second", "latency under load (ms)")
    for row, levels in curves:
        p50 = [(x.pixel(images), y.pixel(height)) for _, images, height, _ in levels]
        p99 = [(x.pixel(images), y.pixel(height)) for _, images, _, height in levels if height is not None]
        parts += [path(_through(p50), f"{row.css} curve"), path(_through(p99), f"{row.css} curve tail")]
        for (name, images, median, _), (at, height) in zip(levels, p50, strict=True):
            tip = f"{row.name}, {name}: {images:.1f} images/s, p50 {median:.1f} ms"
            parts.append(mark(at, height, row.shape, row.css, title=tip, radius=5))
    named = [LegendEntry(row.name, row.css, row.shape) for row, _ in curves]
    entries, bottom = legend(named, size, size.height + 8)
    return svg(size.width, bottom, "Latency against throughput under load", parts + entries)


def _levels(row: PlottedRow) -> list[_Level]:
    """Levels at which anything was answered, in the order they were measured."""
    return [
        (
            load_name(point),
            point.images_per_s,
            float(percentile_of(point.latency_ms, 50).value or 0),
            percentile_of(point.latency_ms, 99).value,
        )
        for point in row.record.loads or ()
        if point.latency_ms and point.images_per_s > 0
    ]


def _through(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " ".join(f"{at:.1f},{height:.1f}" for at, height in points) if points else ""
