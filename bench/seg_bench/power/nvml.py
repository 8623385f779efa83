"""NVML: energy and memory of NVIDIA's GPUs in a workstation, through the package nvidia-ml-py."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any

from seg_bench.power.meter import Integrator

__all__ = ["Nvml", "NvmlMeter", "open_nvml"]

_INTERVAL_S = 0.05


class Nvml:
    """The library, initialised; close it.

    Args:
        library: the module `pynvml`.

    Raises:
        pynvml.NVMLError: there is no driver, or it does not fit the library.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        library.nvmlInit()
        self._devices = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]

    def names(self) -> list[str]:
        """Of all GPUs."""
        return [str(self._library.nvmlDeviceGetName(device)) for device in self._devices]

    def memory_mib(self, pids: Collection[int]) -> float | None:
        """Memory that these processes hold on all GPUs, in MiB; None when they are on none, or unknown."""
        used = [memory for device in self._devices for pid, memory in self._processes(device) if pid in pids]
        known = [memory for memory in used if memory is not None]
        return sum(known) / 2**20 if known and len(known) == len(used) else None

    def uses(self, pids: Collection[int]) -> bool:
        """Whether one of these processes is on a GPU, as far as NVML sees processes."""
        return bool(self._devices_of(pids))

    def meter(self, pids: Collection[int]) -> NvmlMeter | None:
        """A meter of the GPUs that these processes are on.

        In a container NVML does not see whose processes are whose: then it is the only GPU, and None when
        there are several.
        """
        devices = self._devices_of(pids) or (self._devices if len(self._devices) == 1 else [])
        if not devices:
            return None
        try:
            return NvmlMeter(self._library, devices)
        except self._library.NVMLError:
            return None

    def close(self) -> None:
        self._library.nvmlShutdown()

    def _devices_of(self, pids: Collection[int]) -> list[Any]:
        return [device for device in self._devices if any(pid in pids for pid, _ in self._processes(device))]

    def _processes(self, device: Any) -> list[tuple[int, int | None]]:
        try:
            running = self._library.nvmlDeviceGetComputeRunningProcesses(device)
        except self._library.NVMLError:
            return []
        return [(process.pid, process.usedGpuMemory) for process in running]


class NvmlMeter:
    """The board power of GPUs, their memory included, without the rest of the computer.

    Volta and later have a counter; older ones are sampled by a thread. Close it.

    Args:
        library: the module `pynvml`.
        devices: handles of the GPUs; one or more.

    Raises:
        pynvml.NVMLError: a GPU tells neither energy nor power.
    """

    source = "NVML"

    def __init__(self, library: Any, devices: Sequence[Any]) -> None:
        self._library, self._devices = library, tuple(devices)
        self.covers = " + ".join(str(library.nvmlDeviceGetName(device)) for device in devices)
        self._integrator: Integrator | None = None
        self._closed = threading.Event()
        self._sampler: threading.Thread | None = None
        try:
            self._counted_j()
        except library.NVMLError:
            self._integrator = Integrator()
            self._integrator.add(self._power_w())
            self._sampler = threading.Thread(target=self._sample, name="nvml", daemon=True)
            self._sampler.start()

    def energy_j(self) -> float | None:
        if self._integrator is not None:
            return self._integrator.energy_j()
        try:
            return self._counted_j()
        except self._library.NVMLError:
            return None

    def close(self) -> None:
        self._closed.set()
        if self._sampler is not None:
            self._sampler.join()

    def _counted_j(self) -> float:
        millijoules = (self._library.nvmlDeviceGetTotalEnergyConsumption(device) for device in self._devices)
        return float(sum(millijoules)) / 1000

    def _power_w(self) -> float:
        milliwatts = (self._library.nvmlDeviceGetPowerUsage(device) for device in self._devices)
        return float(sum(milliwatts)) / 1000

    def _sample(self) -> None:
        while self._integrator is not None and not self._closed.wait(_INTERVAL_S):
            try:
                self._integrator.add(self._power_w())
            except self._library.NVMLError:
                return  # it no longer tells: the integrator says so once its last sample is old


def open_nvml() -> Nvml | None:
    """NVML; None without nvidia-ml-py, and without a GPU or a driver that answers."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return Nvml(pynvml)
    except pynvml.NVMLError:
        return None
