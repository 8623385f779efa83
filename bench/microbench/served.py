"""A `seg-serve` in a process of its own, and everything on the machine that belongs to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seg_runtime.errors import EdgesegError, ServerError
from seg_runtime.server.leftovers import NAME_VARIABLE

__all__ = ["STUB", "Served", "seconds_until", "serving", "under_load"]

STUB = "triton_python_backend_stub"
_READY_S = 90.0


class Served:
    """A process that starts a server.

    Args:
        command: starts a server.
        temporary: a folder for its temporary files.
    """

    def __init__(self, command: Sequence[str], temporary: Path) -> None:
        self.temporary = temporary
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._name = re.compile(rf"edgeseg-[0-9a-f]{{16}}-{self.process.pid}-\d+-server-")

    def wait_ready(self) -> dict[str, Any]:
        """What `seg-serve --json` prints: addresses and `pid`. Raises ServerError when it ends instead."""
        assert self.process.stdout and self.process.stderr
        line = self.process.stdout.readline()
        if not line:
            raise ServerError(f"seg-serve ended: {self.process.stderr.read().strip()}")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def ended(self, timeout_s: float) -> tuple[int | None, str]:
        """Exit code, None when it does not end in time, and what it wrote to stderr."""
        try:
            _, errors = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return None, ""
        return self.process.returncode, errors

    def processes(self, program: str = "") -> list[int]:
        """Process ids of all that it started, or of those whose command line has a word."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (folder / "environ").read_text(errors="replace").split("\0")
                command = (folder / "cmdline").read_text(errors="replace")
                name = next((text for text in environment if text.startswith(f"{NAME_VARIABLE}=")), "")
                if self._name.search(name) and program in command:
                    found.append(int(folder.name))
        return found

    def left(self) -> list[str]:
        """Processes, shared memory and temporary files that are there."""
        memory = [
            f"memory {path.name}" for path in Path("/dev/shm").iterdir() if self._name.search(path.name)
        ]
        files = [f"file {path.name}" for path in self.temporary.iterdir() if self._name.search(path.name)]
        return [*(f"process {pid}" for pid in self.processes()), *memory, *files]

    def close(self) -> None:
        """End what is still running."""
        if self.process.poll() is None:
            self.process.terminate()
        code, _ = self.ended(20.0)
        if code is None:
            self.process.kill()
            self.process.communicate()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def serving(repo: Path, temporary: Path, ports: tuple[int, int, int], *options: str) -> Iterator[Served]:
    """`seg-serve` with a repository on (HTTP, gRPC, metrics) ports; it is ended after the block."""
    names = ("--http-port", "--grpc-port", "--metrics-port")
    flags = [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
    command = [sys.executable, "-m", "seg_runtime.cli.serve", str(repo), *flags, *options, "--json"]
    served = Served(command, temporary)
    try:
        yield served
    finally:
        served.close()


@contextmanager
def under_load(ask: Callable[[], object]) -> Iterator[None]:
    """Two threads that ask without a pause, from the first answer on until the block ends."""
    ended, answered = threading.Event(), threading.Event()

    def work() -> None:
        while not ended.is_set():
            try:
                ask()
                answered.set()
            except EdgesegError:
                ended.wait(0.05)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        if not answered.wait(_READY_S):
            raise ServerError(f"no request was answered within {_READY_S:g} s")
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def seconds_until(condition: Callable[[], bool], limit_s: float) -> float | None:
    """How long it takes until something holds; None when it does not within the limit."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > limit_s:
            return None
        time.sleep(0.02)
    return time.monotonic() - start
