"""Reads a machine's own files. `root` is "/", or a folder with files of another machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from seg_bench.doctor.found import Board, InstructionSets, Memory
from seg_bench.doctor.targets import jetpack_of_l4t, read_l4t

__all__ = [
    "has_nvidia_card",
    "read_board",
    "read_driver",
    "read_instruction_sets",
    "read_load",
    "read_memory",
    "read_shared_memory",
]

# What people call an instruction set, and what Linux calls it.
_X86 = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx": "amx_tile",
}
_ARM = {"neon": "asimd", "dotprod": "asimddp", "i8mm": "i8mm", "bf16": "bf16"}

_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""PCI vendor, and the beginning of the class of graphics cards and 3D controllers."""


def read_instruction_sets(root: Path) -> InstructionSets:
    """From `/proc/cpuinfo`. Raises OSError; ValueError when it does not tell."""
    text = _text(root / "proc/cpuinfo")
    found = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if found is None:
        raise ValueError("/proc/cpuinfo lists no instruction sets")
    flags = set(found[2].split())
    names = _X86 if found[1] == "flags" else _ARM
    has = tuple(name for name, flag in names.items() if flag in flags)
    return InstructionSets(has, tuple(name for name in names if name not in has))


def read_memory(root: Path) -> Memory:
    """Main memory, from `/proc/meminfo`. Raises OSError; ValueError when it does not tell."""
    text = _text(root / "proc/meminfo")
    sizes = dict(re.findall(r"^(MemTotal|MemAvailable):\s*(\d+) kB$", text, re.MULTILINE))
    if len(sizes) != 2:
        raise ValueError("/proc/meminfo does not tell total and available memory")
    return Memory(int(sizes["MemTotal"]) * 1024, int(sizes["MemAvailable"]) * 1024)


def read_shared_memory(root: Path) -> Memory:
    """Of `/dev/shm`. Raises OSError."""
    usage = shutil.disk_usage(root / "dev/shm")
    return Memory(usage.total, usage.free)


def read_load(root: Path) -> float:
    """Processes that ran or waited for a core, a mean of the last minute. Raises OSError, ValueError."""
    return float(_text(root / "proc/loadavg").partition(" ")[0])


def read_board(root: Path) -> Board | None:
    """The Jetson that this is, or None. Raises OSError."""
    release, model = root / "etc/nv_tegra_release", root / "proc/device-tree/model"
    l4t = read_l4t(_text(release)) if release.is_file() else None
    if l4t is None and not (model.is_file() and "Jetson" in _text(model)):
        return None
    return Board(l4t, jetpack_of_l4t(l4t) if l4t else None, _power_mode(root))


def _power_mode(root: Path) -> str | None:
    """The name of nvpmodel's mode; None where its files are not there, as in a container."""
    status, modes = root / "var/lib/nvpmodel/status", root / "etc/nvpmodel.conf"
    if not (status.is_file() and modes.is_file()):
        return None
    names = dict(re.findall(r"^< POWER_MODEL ID=(\d+) NAME=(\S+) >", _text(modes), re.MULTILINE))
    number = re.search(r"pmode:0*(\d+)", _text(status))
    return names.get(number[1]) if number else None


def read_driver(root: Path) -> str | None:
    """Version of NVIDIA's kernel driver, None where it is not loaded. Raises OSError, ValueError."""
    path = root / "proc/driver/nvidia/version"
    if not path.is_file():
        return None
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d[\d.]*)\s", _text(path), re.MULTILINE)
    if found is None:
        raise ValueError("/proc/driver/nvidia/version does not tell a version")
    return found[1]


def has_nvidia_card(root: Path) -> bool:
    """Whether the PCI bus has one. Raises OSError."""
    return any(
        _text(vendor).strip() == _NVIDIA and _text(vendor.with_name("class")).startswith(_DISPLAY)
        for vendor in (root / "sys/bus/pci/devices").glob("*/vendor")
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
