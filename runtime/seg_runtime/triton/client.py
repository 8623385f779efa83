"""One connection to a Triton server, over gRPC or HTTP: addresses, TLS, headers, timeouts and retries."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from seg_runtime.errors import (
    EdgesegError,
    InferenceError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from seg_runtime.triton.access import API_KEY, SECRET, find_secret, key_header
from seg_runtime.triton.address import Address, ClientOptions
from seg_runtime.triton.connections import Connections
from seg_runtime.triton.deadline import Deadline
from seg_runtime.triton.errors import client_errors, timed_out, translate
from seg_runtime.triton.transport import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    import_client,
    infer_large,
    new_client,
    within,
)

__all__ = ["OLDEST_SERVER", "ModelStatistics", "TritonClient", "field"]

OLDEST_SERVER = (2, 20)
"""Oldest Triton whose shared memory, parameters and repository index work as they are used here."""

_LAST_WORDS_S = 0.2
"""How long closing a connection may take before it goes on in the background."""

Answer = TypeVar("Answer")

_NEEDS_SECRET = {
    "register_system_shared_memory",
    "unregister_system_shared_memory",
    "get_system_shared_memory_status",
    "get_model_repository_index",
}
"""Calls that a server of `seg-serve` may refuse to strangers and not to its own user."""

_COMPUTE = ("compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class ModelStatistics:
    """What a server has done with a model since it was loaded.

    Attributes:
        requests: that succeeded.
        compute_ms: time it computed for them, input and output included, without queueing.
        cache_hits: requests that the response cache answered.
        cache_misses: requests that it could not answer.
    """

    requests: int
    compute_ms: float
    cache_hits: int
    cache_misses: int


class TritonClient:
    """tritonclient's two clients behind one interface, raising only this project's errors.

    Each method makes one attempt; wrap it in `patiently` to retry, and several of them in `limit` so that
    they share one deadline. Safe to use from several threads: gRPC's client is shared by all, HTTP's (which
    is not thread-safe) is made once per thread.

    Raises:
        MissingExtraError: the HTTP client is not installed.
    """

    def __init__(self, address: Address, options: ClientOptions) -> None:
        self.address = address
        self._options = options
        self.tensors = import_client(address)
        self._errors = client_errors()
        self._connections = Connections(self._connect, self._disconnect, shared=address.grpc)
        self._deadline = Deadline()

    def limit(self, seconds: float | None = None) -> AbstractContextManager[None]:
        """The time for all that this thread does in the block; None is the options' `timeout_s`.

        Inside another limit it is what that one leaves. What exceeds it raises ServerTimeoutError.
        """
        return self._deadline.within(self._options.timeout_s if seconds is None else seconds)

    def patiently(
        self,
        attempt: Callable[[], Answer],
        retry_on: tuple[type[EdgesegError], ...] = (ServerUnavailableError,),
    ) -> Answer:
        """Repeat an attempt until it succeeds, fails otherwise, or time is up.

        That is when the retry budget has passed since the first failure, or the deadline is near.
        """
        delays_s, last_try_s = _delays_s(), math.inf
        failures: list[EdgesegError] = []
        with self.limit():
            while True:
                try:
                    return attempt()
                except retry_on as error:
                    delay_s, now_s = next(delays_s), time.monotonic()
                    last_try_s = min(last_try_s, now_s + self._options.retry_budget_s)
                    if delay_s > min(last_try_s - now_s, self._deadline.remaining_s()):
                        raise
                    failures = [error.with_traceback(None)]
                except ServerTimeoutError as error:
                    if not failures:
                        raise
                    raise failures.pop() from error  # It says more than that time ran out.
                time.sleep(delay_s)

    def check_server(self) -> tuple[str, ...]:
        """The server's protocol extensions. Raises ServerError for too old a Triton or something else."""
        metadata = self._call("get_server_metadata")
        version, extensions = field(metadata, "version"), tuple(field(metadata, "extensions"))
        found = re.match(r"(\d+)\.(\d+)", version)
        if found is None or "model_configuration" not in extensions:
            raise ServerError(
                f"what answers at {self.address} is '{field(metadata, 'name')}' {version} and not a Triton "
                f"server: check the port"
            )
        if not (OLDEST_SERVER <= (int(found[1]), int(found[2])) < (OLDEST_SERVER[0] + 1, 0)):
            oldest = ".".join(map(str, OLDEST_SERVER))
            raise ServerError(
                f"the Triton server at {self.address} is version {version}, this client needs {oldest} or a "
                f"later 2.x: update the server"
            )
        return extensions

    def model_config(self, model: str) -> Any:
        """The model's `ModelConfig` message. Raises ModelNotFoundError, also while it is not ready."""
        answer = self._call("get_model_config", model)
        if self.address.grpc:
            return answer.config
        from google.protobuf import json_format
        from tritonclient.grpc import model_config_pb2

        return json_format.ParseDict(answer, model_config_pb2.ModelConfig(), ignore_unknown_fields=True)

    def repository_index(self) -> dict[str, list[tuple[str, str]]]:
        """State and reason of every version of every model in the server's repository."""
        answer = self._call("get_model_repository_index")
        states: dict[str, list[tuple[str, str]]] = {}
        for entry in answer.models if self.address.grpc else answer:
            states.setdefault(field(entry, "name"), []).append(
                (field(entry, "state"), field(entry, "reason"))
            )
        return states

    def ready_models(self) -> tuple[str, ...]:
        """Names of the models that are ready, sorted; also where the index of the repository is closed."""
        answer = self._call("get_inference_statistics", "")
        return tuple(sorted({field(entry, "name") for entry in field(answer, "model_stats")}))

    def statistics(self, model: str) -> ModelStatistics:
        """What the server did with a model, all of its versions together."""
        answer = self._call("get_inference_statistics", model)
        versions = [field(entry, "inference_stats") for entry in field(answer, "model_stats")]

        def total(kind: str, what: str = "count") -> int:
            return sum(int(field(field(stats, kind), what) or 0) for stats in versions)

        return ModelStatistics(
            requests=total("success"),
            compute_ms=sum(total(part, "ns") for part in _COMPUTE) / 1e6,
            cache_hits=total("cache_hit"),
            cache_misses=total("cache_miss"),
        )

    def infer(self, model: str, inputs: list[Any], outputs: list[Any], in_message: bool = True) -> Any:
        """tritonclient's `InferResult`; `in_message` says that tensors travel up in the request itself."""
        method = infer_large if self.address.grpc and in_message else "infer"
        return self._call(method, model, inputs, outputs=outputs)

    def register(self, region: str, byte_size: int) -> None:
        """Let the server map the file /dev/shm/`region` under the same name."""
        try:
            self._call("register_system_shared_memory", region, f"/{region}", byte_size)
        except InferenceError as error:
            # An attempt whose answer was lost had registered it: names are never used twice.
            if "already in manager" not in str(error):
                raise

    def unregister(self, region: str) -> None:
        """Let the server unmap it. Raises RegionInUseError while a request given up still uses it."""
        self._call("unregister_system_shared_memory", region)

    def regions(self) -> list[str]:
        """Names of the regions of all clients that the server has mapped."""
        answer = self._call("get_system_shared_memory_status")
        return list(answer.regions) if self.address.grpc else [field(region, "name") for region in answer]

    def close(self) -> None:
        """Close the connections of this thread and, over gRPC, of all."""
        self._connections.close()

    def _call(self, method: str | Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """One attempt, within what the deadline of this thread leaves; by itself, within the timeout."""
        with self.limit():
            seconds = self._deadline.remaining_s()
            if seconds <= 0:
                raise timed_out(str(self.address))
            with self._connections.use(distrust_after=ServerTimeoutError) as client, self._translated():
                named["headers"] = self._headers(method)
                function = getattr(client, method) if isinstance(method, str) else partial(method, client)
                call = partial(function, *arguments, **named)
                return call(client_timeout=seconds) if self.address.grpc else within(call, seconds)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise translate(error, str(self.address)) from error

    def _headers(self, method: str | Callable[..., Any]) -> dict[str, str]:
        """For one call: the HTTP client writes into the headers that it is given."""
        grpc, headers = self.address.grpc, dict(self._options.headers or {})
        if self._options.api_key:
            headers |= key_header(API_KEY, self._options.api_key, grpc)
        secret = find_secret(self.address) if method in _NEEDS_SECRET else None
        return headers | key_header(SECRET, secret, grpc) if secret else headers

    def _connect(self) -> Any:
        with self._translated():
            return new_client(self.tensors, self.address, self._options)

    def _disconnect(self, client: Any) -> None:
        def close() -> None:
            with suppress(*self._errors):
                client.close()

        if not self.address.grpc:
            close()  # Only the thread that used it can.
            return
        # gRPC waits for requests that it cannot write: in vain where the server does not read.
        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(_LAST_WORDS_S)


def _delays_s() -> Iterator[float]:
    """Seconds between attempts: doubling up to a limit, with jitter so that clients do not march in step."""
    delay_s = FIRST_DELAY_S
    while True:
        yield delay_s * random.uniform(0.5, 1.0)
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)


def field(message: Any, name: str) -> Any:
    """A field of an answer: gRPC gives protobuf messages, HTTP dictionaries that leave out empty ones."""
    return message.get(name, "") if isinstance(message, dict) else getattr(message, name)
