"""Kills, stops and cuts off a real server and its clients, counts who survives and what is left open.

Run with `make faults-server`. Nothing is downloaded; the models are tiny.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from microbench.client_faults import CLIENT_FAULTS
from microbench.faults import FaultKind, FaultsResult, Outcome, Place, count_kind, sum_up
from microbench.process_faults import PROCESS_FAULTS
from microbench.stranger_faults import STRANGER_FAULTS
from seg_bench.json_fields import write_json
from seg_bench.machine import shown_command
from seg_runtime.console import run_app
from seg_runtime.errors import BadInputError, EdgesegError

__all__ = ["FAULTS", "measure_faults"]

SCHEMA = "edgeseg-faults-server/1"

FAULTS: dict[str, tuple[int, Callable[[Place], list[Outcome]]]] = {
    **PROCESS_FAULTS,
    **CLIENT_FAULTS,
    **STRANGER_FAULTS,
}
"""How often each kind is tried, and what tries it once."""


def measure_faults(
    kinds: tuple[str, ...] = tuple(FAULTS), repeats: int | None = None, command: str = ""
) -> FaultsResult:
    """Try kinds of faults against servers of two tiny models that are made for it.

    Args:
        kinds: names in `FAULTS`.
        repeats: tries of each; None takes what `FAULTS` says.
        command: the command line, for the record.
    """
    from seg_export.export import export_model
    from seg_export.families.semantic.random import random_unet

    with tempfile.TemporaryDirectory() as folder:
        for name in Place.MODELS:
            export_model(random_unet(features=(4, 8)), Path(folder, "repo"), name, size_hw=(32, 32))
        with Place(Path(folder)) as place:
            tried = tuple(_try_kind(kind, place, repeats) for kind in kinds)
    return sum_up(SCHEMA, command, tried)


def _try_kind(kind: str, place: Place, repeats: int | None) -> FaultKind:
    count, attempt = FAULTS[kind]
    outcomes: list[Outcome] = []
    for _ in range(repeats or count):
        try:
            outcomes += attempt(place)
        except EdgesegError as error:
            outcomes.append(Outcome(str(error)))
    result = count_kind(kind, outcomes)
    typer.echo(_line(result), err=True)
    return result


def _line(kind: FaultKind) -> str:
    slowest = f", at most {max(kind.seconds):.1f} s" if kind.seconds else ""
    reason = f": {kind.failures[0]}" if kind.failures else ""
    return f"{kind.kind}: {kind.survived} of {kind.tried}, {kind.left_open} left open{slowest}{reason}"


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def faults_server(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repeats: Annotated[
        int | None, typer.Option(help="Tries of each kind; 1 to 10 by default, as FAULTS says.", min=1)
    ] = None,
    only: Annotated[str, typer.Option(help="Only kinds with this in their names.")] = "",
) -> None:
    """Try every kind of fault; exit code 1 when a server or client does not survive one.

    Examples:

        python -m microbench.faults_server --out bench/results/faults_server.json
    """
    command = shown_command(["python", "-m", "microbench.faults_server", *sys.argv[1:]])
    kinds = tuple(kind for kind in FAULTS if only in kind)
    if not kinds:
        raise BadInputError(f"no kind of fault has '{only}' in its name: use one of {', '.join(FAULTS)}")
    result = measure_faults(kinds, repeats, command)
    write_json(out, result)
    typer.echo(f"{result.survived} of {result.tried} survived, {result.left_open} left open")
    if result.survived < result.tried or result.left_open:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_app(app)
