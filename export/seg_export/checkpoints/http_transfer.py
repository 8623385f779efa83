"""What a download believes of a server: that it is there, where it redirects to, how long a file is."""

from __future__ import annotations

import shutil
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from seg_runtime.errors import BadInputError, EdgesegError

__all__ = ["MOST_BYTES", "check_reachable", "open_url", "stated_length"]

MOST_BYTES = 1 << 36
"""Longest file that is fetched: 64 GiB, many times the largest weights and data sets there are."""

_REACH_S = 4.0
"""How long a name and a connection may take; a resolver without a network may wait for half a minute."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone, and never from https to http."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        target = urljoin(req.full_url, headers.get("Location") or "")
        scheme = urlsplit(target).scheme
        if scheme != "https" and not scheme == req.type == "http":
            fp.close()
            raise BadInputError(
                f"{req.full_url} redirects to {scheme}, expected https: fetch the file by hand"
            )
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def open_url(request: urllib.request.Request, timeout_s: float) -> Any:
    """The response to a request.

    Raises:
        BadInputError: it redirects to another scheme.
        URLError, OSError, HTTPException: as from `urllib.request.urlopen`.
    """
    return urllib.request.build_opener(_Redirects).open(request, timeout=timeout_s)


def stated_length(text: str | None, at_hand: int, folder: Path) -> int | None:
    """The bytes that are to come by a Content-Length; None where it says nothing that can be believed.

    Args:
        text: the header's value.
        at_hand: bytes that are there already.
        folder: where the file is written.

    Raises:
        EdgesegError: more than `MOST_BYTES` or than the disk holds.
    """
    if text is None or not (text.isascii() and text.strip().isdecimal()) or len(text) > 20:
        return None
    length = int(text)
    free = shutil.disk_usage(folder).free
    if length + at_hand > MOST_BYTES or length > free:
        raise EdgesegError(
            f"the server announces {length} bytes; {free} are free in {folder} and {MOST_BYTES} the limit: "
            "check the address, or free some space"
        )
    return length


def check_reachable(url: str, timeout_s: float) -> None:
    """Whether somebody listens at an address, in seconds even where the resolver waits for a network.

    An address that goes through a proxy is not tried.

    Raises:
        URLError: nobody does, or not in time.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    outcome: list[Exception | None] = []
    limit_s = min(timeout_s, _REACH_S)

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=limit_s).close()
            outcome.append(None)
        except Exception as error:  # noqa: BLE001 - it is raised below
            outcome.append(error)

    # A thread, for nothing else ends a look-up of a name; it ends by itself.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(limit_s)
    error = outcome[0] if outcome else TimeoutError("timed out")
    if error is not None:
        raise urllib.error.URLError(str(error)) from error
