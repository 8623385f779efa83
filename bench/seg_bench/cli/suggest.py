"""`seg-bench suggest`: which measured row to deploy."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_bench.cli.left_out import INCOMPLETE, say_left_out

if TYPE_CHECKING:
    from seg_bench.suggest import Suggested, Suggestion

__all__ = ["LatencyPercentile", "suggest"]

_NOTHING_FITS = 1
"""Exit code when no row keeps the limits: not 2, which is bad input."""


class LatencyPercentile(str, Enum):
    """Which latency a limit is on."""

    P50 = "50"
    P90 = "90"
    P99 = "99"
    P99_9 = "99.9"


def suggest(
    records: Annotated[
        list[Path],
        typer.Argument(help="Files that seg-bench run wrote, or folders of them.", metavar="RECORDS..."),
    ],
    max_ms: Annotated[float | None, typer.Option(help="Longest time of one call in ms.", min=0)] = None,
    min_dice: Annotated[float | None, typer.Option(help="Lowest mean Dice.", min=0, max=1)] = None,
    max_mb: Annotated[
        float | None,
        typer.Option(help="Most memory in MiB: of the process or server, and of the accelerator.", min=0),
    ] = None,
    max_joules: Annotated[float | None, typer.Option(help="Most energy per image in J.", min=0)] = None,
    percentile: Annotated[
        LatencyPercentile, typer.Option(help="The latency that --max-ms is on: this percentile of the calls.")
    ] = LatencyPercentile.P50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the choice as JSON.")] = False,
) -> None:
    """Name the row to deploy, with the reason, the runners-up and why every other row falls out.

    Of the rows that keep every limit, the highest mean Dice wins; rows within
    0.001 of it count as equally good, and the fastest of them is taken. A row
    that lacks a figure that a limit is on falls out. The exit code is 1 when
    nothing fits; the nearest row is named then. A record that cannot be read is
    left out, and the exit code is then 2.

    \b
    Examples:
      seg-bench suggest bench/results/table_montgomery.json --max-ms 150 \\
        --min-dice 0.96
      seg-bench suggest workstation.json jetson.json --max-ms 30 --percentile 99 \\
        --max-mb 2000
      seg-bench suggest results --max-joules 0.5 --json
    """
    from seg_bench.record_files import readable_runs
    from seg_bench.suggest import Limits
    from seg_bench.suggest import suggest as choose

    limits = Limits(max_ms, min_dice, max_mb, max_joules, float(percentile.value))
    runs, errors = readable_runs(records)
    suggestion = choose(runs, limits)
    if as_json:
        import json

        from seg_bench.json_fields import to_json

        document = {"limits": to_json(limits), **to_json(suggestion)}
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        for line in _lines(suggestion, percentile.value):
            typer.echo(line)
    say_left_out(errors, len(runs))
    if suggestion.chosen is None:
        raise typer.Exit(_NOTHING_FITS)
    if errors:
        raise typer.Exit(INCOMPLETE)


def _lines(suggestion: Suggestion, percentile: str) -> list[str]:
    lines = []
    if suggestion.chosen:
        lines += [f"deploy: {_row(suggestion.chosen, percentile)}"]
    lines += [f"{'because' if suggestion.chosen else 'nothing fits'}: {suggestion.reason}"]
    if suggestion.chosen and suggestion.chosen.noise:
        lines += [f"its figures are noisy: {suggestion.chosen.noise}"]
    lines += [f"next: {_row(row, percentile)}" for row in suggestion.runners_up]
    lines += [f"out: {row.name}, {row.precision}: {'; '.join(row.reasons)}" for row in suggestion.rejected]
    return lines


def _row(row: Suggested, percentile: str) -> str:
    figures = [
        f"Dice {row.dice:.4f}",
        f"p{percentile} {row.latency_ms:.1f} ms" if row.latency_ms is not None else None,
        f"{row.peak_memory_mib:.0f} MiB" if row.peak_memory_mib is not None else None,
        f"{row.joules_per_image:.3g} J per image" if row.joules_per_image is not None else None,
    ]
    return f"{row.name}, {row.precision}: {', '.join(filter(None, figures))} ({row.engine}, {row.machine})"
