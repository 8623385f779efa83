"""How results are shown: tables for people, dictionaries for JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from seg_export.publishing.manage import ModelListing
    from seg_export.verification.verify import VerificationReport

__all__ = ["echo_json", "listing_as_dict", "models_table", "report_table"]


def echo_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2))


def report_table(report: VerificationReport) -> Table:
    """One row per output and case of a verification."""
    from rich import box
    from rich.table import Table

    from seg_export.verification.comparison import shown_iou

    tolerance = report.tolerance
    allowed = f"atol {tolerance.atol:.0e}, rtol {tolerance.rtol:.0e}, mask IoU {tolerance.mask_iou}"
    title = f"{report.model}: {report.subject} against {report.reference} ({report.precision}: {allowed})"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    for heading in ("inputs", "batch", "output", "max abs", "max rel", "needs", "mask IoU", "result"):
        justify: Literal["left", "right"] = "left" if heading in ("inputs", "output", "result") else "right"
        table.add_column(heading, justify=justify, no_wrap=heading != "inputs")
    for item in report.comparisons:
        figures = [f"{value:.1e}" for value in (item.max_abs, item.max_rel, item.tolerance_needed)]
        result = "[green]pass[/green]" if item.passed else "[red]fail[/red]"
        table.add_row(item.case, str(item.batch), item.output, *figures, shown_iou(item.mask_iou), result)
    return table


def models_table(models: tuple[ModelListing, ...]) -> Table:
    """One row per model of a repository."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for heading in ("model", "served", "on disk", "input", "precision", "weights", "MB", "state"):
        justify: Literal["left", "right"] = "right" if heading in ("served", "MB") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading not in ("on disk", "state"))
    for model in models:
        spec = model.spec
        versions = ", ".join(map(str, model.versions)) or "none"
        if spec is None:
            table.add_row(model.name, "", versions, "", "", "", "", _state(model))
            continue
        size = f"{spec.input_size_hw[0]}x{spec.input_size_hw[1]}x{spec.channels}"
        megabytes = f"{model.size_bytes / 1e6:.1f}"
        contract = (size, spec.precision, spec.weights)
        table.add_row(model.name, str(spec.version), versions, *contract, megabytes, _state(model))
    return table


def _state(model: ModelListing) -> Text:
    from rich.text import Text

    if model.broken:
        return Text(f"broken: {model.problem}", "red")
    return Text(model.problem, "yellow") if model.problem else Text("ready", "green")


def listing_as_dict(model: ModelListing) -> dict[str, Any]:
    """A model of a repository for JSON; the contract is null when it cannot be read."""
    from dataclasses import asdict

    return asdict(model)
