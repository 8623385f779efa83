"""Looks at a running server from outside, for what its own readiness does not say.

Triton does not notice that a process of its python backend has ended: the model stays ready and every
request to it fails; and when that happens while the model is loaded, it waits for ever. The ended process
stays in the table of processes, because Triton asks how a backend ended only after it has unloaded it
or has heard that it cannot be loaded. That is how it is found here.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from seg_runtime.server.health import answer_status

__all__ = ["ServerWatch", "how_it_ended"]

_STUB = "triton_python_backend_stub"
_LIVE_EVERY_S = 5.0
_ANSWER_S = 5.0
_NOT_READY = (400, 404, 503)


class _Backend(NamedTuple):
    """A process of Triton's python backend: one instance of a version of a model."""

    model: str
    version: str
    instance: str


class _Process(NamedTuple):
    """A child of the server. `exit_status` is as of `os.waitpid`, and None while it runs."""

    pid: int
    exit_status: int | None


class ServerWatch:
    """Watches one server; call `look` about every second.

    Args:
        pid: process id of `tritonserver`.
        http_url: its HTTP address.
        hang_timeout_s: how long it may not answer, in seconds.
    """

    def __init__(self, pid: int, http_url: str, hang_timeout_s: float) -> None:
        self._pid = pid
        self._http_url = http_url
        self._hang_timeout_s = hang_timeout_s
        self._known: dict[int, _Backend] = {}
        self._suspects: set[int] = set()
        self._next_question = time.monotonic()
        self._silent_since: float | None = None

    def look(self) -> str | None:
        """Why the server must be restarted, in one line; None as long as it need not be."""
        return self.lost_backend() or self._hang()

    def lost_backend(self, starting: bool = False) -> str | None:
        """Which model lost a backend process, in one line; None as long as none did.

        One that was unloaded may be seen as ended too, for milliseconds: so it takes two looks. One whose
        instance has another process was replaced. One whose version is not ready, because it ended while
        it was loaded, matters only while the server is starting: later on, other versions may serve.
        """
        processes = _children(self._pid)
        alive = {pid: backend for pid, ended in processes if ended is None and (backend := _backend(pid))}
        ended = {pid: status for pid, status in processes if status is not None}
        self._known = {pid: backend for pid, backend in self._known.items() if pid in ended} | alive
        suspects = {pid for pid in ended if pid in self._known and self._known[pid] not in alive.values()}
        confirmed, self._suspects = suspects & self._suspects, suspects
        for pid in confirmed:
            backend = self._known[pid]
            if starting or self._is_served(backend):
                how = how_it_ended(os.waitstatus_to_exitcode(ended[pid]))
                return f"a backend process of model '{backend.model}' ended {how}"
        return None

    def _is_served(self, backend: _Backend) -> bool:
        path = f"/v2/models/{quote(backend.model, safe='')}/versions/{backend.version}/ready"
        status = answer_status(self._http_url, path, _ANSWER_S)
        return status is not None and status not in _NOT_READY

    def _hang(self) -> str | None:
        if time.monotonic() < self._next_question:
            return None
        asked = time.monotonic()
        timeout_s = min(_ANSWER_S, self._hang_timeout_s)
        if answer_status(self._http_url, "/v2/health/live", timeout_s) is not None:
            self._silent_since = None
            self._next_question = time.monotonic() + _LIVE_EVERY_S
            return None
        if self._silent_since is None:
            self._silent_since = asked
        if time.monotonic() - self._silent_since < self._hang_timeout_s:
            return None
        return f"the server has not answered {self._http_url}/v2/health/live for {self._hang_timeout_s:g} s"


def _children(parent: int) -> list[_Process]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The fields after the name, which may contain anything: state, parent, ... and exit status.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(_Process(int(folder.name), int(fields[49]) if fields[0] in "ZX" else None))
    return found


def _backend(pid: int) -> _Backend | None:
    """What a child of the server runs, from its command line: stub, model file, ..., instance, folder."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
        if Path(words[0]).name == _STUB and len(words) > 8:
            version, model = Path(words[1]).parents[:2]
            return _Backend(model.name, version.name, words[8])
    return None


def how_it_ended(exit_code: int) -> str:
    """Of a process: "with code 1", "by SIGSEGV". Negative numbers are signals, as in `subprocess`."""
    if exit_code >= 0:
        return f"with code {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    return f"by {name} (out of memory?)" if -exit_code == signal.SIGKILL else f"by {name}"
