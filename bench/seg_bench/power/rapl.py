"""RAPL: energy counters of the processor's packages, as Linux shows them under /sys/class/powercap.

Linux, "Power Capping Framework": `energy_uj` counts microjoules and starts again at 0 after
`max_energy_range_uj`. Packages count cores and caches, not the memory, disks or fans. AMD's processors
have the same files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RaplMeter", "is_denied", "open_rapl", "package_folders"]

POWERCAP = Path("/sys/class/powercap")


@dataclass
class _Counter:
    file: Path
    range_uj: int
    last_uj: int
    sum_uj: int = 0

    def read(self) -> int:
        now_uj = int(self.file.read_text(encoding="ascii"))
        passed_uj = now_uj - self.last_uj
        self.sum_uj += passed_uj if passed_uj >= 0 else passed_uj + self.range_uj
        self.last_uj = now_uj
        return self.sum_uj


class RaplMeter:
    """The sum of all packages. Read it at least every few minutes: a counter that starts again twice
    between two readings is not seen.

    Args:
        folders: of the packages, as `package_folders` finds them.

    Raises:
        OSError: a counter may not be read.
        ValueError: a file holds no number.
    """

    source = "RAPL"

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.covers = " + ".join(_text(folder / "name") for folder in folders)
        self._counters = [
            _Counter(
                folder / "energy_uj",
                int(_text(folder / "max_energy_range_uj")),
                int(_text(folder / "energy_uj")),
            )
            for folder in folders
        ]

    def energy_j(self) -> float | None:
        try:
            return sum(counter.read() for counter in self._counters) / 1e6
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Nothing is held open."""


def package_folders(powercap: Path = POWERCAP) -> tuple[Path, ...]:
    """Folders of the packages, sorted; parts of a package (cores, memory) are left out."""
    folders = sorted(powercap.glob("intel-rapl:*"))
    return tuple(folder for folder in folders if _is_package(folder))


def open_rapl(powercap: Path = POWERCAP) -> RaplMeter | None:
    """The meter; None where there is none, and where this user may not read it."""
    folders = package_folders(powercap)
    if not folders:
        return None
    try:
        return RaplMeter(folders)
    except (OSError, ValueError):
        return None


def is_denied(powercap: Path = POWERCAP) -> bool:
    """Whether counters are there and this user may not read them."""
    return not all(os.access(folder / "energy_uj", os.R_OK) for folder in package_folders(powercap))


def _is_package(folder: Path) -> bool:
    try:
        return _text(folder / "name").startswith("package")
    except OSError:
        return False


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
