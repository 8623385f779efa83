"""Runs a program and ends it, with everything that it started, once its owner has ended.

`seg-serve` starts this file by its path, in an interpreter without site packages (`python -I -S`), and writes
a JSON object to its standard input: `command`, the absolute path of a program with its arguments (which
may hold keys, and every user of a machine can read arguments), `owner`, a process id, `report`, a file
descriptor to write the program's process id to, and `folder` and `memory_prefix`. It ends as the program
ended, with its exit code or by its signal, after it has removed `folder` and `memory_prefix`* in /dev/shm.

- SIGTERM, SIGINT and SIGHUP become a SIGTERM for the program; SIGUSR1 ends all at once.
- When the process `owner` ends, however that happens, the program gets a SIGTERM and two seconds later a
  SIGKILL. The owner is asked for rather than announced by the kernel, whose notice (PR_SET_PDEATHSIG)
  comes when the thread that called it ends.
- What the program leaves running is killed: orphans of its descendants become children of this process.
- When this process is killed, the kernel kills the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

__all__: list[str] = []

_LOOK_EVERY_S = 0.25
_GRACE_S = 2.0
_TRIES = 20
_KILL_S = 5.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TO_FORWARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SIGNALS = {*_TO_FORWARD, signal.SIGUSR1, signal.SIGCHLD}


def main() -> None:
    task = json.load(sys.stdin)
    # From here on signals wait until they are asked for.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _control_process(_PR_SET_CHILD_SUBREAPER, 1)
    program = _start(task["command"])
    with contextlib.suppress(BrokenPipeError):  # The owner has ended already.
        os.write(task["report"], f"{program}\n".encode())
    os.close(task["report"])
    status = _watch(program, task["owner"])
    _kill_the_rest()
    for left in Path("/dev/shm").glob(f"{task['memory_prefix']}*"):
        left.unlink(missing_ok=True)
    _remove_folder(Path(task["folder"]))
    _end_like(status)


def _start(command: list[str]) -> int:
    """Process id of the program, which leads a session and gets all signals."""
    parent = os.getpid()
    program = os.fork()
    if program:
        return program
    try:
        os.setsid()
        _control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.execv(command[0], command)
    except OSError as error:
        print(f"error: cannot start {command[0]}: {error.strerror}", flush=True)  # noqa: T201 - its log
    finally:
        os._exit(127)


def _watch(program: int, owner: int) -> int:
    """Wait until the program ends; gives its status as `os.waitpid` does."""
    kill_at = float("inf")
    while True:
        ended, status = os.waitpid(program, os.WNOHANG)
        if ended:
            return status
        received = signal.sigtimedwait(_SIGNALS, _LOOK_EVERY_S)
        number = received.si_signo if received else 0
        if number == signal.SIGUSR1 or time.monotonic() > kill_at:
            os.kill(program, signal.SIGKILL)
        elif number in _TO_FORWARD:
            os.kill(program, signal.SIGTERM)
        if os.getppid() != owner and kill_at == float("inf"):
            kill_at = time.monotonic() + _GRACE_S
            os.kill(program, signal.SIGTERM)


def _kill_the_rest() -> None:
    """Kill all that the program left, until it is gone; what the kernel does not end within 5 s stays."""
    deadline = time.monotonic() + _KILL_S
    while time.monotonic() < deadline:
        for child in _children():
            os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


def _remove_folder(folder: Path) -> None:
    """What was just killed may have been writing into it."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_LOOK_EVERY_S)


def _children() -> list[int]:
    """Process ids of this process' children, living or not yet waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The fields after the name, which may contain anything: state, parent, ...
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def _end_like(status: int) -> None:
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # SIGKILL has no handler to reset.
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


def _control_process(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
