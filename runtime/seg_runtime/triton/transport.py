"""tritonclient over gRPC and HTTP: how a connection is made, and how a call on it ends in time."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from seg_runtime.errors import MissingExtraError
from seg_runtime.triton.address import Address, ClientOptions, TlsOptions

__all__ = ["FIRST_DELAY_S", "LONGEST_DELAY_S", "import_client", "infer_large", "new_client", "within"]

FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 1.0
"""Between attempts to reach a server that is away, here and inside gRPC."""

_MAX_MESSAGE = 2**31 - 1
_KEEPALIVE_MS, _UNACKNOWLEDGED_MS = 330_000, 20_000
"""How often a ping goes out while a request is computed, and how long bytes may stay unacknowledged.

A server with gRPC's defaults, as Triton's, ends the connection after three pings less than 300 s apart
while it has nothing to send. A machine that vanished is noticed without pings: its end of the connection
does not acknowledge the request (gRPC sets TCP_USER_TIMEOUT to the second number).
"""
_DEADLINE_LATE_S = 0.2
"""How much later than its deadline gRPC may say so."""
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}

Answer = TypeVar("Answer")


def import_client(address: Address) -> Any:
    """tritonclient's module for an address. Raises MissingExtraError."""
    if address.grpc:
        import tritonclient.grpc

        return tritonclient.grpc
    try:
        import tritonclient.http
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError("the HTTP client", "http") from error
    return tritonclient.http


def new_client(tensors: Any, address: Address, options: ClientOptions) -> Any:
    """An `InferenceServerClient` of that module, which connects when it is used first."""
    arguments = _grpc_arguments if address.grpc else _http_arguments
    return tensors.InferenceServerClient(address.location, **arguments(address, options))


def infer_large(client: Any, *arguments: Any, client_timeout: float, **named: Any) -> Any:
    """gRPC's `infer` for a request that may not fit into the buffers of the network.

    `infer` itself returns from its deadline only after the request was written, which a server that has
    stopped to read never lets happen. Waiting for another thread costs 0.1 ms, so it is for these alone.

    Raises:
        TimeoutError: the request is not even written.
    """
    answers: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
    request = client.async_infer(
        *arguments,
        callback=lambda result, error: answers.put((result, error)),
        client_timeout=client_timeout,
        **named,
    )
    try:
        result, error = answers.get(timeout=client_timeout + _DEADLINE_LATE_S)
    except Empty:
        request.cancel()
        raise TimeoutError from None
    if error is not None:
        raise error
    return result


def within(call: Callable[[], Answer], seconds: float) -> Answer:
    """A call of the HTTP client that ends in time. Its own timeouts are for one read or write each.

    Raises:
        TimeoutError: it did not; the connection cannot be used again.
    """
    import gevent

    with gevent.Timeout(seconds) as limit:
        try:
            return call()
        except gevent.Timeout as expired:
            if expired is not limit:
                raise
            raise TimeoutError from expired


def _grpc_arguments(address: Address, options: ClientOptions) -> dict[str, Any]:
    channel = [
        ("grpc.max_send_message_length", _MAX_MESSAGE),
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _UNACKNOWLEDGED_MS),
        ("grpc.http2.max_pings_without_data", 0),  # any number: else there are none after the second
        # gRPC's own back-off grows to two minutes, far beyond the retry budget.
        ("grpc.initial_reconnect_backoff_ms", int(1000 * FIRST_DELAY_S)),
        ("grpc.max_reconnect_backoff_ms", int(1000 * LONGEST_DELAY_S)),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if address.location.rpartition(":")[0] in _LOCAL_HOSTS:
        channel.append(("grpc.enable_http_proxy", 0))
    arguments: dict[str, Any] = {"channel_args": channel, "ssl": address.encrypted}
    if address.encrypted:
        tls = options.tls
        paths = {
            "root_certificates": tls.ca,
            "certificate_chain": tls.certificate,
            "private_key": tls.private_key,
        }
        arguments.update({name: str(path) for name, path in paths.items() if path})
    return arguments


def _http_arguments(address: Address, options: ClientOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "connection_timeout": options.timeout_s,
        "network_timeout": options.timeout_s,
        "ssl": address.encrypted,
    }
    if address.encrypted:
        arguments["ssl_context_factory"] = lambda: _gevent_ssl_context(options.tls)
    return arguments


def _gevent_ssl_context(tls: TlsOptions) -> Any:
    import gevent.ssl

    context = gevent.ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    if tls.certificate:
        context.load_cert_chain(str(tls.certificate), str(tls.private_key) if tls.private_key else None)
    return context
