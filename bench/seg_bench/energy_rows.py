"""Energy and GPU memory of the rows of a run, one row after another while all others wait.

Calls of several rows that take turns would blur into one another: a row gets a block of its own here,
after the timing, and its calls are made by its own process with images that were read before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seg_bench.memory import process_tree
from seg_bench.power import Meters, measure_energy
from seg_bench.records import Energy
from seg_bench.worker_process import WorkerProcess
from seg_runtime.server import TritonServer

__all__ = ["DeviceUse", "measure_device_use"]

_CALLS = 4
"""Different calls that a block goes round: their images are held in memory."""


@dataclass(frozen=True)
class DeviceUse:
    """What a row took of the device, as the fields of `records.Record`; None where nothing tells."""

    energy: Energy | None = None
    device_memory_mib: float | None = None


def measure_device_use(
    workers: Mapping[str, WorkerProcess],
    server: TritonServer | None,
    samples: int,
    batch: int,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, DeviceUse]:
    """Measure every row for about three seconds; a machine without any meter is left at once.

    Rows on a server that this run did not start are left out: no meter is there.

    Args:
        workers: the rows, warmed up.
        server: the one that rows on a server use, or None.
        samples: images there are.
        batch: images per call.
        on_step: called with (rows done, rows in all) before each.
    """
    calls = [[(first + i) % samples for i in range(batch)] for first in range(0, _CALLS * batch, batch)]
    uses: dict[str, DeviceUse] = {}
    with Meters() as meters:
        for done, (name, worker) in enumerate(workers.items()):
            process = server if worker.candidate.runtime == "Triton" else worker
            if process is None or process.pid is None:
                continue
            pids = process_tree(process.pid)
            memory_mib = meters.device_memory_mib(pids)
            meter = meters.of_row(pids, worker.engine)
            energy = None
            if meter is not None:
                if on_step:
                    on_step(done, len(workers))
                worker.load(calls)
                energy = measure_energy(worker.repeat, batch, meter)
            uses[name] = DeviceUse(energy, memory_mib)
    return uses
