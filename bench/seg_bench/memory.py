"""Resident memory of processes and its peak, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path

from seg_runtime.errors import MissingExtraError

__all__ = ["memory_mib", "peak_memory_mib", "peak_tree_memory_mib", "process_tree"]


def peak_memory_mib(pid: int) -> float | None:
    """Highest resident memory of a running process in MiB, or None where /proc does not tell.

    `resource.getrusage` is no replacement: its maximum is inherited from the parent process.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) / 1024 if match else None


def memory_mib() -> float:
    """Resident memory of this process at this moment, in MiB.

    Raises:
        MissingExtraError: psutil is not installed.
    """
    try:
        import psutil
    except ImportError as error:
        raise MissingExtraError("psutil", "bench") from error
    return float(psutil.Process().memory_info().rss) / 2**20


def peak_tree_memory_mib(pid: int) -> float | None:
    """Sum of the peaks of a process and its descendants, in MiB; pages that they share count in each.

    Raises:
        MissingExtraError: psutil is not installed.
    """
    peaks = [peak for member in process_tree(pid) if (peak := peak_memory_mib(member)) is not None]
    return sum(peaks) if peaks else None


def process_tree(pid: int) -> frozenset[int]:
    """A process and all its descendants; empty when it has ended.

    Raises:
        MissingExtraError: psutil is not installed.
    """
    try:
        import psutil
    except ImportError as error:
        raise MissingExtraError("psutil", "bench") from error
    try:
        return frozenset([pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))])
    except psutil.NoSuchProcess:
        return frozenset()
