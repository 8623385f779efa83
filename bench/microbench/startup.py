"""Times how long commands take to show their help, and what importing the thin client costs.

Run with `python -m microbench.startup --out FILE`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_runtime.console import run_app
from seg_runtime.errors import BadInputError

__all__ = ["Startup", "StartupResult", "measure_startup"]

SCHEMA = "edgeseg-startup/1"
COMMANDS = ("seg-run", "seg-export", "seg-serve", "seg-bench")

_IMPORT_CODE = """
import sys, time
start = time.perf_counter()
import seg_runtime
{more}
seconds = time.perf_counter() - start
from seg_bench.memory import peak_memory_mib
import os
print(seconds, peak_memory_mib(os.getpid()))
"""
_ALL_NAMES = "for name in seg_runtime.__all__: getattr(seg_runtime, name)"
# Public names are imported on first use: the second is the cost of using all of them.
_IMPORTS = {"import seg_runtime": "", "import seg_runtime and all its public names": _ALL_NAMES}


@dataclass(frozen=True)
class Startup:
    """One thing that starts.

    Attributes:
        seconds: raw samples; for a command the whole process, for an import the import alone.
        median_s: their median.
        peak_memory_mib: of the process after the import, highest of all samples; None for commands.
    """

    what: str
    seconds: tuple[float, ...]
    median_s: float
    peak_memory_mib: float | None


@dataclass(frozen=True)
class StartupResult:
    """All of them, with what is needed to repeat it."""

    schema: str
    command: str
    machine: Machine
    startups: tuple[Startup, ...]


def measure_startup(repeats: int = 10, command: str = "") -> StartupResult:
    """Start everything `repeats` times in turns, after one start each that fills the disk cache.

    Raises:
        BadInputError: a command is not installed or fails.
    """
    programs = {f"{name} --help": [_script(name), "--help"] for name in COMMANDS}
    codes = {what: [sys.executable, "-c", _IMPORT_CODE.format(more=more)] for what, more in _IMPORTS.items()}
    seconds: dict[str, list[float]] = {what: [] for what in (*programs, *codes)}
    peaks: dict[str, list[float]] = {what: [] for what in codes}
    for turn in range(repeats + 1):
        for what, arguments in (*programs.items(), *codes.items()):
            spent, output = _start(arguments)
            if turn == 0:
                continue
            if what in codes:
                imported, peak = output.split()
                spent = float(imported)
                peaks[what] += [] if peak == "None" else [float(peak)]
            seconds[what].append(spent)
    startups = tuple(
        Startup(what, tuple(samples), statistics.median(samples), max(peaks.get(what, []), default=None))
        for what, samples in seconds.items()
    )
    return StartupResult(SCHEMA, command, describe_machine(), startups)


def _script(name: str) -> str:
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.is_file():
        raise BadInputError(
            f"the command {name} is not installed beside this Python: run  pip install edgeseg"
        )
    return str(path)


def _start(arguments: Sequence[str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - start
    if done.returncode != 0:
        raise BadInputError(f"{Path(arguments[0]).name} failed: {done.stderr.strip().splitlines()[-1:]}")
    return spent, done.stdout


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def startup(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repeats: Annotated[int, typer.Option(help="Timed starts of each command.", min=1)] = 10,
) -> None:
    """Time the start of every command and the import of the thin client.

    Examples:

        python -m microbench.startup --out bench/results/startup.json
    """
    result = measure_startup(repeats, shown_command(["python", "-m", "microbench.startup", *sys.argv[1:]]))
    write_json(out, result)
    for entry in result.startups:
        memory = "" if entry.peak_memory_mib is None else f", {entry.peak_memory_mib:.0f} MiB"
        typer.echo(f"{entry.what}: {entry.median_s:.2f} s{memory}")


if __name__ == "__main__":
    run_app(app)
