"""Energy and GPU memory of a row, measured while all other rows wait.

Calls of several rows that take turns would blur into one another: a row gets a block of its own here,
after the timing, and its calls are made by its own process with images that were read before.
"""

from __future__ import annotations

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
    worker: WorkerProcess, server: TritonServer | None, meters: Meters, samples: int, batch: int
) -> DeviceUse:
    """Measure one row for about three seconds; where there is no meter for it, at once.

    Args:
        worker: the row, warmed up.
        server: the server that this run started, or None. A row on a server elsewhere has no meter here.
        meters: of this machine.
        samples: images there are.
        batch: images per call.

    Raises:
        EdgesegError: a call fails, or the row's process dies.
    """
    process = server if worker.candidate.runtime == "Triton" else worker
    if process is None or process.pid is None:
        return DeviceUse()
    pids = process_tree(process.pid)
    memory_mib = meters.device_memory_mib(pids)
    meter = meters.of_row(pids, worker.engine)
    if meter is None:
        return DeviceUse(None, memory_mib)
    worker.hold([[(first + i) % samples for i in range(batch)] for first in range(0, _CALLS * batch, batch)])
    return DeviceUse(measure_energy(worker.repeat, batch, meter), memory_mib)
