"""A real server whose processes are killed, stopped or replaced, and what is left of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from processes import process_runs, processes_with, wait_until
from scaling_model import publish_scaling_model, some_images

from seg_runtime.connection import connect
from seg_runtime.errors import EdgesegError, ServerLostError
from seg_runtime.server import ServerOptions, TritonServer
from seg_runtime.server.leftovers import NAME_VARIABLE

pytest.importorskip("pytriton")
# Processes are killed and waited for: 85 seconds.
pytestmark = [pytest.mark.server, pytest.mark.slow]

ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
COMMAND = (sys.executable, "-m", "seg_runtime.cli.serve")
STUB = "triton_python_backend_stub"
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the servers of a test put their temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = tmp_path_factory.mktemp("life") / "repo"
    publish_scaling_model(repo, "scale")
    publish_scaling_model(repo, "other", factor=0.2)
    return repo


class Serving:
    """A `seg-serve` that runs, and everything that belongs to it."""

    def __init__(self, repo: Path, temporary: Path) -> None:
        self.temporary = temporary
        self.process = subprocess.Popen(
            [*COMMAND, str(repo), *FREE_PORTS, "--json"],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._prefix = re.compile(rf"edgeseg-[0-9a-f]{{16}}-{self.process.pid}-\d+-server-")

    def wait_ready(self) -> dict[str, str]:
        return json.loads(self.process.stdout.readline())

    def processes(self, program: str = "") -> list[int]:
        """Process ids of the watchdog, Triton and its backends, or of those that run a program."""
        found = []
        for pid in processes_with(f"{NAME_VARIABLE}=edgeseg-"):
            try:
                environment = Path(f"/proc/{pid}/environ").read_text()
                command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            except OSError:
                continue
            if self._prefix.search(environment) and (not program or Path(command[0]).name == program):
                found.append(pid)
        return found

    def backends(self) -> list[int]:
        """Process ids of backends that have a model, which Triton's first look at its program has not."""
        found = []
        for pid in self.processes(STUB):
            with suppress(OSError):
                found += [pid] if "/model.onnx" in command_line(pid) else []
        return found

    def memory(self) -> list[Path]:
        return [path for path in Path("/dev/shm").iterdir() if self._prefix.search(path.name)]

    def left(self) -> list[object]:
        return [*self.processes(), *self.memory(), *self.temporary.iterdir()]


@contextmanager
def serving(repo: Path, temporary: Path) -> Iterator[Serving]:
    started = Serving(repo, temporary)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()
        wait_until(lambda: started.processes() == [])


def send_to(processes: list[int], number: signal.Signals) -> bool:
    """Whether there was one. Triton ends some by itself, which it starts to complete a configuration."""
    reached = 0
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            reached += 1
    return reached > 0


@pytest.mark.parametrize("stopped", ["", "tritonserver", "triton_python_backend_stub"])
def test_a_killed_seg_serve_leaves_nothing_even_of_processes_that_cannot_react(
    models: Path, temporary: Path, stopped: str
) -> None:
    with serving(models, temporary) as server:
        server.wait_ready()
        assert len(server.processes()) == 4
        assert server.memory()
        for pid in server.processes(stopped) if stopped else ():
            os.kill(pid, signal.SIGSTOP)
        server.process.kill()
        wait_until(lambda: server.left() == [])


def test_a_seg_serve_that_is_killed_while_models_load_or_requests_run_leaves_nothing(
    models: Path, temporary: Path
) -> None:
    with serving(models, temporary) as server:
        wait_until(lambda: server.processes(STUB) != [])
        server.process.kill()
        wait_until(lambda: server.left() == [])
    with serving(models, temporary) as server, connect(server.wait_ready()["grpc"]) as session:
        answers, ended = [0], threading.Event()

        def ask() -> None:
            while not ended.is_set():
                try:
                    session.infer("scale", {"image": some_images(1)})
                    answers[0] += 1
                except EdgesegError:
                    return

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: answers[0] > 10)
        server.process.kill()
        wait_until(lambda: server.left() == [])
        ended.set()
        asking.join()


def test_the_next_start_removes_a_server_whose_watchdog_was_killed_too_and_no_other(
    models: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(models, temporary) as killed, serving(models, temporary) as other:
        other.wait_ready()
        killed.wait_ready()
        stubs = killed.processes(STUB)
        for pid in stubs:
            os.kill(pid, signal.SIGSTOP)
        watchdogs = [pid for pid in killed.processes() if "watchdog" in command_line(pid)]
        for pid in (killed.process.pid, *watchdogs):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: killed.processes() == stubs)
        assert killed.memory()
        before = other.processes(), other.memory()
        with serving(models, temporary) as next_one:
            next_one.wait_ready()
            assert killed.processes() == killed.memory() == []
            assert (other.processes(), other.memory()) == before
            # Those of the two that run.
            assert len(list(temporary.iterdir())) == 2


