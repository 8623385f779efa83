"""Accuracy of each class, where records have it: a row per class, and columns for each model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from seg_bench.data.class_names import BACKGROUND
from seg_bench.records import ClassAccuracy, Record, Run
from seg_bench.report.cells import ABSENT, PAGES, Cell, Column, Table, number_cell
from seg_bench.report.grouping import by_data, by_device
from seg_bench.report.names import hd95_of, hd95_title, is_baseline
from seg_bench.report.plotted import PlottedRow, plotted_rows

__all__ = [
    "class_images",
    "class_names",
    "class_rows",
    "class_table",
    "class_tables",
    "classes_of",
    "confusion_of",
    "mean_dice",
]

_MEAN = "mean"
_MEAN_OF_OTHERS = "mean, background left out"


def classes_of(record: Record) -> dict[str, ClassAccuracy]:
    """By name; empty for a record without classes."""
    found = record.accuracy.classes if record.accuracy else None
    return {each.name: each for each in found or ()}


def confusion_of(record: Record) -> list[list[int]] | None:
    """Pixels by true (row) and given (column) class; None in records of earlier releases."""
    found = record.accuracy.confusion if record.accuracy else None
    return [list(row) for row in found] if found else None


def mean_dice(record: Record) -> float | None:
    """Of the classes that occur, without the background; None for a record without classes."""
    return _mean(record, "dice")


def class_rows(runs: Sequence[Run]) -> list[PlottedRow]:
    """The rows that have classes, deployed ones first; of a model's rows with the same figures only one.

    Their names are those of their models; where a model has several rows, with the place, and where that is
    the same too, with the date.
    """
    dates = [run.started_utc[:16].replace("T", " ") for run in runs for _ in run.records]
    rows = plotted_rows([record for run in runs for record in run.records])
    pairs = [pair for pair in zip(rows, dates, strict=True) if classes_of(pair[0].record)]
    distinct: dict[tuple[str, ...], tuple[PlottedRow, str]] = {}
    for row, date in sorted(pairs, key=_preference):
        distinct.setdefault((row.record.model.name, *_figures(row.record)), (row, date))
    names: list[str] = []
    for name_of in _NAMINGS:
        names = [name_of(row, date) for row, date in distinct.values()]
        if len(set(names)) == len(names):
            break
    return [replace(row, name=name) for (row, _), name in zip(distinct.values(), names, strict=True)]


def _preference(pair: tuple[PlottedRow, str]) -> tuple[bool, bool]:
    """Of equal rows a deployed one is shown, and one of this release."""
    record = pair[0].record
    return is_baseline(record), confusion_of(record) is None


def class_names(rows: Sequence[PlottedRow]) -> list[str]:
    """The classes that any row has, in their order."""
    return list(dict.fromkeys(name for row in rows for name in classes_of(row.record)))


def class_images(rows: Sequence[PlottedRow], name: str) -> str:
    """How many images have a class in their ground truth: "5", or "2 to 5" where rows differ in that."""
    counts = {found[name].images for row in rows if name in (found := classes_of(row.record))}
    return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{min(counts)}"


def class_table(runs: Sequence[Run]) -> Table | None:
    """Dice, IoU and HD95 of every class and their means, or None when no record has classes.

    Args:
        runs: of one device and data set.
    """
    rows = class_rows(runs)
    if not rows:
        return None
    columns = [Column("class", "class", numeric=False), Column("images", "images")]
    columns += [Column(f"dice_{number}", f"{row.name} Dice") for number, row in enumerate(rows)]
    columns += [Column(f"iou_{number}", f"{row.name} IoU", shown=PAGES) for number, row in enumerate(rows)]
    for number, row in enumerate(rows):
        definition, unit = hd95_of(row.record)
        title = f"{row.name} {hd95_title(definition)}"
        columns.append(Column(f"hd95_{number}", title, unit, shown=PAGES))
    names = class_names(rows)
    # What is wrong with a row of the table of records is said there.
    about = replace(rows[0].record, failure=None, noise=None)
    title = _MEAN_OF_OTHERS if BACKGROUND in names else _MEAN
    cells = (*(_cells(rows, name) for name in names), _mean_cells(rows, title))
    return Table(tuple(columns), cells, (about,) * len(cells))


def class_tables(runs: Sequence[Run]) -> list[tuple[str, Table]]:
    """A table for each data set that has classes, and each device of several, with its name."""
    devices = by_device(runs)
    groups = [
        (f"{data}, {device}" if len(devices) > 1 else data, class_table(measured))
        for device, its in devices.items()
        for data, measured in by_data(its).items()
    ]
    return [(name, table) for name, table in groups if table]


def _cells(rows: Sequence[PlottedRow], name: str) -> tuple[Cell, ...]:
    found = [classes_of(row.record).get(name) for row in rows]
    images = class_images(rows, name)
    return (
        Cell(name),
        Cell(images, float(images) if images.isdecimal() else None),
        *(_score(each.dice if each else None) for each in found),
        *(_score(each.iou if each else None) for each in found),
        *(_distance(each) for each in found),
    )


def _mean_cells(rows: Sequence[PlottedRow], title: str) -> tuple[Cell, ...]:
    records = [row.record for row in rows]
    return (
        Cell(title),
        Cell(ABSENT),
        *(_score(_mean(record, "dice")) for record in records),
        *(_score(_mean(record, "iou")) for record in records),
        *(number_cell(_mean(record, "hd95"), ".2f") for record in records),
    )


def _mean(record: Record, pick: str) -> float | None:
    values = [getattr(each, pick) for name, each in classes_of(record).items() if name != BACKGROUND]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _distance(found: ClassAccuracy | None) -> Cell:
    if found is None or found.hd95 is None:
        return Cell(ABSENT)
    text = f"{found.hd95:.2f}"
    return Cell(f"{text} ({found.hd95_infinite} infinite)" if found.hd95_infinite else text, found.hd95)


def _score(value: float | None) -> Cell:
    return number_cell(value, ".4f")


def _figures(record: Record) -> list[str]:
    """All that a table shows of a row."""
    figures = (
        f"{each.name} {_score(each.dice).text} {_score(each.iou).text} {_distance(each).text} {each.images}"
        for each in classes_of(record).values()
    )
    return [*hd95_of(record), *figures]


_NAMINGS: tuple[Callable[[PlottedRow, str], str], ...] = (
    lambda row, date: row.record.model.name,
    lambda row, date: row.name,
    lambda row, date: f"{row.name}, {date}",
)
