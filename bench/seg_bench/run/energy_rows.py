"""Energy and GPU memory of a row, measured while all other rows wait.

Calls of several rows that take turns would blur into one another: a row gets a block of its own here,
after the timing, and its calls are made by its own process with images that were read before.
"""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.memory import process_tree
from seg_bench.power import Meters, measure_energy
from seg_bench.run.rows import Progress, Row, failing_alone, live_rows
from seg_runtime.server import TritonServer

__all__ = ["device_rows"]

_CALLS = 4
"""Different calls that a block goes round: their images are held in memory."""


def device_rows(rows: Sequence[Row], server: TritonServer | None, step: Progress) -> None:
    """Fill in the energy and the GPU memory of every row, about three seconds each; at once without a meter.

    Args:
        rows: warmed up.
        server: the server that this run started, or None. A row on a server elsewhere has no meter here.
        step: told about progress.

    Raises:
        KeyboardInterrupt: the row that it cut short has no energy.
    """
    live = live_rows(rows)
    with Meters() as meters:
        if not meters.found():
            return
        for done, row in enumerate(live.values()):
            step("measuring energy", done, len(live))
            with failing_alone(row):
                _measure(row, server, meters)


def _measure(row: Row, server: TritonServer | None, meters: Meters) -> None:
    process = server if row.candidate.runtime == "Triton" else row.worker
    if process is None or process.pid is None:
        return
    pids = process_tree(process.pid)
    row.device_memory_mib = meters.device_memory_mib(pids)
    meter = meters.of_row(pids, row.engine or "")
    if meter is None:
        return
    batch, images = row.candidate.batch, len(row.candidate.samples)
    row.worker.hold(
        [[(first + i) % images for i in range(batch)] for first in range(0, _CALLS * batch, batch)]
    )
    row.energy = measure_energy(row.worker.repeat, batch, meter)
