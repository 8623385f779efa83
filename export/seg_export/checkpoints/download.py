"""Downloads that go on where they broke off and are checked by SHA-256; standard library only."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_export.checkpoints.http_transfer import MOST_BYTES, check_reachable, open_url, stated_length
from seg_runtime.errors import BadInputError, EdgesegError, ServerUnavailableError
from seg_runtime.hashing import file_sha256

__all__ = ["Download", "OnBytes", "cache_folder", "download"]

OnBytes = Callable[[int, "int | None"], object]
"""Called with the bytes at hand and the total, None where the server does not say."""

_PIECE = 1 << 18
_TIMEOUT_S = 10.0
"""How long a server may take to answer, and between two pieces."""


@dataclass(frozen=True)
class Download:
    """A finished download.

    Attributes:
        path: the file.
        sha256: its hex SHA-256.
        changed_from: the hash recorded at the first download, where it was another; else None.
    """

    path: Path
    sha256: str
    changed_from: str | None = None


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    attempts: int = 5,
    pause_s: float = 1.0,
    on_bytes: OnBytes | None = None,
    option: str = "",
) -> Download:
    """Fetch a file; a transfer that broke off goes on where it stopped, in this call or a later one.

    A server that nobody reaches is an error at once, which says how to fetch the file by hand.

    The bytes gather in `NAME.part`, which is renamed when it is complete. `NAME.sha256` keeps the
    hash of the first download, so that a file that changes at its source is noticed even where no
    hash was known before.

    Args:
        url: http or https address.
        path: where the file goes; one that is there already is checked and not fetched again.
        sha256: the hash to insist on, or how it begins; None where none is known.
        attempts: connections in a row that may bring nothing new.
        pause_s: seconds before the second attempt; doubled for each further one.
        on_bytes: called with the bytes at hand and the total.
        option: of the command, that takes a file which was fetched by hand.

    Raises:
        BadInputError: not an http(s) address, or the server refuses it or redirects to another scheme.
        ServerUnavailableError: nobody answers, or the transfer broke off too often.
        EdgesegError: the file cannot be written, is too long, or has another hash than `sha256`.
    """
    if not url.startswith(("http://", "https://")):
        raise BadInputError(f"cannot download '{url}': expected an http:// or https:// address")
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(url, path, attempts, pause_s, on_bytes, _by_hand(path, sha256, option))
        except OSError as error:
            raise EdgesegError(f"cannot write {path}: {error}") from error
    digest = file_sha256(path)
    if sha256 is not None and not digest.startswith(sha256.lower()):
        raise EdgesegError(f"{path} has SHA-256 {digest}, expected {sha256}: delete it and download it again")
    return Download(path, digest, _recorded_change(path, digest))


def cache_folder() -> Path:
    """Where downloads are kept: edgeseg's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg"


def _by_hand(path: Path, sha256: str | None, option: str) -> str:
    """What to do where the server is out of reach, as behind a firewall."""
    where = f"pass it with {option} FILE" if option else f"save it as {path} and run the same command again"
    begins = "" if sha256 is None or len(sha256) == 64 else "begins with "
    check = "" if sha256 is None else f" (SHA-256 {begins}{sha256})"
    return f"fetch {path.name} by hand{check} and {where}"


def _fetch(
    url: str, path: Path, attempts: int, pause_s: float, on_bytes: OnBytes | None, by_hand: str
) -> None:
    part = path.with_name(f"{path.name}.part")
    failures, before, begun = 0, -1, _size(part)
    while True:
        try:
            if failures == 0:
                check_reachable(url, _TIMEOUT_S)
            _transfer(url, part, on_bytes)
            break
        except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
            _refuse_permanent(url, error, by_hand)
            at_hand = _size(part)
            if failures == 0 and at_hand == begun and _is_out_of_reach(error):
                reason = getattr(error, "reason", error)
                raise ServerUnavailableError(
                    f"nobody answers at {url} ({reason}): check the network, or {by_hand}"
                ) from error
            failures = 1 if at_hand > before else failures + 1
            before = max(before, at_hand)
            if failures >= attempts:
                raise ServerUnavailableError(
                    f"download of {url} failed {failures} times in a row at byte {at_hand} ({error}): "
                    f"check the network and run the same command again to go on, or {by_hand}"
                ) from error
            time.sleep(min(pause_s * 2 ** (failures - 1), 30.0))
    part.replace(path)
    _validator_file(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, on_bytes: OnBytes | None) -> None:
    """One connection: append what is missing to `part`."""
    headers = {"User-Agent": "edgeseg"}
    at_hand = _size(part)
    if at_hand:
        headers["Range"] = f"bytes={at_hand}-"
        if validator := _read_validator(part):
            # A server whose file has changed then sends all of it instead of a tail that does not fit.
            headers["If-Range"] = validator
    with open_url(urllib.request.Request(url, headers=headers), _TIMEOUT_S) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        at_hand = at_hand if resumed else 0
        length = stated_length(response.headers.get("Content-Length"), at_hand, part.parent)
        total = None if length is None else at_hand + length
        _write_validator(part, response.headers)
        with part.open("ab" if resumed else "wb") as file:
            while piece := response.read(_PIECE):
                at_hand += file.write(piece)
                if at_hand > MOST_BYTES:
                    raise EdgesegError(f"{url} does not end after {MOST_BYTES} bytes: check the address")
                if on_bytes:
                    on_bytes(at_hand, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and at_hand < total:
        raise ConnectionError(f"the connection broke off, {total - at_hand} bytes are missing")


def _is_out_of_reach(error: Exception) -> bool:
    """Whether no server answered at all: no such name, no route, a refusal or silence."""
    if isinstance(error, urllib.error.URLError):
        return not isinstance(error, urllib.error.HTTPError)
    return isinstance(error, TimeoutError)


def _refuse_permanent(url: str, error: Exception, by_hand: str) -> None:
    if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code not in (408, 429):
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise EdgesegError(
                f"{url} is shorter than the part at hand: delete the .part file and download again"
            ) from error
        raise BadInputError(
            f"the server answers {error.code} {error.reason} for {url}: check the address, or {by_hand}"
        ) from error


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _read_validator(part: Path) -> str:
    file = _validator_file(part)
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def _write_validator(part: Path, headers: Any) -> None:
    entity_tag = headers.get("ETag") or ""
    # If-Range takes strong entity tags only.
    validator = (
        headers.get("Last-Modified") or "" if entity_tag.startswith("W/") or not entity_tag else entity_tag
    )
    _validator_file(part).write_text(validator, encoding="utf-8")


def _recorded_change(path: Path, digest: str) -> str | None:
    record = path.with_name(f"{path.name}.sha256")
    if not record.exists():
        record.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        return None
    recorded = record.read_text(encoding="utf-8").split(maxsplit=1)
    return recorded[0] if recorded and recorded[0] != digest else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
