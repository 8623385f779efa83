"""A comparison of two measurements as a table and a few lines."""

from __future__ import annotations

from seg_bench.compare import UNSURE, WORSE, Comparison, RowComparison
from seg_bench.report.cells import ABSENT, Cell, Column, Table, number_cell

__all__ = ["comparison_lines", "comparison_table"]

_COLUMNS = (
    Column("model", "row", numeric=False),
    Column("precision", "precision", numeric=False),
    Column("old_p50_ms", "OLD p50", "ms"),
    Column("new_p50_ms", "NEW p50", "ms"),
    Column("p50_ratio", "ratio"),
    Column("p50_interval", "95 %"),
    Column("dice_change", "Dice"),
    Column("images_per_s_ratio", "images/s"),
    Column("memory_ratio", "memory"),
    Column("verdict", "verdict", numeric=False),
)


def comparison_table(comparison: Comparison) -> Table:
    """One row per row of the comparison; ratios are new over old."""
    return Table(_COLUMNS, tuple(_cells(row) for row in comparison.rows), ())


def comparison_lines(comparison: Comparison) -> list[str]:
    """Why rows are worse or unsure, what is missing on either side, and warnings."""
    judged = [row for row in comparison.rows if row.verdict in (WORSE, UNSURE)]
    lines = [f"{row.verdict}: {row.name}, {row.precision}: {row.reason}" for row in judged]
    lines += [f"only in OLD: {name}" for name in comparison.only_old]
    lines += [f"only in NEW: {name}" for name in comparison.only_new]
    lines += [f"warning: {warning}" for warning in comparison.warnings]
    return lines or ["no row is worse"]


def _cells(row: RowComparison) -> tuple[Cell, ...]:
    interval = ABSENT if row.p50_low is None else f"{row.p50_low:.2f} to {row.p50_high:.2f}"
    return (
        Cell(row.name),
        Cell(row.precision),
        number_cell(row.old_p50_ms, ".1f"),
        number_cell(row.new_p50_ms, ".1f"),
        number_cell(row.p50_ratio, ".2f"),
        Cell(interval),
        number_cell(row.dice_change, "+.4f"),
        number_cell(row.images_per_s_ratio, ".2f"),
        number_cell(row.memory_ratio, ".2f"),
        Cell(row.verdict),
    )
