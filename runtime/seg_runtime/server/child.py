"""A program that ends with this process, together with everything that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["WatchedProgram"]

_WATCHDOG = Path(__file__).with_name("watchdog.py")
_KILL_S = 10.0


class WatchedProgram:
    """Starts a program under `watchdog.py`, which outlives this process for as long as it takes to clean up.

    Args:
        command: absolute path of the program and its arguments.
        environment: of the program.
        folder: removed when all has ended.
        memory_prefix: files in /dev/shm whose names begin so are removed then, too.

    Attributes:
        pid: process id of the program; it leads a session and a process group.
        output: what the program writes to stdout and stderr.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, memory_prefix: str
    ) -> None:
        answer, report = os.pipe()
        with open(answer, "rb") as reader:  # noqa: PTH123 - a descriptor
            try:
                self._watchdog = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_WATCHDOG)],
                    env=dict(environment),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(report,),
                )
                assert self._watchdog.stdin and self._watchdog.stdout
                self.output: IO[bytes] = self._watchdog.stdout
                task = {"command": list(command), "owner": os.getpid(), "report": report}
                task |= {"folder": str(folder), "memory_prefix": memory_prefix}
                # A watchdog that cannot run says why in its output.
                with suppress(BrokenPipeError), self._watchdog.stdin as stdin:
                    stdin.write(json.dumps(task).encode())
            finally:
                os.close(report)
            try:
                self.pid = int(reader.readline() or 0)
            except BaseException:
                self.end(0)
                self.output.close()
                raise

    def poll(self) -> int | None:
        """The program's exit code, or minus the signal that ended it; None while anything of it runs."""
        return self._watchdog.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end; the same code. Raises subprocess.TimeoutExpired."""
        return self._watchdog.wait(timeout_s)

    def end(self, grace_s: float) -> None:
        """Ask the program to end, and kill it with all that it started after `grace_s`."""
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGUSR1, _KILL_S)):
            if self.poll() is None:
                self._watchdog.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self.wait(patience_s)
        # The watchdog hangs, or was killed: the kernel then kills the program, but not its backends.
        with suppress(ProcessLookupError):
            self._watchdog.kill()
        self.wait()
