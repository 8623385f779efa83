"""A TCP proxy between a client and a server on this machine that makes connections fail as networks do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

__all__ = ["Fault", "FaultProxy"]

Fault = Literal["none", "half-open", "slow", "cut"]

_SLOW_BYTES, _SLOW_S = 16, 0.05
_CUT_AFTER_BYTES = 64


class FaultProxy:
    """Passes connections on to a port, well or badly.

    Args:
        port: of the server on localhost.

    Attributes:
        port: of the proxy on localhost.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._fault: Fault = "none"
        self._pairs: list[_Pair] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Connections fail inside the block.

        - half-open: those that exist take everything and pass nothing on, for ever; new ones are good.
        - slow: 320 bytes a second each way, on those that exist and on new ones.
        - cut: closed after 64 more bytes from the server, on those that exist and on new ones.
        """
        for pair in self._pairs:
            pair.fault = fault
        self._fault = "none" if fault == "half-open" else fault
        try:
            yield
        finally:
            self._fault = "none"
            for pair in self._pairs:
                pair.fault = "half-open" if pair.fault == "half-open" else "none"

    def close(self) -> None:
        """Close every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            pair.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = _Pair(client, server, self._fault)
            # Known before it passes anything on, so that no connection in use escapes a fault.
            self._pairs.append(pair)
            pair.start()


class _Pair:
    """Two connections and two threads that copy between them."""

    def __init__(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        self.fault = fault
        self._client, self._server = client, server

    def start(self) -> None:
        for source, sink in ((self._client, self._server), (self._server, self._client)):
            threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def close(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.fault == "half-open":
                    continue
                if self.fault == "cut" and source is self._server:
                    self._cut(data)
                    return
                while self.fault == "slow" and data:
                    sink.sendall(data[:_SLOW_BYTES])
                    data = data[_SLOW_BYTES:]
                    time.sleep(_SLOW_S)
                sink.sendall(data)
        if self.fault != "half-open":
            self.close()

    def _cut(self, data: bytes) -> None:
        with suppress(OSError):
            self._client.sendall(data[:_CUT_AFTER_BYTES])
        self.close()
