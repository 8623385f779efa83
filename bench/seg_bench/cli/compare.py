"""`seg-bench compare`: whether a measurement is worse than an earlier one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_bench.cli.left_out import INCOMPLETE, say_left_out

if TYPE_CHECKING:
    from seg_bench.compare import Comparison

__all__ = ["compare", "share"]

_WORSE = 1
"""Exit code when a row is worse: not 2, which is bad input."""


def compare(
    old: Annotated[Path, typer.Argument(help="Records to compare with: a file or a folder of them.")],
    new: Annotated[Path, typer.Argument(help="Records that may be worse.")],
    fail_over: Annotated[
        str, typer.Option(help="Growth of the median latency above which a row is worse.", metavar="SHARE")
    ] = "10%",
    fail_dice: Annotated[
        float, typer.Option(help="Fall of the mean Dice above which a row is worse.", min=0, max=1)
    ] = 0.002,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two measurements row by row; the exit code is 1 when any row of NEW is worse.

    Rows are the same when model, precision, where, engine, batch and data set
    are. A row is worse when it failed, when its mean Dice on the same images fell
    by more than --fail-dice, or when its median latency grew by more than
    --fail-over and the 95 % bootstrap interval of the ratio of medians lies
    wholly above 1 and above what the fixed loop between the calls took longer. A
    growth that the interval does not bear out is called unsure and does not fail;
    neither do rows that one side lacks, which are listed. Throughput and memory
    are shown only. A record that cannot be read is left out; the exit code is
    then 2, unless a row is worse.

    \b
    Examples:
      seg-bench compare main.json branch.json --fail-over 10%
      seg-bench compare results/before results/after --fail-dice 0.001 --json
    """
    from seg_bench.compare import compare_runs
    from seg_bench.record_files import readable_runs

    limit = share(fail_over)
    (before, unread_before), (after, unread_after) = readable_runs([old]), readable_runs([new])
    comparison = compare_runs(before, after, fail_over=limit, fail_dice=fail_dice)
    if as_json:
        import json

        from seg_bench.json_fields import to_json

        typer.echo(
            json.dumps({"worse": comparison.worse, **to_json(comparison)}, indent=1, ensure_ascii=False)
        )
    else:
        _print(comparison)
    unread = [*unread_before, *unread_after]
    say_left_out(unread, len(before) + len(after))
    if comparison.worse:
        raise typer.Exit(_WORSE)
    if unread:
        raise typer.Exit(INCOMPLETE)


def share(text: str) -> float:
    """ "10%" or "0.1" as 0.1. Raises BadInputError for anything else, and for "10", which may mean either."""
    from seg_runtime.errors import BadInputError

    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not (0 <= value < 1 or (percent and 0 <= value < math.inf)):
        raise BadInputError(f"--fail-over is '{text}': give a share such as 10% or 0.1")
    return value


def _print(comparison: Comparison) -> None:
    from rich.markup import escape

    from seg_bench.report.compare_table import comparison_lines, comparison_table
    from seg_bench.report.terminal import full_width, table_parts
    from seg_runtime.console import stdout_console

    console = stdout_console()
    for table in table_parts(comparison_table(comparison), full_width(console)):
        console.print(table)
    for line in comparison_lines(comparison):
        console.print(escape(line), highlight=False, soft_wrap=True)
