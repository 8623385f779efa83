"""When a server counts as lost: with a stand-in whose backends end, and HTTP answers of its readiness."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from processes import wait_until

from seg_runtime.server.watch import ServerWatch

# Starts a backend for each line and never asks how one ended, as Triton.
PARENT = """
    import subprocess, sys
    children = []
    for line in sys.stdin:
        words = ["/b/triton_python_backend_stub", *line.split(), "/backend"]
        children.append(subprocess.Popen(words, executable=sys.executable))
        print(children[-1].pid, flush=True)
"""


class Stub:
    """A stand-in for a server with python backends, and for the answers to its HTTP requests."""

    def __init__(self, folder: Path) -> None:
        self.status = {"/v2/health/live": 200}
        self.repo = folder
        self.started: list[int] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PARENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, model: str, version: int = 1, instance: str = "") -> int:
        """Process id of a new backend; the interpreter behind it runs the "graph"."""
        graph = self.repo / model / str(version) / "model.onnx"
        graph.parent.mkdir(parents=True, exist_ok=True)
        graph.write_text("import time; time.sleep(300)")
        words = [str(graph), "region", "1", "1", "7", "/b", "336", instance or f"{model}_0_0"]
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        self.started.append(int(self.process.stdout.readline()))
        return self.started[-1]

    def end(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(pid, number)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Stub]:
    stub = Stub(tmp_path)
    try:
        yield stub
    finally:
        for pid in stub.started:
            os.kill(pid, signal.SIGKILL)
        stub.process.communicate()


@pytest.fixture
def http_url(server: Stub) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status.get(self.path, 400))
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture
def watch(server: Stub, http_url: str) -> ServerWatch:
    return ServerWatch(server.process.pid, http_url, hang_timeout_s=0.2)


def looks(watch: ServerWatch, count: int = 3) -> list[str | None]:
    return [watch.look() for _ in range(count)]


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGKILL, r"by SIGKILL \(out of memory\?\)"), (signal.SIGTERM, "by SIGTERM")]
)
def test_a_ready_model_whose_backend_ended_is_named_at_the_second_look(
    server: Stub, watch: ServerWatch, number: signal.Signals, how: str
) -> None:
    server.status["/v2/models/a_model/versions/2/ready"] = 200
    ended, _ = server.start("a_model", version=2), server.start("other")
    assert watch.look() is None
    server.end(ended, number)
    first, second = looks(watch, 2)
    assert first is None
    assert re.fullmatch(f"a backend process of model 'a_model' ended {how}", second)


def test_a_version_that_is_not_ready_or_was_replaced_is_not_lost(server: Stub, watch: ServerWatch) -> None:
    server.status["/v2/models/replaced/versions/1/ready"] = 200
    server.status["/v2/models/updated/versions/1/ready"] = 200
    replaced, failed, running = server.start("replaced"), server.start("updated", 2), server.start("updated")
    assert watch.look() is None
    server.start("replaced")
    server.end(replaced)
    server.end(failed)
    assert looks(watch) == [None] * 3
    server.end(running)
    assert looks(watch, 2)[1].startswith("a backend process of model 'updated' ended")


def test_a_backend_that_ends_while_its_model_is_loaded_stops_a_start(
    server: Stub, watch: ServerWatch
) -> None:
    loading = server.start("large")
    assert watch.lost_backend(starting=True) is None
    server.end(loading)
    assert watch.lost_backend(starting=True) is None
    reason = watch.lost_backend(starting=True)
    assert reason == "a backend process of model 'large' ended by SIGKILL (out of memory?)"


def test_a_model_is_lost_with_one_of_its_instances(server: Stub, watch: ServerWatch) -> None:
    server.status["/v2/models/pair/versions/1/ready"] = 200
    first, _ = server.start("pair", instance="pair_0_0"), server.start("pair", instance="pair_0_1")
    assert watch.look() is None
    server.end(first)
    assert looks(watch, 2)[1].startswith("a backend process of model 'pair' ended")


def test_a_server_that_does_not_answer_is_given_time(server: Stub, http_url: str) -> None:
    closed = http_url.rpartition(":")[0] + ":1"
    patient = ServerWatch(server.process.pid, closed, hang_timeout_s=3600)
    assert looks(patient) == [None] * 3
    watch = ServerWatch(server.process.pid, closed, hang_timeout_s=0.1)
    reasons: list[str | None] = []
    wait_until(lambda: reasons.append(watch.look()) or reasons[-1] is not None)
    assert reasons[0] is None
    assert reasons[-1] == f"the server has not answered {closed}/v2/health/live for 0.1 s"


def test_any_answer_shows_that_a_server_lives(server: Stub, watch: ServerWatch) -> None:
    server.status["/v2/health/live"] = 403
    assert looks(watch) == [None] * 3
