"""Measures accuracy, latency and memory of deployed models, and makes the records of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

from seg_bench.latency import noise_note
from seg_bench.machine import describe_machine
from seg_bench.records import SCHEMA, Run
from seg_bench.run.accuracies import score_rows
from seg_bench.run.agreements import check_agreement
from seg_bench.run.best_batch import best_batches
from seg_bench.run.conditions import score_conditions
from seg_bench.run.energy_rows import device_rows
from seg_bench.run.loads import load_rows
from seg_bench.run.options import RunOptions
from seg_bench.run.plan import Plan, make_plan
from seg_bench.run.rounds import time_rows
from seg_bench.run.row_record import make_record
from seg_bench.run.rows import Progress, Row, open_rows
from seg_runtime.errors import EdgesegError
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
    rows: list[Row] = []
    complete = True
    with TemporaryDirectory(prefix="seg-bench-") as folder:
        plan = make_plan(options, Path(folder))
        try:
            for subjects in plan.groups(options):
                with ExitStack() as stack:
                    _measure_group(options, plan, subjects, rows, stack, step)
        except KeyboardInterrupt:
            complete = False
    _check_any(rows)
    calibration_ms = tuple(spent for row in rows for spent in row.calibration_ms)
    return Run(
        schema=SCHEMA,
        started_utc=started,
        command=command,
        complete=complete,
        machine=describe_machine(),
        calibration_ms=calibration_ms,
        note="; ".join([noise_note(calibration_ms), *plan.notes(options)]),
        records=tuple(make_record(options, plan, row) for row in rows if row.measured),
    )


def _measure_group(
    options: RunOptions,
    plan: Plan,
    subjects: Collection[str],
    rows: list[Row],
    stack: ExitStack,
    step: Progress,
) -> None:
    """Measure models that are in memory at the same time, adding their rows to `rows`.

    Each phase fills in its fields, and leaves rows alone that have failed.

    Raises:
        KeyboardInterrupt: the rows keep what was measured.
    """
    server: TritonServer | None = None
    failure: EdgesegError | None = None
    try:
        server = _start_server(options, plan.models_of(subjects), stack, step)
    except EdgesegError as error:
        failure = error
    group = [Row(candidate) for candidate in plan.candidates(options, server, subjects)]
    rows += group
    for row in group:
        if failure and row.candidate.runtime == "Triton":
            row.fail(failure)
    open_rows(group, stack, step)
    if options.gate:
        check_agreement(plan, options.repo, group, step)
    time_rows(options, group, server, step)
    if options.energy:
        device_rows(group, server, step)
    score_rows(plan, group, step)
    score_conditions(plan, group, step)
    load_rows(options, group, step)
    if options.best_batch:
        largest = {row.name: plan.largest_batch(row.candidate) for row in group}
        best_batches(group, largest, options.rule.deadline, step)


def _start_server(
    options: RunOptions, models: tuple[str, ...], stack: ExitStack, step: Progress
) -> TritonServer | None:
    """A server of our own with just these models, on free ports; or None where none is needed."""
    if not options.server_places or options.url:
        return None
    step("starting the server", 0, 1)
    # Every call is to be computed: the cache would answer an image that comes again.
    server_options = ServerOptions(
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        models=models,
        threads=options.threads or 0,
        response_cache_mb=0,
    )
    return stack.enter_context(TritonServer(options.repo, server_options))


def _check_any(rows: Sequence[Row]) -> None:
    """Nothing measured at all is an error, not a table of failures."""
    if any(row.latency for row in rows):
        return
    for row in rows:
        if row.error:
            raise row.error
    raise KeyboardInterrupt
