"""Which process registered a shared-memory region, told by the region's name: so that others can clean up.

Triton never notices that a client is gone, and keeps its regions mapped. The name therefore says whose a
region is, and the next client on the machine lets the server unmap what belongs to the dead.
"""

from __future__ import annotations

import os
import re
from functools import cache
from hashlib import sha256
from pathlib import Path

__all__ = ["belongs_to_the_dead", "name_prefix"]

_OWNER = re.compile(r"edgeseg-([0-9a-f]{16})-(\d+)-(\d+)-")
_UNKNOWN = 16 * "0"


def name_prefix() -> str:
    """What the names of this process' regions begin with: where it runs, its number and its start."""
    _, started = _state_and_start(os.getpid())
    return f"edgeseg-{_numbering()}-{os.getpid()}-{started}-"


def belongs_to_the_dead(region: str) -> bool:
    """Whether the process that named a region has ended. False where that cannot be known.

    It cannot for regions of other software, another machine, or another container, whose processes have
    numbers of their own.
    """
    owner = _OWNER.match(region)
    if owner is None or owner[1] == _UNKNOWN or owner[1] != _numbering():
        return False
    pid, started = int(owner[2]), int(owner[3])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # Another user's, and alive.
    state, now = _state_and_start(pid)
    # Ended, but its parent has not asked how; or its number was given to another process.
    return state in ("Z", "X") or (0 not in (started, now) and started != now)


@cache
def _numbering() -> str:
    """16 hexadecimal digits for this boot and its numbering of processes, or _UNKNOWN."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:16]
    except OSError:
        return _UNKNOWN


def _state_and_start(pid: int) -> tuple[str, int]:
    """A process' state, and its start in clock ticks since boot; "" and 0 when they cannot be read."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return "", 0
    # The fields from the third on.
    fields = after_name.split()
    return fields[0], int(fields[19])
