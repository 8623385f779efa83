"""System shared memory between this client and a Triton server on the same machine.

A region is a file in /dev/shm that the server maps when the region is registered. Its name is removed
as soon as both have mapped it: the memory then lives exactly as long as its users, and nothing is
left behind, whichever way the client ends. (The standard library's `SharedMemory` keeps the name, needs
a process of its own to remove it after a crash, and lets a write to a full /dev/shm kill the client.)
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import EdgesegError, ServerError, ServerTimeoutError, ServerUnavailableError
from seg_runtime.owner import owner_exited, owner_prefix
from seg_runtime.triton.client import TritonClient

__all__ = ["FOLDER", "Region", "check_memory_is_shared", "register_region"]

FOLDER = Path("/dev/shm")
_PREFIX = "edgeseg-"


class Region:
    """Memory that this process and the server have mapped.

    Attributes:
        name: what the server calls it; a new one after every registration.
        byte_size: its size.
        users: requests that are reading it now.
        doubtful: a request was given up without an answer, so the server may still write into it.
    """

    def __init__(self, name: str, memory: mmap.mmap) -> None:
        self.name = name
        self.memory = memory
        self.byte_size = len(memory)
        self.users = 0
        self.doubtful = False

    def write(self, values: NDArray[Any], offset: int) -> None:
        """Copy an array of any layout into the region, in C order."""
        np.ndarray(values.shape, values.dtype, self.memory, offset)[...] = values

    def read(self, shape: tuple[int, ...], dtype: str, offset: int = 0) -> NDArray[Any]:
        """A copy of an array in the region."""
        return np.array(np.ndarray(shape, np.dtype(dtype), self.memory, offset))


def check_memory_is_shared(client: TritonClient) -> None:
    """Find out whether the server can map this client's memory, by letting it try.

    What clients of this machine left behind when they were killed is cleaned up on the way.

    Raises:
        ServerError: it cannot: another machine or container, another user, or it does not allow it.
        ServerUnavailableError, ServerTimeoutError: it went away meanwhile.
    """
    advice = "use a server that this user started on this machine, without --no-shared-memory"
    try:
        _remove_abandoned_files()
        with _new_file(mmap.PAGESIZE) as (name, _):
            client.patiently(lambda: client.register(name, mmap.PAGESIZE))
        client.unregister(name)
    except (ServerTimeoutError, ServerUnavailableError):
        raise
    except (OSError, EdgesegError) as error:
        raise ServerError(f"no shared memory with {client.address} ({error}): {advice}") from error
    _unmap_regions_of_exited(client)


def register_region(
    client: TritonClient, byte_size: int, contents: mmap.mmap | None = None
) -> tuple[str, mmap.mmap]:
    """Name and memory of a new region that the server has mapped."""
    with _new_file(byte_size) as (name, memory):
        if contents is not None:
            memory[:] = contents[:]
        client.patiently(lambda: client.register(name, byte_size))
    return name, memory


@contextmanager
def _new_file(byte_size: int) -> Iterator[tuple[str, mmap.mmap]]:
    """Memory under a random name that only this user can open, until the block ends.

    The file is locked as long as it has its name: an unlocked one was left by a client that was
    killed within these few milliseconds.
    """
    while True:
        name = f"{owner_prefix()}{secrets.token_hex(16)}"
        path = FOLDER / name
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink == 0:
                continue  # Taken for an abandoned file before it was locked.
            # Unlike a larger sparse file, a full /dev/shm fails here and not when it is written to.
            os.posix_fallocate(file, 0, byte_size)
            yield name, mmap.mmap(file, byte_size)
            return
        finally:
            path.unlink(missing_ok=True)
            os.close(file)


def _unmap_regions_of_exited(client: TritonClient) -> None:
    """Let the server free what killed clients had registered."""
    with suppress(EdgesegError):
        for name in filter(owner_exited, client.regions()):
            # A request that the dead client had sent may still use it: left to the client after this one.
            with suppress(EdgesegError):
                client.unregister(name)


def _remove_abandoned_files() -> None:
    for path in FOLDER.glob(f"{_PREFIX}*"):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # Another user's, or gone by now.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            continue
        finally:
            os.close(file)
