"""Gives commands malformed images, checkpoints and repositories, kills them while they publish, and counts.

Run with `make faults`. Nothing is downloaded; the models are tiny. Seeds are fixed: every run tries the same.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from microbench.checkpoint_faults import try_checkpoints
from microbench.checkpoint_files import SOURCES
from microbench.faults import FaultKind, FaultsResult, count_kind, sum_up
from microbench.image_faults import try_images
from microbench.image_files import FORMATS
from microbench.publish_faults import PUBLISHERS, try_kills
from microbench.repository_damage import REPOSITORY_DAMAGES
from microbench.repository_faults import try_repositories
from microbench.workplace import FileOutcome, Workplace
from seg_bench.json_fields import write_json
from seg_bench.machine import shown_command
from seg_runtime.console import run_app
from seg_runtime.errors import BadInputError

__all__ = ["FAULTS", "FileFaultKind", "measure_faults"]

SCHEMA = "edgeseg-faults-files/1"

_IMAGES, _CHECKPOINTS, _KILLS = 26, 20, 20

FAULTS: dict[str, tuple[int, Callable[[Workplace, int], Iterator[FileOutcome]]]] = {
    **{f"image, {kind}": (_IMAGES, partial(try_images, kind)) for kind in FORMATS},
    **{f"checkpoint, {kind}": (_CHECKPOINTS, partial(try_checkpoints, kind)) for kind in SOURCES},
    **{
        f"repository, {kind}": (count, partial(try_repositories, kind))
        for kind, (count, _) in REPOSITORY_DAMAGES.items()
    },
    **{f"killed while publishing {kind}": (_KILLS, partial(try_kills, kind)) for kind in PUBLISHERS},
}
"""How many inputs of each kind are tried, and what tries them."""


@dataclass(frozen=True)
class FileFaultKind(FaultKind):
    """All tries of one kind of malformed file.

    Attributes:
        tracebacks: tries that ended in one.
        over_limits: tries that took too long or too much memory.
        slowest_s: the longest try.
        largest_mb: the most memory of a try beyond what its process began with, in MiB.
    """

    tracebacks: int
    over_limits: int
    slowest_s: float
    largest_mb: float


def measure_faults(
    kinds: Sequence[str] = tuple(FAULTS),
    tries: int | None = None,
    command: str = "",
    repo: Path | None = None,
) -> FaultsResult:
    """Try kinds of malformed files, each command in a process with 5 s and 1 GiB.

    Args:
        kinds: names in `FAULTS`.
        tries: inputs of each; None takes what `FAULTS` says.
        command: the command line, for the record.
        repo: a repository with one small model that is in order; None exports one.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder), repo)
        return sum_up(SCHEMA, command, [_try_kind(kind, place, tries) for kind in kinds])


def _try_kind(kind: str, place: Workplace, tries: int | None) -> FileFaultKind:
    count, attempt = FAULTS[kind]
    outcomes = list(attempt(place, tries or count))
    counted = count_kind(kind, outcomes)
    failures = [outcome.failure for outcome in outcomes]
    result = FileFaultKind(
        **{field.name: getattr(counted, field.name) for field in fields(counted)},
        tracebacks=sum("traceback: " in failure for failure in failures),
        over_limits=sum(": over " in failure for failure in failures),
        slowest_s=round(max(outcome.seconds or 0.0 for outcome in outcomes), 2),
        largest_mb=round(max(outcome.memory_mb for outcome in outcomes), 1),
    )
    typer.echo(_line(result), err=True)
    return result


def _line(kind: FileFaultKind) -> str:
    reason = f": {kind.failures[0]}" if kind.failures else ""
    most = f"at most {kind.slowest_s:.1f} s and {kind.largest_mb:.0f} MiB"
    return f"{kind.kind}: {kind.survived} of {kind.tried}, {most}{reason}"


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def faults_files(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    tries: Annotated[int | None, typer.Option(help="Inputs of each kind; 8 to 32 by default.", min=1)] = None,
    only: Annotated[str, typer.Option(help="Only kinds with this in their names.")] = "",
) -> None:
    """Try every kind of malformed file; exit code 1 when a command does not survive one.

    Examples:

        python -m microbench.faults_files --out bench/results/faults.json
    """
    command = shown_command(["python", "-m", "microbench.faults_files", *sys.argv[1:]])
    kinds = tuple(kind for kind in FAULTS if only in kind)
    if not kinds:
        raise BadInputError(f"no kind of fault has '{only}' in its name: use one of {', '.join(FAULTS)}")
    result = measure_faults(kinds, tries, command)
    write_json(out, result)
    typer.echo(f"{result.survived} of {result.tried} survived, {result.left_open} files left")
    if result.survived < result.tried or result.left_open:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_app(app)
