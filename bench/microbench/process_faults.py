"""Faults of the processes of a server: killed, stopped, at every moment of its life."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing

from microbench.faults import Outcome, Place
from microbench.served import STUB, Served, seconds_until, under_load
from seg_runtime.connection import connect
from seg_runtime.errors import EdgesegError

__all__ = ["PROCESS_FAULTS"]

_GONE_S = 5.0
_ENDED_S = 30.0
_HANGING = """
import os, signal, sys
from seg_runtime.errors import ServerLostError
from seg_runtime.server import ServerOptions, TritonServer
ports = dict(http_port=0, grpc_port=0, metrics_port=0)
server = TritonServer(sys.argv[1], ServerOptions(hang_timeout_s=2.0, **ports))
server.start()
os.kill(server.pid, signal.SIGSTOP)
try:
    server.wait()
except ServerLostError as error:
    sys.exit(f"error: {error}")
"""


def _triton_killed(place: Place) -> list[Outcome]:
    """A session lives through the death of its server and the start of another on the same ports."""
    with place.serving() as served:
        triton = served.wait_ready()["pid"]
        session = connect(place.grpc_url)
        with under_load(lambda: place.ask(session)):
            os.kill(triton, signal.SIGKILL)
            outcome = _must_end(served, "the server ended by SIGKILL")
    with session:
        if outcome.failure:
            return [outcome]
        with place.serving() as served:
            served.wait_ready()
            place.ask(session)
    return [outcome]


def _backend_killed(place: Place) -> list[Outcome]:
    with place.serving() as served:
        served.wait_ready()
        with connect(place.grpc_url) as session, under_load(lambda: place.ask(session)):
            os.kill(served.processes("/scale/1/")[0], signal.SIGKILL)
            return [_must_end(served, "model 'scale'")]


def _backend_killed_while_loading(place: Place) -> list[Outcome]:
    with place.serving() as served:
        if seconds_until(lambda: len(served.processes(STUB)) == 2, _ENDED_S) is None:
            return [Outcome("no backend was started")]
        stubs = served.processes(STUB)
        for pid in stubs:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5)  # As when a large model is loaded.
        for pid in stubs:
            os.kill(pid, signal.SIGKILL)
        return [_must_end(served, "a backend process of model", code=2)]


def _must_end(served: Served, reason: str, code: int = 4) -> Outcome:
    """seg-serve must end with this code and one line with this reason in it, and leave nothing."""
    start = time.monotonic()
    ended, errors = served.ended(_ENDED_S)
    seconds, left = time.monotonic() - start, tuple(served.left())
    if ended is None:
        return Outcome(f"seg-serve still ran {_ENDED_S:g} s later", left=left)
    if ended != code or reason not in errors or errors.count("\n") != 1:
        return Outcome(f"seg-serve ended with code {ended} and said {errors!r}", left=left)
    return Outcome("", seconds, left)


def _parent_killed_idle(place: Place) -> list[Outcome]:
    with place.serving() as served:
        served.wait_ready()
        return [_must_vanish(served)]


def _parent_killed_while_loading(place: Place) -> list[Outcome]:
    with place.serving() as served:
        if seconds_until(lambda: bool(served.processes(STUB)), _ENDED_S) is None:
            return [Outcome("no backend was started")]
        return [_must_vanish(served)]


def _parent_killed_under_load(place: Place) -> list[Outcome]:
    with place.serving() as served:
        served.wait_ready()
        with connect(place.grpc_url, retry_budget_s=0) as session, under_load(lambda: place.ask(session)):
            return [_must_vanish(served)]


def _parent_killed_with_stopped(program: str) -> Callable[[Place], list[Outcome]]:
    def attempt(place: Place) -> list[Outcome]:
        with place.serving() as served:
            served.wait_ready()
            for pid in served.processes(program):
                os.kill(pid, signal.SIGSTOP)
            return [_must_vanish(served)]

    return attempt


def _must_vanish(served: Served) -> Outcome:
    """Kill seg-serve; all that belongs to it must be gone in five seconds."""
    served.process.kill()
    seconds = seconds_until(lambda: not served.left(), _GONE_S)
    left = tuple(served.left())
    return Outcome(
        "" if seconds is not None else f"left after {_GONE_S:g} s: {', '.join(left)}", seconds, left
    )


def _all_killed_at_once(place: Place) -> list[Outcome]:
    """seg-serve and its watchdog are killed together; what is left cannot react, and is the next start's."""
    with place.serving() as served:
        served.wait_ready()
        for pid in served.processes(STUB):
            os.kill(pid, signal.SIGSTOP)
        for pid in (served.process.pid, *served.processes("watchdog.py")):
            os.kill(pid, signal.SIGKILL)
        start = time.monotonic()
        if not served.left():
            return [Outcome("nothing was left to be removed")]
        with place.serving() as following:
            try:
                following.wait_ready()
            except EdgesegError as error:
                return [Outcome(str(error), left=tuple(served.left()))]
            left = tuple(served.left())
            return [Outcome(f"left: {', '.join(left)}" if left else "", time.monotonic() - start, left)]


def _triton_hangs(place: Place) -> list[Outcome]:
    command = [sys.executable, "-c", _HANGING, str(place.repo)]
    with closing(Served(command, place.temporary)) as served:
        return [_must_end(served, "has not answered", code=1)]


PROCESS_FAULTS: dict[str, tuple[int, Callable[[Place], list[Outcome]]]] = {
    "tritonserver killed under load": (10, _triton_killed),
    "seg-serve killed, idle": (3, _parent_killed_idle),
    "seg-serve killed while models load": (3, _parent_killed_while_loading),
    "seg-serve killed under load": (3, _parent_killed_under_load),
    "seg-serve killed, its backends stopped": (2, _parent_killed_with_stopped(STUB)),
    "seg-serve killed, its tritonserver stopped": (2, _parent_killed_with_stopped("bin/tritonserver")),
    "seg-serve and its watchdog killed, backends stopped": (3, _all_killed_at_once),
    "backend killed under load": (3, _backend_killed),
    "backend killed while it loads": (2, _backend_killed_while_loading),
    "tritonserver stopped": (1, _triton_hangs),
}
