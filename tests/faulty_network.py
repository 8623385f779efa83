"""A TCP relay in front of a server: what lies between a client and a server, misbehaving on purpose."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

__all__ = ["FAULTS", "Relay", "relay_to"]

FAULTS = (
    "half-open",  # connections of before pass nothing on, and nobody closes them; new ones are fine
    "never answers",
    "never reads",
    "trickles",  # a byte of the answer every 0.1 s
    "cut early",  # closes after 10 bytes of an answer
    "cut late",  # closes before the last 5 bytes of an answer
    "refuses",
)


@dataclass(eq=False)
class _Link:
    """A client's connection and the one to the server behind it."""

    client: socket.socket
    server: socket.socket
    frozen: bool = False

    def close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Relay:
    """Passes bytes on until `fail` is called.

    Attributes:
        location: host:port to connect to.
        accepted: number of connections so far.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.accepted = 0
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.location = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._fault = ""
        self._ended = threading.Event()
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def fail(self, fault: str) -> None:
        """One of `FAULTS` from now on, for connections that are open too."""
        self._fault = fault
        if fault == "half-open":
            for link in self._links:
                link.frozen = True
        if fault == "refuses":
            self._close_sockets()

    def close(self) -> None:
        """Close all connections and wait for the threads."""
        self._ended.set()
        self._close_sockets()
        for thread in self._threads:
            thread.join()
        for link in self._links:
            link.client.close()
            link.server.close()

    def _close_sockets(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in list(self._links):
            link.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                link = _Link(client, socket.create_connection(self._target))
                self._links.append(link)
                self._start(self._pass_on, link, link.client, link.server)
                self._start(self._pass_on, link, link.server, link.client)

    def _pass_on(self, link: _Link, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while not self._ended.is_set():
                data = source.recv(1 << 16)
                if self._fault == "never reads" and source is link.client:
                    self._ended.wait()
                    return
                if link.frozen or self._fault == "never answers":
                    if data:
                        continue
                    return
                if not data:
                    break
                self._send(link, target, data)
        if not link.frozen:
            link.close()

    def _send(self, link: _Link, target: socket.socket, data: bytes) -> None:
        answers = target is link.client
        if answers and self._fault == "trickles":
            for byte in data:
                target.sendall(bytes([byte]))
                self._ended.wait(0.1)
        elif answers and self._fault.startswith("cut"):
            target.sendall(data[:10] if self._fault == "cut early" else data[:-5])
            link.close()
        else:
            target.sendall(data)


@contextmanager
def relay_to(target: str) -> Iterator[Relay]:
    """A relay to the server at host:port."""
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()
