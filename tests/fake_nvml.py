"""NVML and its GPUs without a driver, in the shape of the module `pynvml`.

`tests/project/test_stand_ins.py` compares it with the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

__all__ = ["Gpu", "fake_pynvml"]

BUS_ID = "0000:65:00.0"
"""Of the first GPU; the next one's first number is one more."""


class NVMLError(Exception):
    """As pynvml's."""


@dataclass
class Gpu:
    """A device: 100 W when asked for its power.

    Attributes:
        processes: memory of each in bytes, by its number; None where NVML does not know.
        energy_mj: what its counter shows in millijoules; None where it has none.
        memory: total and free bytes.
        busy: percent of the time that it computes; None where NVML does not know.
        reasons: bits that say why the clock is not higher.
        event_reasons: whether the driver knows the newer name of these.
    """

    name: str
    processes: dict[int, int | None] = field(default_factory=dict)
    energy_mj: int | None = 0
    memory: tuple[int, int] = (8 * 2**30, 8 * 2**30)
    busy: int | None = 0
    reasons: int = 1
    event_reasons: bool = True


class FakeNvml:
    """The functions, on some GPUs; `shut` counts how often it was shut down."""

    NVMLError = NVMLError

    def __init__(self, gpus: list[Gpu], driver: bool = True) -> None:
        self._gpus, self._driver = gpus, driver
        self.shut = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self._driver:
            raise NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:  # noqa: N802
        return self._gpus[index]

    def nvmlDeviceGetHandleByPciBusId(self, pciBusId: Any) -> Gpu:  # noqa: N802, N803
        for index, gpu in enumerate(self._gpus):
            if pciBusId == BUS_ID.replace("65", str(65 + index)):
                return gpu
        raise NVMLError("Not Found")

    def nvmlDeviceGetName(self, handle: Gpu) -> str:  # noqa: N802
        return handle.name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Gpu) -> int:  # noqa: N802
        handle.energy_mj = _known(handle.energy_mj) + 5000
        return handle.energy_mj

    def nvmlDeviceGetPowerUsage(self, handle: Gpu) -> int:  # noqa: N802
        return 100_000

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Gpu) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in handle.processes.items()]

    def nvmlDeviceGetMemoryInfo(self, handle: Gpu) -> Any:  # noqa: N802
        total, free = handle.memory
        return SimpleNamespace(total=total, free=free, used=total - free)

    def nvmlDeviceGetUtilizationRates(self, handle: Gpu) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=_known(handle.busy), memory=0)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Gpu) -> int:  # noqa: N802
        if not handle.event_reasons:
            raise NVMLError("Function Not Found")
        return handle.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Gpu) -> int:  # noqa: N802
        return handle.reasons


def fake_pynvml(gpus: list[Gpu], driver: bool = True) -> ModuleType:
    """The module `pynvml`; its attribute `nvml` is the `FakeNvml` behind it."""
    module, nvml = ModuleType("pynvml"), FakeNvml(gpus, driver)
    functions = {name: getattr(nvml, name) for name in dir(nvml) if name.startswith("nvml")}
    vars(module).update(functions, NVMLError=NVMLError, nvml=nvml)
    return module


def _known(value: int | None) -> int:
    if value is None:
        raise NVMLError("Not Supported")
    return value
