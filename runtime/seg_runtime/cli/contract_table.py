"""What the contract of a model says, as a table for people and as a row of JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from seg_runtime.spec import VERSION_WITH_STATISTICS, ClaheSpec, ModelSpec

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["contract_row", "contract_table", "models_table"]

_COLUMNS = ("model", "version", "task", "precision", "input", "classes", "weights")
"""What fits a terminal of 80 characters; `contract_row` has everything."""

_MOST_NAMES = 20
_MOST_NAMES_IN_LIST = 3


def contract_row(spec: ModelSpec) -> dict[str, Any]:
    """Plain values for JSON; empty or None where the contract does not say it."""
    height, width = spec.input_size_hw
    ordered = spec.channels == 3 and not _is_older(spec)
    return {
        "model": spec.name,
        "version": spec.version,
        "task": spec.task,
        "family": spec.family,
        "backend": spec.backend,
        "precision": spec.precision,
        "input": f"{height}x{width}x{spec.channels}",
        "classes": list(spec.class_names),
        "parameters": spec.parameter_count,
        "weights": spec.weights,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "scale": spec.scale if spec.mean else None,
        "channel_order": spec.channel_order if ordered else None,
        "resize": spec.resize,
        "clahe": spec.clahe and {**vars(spec.clahe)},
        "threshold": spec.threshold,
        "score_threshold": spec.score_threshold if spec.task == "instances" else None,
        "assumed": dict(spec.assumed),
        "contract_version": spec.contract_version,
    }


def contract_table(spec: ModelSpec) -> Table:
    """One line per field that says something."""
    from rich.table import Table
    from rich.text import Text

    shown = contract_row(spec) | {
        "classes": _names(spec.class_names, _MOST_NAMES),
        "mean": _numbers(spec.mean),
        "std": _numbers(spec.std),
        "scale": f"pixels / {spec.scale:g}" if spec.mean else "",
        "clahe": _clahe_text(spec.clahe),
        "threshold": f"{spec.threshold:g}",
        "assumed": ", ".join(f"{what} {value}" for what, value in spec.assumed.items()),
    }
    if _is_older(spec):
        lacking = ("mean", "std", "scale", *(("channel_order",) if spec.channels == 3 else ()))
        shown |= {what: shown[what] or "not in the contract" for what in lacking}
        shown["contract_version"] = f"{spec.contract_version} (of an older release)"
    table = Table.grid(padding=(0, 2))
    for what, value in shown.items():
        if value not in ("", None):
            table.add_row(what.replace("_", " "), Text(str(value)))
    return table


def models_table(specs: Iterable[ModelSpec]) -> Table:
    """One row per model."""
    from rich.table import Table

    table = Table()
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column == "model")
    for spec in specs:
        shown = contract_row(spec) | {"classes": _names(spec.class_names, _MOST_NAMES_IN_LIST)}
        table.add_row(*(str(shown[column]) for column in _COLUMNS))
    return table


def _is_older(spec: ModelSpec) -> bool:
    return spec.contract_version < VERSION_WITH_STATISTICS


def _names(names: tuple[str, ...], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _clahe_text(clahe: ClaheSpec | None) -> str:
    if clahe is None:
        return "none"
    return f"limit {clahe.clip_limit:g}, {clahe.tile_grid_hw[0]}x{clahe.tile_grid_hw[1]} tiles"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