def test_a_start_removes_what_lies_where_another_server_had_its_temporary_files(
    models: Path, temporary: Path, tmp_path: Path
) -> None:
    """It may come while the watchdog of the other one cleans up, and kills that, too."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with serving(models, temporary) as killed:
        killed.wait_ready()
        stubs = killed.processes(STUB)
        send_to(stubs, signal.SIGSTOP)
        watchdogs = [pid for pid in killed.processes() if "watchdog" in command_line(pid)]
        send_to([killed.process.pid, *watchdogs], signal.SIGKILL)
        wait_until(lambda: killed.processes() == stubs)
        assert list(temporary.iterdir())
        with serving(models, elsewhere) as next_one:
            next_one.wait_ready()
            assert killed.left() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_seg_serve_ends_with_code_4_and_one_line_when_a_backend_dies(
    models: Path, temporary: Path, number: signal.Signals
) -> None:
    with serving(models, temporary) as server:
        server.wait_ready()
        lost = next(pid for pid in server.processes(STUB) if "/scale/1/" in command_line(pid))
        os.kill(lost, number)
        _, errors = server.process.communicate(timeout=60)
        assert server.process.returncode == 4
        assert re.fullmatch(f"error: a backend process of model 'scale' ended by {number.name}.*\n", errors)
        assert server.left() == []


def test_a_backend_that_is_killed_while_it_loads_ends_the_start_with_one_line(
    models: Path, temporary: Path
) -> None:
    with serving(models, temporary) as server:
        wait_until(lambda: send_to(server.backends()[:1], signal.SIGSTOP))
        # Loading takes longer than the first look at it, as it does with models that fill the memory.
        wait_until(lambda: len(server.backends()) == 2)
        time.sleep(1.5)
        send_to(server.backends(), signal.SIGKILL)
        output, errors = server.process.communicate(timeout=60)
        assert server.process.returncode == 2
        assert output == ""
        # By how far the model is loaded, Triton waits for ever, crashes (2.51) or notices it.
        assert re.fullmatch(
            r"error: (the server cannot start: a backend process of model '\w+' ended by SIGKILL"
            r"|the server ended by SIGSEGV while it started"
            r"|model '\w+' cannot be served: Internal: Stub process '\w+' is not healthy).*\n",
            errors,
        )
        assert server.left() == []


def test_seg_serve_ends_with_code_4_and_one_line_when_its_server_is_killed(
    models: Path, temporary: Path
) -> None:
    with serving(models, temporary) as server:
        os.kill(int(server.wait_ready()["pid"]), signal.SIGKILL)
        _, errors = server.process.communicate(timeout=60)
        assert server.process.returncode == 4
        assert re.fullmatch(r"error: the server ended by SIGKILL .*\n", errors)
        assert server.left() == []


def test_a_server_that_hangs_is_given_up_and_ended(models: Path) -> None:
    server = TritonServer(models, ServerOptions(models=("scale",), hang_timeout_s=0.5, **ANY_PORTS))
    server.start()
    hanging = server.pid
    os.kill(hanging, signal.SIGSTOP)
    with pytest.raises(ServerLostError, match=r"has not answered http://.*/v2/health/live for 0\.5 s"):
        server.wait()
    assert server.pid is None
    assert not process_runs(hanging)


def test_models_that_come_change_and_go_are_not_taken_for_dead_ones(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    publish_scaling_model(repo, "scale")
    server = TritonServer(repo, ServerOptions(model_control="poll", poll_interval_s=1, **ANY_PORTS))
    ended: list[EdgesegError] = []

    def wait() -> None:
        try:
            server.wait()
        except EdgesegError as error:
            ended.append(error)

    with server:
        waiting = threading.Thread(target=wait)
        waiting.start()
        publish_scaling_model(repo, "scale", version=2, factor=0.02)
        publish_scaling_model(repo, "extra")
        wait_until(lambda: "successfully unloaded 'scale' version 1" in server.log_tail(500))
        wait_until(lambda: "successfully loaded 'extra'" in server.log_tail(500))
        publish_scaling_model(repo, "scale", version=3, graph=b"broken" * 64)
        shutil.rmtree(repo / "extra")
        wait_until(lambda: "model 'scale' version 3 cannot be loaded" in server.log_tail(500))
        wait_until(lambda: "successfully unloaded 'extra' version 1" in server.log_tail(500))
        # Long enough for two looks at what the broken version left.
        assert waiting.join(4.0) is None
        assert waiting.is_alive(), ended
        with connect(server.grpc_url) as session:
            session.infer("scale", {"image": some_images(1)})
    waiting.join()
    assert ended == []


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
