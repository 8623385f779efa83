"""`seg-serve` and the process behind it, with stand-ins for the server program."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from processes import session_members
from scaling_model import publish_scaling_model

from seg_runtime.cli import serve
from seg_runtime.errors import BadInputError, ServerError, ServerTimeoutError
from seg_runtime.server import ServerOptions, TritonServer
from seg_runtime.server.check import require_servable
from seg_runtime.server.health import reachable_host, shorten_reason
from seg_runtime.server.log import log_reason
from seg_runtime.spec import ServingSpec

LOCKS = "--http-restricted-api --grpc-restricted-protocol"
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    publish_scaling_model(tmp_path / "repo", "scale", graph=b"graph")
    return tmp_path / "repo"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a shell script on PATH as `tritonserver`; temporary files go into the test's folder."""

    def install(script: str) -> None:
        program = tmp_path / "triton" / "bin" / "tritonserver"
        program.parent.mkdir(parents=True)
        (tmp_path / "triton" / "backends" / "onnxruntime").mkdir(parents=True)
        program.write_text(f'#!/bin/sh\n[ "$1" = --help ] && echo "{LOCKS} $HELP" && exit\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    return install


def run_command(*arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The one line on stderr of a `seg-serve` that fails with exit code 2."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "argv", ["seg-serve", *arguments])
    try:
        with pytest.raises(SystemExit) as ended:
            serve.main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_port_in_use_is_named_before_anything_starts(repo, stand_in, capsys, monkeypatch) -> None:
    stand_in("exit 1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = ("--http-port", "0", "--grpc-port", str(port), "--metrics-port", "0")
        line = run_command(str(repo), *ports, capsys=capsys, monkeypatch=monkeypatch)
    assert line.startswith(f"error: port {port} on 127.0.0.1 cannot be used")
    assert "--grpc-port" in line


def test_the_reason_of_a_server_that_dies_is_one_line(
    repo, stand_in, capsys, monkeypatch, tmp_path: Path
) -> None:
    stand_in(
        'echo "I0101 10:00:00.1 7 a.cc:1] \\"fine\\""\n'
        'echo "E0101 10:00:00.1 7 server.cc:241] \\"CudaDriverHelper has not been initialized.\\""\n'
        'echo "E0101 10:00:00.2 7 main.cc:9] \\"cannot allocate 8 GB\\""\necho "| table |"\nexit 1'
    )
    log = tmp_path / "server.log"
    line = run_command(str(repo), *FREE_PORTS, "--log", str(log), capsys=capsys, monkeypatch=monkeypatch)
    assert line == "error: the server ended with code 1 while it started: cannot allocate 8 GB"
    assert "| table |" in log.read_text()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_broken_model_is_refused_before_the_server_starts(repo, stand_in, capsys, monkeypatch) -> None:
    stand_in("exit 1")
    (repo / "scale" / "1" / "model.onnx").write_bytes(b"")
    line = run_command(str(repo), *FREE_PORTS, capsys=capsys, monkeypatch=monkeypatch)
    assert line.startswith("error: model 'scale': version 1 has an empty model.onnx")


def test_a_missing_repository_and_an_unwritable_log_are_one_line_each(
    repo, stand_in, capsys, monkeypatch, tmp_path: Path
) -> None:
    stand_in("exec sleep 60")
    line = run_command(str(tmp_path / "none"), *FREE_PORTS, capsys=capsys, monkeypatch=monkeypatch)
    assert "is not a folder" in line
    arguments = (str(repo), *FREE_PORTS, "--log", str(tmp_path))
    line = run_command(*arguments, capsys=capsys, monkeypatch=monkeypatch)
    assert line.startswith(f"error: cannot write the log to {tmp_path}")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadInputError, match="leave the list of models away"):
        ServerOptions(model_control="poll", models=("a",))
    with pytest.raises(BadInputError, match="port 70000"):
        ServerOptions(http_port=70000)
    with pytest.raises(BadInputError, match="poll interval"):
        ServerOptions(poll_interval_s=0)


def test_three_equal_ports_and_a_foreign_host_are_refused(repo, stand_in) -> None:
    stand_in("exit 1")
    with pytest.raises(ServerError, match="need three ports"):
        TritonServer(repo, ServerOptions(http_port=7000, grpc_port=7000))
    with pytest.raises(ServerError, match=r"cannot listen on host '203\.0\.113\.7'"):
        TritonServer(repo, ServerOptions(host="203.0.113.7", **ANY_PORTS))


def test_a_server_that_never_gets_ready_is_ended_even_if_it_ignores_sigterm(
    repo, stand_in, tmp_path: Path
) -> None:
    stand_in(f'trap "" TERM\necho $$ > {tmp_path}/pid\nsleep 60 & sleep 60')
    options = ServerOptions(ready_timeout_s=0.5, stop_timeout_s=0.5, **ANY_PORTS)
    started = time.monotonic()
    with pytest.raises(ServerTimeoutError, match=r"not ready after 0\.5 s"):
        TritonServer(repo, options).start()
    assert time.monotonic() - started < 20
    assert session_members(int((tmp_path / "pid").read_text())) == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("known", [True, False])
def test_client_shared_memory_is_allowed_only_where_the_server_knows_the_flag(
    repo, stand_in, monkeypatch, known: bool
) -> None:
    monkeypatch.setenv("HELP", "--allow-client-shm <boolean>" if known else "--help")
    stand_in('echo "error: $@"\nexit 1')
    server = TritonServer(repo, ServerOptions(**ANY_PORTS))
    with pytest.raises(ServerError):
        server.start()
    assert ("--allow-client-shm=true" in server.log_tail()) == known
    assert "--http-address=127.0.0.1" in server.log_tail()


@pytest.mark.parametrize(
    ("asked", "library", "options", "flag"),
    [
        (True, True, {}, "--cache-config=local,size=268435456"),
        (True, True, {"response_cache_mb": 3}, "--cache-config=local,size=3145728"),
        (True, True, {"response_cache_mb": 0}, None),
        (True, True, {"model_control": "poll"}, None),
        (True, True, {"model_control": "poll", "response_cache_mb": 3}, "--cache-config=local,size=3145728"),
        (True, False, {}, None),
        (False, True, {}, None),
    ],
)
def test_a_cache_is_there_for_models_that_ask_for_one(
    repo, stand_in, tmp_path: Path, asked: bool, library: bool, options: dict[str, Any], flag: str | None
) -> None:
    stand_in('echo "error: $@"\nexit 1')
    if library:
        (tmp_path / "triton" / "caches" / "local").mkdir(parents=True)
    serving = ServingSpec(response_cache=asked)
    publish_scaling_model(repo, "other", graph=b"graph", serving=serving)
    server = TritonServer(repo, ServerOptions(**ANY_PORTS, **options))
    with pytest.raises(ServerError):
        server.start()
    found = [word for word in server.log_tail().split() if word.startswith("--cache-config")]
    assert found == ([flag] if flag else [])


def test_flags_follow_the_options() -> None:
    ports = (1, 2, 3)
    plain = ServerOptions().arguments(Path("/r"), ports)
    assert {"--http-port=1", "--grpc-port=2", "--metrics-port=3", "--model-control-mode=none"} <= set(plain)
    chosen = ServerOptions(models=("a", "b"), response_cache_mb=2).arguments(Path("/r"), ports)
    assert {"--model-control-mode=none", "--cache-config=local,size=2097152"} <= set(chosen)
    explicit = ServerOptions(models=("a", "b"), model_control="explicit").arguments(Path("/r"), ports)
    assert {"--model-control-mode=explicit", "--load-model=a", "--load-model=b"} <= set(explicit)
    assert "--load-model=*" in ServerOptions(model_control="explicit").arguments(Path("/r"), ports)
    polling = ServerOptions(model_control="poll", poll_interval_s=5).arguments(Path("/r"), ports)
    assert "--repository-poll-secs=5" in polling


def test_the_line_that_matters_is_found_in_a_log() -> None:
    missing = "tritonserver: error while loading shared libraries: libb64.so.0d: cannot open shared object"
    assert log_reason(["", missing]) == missing
    assert log_reason(["just this", ""]) == "just this"
    assert log_reason([]) == "it wrote no log"
    reason = "Internal: TritonModelException: graph is broken\n\nAt:\n  model.py(1): initialize"
    assert shorten_reason(reason) == "graph is broken"
    assert reachable_host("0.0.0.0") == "127.0.0.1"
    assert reachable_host("::") == "[::1]"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tls-cert", "cert.pem"), "TLS needs --tls-cert and --tls-key"),
        (("--tls-client-ca", "ca.pem"), "TLS needs --tls-cert and --tls-key"),
        (("--tls-cert", "none.pem", "--tls-key", "none.key"), "no TLS with 'none.pem' with 'none.key'"),
        (("--api-key-file", "none"), "the API key's file 'none' cannot be read"),
        (("--api-key-file", "open"), "every user can read the API key"),
    ],
)
def test_keys_and_certificates_that_cannot_be_used_are_one_line(
    repo, stand_in, capsys, monkeypatch, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    stand_in("exit 1")
    monkeypatch.chdir(tmp_path)
    Path("open").write_text("0123456789abcdef")
    Path("open").chmod(0o644)
    assert said in run_command(str(repo), *options, capsys=capsys, monkeypatch=monkeypatch)


def test_a_server_beyond_localhost_says_what_can_be_reached_and_one_on_localhost_does_not(
    repo, stand_in, capsys
) -> None:
    stand_in("exit 1")
    found = require_servable(repo)
    serve._announce(TritonServer(repo, ServerOptions(host="0.0.0.0", **ANY_PORTS)), found, as_json=True)
    shown = capsys.readouterr()
    assert re.search("run models +ANYONE", shown.err)
    assert json.loads(shown.out)["secret_file"] is None
    explicit = ServerOptions(model_control="explicit", **ANY_PORTS)
    serve._announce(TritonServer(repo, explicit), found, as_json=False)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "to load and unload models send the header edgeseg-secret" in shown.out


def test_help_shows_every_option_with_its_meaning() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "seg_runtime.cli.serve", "--help"],
        env={"COLUMNS": "200", "PATH": "/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Examples:" in answer.stdout
    options = set(re.findall(r"(--[a-z-]+)", answer.stdout))
    assert {"--http-port", "--host", "--models", "--model-control", "--response-cache-mb"} <= options
