"""Jetson: jtop, the service of jetson-stats. A container reaches it through `/run/jtop.sock`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from seg_bench.power.meter import Integrator
from seg_bench.power.tegrastats import board_power

__all__ = ["JtopMeter", "open_jtop", "rails_mw"]

_INTERVAL_S = 0.1
_FIRST_SAMPLE_S = 3.0


def rails_mw(power: Any) -> dict[str, float]:
    """Milliwatts by rail, of what `jtop.power` holds since jetson-stats 4.2; none of what it held before.

    Its own total is not taken: on AGX Orin, and in older releases on Thor, it adds rails up of which one is
    a part of another. A rail that it took for the total has left the others and stands there with its name.
    """
    if not isinstance(power, Mapping):
        return {}
    rails = {name: float(rail["power"]) for name, rail in power.get("rail", {}).items()}
    total = power.get("tot", {})
    if "name" in total:
        rails[total["name"]] = float(total["power"])
    return rails


class JtopMeter:
    """A connection to the service; close it.

    Args:
        jtop: a started `jtop.jtop`.
        fault: what it raises when the service goes away.
    """

    source = "jtop"

    def __init__(self, jtop: Any, fault: type[Exception]) -> None:
        self.covers = ""
        self._integrator = Integrator()
        self._jtop, self._fault = jtop, fault
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, name="jtop", daemon=True)
        self._reader.start()

    def energy_j(self) -> float | None:
        return self._integrator.energy_j()

    def wait_for_first(self, timeout_s: float) -> bool:
        """Whether a sample with the power of the whole came in time."""
        end = time.monotonic() + timeout_s
        while not self.covers and self._reader.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        return bool(self.covers)

    def close(self) -> None:
        self._closed.set()
        self._reader.join(timeout=2 * _FIRST_SAMPLE_S)
        self._jtop.close()

    def _read(self) -> None:
        # Once the service is gone there are no samples, and the integrator says so.
        with suppress(self._fault, OSError, EOFError):
            while not self._closed.is_set() and self._jtop.ok():  # it waits for the next sample
                power = board_power(rails_mw(self._jtop.power))
                if power is not None:
                    self._integrator.add(power[0])
                    self.covers = power[1]


def open_jtop() -> JtopMeter | None:
    """The meter; None where jetson-stats is not installed, or its service does not answer."""
    try:
        from jtop import JtopException, jtop
    except ImportError:
        return None
    try:
        connection = jtop(interval=_INTERVAL_S)
        connection.start()
    except (JtopException, OSError):
        return None
    meter = JtopMeter(connection, JtopException)
    if meter.wait_for_first(_FIRST_SAMPLE_S):
        return meter
    meter.close()
    return None
