"""How busy, full and fast a GPU is at this moment, as NVML sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seg_bench.doctor.found import GpuState, Memory

__all__ = ["read_gpu_state"]

# nvmlClocksEventReasons in nvml.h. A GPU that is idle, or clocked as an application asked, is not slowed.
_LIMITS = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x020: "temperature",
    0x040: "temperature",
    0x080: "power brake",
}


def read_gpu_state(library: Any, bus_id: str) -> GpuState | None:
    """What NVML says of one GPU; None where it does not start or does not know it.

    Args:
        library: the module `pynvml`.
        bus_id: PCI address of the GPU, as "0000:65:00.0".
    """
    try:
        library.nvmlInit()
        device = library.nvmlDeviceGetHandleByPciBusId(bus_id)
    except library.NVMLError:
        return None

    def ask(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except library.NVMLError:
            return None

    memory = ask(lambda: library.nvmlDeviceGetMemoryInfo(device))
    use = ask(lambda: library.nvmlDeviceGetUtilizationRates(device))
    bits = ask(lambda: library.nvmlDeviceGetCurrentClocksEventReasons(device))
    if bits is None:  # A driver before 535 knows the older name only.
        bits = ask(lambda: library.nvmlDeviceGetCurrentClocksThrottleReasons(device))
    limits = dict.fromkeys(text for bit, text in _LIMITS.items() if (bits or 0) & bit)
    return GpuState(
        None if memory is None else Memory(int(memory.total), int(memory.free)),
        None if use is None else int(use.gpu),
        tuple(limits),
    )
