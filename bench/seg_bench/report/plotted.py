"""The rows of a report as the plots show them: a name, a number, a colour and a shape each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seg_bench.records import Record, Run
from seg_bench.report.names import PLACES, data_of, engines_differ, is_baseline, row_name

__all__ = ["PlottedRow", "plotted_rows"]

_SHAPES = {place: number for number, place in enumerate(PLACES)}
_COLOURS = 6


@dataclass(frozen=True)
class PlottedRow:
    """One record in a plot.

    Attributes:
        number: from 1 on, in the order of the table.
        name: what tells it apart.
        css: class of its colour: one for each model, baseline and, where they differ, engine.
        data: the images it was measured on.
        shape: of its mark, see `seg_bench.report.svg.mark`: one for each place.
    """

    record: Record
    number: int
    name: str
    css: str
    shape: int
    data: str


def plotted_rows(runs: Sequence[Run]) -> list[PlottedRow]:
    """All records of all runs; the machine and the data set are in the names where there are several."""
    pairs = [(run, record) for run in runs for record in run.records]
    differ = engines_differ(record for _, record in pairs)
    data_sets = len({data_of(record) for _, record in pairs}) > 1
    machines = len({run.machine.cpu for run in runs}) > 1
    keys = [_colour_key(record, differ) for _, record in pairs]
    colours = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [
        PlottedRow(
            record=record,
            number=number,
            name=row_name(record, differ)
            + (f", {record.data.name}" if data_sets else "")
            + (f" ({run.machine.cpu})" if machines else ""),
            css=f"colour{colours[key] % _COLOURS}",
            shape=_SHAPES.get(record.where, 0),
            data=data_of(record),
        )
        for number, ((run, record), key) in enumerate(zip(pairs, keys, strict=True), 1)
    ]


def _colour_key(record: Record, differ: bool) -> tuple[str, str | None]:
    if is_baseline(record):
        return record.model.name, record.runtime
    return record.model.name, record.settings.engine if differ else None
