"""The watchdog between a process and the server that it starts, with shell scripts for the server."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import process_runs, processes_with, wait_until

from seg_runtime.server.child import WatchedProgram

# Ignores SIGTERM, and so does a process that leaves its group and its session.
STUBBORN = 'trap "" TERM; setsid sleep 300 & sleep 300 & echo ready; while :; do sleep 300; done'
OWNER = """
    import os, sys
    from seg_runtime.server.child import WatchedProgram
    program = WatchedProgram(["/bin/sh", "-c", sys.argv[1]], os.environ, sys.argv[2], sys.argv[3])
    assert program.output.readline() == b"ready\\n"
    print(program.pid, program._watchdog.pid, flush=True)
    program.wait()
"""


@dataclass(frozen=True)
class Traces:
    """What a watched program leaves: a folder, a file in /dev/shm, processes with a variable of its own."""

    folder: Path
    memory: Path
    mark: str

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TEST_MARK": self.mark}

    def left(self) -> list[object]:
        files = [path for path in (self.folder, self.memory) if path.exists()]
        return [*files, *processes_with(f"TEST_MARK={self.mark}")]


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[Traces]:
    mark = f"test-{secrets.token_hex(8)}"
    found = Traces(tmp_path / "folder", Path("/dev/shm") / f"{mark}-region", mark)
    (found.folder / "backends").mkdir(parents=True)
    found.memory.touch()
    yield found
    found.memory.unlink(missing_ok=True)
    for pid in processes_with(f"TEST_MARK={mark}"):
        os.kill(pid, signal.SIGKILL)


def watched(script: str, traces: Traces) -> WatchedProgram:
    return WatchedProgram(["/bin/sh", "-c", script], traces.environment, traces.folder, traces.mark)


@pytest.fixture
def owner(traces: Traces) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process that owns a stubborn program; it, the program's process id and the watchdog's."""
    arguments = [STUBBORN, str(traces.folder), traces.mark]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), *arguments],
        env=traces.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            program, watchdog = map(int, process.stdout.readline().split())
            yield process, program, watchdog
        finally:
            process.kill()


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -9)])
def test_the_watchdog_ends_as_the_program_does_and_removes_what_it_left(
    traces: Traces, script: str, code: int
) -> None:
    program = watched(f"sleep 300 & {script}", traces)
    assert program.wait(30) == code
    assert program.poll() == code
    assert traces.left() == []
    program.output.close()


def test_a_program_that_is_asked_to_end_finishes_its_work(traces: Traces) -> None:
    program = watched('trap "echo finished; exit 3" TERM; echo ready; while :; do sleep 0.05; done', traces)
    assert program.output.readline() == b"ready\n"
    program.end(grace_s=30)
    assert program.poll() == 3
    assert program.output.read() == b"finished\n"
    assert traces.left() == []
    program.output.close()


def test_a_program_that_ignores_this_is_killed_with_all_that_it_started(traces: Traces) -> None:
    program = watched(STUBBORN, traces)
    assert program.output.readline() == b"ready\n"
    program.end(grace_s=0.1)
    assert program.poll() == -signal.SIGKILL
    assert traces.left() == []
    program.output.close()


def test_a_killed_owner_takes_everything_along(traces: Traces, owner) -> None:
    process, _, _ = owner
    assert len(traces.left()) >= 6
    process.kill()
    wait_until(lambda: traces.left() == [])


def test_a_stopped_program_does_not_outlive_its_owner(traces: Traces, owner) -> None:
    process, program, _ = owner
    os.kill(program, signal.SIGSTOP)
    process.kill()
    wait_until(lambda: traces.left() == [])


def test_a_killed_watchdog_takes_the_program_along(owner) -> None:
    process, program, watchdog = owner
    os.kill(watchdog, signal.SIGKILL)
    wait_until(lambda: not process_runs(program))
    assert process.wait(30) == 0


def test_the_end_of_the_thread_that_started_it_does_not_end_a_program(traces: Traces) -> None:
    started: list[WatchedProgram] = []
    thread = threading.Thread(target=lambda: started.append(watched("echo ready; sleep 1; exit 5", traces)))
    thread.start()
    thread.join()
    assert started[0].wait(30) == 5
    assert started[0].output.read() == b"ready\n"
    started[0].output.close()


def test_a_program_that_is_not_there_is_one_line_in_its_log(traces: Traces) -> None:
    program = WatchedProgram(["/no/such/program"], traces.environment, traces.folder, traces.mark)
    assert program.wait(30) == 127
    assert program.output.read() == b"error: cannot start /no/such/program: No such file or directory\n"
    assert traces.left() == []
    program.output.close()
