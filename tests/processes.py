"""Looks at processes through /proc, for tests that must leave none behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Fails when it does not happen in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def process_runs(pid: int) -> bool:
    """Whether a process lives; not one that has ended and was not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_with(variable: str) -> list[int]:
    """Ids of the living processes whose environment begins a variable like this: `NAME=value`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            entries = (folder / "environ").read_bytes().split(b"\0")
            if any(entry.startswith(variable.encode()) for entry in entries):
                found.append(int(folder.name))
    return found


def session_members(leader: int) -> list[str]:
    """Names of the living processes of a session; its leader need not live any more."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            before, _, after = (folder / "stat").read_text().rpartition(")")
            state, _, _, session = after.split()[:4]
            if int(session) == leader and state not in "ZX":
                members.append(before.partition("(")[2])
    return members
