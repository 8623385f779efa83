"""Jetson: what NVIDIA's `tegrastats` prints, read as a stream.

The rails differ between boards (NVIDIA's "Jetson Linux Developer Guide", Platform Power and Performance):

- `VDD_IN` of Orin NX and Orin Nano is the input of the module.
- `VIN` of AGX Thor is the input of the developer kit: its sensor is on the carrier board.
- On AGX Orin no sensor sees all of it: the module is `VDD_GPU_SOC` + `VDD_CPU_CV` + `VIN_SYS_5V0`, and
  `VDDQ_VDD2_1V8AO` is a part of the last.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from seg_bench.power.meter import Integrator

__all__ = ["TegrastatsMeter", "board_power", "open_tegrastats", "parse_rails_mw"]

_INPUTS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that are the whole; the last is that of the first Jetson Nano and the TX2."""
_AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")

_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)mW\b")
_INTERVAL_MS = 100
_FIRST_LINE_S = 3.0
_STOP_S = 2.0


def parse_rails_mw(line: str) -> dict[str, int]:
    """Power of each rail at this moment in milliwatts, by its name; empty for another kind of line.

    JetPack 6 prints "now/mean", JetPack 7.2 a third number after them: only the first is taken. It may be
    below 0 on a rail that is switched off.
    """
    return {name: int(power) for name, power in _RAIL.findall(line) if name != "NC"}


def board_power(rails_mw: Mapping[str, float]) -> tuple[float, str] | None:
    """Watts of the whole, and the rails it is made of; None when the rails of this board do not tell."""
    for name in _INPUTS:
        if name in rails_mw:
            return rails_mw[name] / 1000, name
    if all(name in rails_mw for name in _AGX_ORIN):
        return sum(rails_mw[name] for name in _AGX_ORIN) / 1000, " + ".join(_AGX_ORIN)
    return None


class TegrastatsMeter:
    """A running `tegrastats`; close it.

    Args:
        command: the program and its options.

    Raises:
        OSError: it cannot be started.
    """

    source = "tegrastats"

    def __init__(self, command: tuple[str, ...]) -> None:
        self.covers = ""
        self._integrator = Integrator()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal is not for it
        )
        self._reader = threading.Thread(target=self._read, name="tegrastats", daemon=True)
        self._reader.start()

    def energy_j(self) -> float | None:
        return self._integrator.energy_j()

    def wait_for_first(self, timeout_s: float) -> bool:
        """Whether a line with the power of the whole came in time."""
        end = time.monotonic() + timeout_s
        while not self.covers and self._reader.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        return bool(self.covers)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=_STOP_S)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def _read(self) -> None:
        with suppress(ValueError):  # the stream was closed
            for line in self._process.stdout or ():
                power = board_power(parse_rails_mw(line))
                if power is not None:
                    self._integrator.add(power[0])
                    self.covers = power[1]


def open_tegrastats() -> TegrastatsMeter | None:
    """The meter of a Jetson; None where there is no tegrastats, or it tells no power of the whole."""
    program = shutil.which("tegrastats")
    if program is None:
        return None
    try:
        meter = TegrastatsMeter((program, "--interval", str(_INTERVAL_MS)))
    except OSError:
        return None
    if meter.wait_for_first(_FIRST_LINE_S):
        return meter
    meter.close()
    return None
