"""Plots with one strip per row, its name above it: the latencies of all calls, and energy per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seg_bench.percentiles import percentile_of
from seg_bench.report.frame import TOP, Size, name_above, vertical_lines
from seg_bench.report.plotted import PlottedRow
from seg_bench.report.svg import Axis, line, log_axis, mark, path, svg, text, text_width

__all__ = ["energy_bars", "latency_samples"]

_STRIP = 26.0
_MOST_DOTS = 100
"""Calls of a row up to which each is a dot; the distribution of more is an outline."""
_BINS = 60


def latency_samples(rows: Sequence[PlottedRow], size: Size) -> str:
    """The distribution of every row's calls: dots, or an outline of many; p50 as a line, p99 as a short one.

    Returns:
        An SVG element, or "" when nothing was timed.
    """
    timed = [(row, row.record.latency.total) for row in rows if row.record.latency]
    if not timed:
        return ""
    ends = [end for _, samples in timed for end in (min(samples), max(samples))]
    x = log_axis(ends, 8.0, size.end)
    parts, top = [], TOP
    for row, samples in timed:
        name, top = name_above(row.name, size, top)
        middle = top + _STRIP / 2
        top += _STRIP
        parts += name
        if len(samples) <= _MOST_DOTS:
            css = f"{row.css} faint"
            parts += [
                mark(x.pixel(value), middle, 0, css, title=f"{value:.2f} ms", radius=4) for value in samples
            ]
        else:
            parts.append(_outline(samples, x, middle, row.css))
        parts += _percentile_lines(samples, x, middle)
    parts = vertical_lines(x, TOP, top) + parts
    parts.append(text((x.start + x.end) / 2, top + 38, "latency of one call (ms)"))
    return svg(size.width, top + size.bottom, "Latency of every timed call", parts)


def energy_bars(rows: Sequence[PlottedRow], size: Size) -> str:
    """Joules per image as bars from 0; rows that have no such figure are left out.

    Returns:
        An SVG element, or "" when no row has it.
    """
    measured = [(row, row.record.energy) for row in rows if row.record.energy]
    if not measured:
        return ""
    labels = [f"{energy.joules_per_image:.3g} J ({energy.source})" for _, energy in measured]
    room = size.end - max(map(text_width, labels)) - 16
    most = max(energy.joules_per_image for _, energy in measured) or 1.0
    parts, top = [], TOP
    for (row, energy), label in zip(measured, labels, strict=True):
        name, top = name_above(row.name, size, top)
        length = room * energy.joules_per_image / most
        parts += name
        parts.append(
            f'<rect x="4" y="{top + 4:.1f}" width="{length:.1f}" height="{_STRIP - 10:.1f}" '
            f'class="{row.css}"/>'
        )
        parts.append(text(length + 12, top + _STRIP / 2 + 3, label, "start"))
        top += _STRIP
    return svg(size.width, top + TOP, "Energy per image", parts)


def _outline(samples: Sequence[float], x: Axis, middle: float, css: str) -> str:
    """A histogram on the axis of the plot, mirrored, as high as the strip allows."""
    shown = np.maximum(samples, x.low)
    edges = np.geomspace(shown.min() * 0.999, shown.max() * 1.001, _BINS + 1)
    counts = np.histogram(shown, edges)[0]
    half = np.sqrt(counts / counts.max()) * _STRIP * 0.46  # the root shows the tail's single calls
    pixels = [x.pixel(float(value)) for value in np.sqrt(edges[:-1] * edges[1:])]
    above = [f"{at:.1f},{middle - size:.1f}" for at, size in zip(pixels, half, strict=True)]
    below = [f"{at:.1f},{middle + size:.1f}" for at, size in zip(pixels, half, strict=True)]
    tip = f"{len(samples)} calls, {min(samples):.1f} to {max(samples):.1f} ms"
    return path(f"M{' '.join(above + below[::-1])}Z", f"{css} band", title=tip)


def _percentile_lines(samples: Sequence[float], x: Axis, middle: float) -> list[str]:
    parts = []
    for percent, reach in ((50, 0.46), (99, 0.26)):
        found = percentile_of(samples, percent)
        if found.value is not None:
            at = x.pixel(found.value)
            parts.append(line(at, middle - _STRIP * reach, at, middle + _STRIP * reach, "median"))
    return parts
