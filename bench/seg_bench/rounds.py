"""The phase of a run that times calls: every row once per round."""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.latency import Timings, measure_interleaved
from seg_bench.memory import peak_tree_memory_mib
from seg_bench.options import RunOptions
from seg_bench.plan import Plan
from seg_bench.rows import Progress, Row, live_rows
from seg_runtime.server import TritonServer

__all__ = ["time_rows"]


def time_rows(
    options: RunOptions, plan: Plan, rows: Sequence[Row], server: TritonServer | None, step: Progress
) -> Timings:
    """Fill in latency and peak memory of every row; returns what was timed.

    Ctrl-C ends it early and keeps the calls so far; see `Timings.complete`.
    """
    live = live_rows(rows)

    def call(name: str, number: int) -> dict[str, float]:
        first = number * options.batch
        return live[name].worker.time([(first + i) % len(plan.samples) for i in range(options.batch)])

    timings = measure_interleaved(
        list(live),
        call,
        repeats=options.repeats,
        warm_up=options.warm_up,
        seed=options.seed,
        on_step=lambda done, total: step("timing", done, total),
    )
    for name, row in live.items():
        samples = timings.samples[name]
        row.latency, row.noise, row.warm_up = samples.latency, samples.noise, len(samples.warm_up_ms)
        if samples.error:
            row.fail(samples.error)
        # Scoring needs memory of its own, so peaks are read before it.
        row.peak_memory_mib = _peak_mib(row, server)
    return timings


def _peak_mib(row: Row, server: TritonServer | None) -> float | None:
    if row.candidate.runtime != "Triton":
        return row.worker.peak_memory_mib()
    return peak_tree_memory_mib(server.pid) if server and server.pid else None
