"""Finds and removes what servers left whose `seg-serve` was killed together with its watchdog.

Everything of a server carries its name, which says which process started it: its temporary folder, its
shared memory, and a variable in the environment of its processes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from seg_runtime.errors import ServerError
from seg_runtime.owner import owner_exited, owner_prefix

__all__ = ["NAME_VARIABLE", "memory_prefix", "new_server_name", "remove_leftovers", "remove_server"]

NAME_VARIABLE = "EDGESEG_SERVER_NAME"
_MEMORY = Path("/dev/shm")
_MEMORY_PREFIX = "triton_python_backend_shm_region_"
_KILL_S = 5.0


class _Process(NamedTuple):
    """A process of a server, the server's name, and its temporary folder."""

    pid: int
    server: str
    folder: Path


def new_server_name() -> str:
    """A name for a server that this process starts; no other server has it."""
    return f"{owner_prefix()}server-{secrets.token_hex(6)}"


def memory_prefix(server: str) -> str:
    """What the names of a server's own shared memory begin with."""
    return f"{_MEMORY_PREFIX}{server}_"


def remove_server(server: str) -> None:
    """Kill and remove whatever is left of a server that this process started."""
    _remove(lambda name: name == server)


def remove_leftovers() -> None:
    """Kill and remove what is left of all servers of this user whose owners have ended.

    What other users own, and servers of another container, are not touched.

    Raises:
        ServerError: a process cannot be killed; it still has its ports and memory.
    """
    left = _remove(owner_exited)
    if left:
        raise ServerError(
            f"process {left[0]} of a server whose seg-serve was killed does not end, not even by "
            "SIGKILL: it waits for a device or a file system; restart the machine"
        )


def _remove(belongs: Callable[[str], bool]) -> list[int]:
    """Remove what belongs to servers by their names; gives the processes that did not end in 5 s."""
    left, folders = _kill(belongs)
    if not left:
        for path in _own(_MEMORY.glob(f"{_MEMORY_PREFIX}edgeseg-*")):
            if belongs(path.name.removeprefix(_MEMORY_PREFIX).rpartition("_")[0]):
                path.unlink(missing_ok=True)
        folders |= set(Path(tempfile.gettempdir()).glob("edgeseg-*-server-*"))
        for path in _own(folders):
            if belongs(path.name):
                shutil.rmtree(path, ignore_errors=True)
    return left


def _kill(belongs: Callable[[str], bool]) -> tuple[list[int], set[Path]]:
    """What did not end in 5 s, and the temporary folders of all that belonged.

    They may lie elsewhere than this process' own, and their watchdog is among those that are killed.
    """
    deadline, folders = time.monotonic() + _KILL_S, set()
    while True:
        found = [process for process in _server_processes() if belongs(process.server)]
        folders |= {process.folder for process in found}
        left = [process.pid for process in found]
        if not left or time.monotonic() > deadline:
            return left, folders
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _server_processes() -> Iterator[_Process]:
    """This user's processes that belong to a server."""
    for entry in _own(Path("/proc").glob("[0-9]*")):
        with suppress(OSError):
            # Empty for one that has ended.
            words = (entry / "environ").read_text(errors="replace").split("\0")
            variables = dict(word.split("=", 1) for word in words if "=" in word)
            if NAME_VARIABLE in variables:
                folder = Path(variables.get("TMPDIR", tempfile.gettempdir()))
                yield _Process(int(entry.name), variables[NAME_VARIABLE], folder)


def _own(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        with suppress(OSError):
            if path.lstat().st_uid == os.getuid():
                yield path
