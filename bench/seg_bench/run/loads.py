"""The phase of a run that puts its rows under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seg_bench.candidate import BASELINES, Candidate
from seg_bench.records import LoadPoint
from seg_bench.run.options import LoadLevel, RunOptions
from seg_bench.run.rows import Progress, Row, failing_alone, live_rows
from seg_runtime.errors import InferenceError

__all__ = ["load_rows"]


def load_rows(options: RunOptions, rows: Sequence[Row], step: Progress) -> None:
    """Put every deployed row under every level of load, one row at a time, in a new order for each level.

    Tracked frames are left out: a video is tracked by one caller, frame after frame.

    Raises:
        KeyboardInterrupt: rows keep what was answered so far.
    """
    levels = options.load_levels
    deployed = [row for row in live_rows(rows).values() if _takes_load(row.candidate)]
    generator = np.random.default_rng(options.seed)
    for number, level in enumerate(levels):
        for place, position in enumerate(generator.permutation(len(deployed))):
            step("under load", number * len(deployed) + place, len(levels) * len(deployed))
            row = deployed[position]
            if row.failure is None:
                with failing_alone(row):
                    _load(row, level)


def _takes_load(candidate: Candidate) -> bool:
    return candidate.runtime not in BASELINES and not candidate.memories


def _load(row: Row, level: LoadLevel) -> None:
    try:
        answer = row.worker.load(level)
    except KeyboardInterrupt:
        _keep(row, level, row.worker.end_load())
        raise
    _keep(row, level, answer)


def _keep(row: Row, level: LoadLevel, answer: Mapping[str, Any] | None) -> None:
    """Add what was answered to the row. Raises InferenceError when calls were made and none was answered."""
    if answer is None or not (answer["latency_ms"] or answer["failures"]):
        return
    if not answer["latency_ms"]:
        raise InferenceError(f"no call was answered under load ({_words(level)}): {answer['failure']}")
    point = LoadPoint(
        concurrency=level.concurrency or answer["most_in_flight"],
        rate_per_s=level.rate_per_s,
        duration_s=answer["duration_s"],
        latency_ms=tuple(answer["latency_ms"]),
        images_per_s=row.candidate.batch * len(answer["latency_ms"]) / answer["duration_s"],
        failures=answer["failures"],
    )
    row.loads = (*(row.loads or ()), point)


def _words(level: LoadLevel) -> str:
    return f"{level.rate_per_s:g} calls/s" if level.rate_per_s else f"{level.concurrency} callers"
