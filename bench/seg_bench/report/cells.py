"""What tables are made of, and how figures become text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from seg_bench.metrics.summary import MetricSummary
from seg_bench.percentiles import percentile_of
from seg_bench.records import Record
from seg_runtime.errors import BadInputError

__all__ = [
    "ABSENT",
    "DATA",
    "EVERYWHERE",
    "PAGES",
    "Cell",
    "Column",
    "Table",
    "number_cell",
    "percentile_cell",
    "summary_cell",
]

ABSENT = "-"
EVERYWHERE, PAGES, DATA = 0, 1, 2
"""Where a column is shown: in every form, not in a terminal, or in HTML, JSON and CSV only."""


@dataclass(frozen=True)
class Column:
    """A heading.

    Attributes:
        key: its name in JSON and CSV.
        title, unit: of the heading; the unit is empty for text and pure numbers.
        numeric: aligned right, and a number in JSON and CSV.
        shown: `EVERYWHERE`, `PAGES` or `DATA`.
        interval: whether its cells have a confidence interval, which JSON and CSV then hold as well.
    """

    key: str
    title: str
    unit: str = ""
    numeric: bool = True
    shown: int = EVERYWHERE
    interval: bool = False

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number behind it.

    Attributes:
        text: for people; `short` instead where there is little room, if it is not empty.
        value: None for text and for what was not measured.
        interval: the 95 % confidence interval of the value; an end is None where the samples are too few.
        bound: whether the value is only known to be larger than this.
    """

    text: str
    value: float | None = None
    interval: tuple[float | None, float | None] | None = None
    bound: bool = False
    short: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, and one tuple of cells per row with the record that it is about."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    records: tuple[Record, ...]

    def without(self, left_out: set[str]) -> Table:
        """The table without the columns of these keys."""
        kept = [number for number, column in enumerate(self.columns) if column.key not in left_out]
        rows = tuple(tuple(row[number] for number in kept) for row in self.rows)
        return Table(tuple(self.columns[number] for number in kept), rows, self.records)

    def only(self, keys: Sequence[str]) -> Table:
        """The table with the columns of these keys, in this order.

        Raises:
            BadInputError: a key that no column has.
        """
        numbers = {column.key: number for number, column in enumerate(self.columns)}
        unknown = [key for key in keys if key not in numbers]
        if unknown:
            raise BadInputError(f"no column '{unknown[0]}': choose from {', '.join(numbers)}")
        chosen = [numbers[key] for key in keys]
        rows = tuple(tuple(row[number] for number in chosen) for row in self.rows)
        return Table(tuple(self.columns[number] for number in chosen), rows, self.records)

    def shown_in(self, form: int) -> Table:
        """The columns that a form has room for."""
        return self.without({column.key for column in self.columns if column.shown > form})

    def decisive_first(self) -> Table:
        """The table with the columns that every form has before those that only some have."""
        order = sorted(range(len(self.columns)), key=lambda number: self.columns[number].shown)
        rows = tuple(tuple(row[number] for number in order) for row in self.rows)
        return Table(tuple(self.columns[number] for number in order), rows, self.records)

    def empty_columns(self) -> set[str]:
        """Keys of the columns that hold nothing in any row."""
        empty = [all(row[number].text == ABSENT for row in self.rows) for number in range(len(self.columns))]
        return {column.key for column, nothing in zip(self.columns, empty, strict=True) if nothing}


def number_cell(value: float | None, form: str, suffix: str = "") -> Cell:
    """A number, or "-" where there is none."""
    return Cell(ABSENT) if value is None else Cell(format(value, form) + suffix, value)


def percentile_cell(samples: Sequence[float] | None, percent: float, form: str = ".1f") -> Cell:
    """A percentile; "≥ x" where the samples are too few to say more, "-" where they do not even say that."""
    if not samples:
        return Cell(ABSENT)
    found = percentile_of(samples, percent)
    interval = (found.low, found.high)
    if found.value is not None:
        return Cell(format(found.value, form), found.value, interval)
    # A bound below the median would tell nothing of a tail.
    if found.low is not None and found.low >= statistics.median(samples):
        return Cell(f"≥ {found.low:{form}}", found.low, interval, bound=True)
    return Cell(ABSENT)


def summary_cell(summary: MetricSummary, form: str) -> Cell:
    """Mean and standard deviation, with the number of infinite values beside."""
    if summary.mean is None:
        return Cell(f"infinite for all {summary.count}", math.inf)
    infinite = f" ({summary.infinite_count} of {summary.count} infinite)" if summary.infinite_count else ""
    text = f"{summary.mean:{form}} ± {summary.std:{form}}{infinite}"
    interval = (summary.ci_low, summary.ci_high)
    return Cell(text, summary.mean, interval, short=f"{summary.mean:{form}}")
