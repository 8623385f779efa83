"""Faults of the network between a client and a server, made by a proxy on this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from microbench.fault_proxy import Fault, FaultProxy
from microbench.faults import Outcome, Place
from microbench.served import seconds_until
from seg_runtime.connection import connect
from seg_runtime.errors import EdgesegError
from seg_runtime.session import Session

__all__ = ["CLIENT_FAULTS"]

_TIMEOUT_S = 2.0
_RETRY_S = 1.0
_SLACK_S = 1.0
_STRANGERS = 200


def _connection_fails(scheme: str, fault: Fault) -> Callable[[Place], list[Outcome]]:
    """A request ends by its deadline, whatever happens to it, and the next one of the session succeeds."""

    def attempt(place: Place) -> list[Outcome]:
        http, grpc, _ = place.steady_server()
        before = _sockets()
        proxy = FaultProxy(http if scheme == "http" else grpc)
        try:
            url = f"{scheme}://127.0.0.1:{proxy.port}"
            with connect(url, timeout_s=_TIMEOUT_S, retry_budget_s=_RETRY_S, shared_memory=False) as session:
                place.ask(session)
                failure, seconds = _ask_while(proxy, fault, session, place)
        finally:
            proxy.close()
        seconds_until(lambda: _sockets() <= before, 5.0)
        left = tuple("socket" for _ in range(_sockets() - before))
        return [Outcome(failure, seconds, left)]

    return attempt


def _ask_while(proxy: FaultProxy, fault: Fault, session: Session, place: Place) -> tuple[str, float]:
    """What went wrong, and how long the request took that met the fault."""
    start = time.monotonic()
    with proxy.failing(fault), suppress(EdgesegError):
        place.ask(session)
    seconds = time.monotonic() - start
    if seconds > _TIMEOUT_S + _SLACK_S:
        return f"a request with {_TIMEOUT_S:g} s to go took {seconds:.1f} s", seconds
    try:
        place.ask(session)
    except EdgesegError as error:
        return f"the session did not recover: {error}", seconds
    return "", seconds


def _strangers_hold_connections(protocol: str) -> Callable[[Place], list[Outcome]]:
    """200 connections send a byte of a request now and then; a client is answered as ever."""

    def attempt(place: Place) -> list[Outcome]:
        http, grpc, _ = place.steady_server()
        port = http if protocol == "http" else grpc
        url = f"{protocol}://127.0.0.1:{port}"
        start = time.monotonic()
        with (
            _trickle(port),
            connect(url, timeout_s=_TIMEOUT_S, retry_budget_s=_RETRY_S, shared_memory=False) as session,
        ):
            for _ in range(20):
                place.ask(session)
        return [Outcome("", time.monotonic() - start)]

    return attempt


@contextmanager
def _trickle(port: int) -> Iterator[None]:
    request = b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n" + b"a" * 1000
    connections = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(_STRANGERS)]
    ended = threading.Event()

    def send() -> None:
        for byte in request:
            for connection in connections:
                with suppress(OSError):
                    connection.send(bytes((byte,)))
            if ended.wait(0.1):
                return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for connection in connections:
            connection.close()


def _sockets() -> int:
    """Sockets that this process has open."""
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(path.readlink()).startswith("socket:")
    return found


CLIENT_FAULTS: dict[str, tuple[int, Callable[[Place], list[Outcome]]]] = {
    "half-open connection, gRPC": (3, _connection_fails("grpc", "half-open")),
    "half-open connection, HTTP": (3, _connection_fails("http", "half-open")),
    "slow connection, gRPC": (3, _connection_fails("grpc", "slow")),
    "slow connection, HTTP": (3, _connection_fails("http", "slow")),
    "cut connection, gRPC": (3, _connection_fails("grpc", "cut")),
    "cut connection, HTTP": (3, _connection_fails("http", "cut")),
    "200 slow strangers, gRPC": (1, _strangers_hold_connections("grpc")),
    "200 slow strangers, HTTP": (1, _strangers_hold_connections("http")),
}
