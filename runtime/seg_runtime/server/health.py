"""Asks a server over HTTP which models it has, with the standard library only."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["ModelState", "answer_status", "model_states", "reachable_host"]


@dataclass(frozen=True)
class ModelState:
    """State of a model on the server.

    Attributes:
        ready: some version can be used.
        failed: no version can, and none is being loaded. That includes a model without any state, such as
            an ensemble that does not fit its steps: a server answers only after it has tried them all.
        reason: why not, in one line; empty where only the log says it.
    """

    ready: bool
    failed: bool
    reason: str


def model_states(
    http_url: str, headers: Mapping[str, str], timeout_s: float = 5.0
) -> dict[str, ModelState] | None:
    """State of each model in the repository by name; None while the server does not answer.

    `headers` open the server's index, see `seg_runtime.server.access`.
    """
    entries = _post(http_url, "/v2/repository/index", headers, timeout_s)
    if entries is None:
        return None
    names = {entry["name"] for entry in entries}
    return {name: _state([entry for entry in entries if entry["name"] == name]) for name in names}


def reachable_host(host: str) -> str:
    """An address to connect to for one to listen on, in brackets where a URL needs them."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _state(entries: list[dict[str, str]]) -> ModelState:
    ready = any(entry.get("state") == "READY" for entry in entries)
    failed = not ready and all(entry.get("state", "") in ("", "UNAVAILABLE") for entry in entries)
    reason = next((entry["reason"] for entry in entries if entry.get("reason")), "")
    return ModelState(ready, failed, shorten_reason(reason))


def shorten_reason(reason: str) -> str:
    """Triton's reason without the Python traceback and the prefixes of the python backend."""
    text = reason.partition("\n\nAt:")[0]
    text = text.rpartition("TritonModelException: ")[-1]
    return " ".join(text.split())


def _post(
    http_url: str, path: str, headers: Mapping[str, str], timeout_s: float
) -> list[dict[str, str]] | None:
    address = urlsplit(http_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        connection.request("POST", path, body=b"{}", headers=dict(headers))
        answer = connection.getresponse()
        if answer.status != 200:
            return None
        entries: list[dict[str, str]] = json.loads(answer.read())
        return entries
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def answer_status(http_url: str, path: str, timeout_s: float) -> int | None:
    """HTTP status of a GET; None when the server does not answer in time."""
    address = urlsplit(http_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
