"""The network connections of one client: shared by threads where that is safe, replaced when in doubt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

__all__ = ["Connections"]

IDLE_S = 60.0
"""A connection that was not used for so long is replaced by a new one: what lies between client and server
(address translation, firewalls, load balancers) forgets idle connections after minutes, and says nothing."""


class _Connection:
    """One of tritonclient's clients.

    Attributes:
        generation: how often the connections had been distrusted when it was made.
        users: requests that are using it.
        used_s: when the last one ended, on the monotonic clock.
    """

    def __init__(self, client: Any, generation: int) -> None:
        self.client = client
        self.generation = generation
        self.users = 0
        self.used_s = time.monotonic()


class Connections:
    """tritonclient's clients of one server: one for all threads, or one for each.

    Args:
        connect: makes a client, without waiting for the server.
        disconnect: closes one, without waiting for the server.
        shared: whether threads can share one.
    """

    def __init__(self, connect: Callable[[], Any], disconnect: Callable[[Any], None], shared: bool) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._store: Any = SimpleNamespace() if shared else threading.local()
        self._store.current = None
        self._generation = 0
        self._lock = threading.Lock()

    @contextmanager
    def use(self, distrust_after: type[Exception]) -> Iterator[Any]:
        """A client for one request.

        An error of that type means that the connection may be dead without anybody having closed it.
        Later requests of all threads then get new connections; requests that are on an old one go on, and
        the last of them closes it.
        """
        connection = self._take()
        try:
            yield connection.client
        except distrust_after:
            with self._lock:
                if connection.generation == self._generation:  # else another request was faster
                    self._generation += 1
            raise
        finally:
            self._bring_back(connection)

    def close(self) -> None:
        """Close the connection of this thread, or the one of all threads."""
        with self._lock:
            connection, self._store.current = self._current(), None
        if connection is not None:
            self._disconnect(connection.client)

    def _take(self) -> _Connection:
        unused = None
        with self._lock:
            connection = self._current()
            if connection is None or self._is_old(connection):
                unused = connection if connection and not connection.users else None
                connection = self._store.current = _Connection(self._connect(), self._generation)
            connection.users += 1
        if unused is not None:
            self._disconnect(unused.client)
        return connection

    def _bring_back(self, connection: _Connection) -> None:
        with self._lock:
            connection.users -= 1
            connection.used_s = time.monotonic()
            if connection is self._current() and self._is_old(connection):
                self._store.current = None
            unused = connection is not self._current() and not connection.users
        if unused:
            self._disconnect(connection.client)

    def _is_old(self, connection: _Connection) -> bool:
        idle = not connection.users and time.monotonic() - connection.used_s > IDLE_S
        return idle or connection.generation != self._generation

    def _current(self) -> _Connection | None:
        return getattr(self._store, "current", None)
