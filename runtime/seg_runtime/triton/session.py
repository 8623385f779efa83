"""Runs the models of a Triton server: over gRPC or HTTP, with shared memory when it is on this machine."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from seg_runtime.errors import (
    BadInputError,
    EdgesegError,
    InferenceError,
    ModelNotFoundError,
    ModelNotReadyError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from seg_runtime.handles import ArrayHandle, usable_handle
from seg_runtime.model_config import from_config
from seg_runtime.repository import model_not_found
from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec
from seg_runtime.triton.address import Address, ClientOptions
from seg_runtime.triton.client import TritonClient, field
from seg_runtime.triton.errors import ModelLoadingError, RegionLostError, RestrictedError
from seg_runtime.triton.region_pool import RegionPool
from seg_runtime.triton.shared_memory import check_memory_is_shared
from seg_runtime.triton.transfer import MessageTransfer, SharedTransfer

__all__ = ["TritonSession"]

_CLOSING_S = 5.0
"""How long a session that closes may wait for its server, all regions together."""


class TritonSession(Session):
    """Models of one server.

    Args:
        address: where it listens.
        options: timeouts, retries, headers, TLS.
        shared_memory: True demands it, False forbids it, None uses it where the server can.

    Raises:
        ServerUnavailableError: nobody listened for the whole retry budget.
        ServerTimeoutError: the server did not answer in time.
        ServerError: too old a Triton or none at all, or no shared memory where it was demanded.
        MissingExtraError: the HTTP client is not installed.
    """

    def __init__(
        self, address: Address, options: ClientOptions | None = None, shared_memory: bool | None = None
    ) -> None:
        self._client = TritonClient(address, options or ClientOptions())
        self._owner = object()
        self._pool: RegionPool | None = None
        self._specs: dict[str, ModelSpec] = {}
        self._handles: weakref.WeakSet[ArrayHandle] = weakref.WeakSet()
        self._lock = threading.Lock()
        try:
            with self._client.limit():
                extensions = self._client.patiently(self._client.check_server)
                if shared_memory is not False:
                    self._pool = self._shared_pool(extensions, demanded=shared_memory is True)
        except BaseException:
            self._client.close()
            raise
        self.where = "shared-memory" if self._pool else "grpc" if address.grpc else "http"
        self._shut = weakref.finalize(self, _shut, self._client, self._pool)

    def models(self) -> tuple[str, ...]:
        self._check_open()
        try:
            index = self._client.patiently(self._client.repository_index)
        except RestrictedError:
            return self._client.patiently(self._client.ready_models)
        return tuple(
            sorted(name for name, states in index.items() if "READY" in [state for state, _ in states])
        )

    def spec(self, model: str) -> ModelSpec:
        self._check_open()
        spec = self._specs.get(model)
        if spec is None:
            waiting = (ServerUnavailableError, ModelLoadingError)
            spec = self._client.patiently(lambda: self._fetch_spec(model), waiting)
            self._specs[model] = spec
        return spec

    def engine(self, model: str) -> str:
        return f"Triton, {self.spec(model).backend}"

    def answers_from_cache(self, model: str) -> bool | None:
        self._check_open()
        counts = self._client.patiently(lambda: self._client.statistics(model))
        if counts.cache_hits:
            return True
        # Where the cache is off nothing is looked up. What is too large for it is never found.
        return None if counts.cache_misses or not counts.requests else False

    def infer(
        self, model: str, inputs: Mapping[str, NDArray[Any] | Handle], keep: Collection[str] = ()
    ) -> dict[str, Any]:
        try:
            with self._client.limit():  # for the contract, the regions and all attempts together
                return super().infer(model, inputs, keep)
        except BadInputError:
            # The model may have been replaced by one that wants just this.
            self._specs.pop(model, None)
            raise

    def close(self) -> None:
        with self._lock:
            for handle in self._handles:
                handle.release()
        self._shut()

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        self._check_open()
        for value in inputs.values():
            if isinstance(value, Handle):
                usable_handle(value, self._owner)
        with closing(self._transfer(spec, inputs, keep)) as transfer:
            answer = self._request(spec, transfer)
            results = transfer.results(answer, self._spec_of_answer(spec, answer))
        with self._lock:
            self._handles.update(value for value in results.values() if isinstance(value, ArrayHandle))
        return results

    def _transfer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> MessageTransfer | SharedTransfer:
        message = MessageTransfer(self._client.tensors, spec, inputs, keep, self._owner)
        if self._pool is None:
            return message
        shared = SharedTransfer(self._client.tensors, spec, inputs, keep, self._pool)
        try:
            shared.open()
        except (OSError, InferenceError, RestrictedError):
            # /dev/shm is full, or a server that was started again no longer allows shared memory.
            return message
        return shared

    def _request(self, spec: ModelSpec, transfer: MessageTransfer | SharedTransfer) -> Any:
        """tritonclient's answer, after as many attempts as the retry budget allows."""

        def attempt() -> Any:
            try:
                return self._client.infer(
                    spec.name, transfer.inputs(), transfer.outputs(), transfer.in_message
                )
            except RegionLostError as lost:
                transfer.server_lost(lost.region)
                raise
            except ModelNotFoundError as error:
                raise self._why_missing(spec.name) from error
            except InferenceError:
                # The model may have been replaced by one with other tensors.
                self._specs.pop(spec.name, None)
                raise
            except BaseException:
                transfer.distrust()
                raise

        return self._client.patiently(attempt, (ServerUnavailableError, ModelNotReadyError, RegionLostError))

    def _spec_of_answer(self, spec: ModelSpec, answer: Any) -> ModelSpec:
        """The contract of the version that answered, which may be newer than the one asked."""
        version = int(field(answer.get_response(), "model_version") or spec.version)
        if version == spec.version:
            return spec
        # What was published with it, as the other half of a SAM, may be newer as well.
        self._specs.clear()
        # A configuration written by hand need not name the version that it serves.
        self._specs[spec.name] = newer = replace(self.spec(spec.name), version=version)
        return newer

    def _fetch_spec(self, model: str) -> ModelSpec:
        try:
            return from_config(self._client.model_config(model))
        except ModelNotFoundError as error:
            raise self._why_missing(model) from error

    def _why_missing(self, model: str) -> EdgesegError:
        """Whether a model that does not answer is unknown, broken or just being loaded."""
        address = self._client.address
        try:
            index = self._client.repository_index()
        except RestrictedError:
            # Only what is ready can be seen: what has become so since is worth another try.
            index = {name: [("READY", "")] for name in self._client.ready_models()}
        if model not in index:
            return model_not_found(model, index, f"at {address}")
        states = index[model]
        if any(state in ("LOADING", "READY") for state, _ in states):
            return ModelLoadingError(f"model '{model}' at {address} is still loading: try again in a moment")
        reason = next((reason.splitlines()[0] for _, reason in states if reason), "it is not loaded")
        return ModelNotReadyError(
            f"model '{model}' at {address} is not ready ({reason}): see the server's log, or publish it again"
        )

    def _shared_pool(self, extensions: tuple[str, ...], demanded: bool) -> RegionPool | None:
        address = self._client.address
        try:
            if "system_shared_memory" not in extensions:
                raise ServerError(f"the server at {address} has no shared memory: connect without it")
            check_memory_is_shared(self._client)
        except (ServerTimeoutError, ServerUnavailableError):
            raise  # It says nothing about memory.
        except ServerError:
            if demanded:
                raise
            return None
        return RegionPool(self._client, self._owner)

    def _check_open(self) -> None:
        if not self._shut.alive:
            raise InferenceError(f"the session with {self._client.address} is closed: call connect() again")


def _shut(client: TritonClient, pool: RegionPool | None) -> None:
    """Also runs when a session is forgotten, and at exit."""
    if pool is not None:
        with client.limit(_CLOSING_S):
            pool.close()
    client.close()
