"""Keeps from other users of the machine what Triton would show them: keys in its command line, its memory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["close_memory", "hide_arguments"]

_MEMORY = Path("/dev/shm")
# Fields of /proc/PID/stat after the name, which is in parentheses.
_ARGUMENTS_START, _ARGUMENTS_END = 45, 46


def hide_arguments(pid: int, values: Sequence[str]) -> None:
    """Overwrite values in the command line of a process of ours, which every user can list.

    Triton takes keys there and nowhere else. Call it when the process has read them. Random letters take
    their place, so that a process that had not yet is closed and not open. Does nothing where the
    kernel forbids it.
    """
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = status.rpartition(")")[2].split()
        start, end = int(fields[_ARGUMENTS_START]), int(fields[_ARGUMENTS_END])
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start)
            for value in values:
                for position in _positions(arguments, value.encode()):
                    memory.seek(start + position)
                    memory.write(secrets.token_urlsafe(len(value))[: len(value)].encode())


def close_memory(prefix: str) -> None:
    """Take other users' permission to read the memory of Triton's python backend, which has images in it.

    Args:
        prefix: what the names of the regions begin with.
    """
    for region in _MEMORY.glob(f"{prefix}*"):
        with suppress(OSError):
            # Anyone can put a link there.
            file = os.open(region, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(file, 0o600)
            finally:
                os.close(file)


def _positions(text: bytes, part: bytes) -> list[int]:
    found, position = [], text.find(part)
    while position >= 0:
        found.append(position)
        position = text.find(part, position + 1)
    return found
