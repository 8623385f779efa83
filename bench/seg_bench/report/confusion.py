"""Which class a model takes for which, as a table of HTML with the shares shaded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from seg_bench.report.class_table import classes_of, confusion_of
from seg_bench.report.plotted import PlottedRow

__all__ = ["confusion_tables"]


def confusion_tables(rows: Sequence[PlottedRow]) -> str:
    """A table for each row with a confusion matrix: a line per true class, of which 100 % are all pixels.

    Args:
        rows: as `seg_bench.report.class_table.class_rows`.

    Returns:
        HTML, or "" when no row has one.
    """
    found = [(row.name, list(classes_of(row.record)), confusion_of(row.record)) for row in rows]
    return "\n".join(_table(name, classes, matrix) for name, classes, matrix in found if matrix)


def _table(name: str, classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    headings = "".join(f'<th scope="col" class="numeric">{escape(each)}</th>' for each in classes)
    lines = "\n".join(_line(each, counts) for each, counts in zip(classes, matrix, strict=True))
    return (
        f'<div class="scroll">\n<table class="confusion">\n<caption>{escape(name)}</caption>\n'
        f'<thead><tr><th scope="col">true class</th><th scope="col" class="numeric">pixels</th>{headings}'
        f"</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>\n</div>"
    )


def _line(name: str, counts: Sequence[int]) -> str:
    pixels = sum(counts)
    cells = "".join(_cell(count, pixels) for count in counts)
    return f'<tr><th scope="row">{escape(name)}</th><td class="numeric">{pixels:,}</td>{cells}</tr>'


def _cell(count: int, pixels: int) -> str:
    if not pixels:
        return '<td class="numeric">-</td>'
    share = count / pixels
    attributes = f'class="numeric" style="--share: {share:.3f}" title="{count:,} pixels"'
    return f"<td {attributes}>{escape(_percent(count, share))}</td>"


def _percent(count: int, share: float) -> str:
    """Two shares that are not the same never look like all or nothing."""
    text = f"{100 * share:.1f}"
    if count and text == "0.0":
        return "< 0.1 %"
    return "> 99.9 %" if share < 1 and text == "100.0" else f"{text} %"
