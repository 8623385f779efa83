"""The phase of a run that finds the batch with which a row answers most images per second."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from seg_bench.records import Throughput
from seg_bench.run.rows import Progress, Row, live_rows
from seg_runtime.errors import EdgesegError

__all__ = ["best_batches"]

_MOST_CALL_S = 1.0
"""No batch is tried whose call would take longer: a row that slow gains next to nothing."""
_BLOCK_S = 0.5
"""Calls with each batch go on for so long."""
_WORTH = 1.02
"""Ratio of throughputs from which on a larger batch is better; below it the next one is not tried."""


def best_batches(rows: Sequence[Row], largest: Mapping[str, int], deadline: float, step: Progress) -> None:
    """Fill in the throughput of every row; the last phase, since a batch may be more than a device holds.

    Args:
        rows: that were timed.
        largest: images that one call may take, by the name of the row.
        deadline: of `time.monotonic`; no row begins after it.
        step: called with progress.

    Raises:
        KeyboardInterrupt: the row that it cut short has no throughput.
    """
    live = {name: row for name, row in live_rows(rows).items() if row.latency and largest[name] > 1}
    for done, (name, row) in enumerate(live.items()):
        if time.monotonic() > deadline:
            return
        step("finding the best batch", done, len(live))
        _try_batches(row, largest[name])


def _try_batches(row: Row, largest: int) -> None:
    """Batches of 1, 2, 4, ... until one is no better; an error leaves what was found before it."""
    batches = [2**power for power in range(int(math.log2(largest)) + 1)]
    if batches[-1] < largest:
        batches.append(largest)
    image_s = row.latency.percentile(50) / 1000 / row.candidate.batch if row.latency else math.inf
    with suppress(EdgesegError):
        for batch in batches:
            if row.throughput and batch * image_s > _MOST_CALL_S:
                return
            found = _throughput(row, batch)
            if row.throughput and found.images_per_s < _WORTH * row.throughput.images_per_s:
                return
            row.throughput = found


def _throughput(row: Row, batch: int) -> Throughput:
    images = len(row.candidate.samples)
    row.worker.hold([[number % images for number in range(batch)]])
    row.worker.repeat(0)  # The first call of a size may allocate, or build.
    start = time.perf_counter()
    calls = row.worker.repeat(_BLOCK_S)
    return Throughput(batch, calls * batch / (time.perf_counter() - start))
