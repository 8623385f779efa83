"""`make faults-server`: its proxy, its counting, its table of requests, and one real fault."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from tritonclient.grpc import service_pb2

from microbench import faults_server
from microbench.fault_proxy import FaultProxy
from microbench.faults import Outcome
from microbench.faults_server import FAULTS, measure_faults
from microbench.strangers import GRPC_CHANGES
from seg_bench.json_fields import to_json
from seg_runtime.errors import ServerError

READS = {
    "ModelConfig",
    "ModelMetadata",
    "ModelReady",
    "ModelStatistics",
    "RepositoryIndex",
    "ServerLive",
    "ServerMetadata",
    "ServerReady",
    "CudaSharedMemoryStatus",
    "SystemSharedMemoryStatus",
}
INFERS = {"ModelInfer", "ModelStreamInfer"}


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """In front of a server that sends everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    made = FaultProxy(listener.getsockname()[1])
    yield made
    made.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def client_of(proxy: FaultProxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
    connection.sendall(b"hello")
    assert connection.recv(5) == b"hello"
    return connection


def test_a_half_open_connection_stays_so_and_a_new_one_is_good(proxy: FaultProxy) -> None:
    with client_of(proxy) as connection:
        connection.settimeout(0.2)
        with proxy.failing("half-open"):
            connection.sendall(b"lost")
            with pytest.raises(TimeoutError):
                connection.recv(4)
            client_of(proxy).close()
        connection.sendall(b"lost")
        with pytest.raises(TimeoutError):
            connection.recv(4)


def test_a_slow_connection_passes_everything_on_once_it_is_fast_again(proxy: FaultProxy) -> None:
    sent = bytes(range(256)) * 400
    with client_of(proxy) as connection:
        with proxy.failing("slow"):
            connection.sendall(sent)
            received = len(connection.recv(65536))
            assert 0 < received < 1000
        while received < len(sent):
            received += len(connection.recv(65536))
        assert received == len(sent)


def test_a_cut_connection_ends_in_the_middle_of_an_answer(proxy: FaultProxy) -> None:
    with client_of(proxy) as connection, proxy.failing("cut"):
        connection.sendall(bytes(5000))
        received = 0
        while data := connection.recv(65536):
            received += len(data)
        assert received == 64


def test_tries_are_counted_and_one_that_raises_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(place: object) -> list[Outcome]:
        raise ServerError("no server in /secret/folder")

    good = [Outcome("", 1.5), Outcome("", left=("process 7", "file a"))]
    kinds = {"good": (2, lambda place: good), "broken": (1, broken)}
    monkeypatch.setattr(faults_server, "FAULTS", kinds)
    result = measure_faults(tuple(kinds))
    assert (result.tried, result.survived, result.left_open) == (5, 4, 4)
    assert [kind.seconds for kind in result.kinds] == [(1.5, 1.5), ()]
    assert result.kinds[1].failures == ("no server in folder",)
    json.dumps(to_json(result), allow_nan=False)


def test_every_call_that_changes_a_server_is_among_the_strangers_requests() -> None:
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {method.name for method in service.methods}
    assert methods - READS - INFERS == {method for method, _ in GRPC_CHANGES.values()}


def test_every_kind_of_fault_that_a_server_meets_is_tried() -> None:
    assert FAULTS["tritonserver killed under load"][0] >= 10
    for fault in ("seg-serve killed", "backend killed", "half-open", "slow", "cut", "strangers' requests"):
        assert any(kind.startswith(fault) for kind in FAULTS), fault


@pytest.mark.server
@pytest.mark.slow
def test_a_real_seg_serve_that_is_killed_is_one_that_survived() -> None:
    pytest.importorskip("pytriton")
    result = measure_faults(("seg-serve killed, idle",), repeats=1)
    assert (result.tried, result.survived, result.left_open) == (1, 1, 0), result.kinds[0].failures
