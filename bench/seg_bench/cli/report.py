"""`seg-bench report`: the table of one or several runs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seg_bench.records import Run

__all__ = ["ReportFormat", "report"]


class ReportFormat(str, Enum):
    """How a report is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    JSON = "json"
    HTML = "html"


_FORMAT_OF_SUFFIX = {
    ".md": ReportFormat.MARKDOWN,
    ".json": ReportFormat.JSON,
    ".html": ReportFormat.HTML,
    ".htm": ReportFormat.HTML,
}


def report(
    records: Annotated[
        list[Path],
        typer.Argument(help="Files that seg-bench run wrote, or folders of them.", metavar="RECORDS..."),
    ],
    form: Annotated[
        ReportFormat | None,
        typer.Option(
            "--format", "-f", help="How to write it; by default as --out ends, else for the terminal."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write to this file (.md, .json, .html) instead of the terminal."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show the Dice / latency table of measured runs, several machines side by side.

    \b
    Examples:
      seg-bench report bench/results/run.json
      seg-bench report bench/results -o report.html
      seg-bench report workstation.json jetson.json --format markdown
    """
    from seg_bench.records import read_runs

    if form is None:
        form = ReportFormat.JSON if as_json else _FORMAT_OF_SUFFIX.get(out.suffix if out else "")
    form = form or ReportFormat.TERMINAL
    runs = read_runs(records)
    if form is ReportFormat.TERMINAL and out is None:
        from seg_bench.report.terminal import print_report
        from seg_runtime.console import stdout_console

        print_report(runs, stdout_console())
    else:
        _emit(_render(runs, form), out)


def _render(runs: list[Run], form: ReportFormat) -> str:
    if form is ReportFormat.MARKDOWN:
        from seg_bench.report.markdown import to_markdown

        return to_markdown(runs)
    if form is ReportFormat.HTML:
        from seg_bench.report.html_page import to_html

        return to_html(runs)
    if form is ReportFormat.JSON:
        from seg_bench.report.json_report import to_json_report

        return to_json_report(runs)
    from seg_bench.report.terminal import to_plain_text

    return to_plain_text(runs)


def _emit(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    from seg_bench.report.save import save_report

    save_report(text, out)
    typer.echo(f"wrote {out}", err=True)
