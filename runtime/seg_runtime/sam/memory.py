"""Refuses results that would not fit into memory, before the system ends the process for them."""

from __future__ import annotations

from pathlib import Path

from seg_runtime.errors import BadInputError

__all__ = ["available_bytes", "check_memory"]

_MEMINFO = Path("/proc/meminfo")


def check_memory(byte_size: int, what: str) -> None:
    """Raise BadInputError when `what`, a plural, needs more memory than there is."""
    available = available_bytes()
    if available is not None and byte_size > available:
        raise BadInputError(
            f"{what} take {byte_size / 1e9:.1f} GB and {available / 1e9:.1f} GB of memory are free: "
            "use predict_chunks, which holds few at a time, or give fewer prompts"
        )


def available_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not tell."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kilobytes is None else int(kilobytes) * 1024
