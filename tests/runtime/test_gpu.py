"""The driver's answers about its first device."""

from __future__ import annotations

import pytest
from fake_cuda import FakeDriver

from seg_runtime.engines import gpu


def first_gpu(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> gpu.Gpu | None:
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: driver)
    return gpu.first_gpu()


def test_first_device_has_a_name_a_compute_capability_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found = first_gpu(monkeypatch, FakeDriver())
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
    assert first_gpu(monkeypatch, FakeDriver(failing)) is None


def test_driver_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_gpu(monkeypatch, FakeDriver(devices=0)) is None


def test_first_device_has_an_address_unless_the_driver_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for driver, expected in (
        (FakeDriver(), "0000:65:00.0"),
        (FakeDriver("cuDeviceGetPCIBusId"), None),
        (FakeDriver(devices=0), None),
    ):
        monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name, driver=driver: driver)
        assert gpu.first_bus_id() == expected
