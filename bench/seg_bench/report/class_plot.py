"""Dice of each class as a strip with one mark per model."""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.report.class_table import class_images, class_names, classes_of
from seg_bench.report.frame import TOP, LegendEntry, Size, legend, name_above, vertical_lines
from seg_bench.report.plotted import PlottedRow
from seg_bench.report.svg import Axis, line, mark, score_axis, svg, text

__all__ = ["class_dots"]

_STRIP = 22.0


def class_dots(rows: Sequence[PlottedRow], size: Size) -> str:
    """A strip for each class, its name above it; a class that no image has is named and has no marks.

    Args:
        rows: as `seg_bench.report.class_table.class_rows`.
        size: of the picture.

    Returns:
        An SVG element, or "" when no row has a Dice of any class.
    """
    scores = [each.dice for row in rows for each in classes_of(row.record).values() if each.dice is not None]
    if not scores:
        return ""
    x = score_axis(scores, 14.0, size.end - 14.0)
    parts, top = [], TOP
    for name in class_names(rows):
        images = class_images(rows, name)
        above, top = name_above(f"{name}: {images} image{'' if images == '1' else 's'}", size, top)
        parts += [*above, *_strip(rows, name, x, top + _STRIP / 2)]
        top += _STRIP
    parts = vertical_lines(x, TOP, top) + parts
    parts.append(text((x.start + x.end) / 2, top + 38, "Dice"))
    models, height = legend([LegendEntry(row.name, row.css, row.shape) for row in rows], size, top + 60)
    return svg(size.width, height, "Dice of each class", parts + models)


def _strip(rows: Sequence[PlottedRow], name: str, x: Axis, middle: float) -> list[str]:
    parts = [line(x.start, middle, x.end, middle, "grid")]
    for row in rows:
        found = classes_of(row.record).get(name)
        if found and found.dice is not None:
            tip = f"{row.name}, {name}: Dice {found.dice:.4f}"
            parts.append(mark(x.pixel(found.dice), middle, row.shape, row.css, title=tip))
    return parts
