"""Times the full HTML report of 20 models with 1,000 calls each, as a command of its own and part by part.

Run with `python -m microbench.report_speed --out FILE`. The records are made up.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.metrics.summary import summarize
from seg_bench.record_files import read_runs, write_run
from seg_bench.records import (
    SCHEMA,
    Accuracy,
    Condition,
    Data,
    Energy,
    Latency,
    LoadPoint,
    Machine,
    MeasuredModel,
    Record,
    Run,
    Settings,
)
from seg_bench.report.html_page import to_html
from seg_runtime.console import run_app

__all__ = ["ReportSpeed", "made_up_run", "measure_report"]

_SCHEMA = "edgeseg-report-speed/1"
_PROGRAM = "from seg_bench.cli import main; main()"
_IMAGES = 22


@dataclass(frozen=True)
class ReportSpeed:
    """Raw samples in seconds.

    Attributes:
        command_s: the whole command, from the start of Python to the written page.
        read_s, page_s: reading the records and making the page, in a process that runs already.
        page_bytes: of the page.
    """

    schema: str
    command: str
    machine: Machine
    models: int
    calls: int
    command_s: tuple[float, ...]
    read_s: tuple[float, ...]
    page_s: tuple[float, ...]
    page_bytes: int


def measure_report(models: int = 20, calls: int = 1000, repeats: int = 5, command: str = "") -> ReportSpeed:
    """Write made-up records and report them.

    Args:
        models, calls: rows of the report, and timed calls of each.
        repeats: of the command, and of each part.
        command: the command line, for the record.
    """
    with tempfile.TemporaryDirectory() as folder:
        records, page = Path(folder) / "run.json", Path(folder) / "report.html"
        write_run(made_up_run(models, calls), records)
        call = [sys.executable, "-c", _PROGRAM, "report", str(records), "--out", str(page)]
        spent = [
            _timed(lambda: subprocess.run(call, check=True, capture_output=True)) for _ in range(repeats)
        ]
        read = [_timed(lambda: read_runs([records])) for _ in range(repeats)]
        runs = read_runs([records])
        made = [_timed(lambda: to_html(runs)) for _ in range(repeats)]
        size = page.stat().st_size
    machine = describe_machine()
    return ReportSpeed(_SCHEMA, command, machine, models, calls, tuple(spent), tuple(read), tuple(made), size)


def made_up_run(models: int, calls: int) -> Run:
    """Records with all that a report shows: accuracy, conditions, energy and four levels of load."""
    generator = np.random.default_rng(0)
    started = "2026-01-01T00:00:00+00:00"
    records = tuple(_record(number, calls, generator) for number in range(models))
    return Run(SCHEMA, started, "made up", True, describe_machine(), (4.0, 4.1), "made up", records)


def _record(number: int, calls: int, generator: np.random.Generator) -> Record:
    median_ms = 5.0 * 1.2**number
    samples = generator.gamma(9, median_ms / 9, (4, calls))
    names = tuple(f"image_{image}" for image in range(_IMAGES))
    dice = generator.uniform(0.9, 1.0, _IMAGES)
    accuracy = Accuracy(
        *(_floats(dice), _floats(dice / (2 - dice)), _floats(10 * (1 - dice))),
        *(summarize(dice), summarize(dice / (2 - dice)), summarize(10 * (1 - dice))),
        images=names,
    )
    conditions = tuple(
        Condition(name, kind, names, _floats(dice - 0.02), summarize(dice - 0.02))
        for name, kind in (("noise 0.1", "corruption"), ("blur 2", "corruption"), ("shenzhen", "data set"))
    )
    loads = tuple(
        LoadPoint(
            level, None, 10.0, _floats(generator.gamma(9, level * median_ms / 9, calls)), 1000 / median_ms
        )
        for level in (1, 2, 4, 8)
    )
    model = MeasuredModel(f"model_{number}", "unet", 1, "fp32", "trained", 1_000_000, "ab" * 32, "cd" * 32)
    settings = Settings(threads=2, warm_up=3, repeats=calls, batch=1, seed=0)
    record = Record(model, "ONNX Runtime", "in-process", Data("made up", _IMAGES), settings, accuracy)
    return replace(
        record,
        latency=Latency(*(_floats(stage) for stage in samples)),
        images_per_s=1000 / median_ms,
        peak_memory_mib=300.0,
        peak_memory_of="process",
        energy=Energy("RAPL", 15.0, 5.0, 0.015 * median_ms),
        conditions=conditions,
        loads=loads,
    )


def _floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.tolist())


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def report_speed(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    models: Annotated[int, typer.Option(help="Rows of the report.", min=1)] = 20,
    calls: Annotated[int, typer.Option(help="Timed calls per row.", min=1)] = 1000,
    repeats: Annotated[int, typer.Option(help="How often everything is timed.", min=1)] = 5,
) -> None:
    """Time the full HTML report of made-up records.

    Examples:

        python -m microbench.report_speed --out bench/results/report.json
    """
    command = shown_command(["python", "-m", "microbench.report_speed", *sys.argv[1:]])
    result = measure_report(models, calls, repeats, command)
    write_json(out, result)
    median = {name: float(np.median(getattr(result, name))) for name in ("command_s", "read_s", "page_s")}
    typer.echo(
        f"{models} models x {calls} calls: the command takes {median['command_s']:.2f} s (reading "
        f"{median['read_s']:.2f} s, page {median['page_s']:.2f} s), {result.page_bytes / 1024:.0f} KiB"
    )


if __name__ == "__main__":
    run_app(app)
