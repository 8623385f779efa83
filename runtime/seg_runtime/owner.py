"""Names in /dev/shm, in the folder of temporary files and in environments that say which process owns them.

A process that is killed cannot clean up, and Triton never notices that a client is gone. So a name says
where its owner runs, its number and its start, and whoever comes next removes what an owner left.
"""

from __future__ import annotations

import os
import re
from functools import cache
from hashlib import sha256
from pathlib import Path

__all__ = ["owner_exited", "owner_prefix"]

_OWNER = re.compile(r"edgeseg-([0-9a-f]{16})-(\d+)-(\d+)-")
_UNKNOWN = 16 * "0"


def owner_prefix() -> str:
    """What the names of this process begin with: where it runs, its number and its start."""
    _, started = _state_and_start(os.getpid())
    return f"edgeseg-{_numbering()}-{os.getpid()}-{started}-"


def owner_exited(name: str) -> bool:
    """Whether the process that chose a name has ended. False where that cannot be known.

    It cannot for names of other software, another machine, or another container, whose processes have
    numbers of their own.
    """
    owner = _OWNER.match(name)
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
