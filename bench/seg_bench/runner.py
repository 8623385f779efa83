"""Measures accuracy, latency and memory of deployed models, and makes the records of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

from seg_bench.accuracies import score_rows
from seg_bench.latency import noise_note
from seg_bench.machine import describe_machine
from seg_bench.options import RunOptions
from seg_bench.plan import Plan, make_plan
from seg_bench.records import SCHEMA, Run
from seg_bench.rounds import time_rows
from seg_bench.row_record import make_record
from seg_bench.rows import Progress, Row, open_rows
from seg_runtime.server import ServerOptions, TritonServer

__all__ = ["Progress", "measure"]


def measure(options: RunOptions, command: str = "", on_step: Progress | None = None) -> Run:
    """Measure every model in every place, interleaved; starts a server by itself where one is needed.

    A row that breaks off says why (`Record.failure`) and the others go on. Ctrl-C ends it early and keeps
    what was measured so far (`Run.complete` is then False).

    Args:
        options: what to measure.
        command: the command line, for the record.
        on_step: told about progress.

    Raises:
        EdgesegError: the data, a model, a checkpoint or the server cannot be used, or every row broke off
            before anything was measured.
        KeyboardInterrupt: Ctrl-C before anything was measured.
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    step = on_step or (lambda what, done, total: None)
    with ExitStack() as stack:
        plan = make_plan(options, Path(stack.enter_context(TemporaryDirectory(prefix="seg-bench-"))))
        server = _start_server(options, plan, stack, step)
        rows = [Row(candidate) for candidate in plan.candidates(options, server)]
        open_rows(rows, stack, step)
        calibration_ms, complete = _measure(options, plan, rows, server, step)
    _check_any(rows)
    return Run(
        schema=SCHEMA,
        started_utc=started,
        command=command,
        complete=complete,
        machine=describe_machine(),
        calibration_ms=calibration_ms,
        note=noise_note(calibration_ms),
        records=tuple(make_record(options, plan, row) for row in rows if row.measured),
    )


def _start_server(options: RunOptions, plan: Plan, stack: ExitStack, step: Progress) -> TritonServer | None:
    """A server of our own with just the models that are measured, on free ports; or None."""
    if not options.server_places or options.url:
        return None
    step("starting the server", 0, 1)
    # Every call is to be computed: the cache would answer an image that comes again.
    server_options = ServerOptions(
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        models=plan.models,
        threads=options.threads or 0,
        response_cache_mb=0,
    )
    return stack.enter_context(TritonServer(options.repo, server_options))


def _measure(
    options: RunOptions, plan: Plan, rows: Sequence[Row], server: TritonServer | None, step: Progress
) -> tuple[tuple[float, ...], bool]:
    """Let each phase fill in its fields; the times of the calibration loop, and whether Ctrl-C did not come.

    A phase keeps what it has on the rows when Ctrl-C ends it, and leaves rows alone that have failed.
    """
    timings = time_rows(options, plan, rows, server, step)
    if not timings.complete:
        return timings.calibration_ms, False
    try:
        score_rows(plan, rows, step)
    except KeyboardInterrupt:
        return timings.calibration_ms, False
    return timings.calibration_ms, True


def _check_any(rows: Sequence[Row]) -> None:
    """Nothing measured at all is an error, not a table of failures."""
    if any(row.latency for row in rows):
        return
    for row in rows:
        if row.error:
            raise row.error
    raise KeyboardInterrupt
