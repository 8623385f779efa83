"""The rows of a report as the plots show them: a name, a colour and a shape each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seg_bench.records import Record
from seg_bench.report.names import PLACES, engines_differ, is_baseline, row_name

__all__ = ["PlottedRow", "plotted_rows"]

_SHAPES = {place: number for number, place in enumerate(PLACES)}
_BASELINE_SHAPE = len(PLACES)
_COLOURS = 6


@dataclass(frozen=True)
class PlottedRow:
    """One record in a plot.

    Attributes:
        name: what tells it apart from the others.
        css: class of its colour: one for each model.
        shape: of its mark, see `seg_bench.report.svg.mark`: one for each place, and for baselines.
    """

    record: Record
    name: str
    css: str
    shape: int


def plotted_rows(records: Sequence[Record]) -> list[PlottedRow]:
    """Records of one device and data set."""
    differ = engines_differ(records)
    colours = {name: number for number, name in enumerate(dict.fromkeys(it.model.name for it in records))}
    return [
        PlottedRow(
            record=record,
            name=row_name(record, differ),
            css=f"colour{colours[record.model.name] % _COLOURS}",
            shape=_BASELINE_SHAPE if is_baseline(record) else _SHAPES.get(record.where, 0),
        )
        for record in records
    ]
