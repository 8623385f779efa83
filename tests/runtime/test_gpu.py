"""The driver's answers about its first device."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from seg_runtime import gpu

NAMES = {75: 8, 76: 6}


class Driver:
    """Stands for libcuda.so.1; `failing` is a call that returns an error."""

    def __init__(self, failing: str = "", devices: int = 1) -> None:
        self._failing, self._devices = failing, devices

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self._failing:
                return 999
            if name == "cuDeviceGetCount":
                arguments[0]._obj.value = self._devices
            elif name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA GeForce RTX 3090"
            elif name == "cuDeviceTotalMem_v2":
                # More than 32 bits: a smaller integer would lose it.
                assert isinstance(arguments[0]._obj, ctypes.c_size_t)
                arguments[0]._obj.value = 24 * 2**30
            elif name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = NAMES[arguments[1]]
            return 0

        return call


def first_gpu(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> gpu.Gpu | None:
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: driver)
    return gpu.first_gpu()


def test_first_device_has_a_name_a_compute_capability_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found = first_gpu(monkeypatch, Driver())
    assert found == gpu.Gpu("NVIDIA GeForce RTX 3090", "8.6", 24 * 2**30)


@pytest.mark.parametrize(
    "failing",
    [
        "cuInit",
        "cuDeviceGetCount",
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceTotalMem_v2",
        "cuDeviceGetAttribute",
    ],
)
def test_driver_that_fails_has_no_device(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    assert first_gpu(monkeypatch, Driver(failing)) is None


def test_driver_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_gpu(monkeypatch, Driver(devices=0)) is None
