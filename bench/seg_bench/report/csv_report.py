"""The table as CSV, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from seg_bench.records import Run
from seg_bench.report.data_rows import data_rows

__all__ = ["to_csv"]

_FORMULA = ("=", "+", "-", "@", "\t")
"""What a cell begins with that spreadsheets take for a formula."""

_OF_CLASS = ("dice", "iou", "hd95")

_NAMES = ("machine", "measured", "data", "model", "precision", "where", "engine", "batch", "runtime")


def to_csv(runs: Sequence[Run]) -> str:
    """One line per record, and after it one per level of load that it was put under.

    Columns are those of the JSON report; an interval is two columns, `..._low` and `..._high`, Dice under a
    condition is `dice_under_NAME`, Dice, IoU and HD95 of a class are `dice_of_NAME`, `iou_of_NAME` and
    `hd95_of_NAME`, and lines of load have `concurrency` and `rate_per_s`. What was not measured is an empty
    field. Text that begins as a formula does gets an apostrophe in front.
    """
    lines = []
    for row in data_rows(runs):
        loads, conditions, classes = row.pop("loads"), row.pop("conditions"), row.pop("classes", ())
        row.pop("confusion", None)
        under = {f"dice_under_{condition['name']}": condition["dice"] for condition in conditions}
        of = {f"{key}_of_{each['name']}": each[key] for each in classes for key in _OF_CLASS}
        lines.append({**row, **of, **under})
        lines += [{**{name: row[name] for name in _NAMES}, **point} for point in loads]
    flat = [_flat(line) for line in lines]
    columns = list(dict.fromkeys(key for line in flat for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _inert(value: Any) -> Any:
    """Text that a spreadsheet would compute, behind an apostrophe, as OWASP advises; all else as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if key.endswith("_interval"):
            low, high = value or (None, None)
            stem = key.removesuffix("_interval")
            flat |= {f"{stem}_low": low, f"{stem}_high": high}
        else:
            flat[key] = _inert(value)
    return flat
