"""The phase of a run that times calls: every row once per round."""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.latency import measure_interleaved
from seg_bench.memory import peak_tree_memory_mib
from seg_bench.run.options import RunOptions
from seg_bench.run.rows import Progress, Row, failing_alone, live_rows
from seg_runtime.server import TritonServer

__all__ = ["time_rows"]


def time_rows(options: RunOptions, rows: Sequence[Row], server: TritonServer | None, step: Progress) -> None:
    """Fill in latency, noise and peak memory of every row, and what computed it.

    Raises:
        KeyboardInterrupt: rows keep the calls so far.
    """
    live = live_rows(rows)
    timings = measure_interleaved(
        list(live),
        lambda name, number: live[name].call(number),
        repeats=options.repeats,
        warm_up=options.warm_up,
        until_stable=options.until_stable,
        seed=options.seed,
        rule=options.rule,
        on_step=lambda done, total: step("timing", done, total),
    )
    for name, row in live.items():
        samples = timings.samples[name]
        row.latency, row.noise, row.warm_up = samples.latency, samples.noise, len(samples.warm_up_ms)
        row.calibration_ms, row.early = tuple(samples.calibration_ms), samples.early
        if samples.error:
            row.fail(samples.error)
        # Scoring needs memory of its own, so peaks are read before it.
        row.peak_memory_mib = _peak_mib(row, server)
    if not timings.complete:
        raise KeyboardInterrupt
    for row in live_rows(rows).values():
        with failing_alone(row):
            row.engine = row.worker.engine_now()


def _peak_mib(row: Row, server: TritonServer | None) -> float | None:
    if row.candidate.runtime != "Triton":
        return row.worker.peak_memory_mib()
    return peak_tree_memory_mib(server.pid) if server and server.pid else None
