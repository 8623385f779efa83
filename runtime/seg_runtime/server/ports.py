"""Chooses the ports of a server and says which one is taken."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from seg_runtime.errors import ServerError
from seg_runtime.server.options import ServerOptions

__all__ = ["Ports", "choose_ports", "require_free"]

Ports = tuple[int, int, int]


def choose_ports(options: ServerOptions) -> Ports:
    """(HTTP, gRPC, metrics) ports, with a free one for each 0.

    Raises:
        ServerError: two of them are the same, or the host is not an address of this machine.
    """
    wanted = (options.http_port, options.grpc_port, options.metrics_port)
    with ExitStack() as held:
        http, grpc, metrics = (
            port or _free_port(host, held) for host, port in zip(options.hosts, wanted, strict=True)
        )
    if len({http, grpc, metrics}) < 3:
        raise ServerError(f"HTTP, gRPC and metrics need three ports; given were {http}, {grpc}, {metrics}")
    return http, grpc, metrics


def require_free(hosts: tuple[str, str, str], ports: Ports) -> None:
    """Raises ServerError naming the first port that cannot be listened on."""
    for name, host, port in zip(("http", "grpc", "metrics"), hosts, ports, strict=True):
        try:
            with _bound(host, port):
                pass
        except OSError as error:
            raise ServerError(
                f"port {port} on {host} cannot be used ({error.strerror}): stop what listens there "
                f"or give another with --{name}-port"
            ) from error


def _free_port(host: str, held: ExitStack) -> int:
    """A free port, kept busy until all are chosen so that none is handed out twice."""
    try:
        return int(held.enter_context(_bound(host, 0)).getsockname()[1])
    except OSError as error:
        raise ServerError(f"cannot listen on host '{host}': {error.strerror}") from error


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # As the server does: a port whose last connection has just ended counts as free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
