"""`seg-bench report`: the table of one or several runs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_bench.cli.left_out import INCOMPLETE, say_left_out

if TYPE_CHECKING:
    from seg_bench.records import Run

__all__ = ["ReportFormat", "report"]


class ReportFormat(str, Enum):
    """How a report is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


_FORMAT_OF_SUFFIX = {
    ".md": ReportFormat.MARKDOWN,
    ".json": ReportFormat.JSON,
    ".csv": ReportFormat.CSV,
    ".html": ReportFormat.HTML,
    ".htm": ReportFormat.HTML,
}


def report(
    records: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files that seg-bench run wrote, or folders of them.",
            metavar="RECORDS...",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        ReportFormat | None,
        typer.Option(
            "--format", "-f", help="How to write it; by default as --out ends, else for the terminal."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write to this file (.md, .json, .csv, .html) instead of the terminal."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data that was measured: the HTML page then shows the worst masks of "
            "each model, computed again.",
            metavar="DATA",
        ),
    ] = None,
    repo: Annotated[Path, typer.Option(help="Model repository that computes the masks for --images.")] = Path(
        "triton_repo"
    ),
    worst: Annotated[int, typer.Option(help="How many of them per model.", min=1, max=20)] = 4,
    columns: Annotated[
        str,
        typer.Option(
            help="Only these columns of one Markdown table, separated by commas; keys are those of "
            "--format json, or class,images,dice_0,... of the table of classes.",
        ),
    ] = "",
    wide: Annotated[
        bool,
        typer.Option("--wide", help="All columns and settings in a terminal, not only those that decide."),
    ] = False,
    update: Annotated[
        Path | None,
        typer.Option(
            help="Make the tables of a Markdown page again, each from the records that its marker "
            "<!-- table: seg-bench report FILES... --format markdown --> names.",
            metavar="PAGE",
        ),
    ] = None,
) -> None:
    """Show the Dice / latency table of measured runs, several machines and dates side by side.

    A record that cannot be read is left out, and the exit code is then 2.

    A terminal gets the columns that decide, or all with --wide; Markdown, CSV,
    JSON and HTML have all.

    \b
    Examples:
      seg-bench report bench/results/run.json
      seg-bench report bench/results -o report.html
      seg-bench report bench/results/*/ -o devices.html
      seg-bench report workstation.json jetson.json --format markdown
      seg-bench report run.json -f markdown --columns model,where,dice,p50_ms
      seg-bench report run.json -o report.html --images data/montgomery \\
        --repo triton_repo
      seg-bench report --update README.md
    """
    from seg_bench.record_files import readable_runs
    from seg_runtime.errors import BadInputError

    if update is not None:
        _update(update, records or [], out)
        return
    if not records:
        raise BadInputError("no records given: name files that seg-bench run wrote, or folders of them")
    if form is None:
        form = ReportFormat.JSON if as_json else _FORMAT_OF_SUFFIX.get(out.suffix if out else "")
    form = form or ReportFormat.TERMINAL
    if images is not None and form is not ReportFormat.HTML:
        raise BadInputError("--images draws masks into the HTML page: add  --format html")
    if columns and form is not ReportFormat.MARKDOWN:
        raise BadInputError("--columns chooses those of a Markdown table: add  --format markdown")
    if wide and (form is not ReportFormat.TERMINAL or out is not None):
        raise BadInputError("--wide is for the table in a terminal: every other form has all columns")
    _keep_records(records, out)
    runs, errors = readable_runs(records)
    if images is not None:
        _emit(_page_with_masks(runs, images, repo, worst), out)
    elif form is ReportFormat.TERMINAL and out is None:
        from seg_bench.report.terminal import print_report
        from seg_runtime.console import stdout_console

        print_report(runs, stdout_console(), wide)
    else:
        _emit(_render(runs, form, [key.strip() for key in columns.split(",") if key.strip()]), out)
    say_left_out(errors, len(runs))
    if errors:
        raise typer.Exit(INCOMPLETE)


def _keep_records(records: list[Path], out: Path | None) -> None:
    """Refuse to write the report over what it is made of, or over any other record."""
    from seg_bench.record_files import is_record
    from seg_runtime.errors import BadInputError
    from seg_runtime.plain_files import real_path

    if out is None:
        return
    if is_record(out) or any(real_path(out) == real_path(record) for record in records):
        raise BadInputError(f"'{out}' is a record, which the report would replace: write to another file")


def _update(page: Path, records: list[Path], out: Path | None) -> None:
    from seg_bench.report.page_tables import update_page
    from seg_runtime.errors import BadInputError

    if records or out:
        raise BadInputError(
            "--update takes the records from the page's own markers: leave RECORDS and --out out"
        )
    typer.echo(f"updated {page}" if update_page(page) else f"{page} is up to date", err=True)


def _page_with_masks(runs: list[Run], images: Path, repo: Path, worst: int) -> str:
    from seg_bench.report.html_page import to_html
    from seg_bench.report.worst import draw_worst

    return to_html(runs, worst=draw_worst(runs, images, repo, worst))


def _render(runs: list[Run], form: ReportFormat, columns: list[str]) -> str:
    if form is ReportFormat.MARKDOWN:
        from seg_bench.report.markdown import to_markdown

        return to_markdown(runs, columns)
    if form is ReportFormat.HTML:
        from seg_bench.report.html_page import to_html

        return to_html(runs)
    if form is ReportFormat.JSON:
        from seg_bench.report.json_report import to_json_report

        return to_json_report(runs)
    if form is ReportFormat.CSV:
        from seg_bench.report.csv_report import to_csv

        return to_csv(runs)
    from seg_bench.report.terminal import to_plain_text

    return to_plain_text(runs)


def _emit(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    from seg_bench.report.save import save_report

    save_report(text, out)
    typer.echo(f"wrote {out}", err=True)
