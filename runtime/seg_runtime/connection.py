"""Open a session: a model repository folder runs in process, an address runs on a Triton server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from seg_runtime.errors import BadInputError
from seg_runtime.session import Session
from seg_runtime.triton.access import check_api_key
from seg_runtime.triton.address import Address, ClientOptions, TlsOptions, parse_address

__all__ = ["TlsOptions", "connect"]

# gRPC reads it when it is imported; else it logs failed handshakes to stderr besides raising them.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def connect(
    target: str | Path,
    *,
    timeout_s: float = 30.0,
    retry_budget_s: float = 10.0,
    headers: Mapping[str, str] | None = None,
    tls: TlsOptions | None = None,
    api_key: str | None = None,
    shared_memory: bool | None = None,
    threads: int | None = None,
    engine: str = "auto",
) -> Session:
    """Open a session with a folder or a server.

    Args:
        target: a model repository folder, or `grpc://host:8001`, `grpcs://host`, `http://host:8000`
            or `https://host`. Without a port it is 8001 for grpc, 8000 for http, 443 with TLS.
        timeout_s: how long one call may wait for the server, in seconds: `connect` itself, `infer`, `spec`,
            `models` and so on each. It is for the call as a whole: fetching the contract, shared memory,
            sending, computing, the answer and all attempts. Then ServerTimeoutError is raised, whatever the
            server or the network does, and later calls use a new connection. A session closes within 5 s.
        retry_budget_s: how long to go on trying, in seconds, after the first attempt that found the server
            away or the model being loaded; never beyond `timeout_s`. A timeout is not tried again.
        headers: sent with every request, for example an authorization.
        tls: certificates for `grpcs://` and `https://`; None trusts those of the system.
        api_key: of a server that wants one (`seg-serve --api-key-file`). Use it with TLS beyond localhost.
        shared_memory: with this user's server on this machine, None uses shared memory where that works,
            False never does, True raises where it does not work.
        threads: threads of one call in process; None uses all cores. A server has its own setting.
        engine: what computes in process, one of `seg_runtime.engines.ENGINES`; "auto" takes for each
            model the best one that is there (`Session.engine` says which). It is loaded, or found
            missing, at the first use of a model. A server has its own.

    Raises:
        BadInputError: the target, a time, the engine, the TLS options or the API key cannot be used.
        RepositoryError: the folder is missing.
        MissingExtraError: the HTTP client is not installed.
        ServerUnavailableError: nobody answers at the address.
        ServerTimeoutError: what listens there did not answer in time.
        ServerError: what answers cannot be used.
    """
    if timeout_s <= 0 or retry_budget_s < 0:
        raise BadInputError(
            f"timeout {timeout_s} s and retry budget {retry_budget_s} s must not be negative or zero"
        )
    if threads is not None and threads < 1:
        raise BadInputError(f"{threads} threads cannot run a model: use 1 or more")
    address = None if isinstance(target, Path) else parse_address(target)
    if address is None and api_key is not None:
        raise BadInputError(f"an API key is for a server, not for the folder '{target}': leave it out")
    if address is None:
        from seg_runtime.local_session import LocalSession

        return LocalSession(target, threads=threads, engine=engine)
    if engine != "auto":
        raise BadInputError(
            f"engine '{engine}' is for a repository folder: the server at {address} has its own, leave it out"
        )
    _check_tls(address, tls)
    from seg_runtime.triton.session import TritonSession

    # gRPC takes names in lower case only; to HTTP they are all the same.
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    if api_key is not None:
        check_api_key(api_key, "connect()")
    options = ClientOptions(timeout_s, retry_budget_s, lower, tls or TlsOptions(), api_key)
    return TritonSession(address, options, shared_memory)


def _check_tls(address: Address, tls: TlsOptions | None) -> None:
    if tls is None:
        return
    if not address.encrypted:
        raise BadInputError(f"TLS options need an encrypted address, not {address}: use grpcs:// or https://")
    for path in (tls.ca, tls.certificate, tls.private_key):
        if path is not None and not Path(path).is_file():
            raise BadInputError(f"TLS file '{path}' does not exist: check the path")
    if tls.private_key and not tls.certificate:
        raise BadInputError(f"the private key '{tls.private_key}' needs its certificate: give both")
