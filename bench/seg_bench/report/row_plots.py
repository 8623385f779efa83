"""Plots with one line per row, as inline SVG: the latencies of all calls, and energy per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seg_bench.percentiles import percentile_of
from seg_bench.report.frame import BOTTOM, NAMES_WIDTH, RIGHT, TOP, WIDTH, row_label, vertical_lines
from seg_bench.report.plotted import PlottedRow
from seg_bench.report.svg import Axis, line, log_axis, mark, path, svg, text

__all__ = ["energy_bars", "latency_samples"]

_STRIP = 34.0
_MOST_DOTS = 100
"""Calls of a row up to which each is a dot; the distribution of more is an outline."""
_BINS = 60


def latency_samples(rows: Sequence[PlottedRow]) -> str:
    """The distribution of every row's calls: dots, or an outline of many; p50 as a line, p99 as a short one.

    Returns:
        An SVG element, or "" when nothing was timed.
    """
    timed = [(row, row.record.latency.total) for row in rows if row.record.latency]
    if not timed:
        return ""
    bottom = TOP + _STRIP * len(timed)
    ends = [end for _, samples in timed for end in (min(samples), max(samples))]
    x = log_axis(ends, NAMES_WIDTH, WIDTH - RIGHT)
    parts = vertical_lines(x, TOP, bottom)
    parts.append(text((x.start + x.end) / 2, bottom + 38, "latency of one call (ms)"))
    for position, (row, samples) in enumerate(timed):
        middle = TOP + _STRIP * (position + 0.5)
        parts += row_label(row, middle)
        if len(samples) <= _MOST_DOTS:
            css = f"{row.css} faint"
            parts += [
                mark(x.pixel(value), middle, 0, css, title=f"{value:.2f} ms", radius=4) for value in samples
            ]
        else:
            parts.append(_outline(samples, x, middle, row.css))
        parts += _percentile_lines(samples, x, middle)
    return svg(WIDTH, bottom + BOTTOM, "Latency of every timed call", parts)


def energy_bars(rows: Sequence[PlottedRow]) -> str:
    """Joules per image as bars from 0; rows that have no such figure are left out.

    Returns:
        An SVG element, or "" when no row has it.
    """
    measured = [(row, row.record.energy) for row in rows if row.record.energy]
    if not measured:
        return ""
    room = WIDTH - RIGHT - NAMES_WIDTH - 110
    most = max(energy.joules_per_image for _, energy in measured) or 1.0
    parts: list[str] = []
    for position, (row, energy) in enumerate(measured):
        top, length = TOP + _STRIP * position, room * energy.joules_per_image / most
        parts += row_label(row, top + _STRIP / 2)
        parts.append(
            f'<rect x="{NAMES_WIDTH:.1f}" y="{top + 6:.1f}" width="{length:.1f}" '
            f'height="{_STRIP - 12:.1f}" class="{row.css}"/>'
        )
        words = f"{energy.joules_per_image:.3g} J ({energy.source})"
        parts.append(text(NAMES_WIDTH + length + 8, top + _STRIP / 2 + 4, words, "start"))
    return svg(WIDTH, TOP * 2 + _STRIP * len(measured), "Energy per image", parts)


def _outline(samples: Sequence[float], x: Axis, middle: float, css: str) -> str:
    """A histogram on the axis of the plot, mirrored, as high as the strip allows."""
    shown = np.maximum(samples, x.low)
    edges = np.geomspace(shown.min() * 0.999, shown.max() * 1.001, _BINS + 1)
    counts = np.histogram(shown, edges)[0]
    half = np.sqrt(counts / counts.max()) * _STRIP * 0.42  # the root shows the tail's single calls
    pixels = [x.pixel(float(value)) for value in np.sqrt(edges[:-1] * edges[1:])]
    above = [f"{at:.1f},{middle - size:.1f}" for at, size in zip(pixels, half, strict=True)]
    below = [f"{at:.1f},{middle + size:.1f}" for at, size in zip(pixels, half, strict=True)]
    tip = f"{len(samples)} calls, {min(samples):.1f} to {max(samples):.1f} ms"
    return path(f"M{' '.join(above + below[::-1])}Z", f"{css} band", title=tip)


def _percentile_lines(samples: Sequence[float], x: Axis, middle: float) -> list[str]:
    parts = []
    for percent, reach in ((50, 0.4), (99, 0.22)):
        found = percentile_of(samples, percent)
        if found.value is not None:
            at = x.pixel(found.value)
            parts.append(line(at, middle - _STRIP * reach, at, middle + _STRIP * reach, "median"))
    return parts
