"""The first NVIDIA GPU of this machine, asked of the driver itself: no CUDA package is needed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

__all__ = ["Gpu", "first_bus_id", "first_gpu"]

# CUdevice_attribute in cuda.h.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """A device.

    Attributes:
        name: as the driver calls it, for example "NVIDIA GeForce RTX 3090" or "Orin".
        compute_capability: for example "8.6".
        memory: its memory in bytes; on a Jetson that is the board's, shared with the processor.
    """

    name: str
    compute_capability: str
    memory: int


def first_gpu() -> Gpu | None:
    """Device 0, as CUDA_VISIBLE_DEVICES leaves it; None without a driver or device."""
    driver, device = _first_device()
    name = ctypes.create_string_buffer(256)
    if device is None or driver.cuDeviceGetName(name, len(name), device):
        return None
    memory = ctypes.c_size_t()
    if driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device):
        return None
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        numbers.append(value.value)
    return Gpu(name.value.decode(), f"{numbers[0]}.{numbers[1]}", memory.value)


def first_bus_id() -> str | None:
    """PCI address of device 0, as "0000:65:00.0", by which NVML knows it; None without a driver or device."""
    driver, device = _first_device()
    text = ctypes.create_string_buffer(32)
    if device is None or driver.cuDeviceGetPCIBusId(text, len(text), device):
        return None
    return text.value.decode()


def _first_device() -> tuple[Any, ctypes.c_int | None]:
    """The driver's library, and device 0 unless there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, None
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return driver, None
    return driver, None if driver.cuDeviceGet(ctypes.byref(device), 0) else device
