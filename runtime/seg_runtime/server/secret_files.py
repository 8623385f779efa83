"""Leaves a server's secret where clients of the same user find it."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from seg_runtime.errors import ServerError
from seg_runtime.server.ports import Ports
from seg_runtime.triton.access import private_folder, secret_folder, secret_name

__all__ = ["SecretFiles"]


class SecretFiles:
    """One file for the gRPC port and one for the HTTP port, which only this user can read.

    They are locked for as long as this process lives. What killed processes left, which opens nothing any
    more, is removed when the next ones are made.

    Args:
        secret: what they hold.
        ports: of the server.

    Attributes:
        paths: the two files.

    Raises:
        ServerError: the folder is not this user's alone, or cannot be written.
    """

    def __init__(self, secret: str, ports: Ports) -> None:
        folder = secret_folder()
        http, grpc, _ = ports
        self.paths = (folder / secret_name(True, grpc), folder / secret_name(False, http))
        self._files: list[IO[bytes]] = []
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if not private_folder(folder):
                raise ServerError(f"{folder} is not a folder of this user alone: remove it")
            _remove_unlocked(folder)
            self._files = [_write(path, secret) for path in self.paths]
        except OSError as error:
            raise ServerError(
                f"the secret for local clients cannot be written to {folder}: {error.strerror}"
            ) from error

    def remove(self) -> None:
        """Remove the files, unless a later server on these ports has written its own; again does nothing."""
        for path, file in zip(self.paths, self._files, strict=False):
            with file, suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    path.unlink()
        self._files = []


def _write(path: Path, secret: str) -> IO[bytes]:
    """Make a file whole or not at all, as a client may be looking. The folder keeps others out."""
    written = path.with_name(f".{path.name}.{os.getpid()}")
    file = written.open("wb", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(secret.encode("ascii"))
        written.chmod(0o600)
        written.replace(path)
    except BaseException:
        file.close()
        raise
    return file


def _remove_unlocked(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
