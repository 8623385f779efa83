"""What a server refuses to whom: Triton's restricted protocols, and the secret that opens them."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from seg_runtime.errors import ServerError
from seg_runtime.server.options import ServerOptions
from seg_runtime.triton.access import API_KEY, SECRET, key_header

__all__ = ["Locks", "program_flags"]

_NEEDED = ("--http-restricted-api", "--grpc-restricted-protocol")
_READING = ("inference", "metadata", "model-config", "statistics")


class Locks:
    """The protocols of one run of a server that want a key, and the keys.

    Traces, log settings and shared memory always want the secret, and so does the model repository where it
    can be changed (model control "explicit"; with "none" and "poll" Triton refuses by itself, and gives its
    index). An API key closes everything else but the health checks.

    Attributes:
        secret: made for this run.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.secret = secrets.token_urlsafe(32)
        self._api_key = options.api_key
        explicit = options.model_control == "explicit"
        changing = ["trace", "logging", *(["model-repository"] if explicit else [])]
        self._groups: list[tuple[tuple[str, ...], str, str]] = []
        if options.client_shared_memory:
            changing.append("shared-memory")
        else:
            # Nobody gets to know this one.
            self._groups.append((("shared-memory",), SECRET, secrets.token_urlsafe(32)))
        self._groups.append((tuple(changing), SECRET, self.secret))
        if options.api_key:
            reading = (*_READING, *(() if explicit else ("model-repository",)))
            self._groups.append((reading, API_KEY, options.api_key))

    @property
    def headers(self) -> dict[str, str]:
        """What opens all of it over HTTP."""
        api_key = key_header(API_KEY, self._api_key, grpc=False) if self._api_key else {}
        return key_header(SECRET, self.secret, grpc=False) | api_key

    @property
    def values(self) -> tuple[str, ...]:
        """The keys, which are in the server's command line."""
        return tuple(value for _, _, value in self._groups)

    def arguments(self, flags: str) -> list[str]:
        """Triton's flags.

        Args:
            flags: what `program_flags` gave.

        Raises:
            ServerError: this Triton cannot restrict its protocols.
        """
        if any(flag not in flags for flag in _NEEDED):
            raise ServerError(
                f"this Triton server has no {_NEEDED[0]}: anyone who reaches it could change it; use a "
                f"release of 2024 or later"
            )
        return [
            f"{flag}={','.join(protocols)}:{header}={value}"
            for protocols, header, value in self._groups
            for flag in _NEEDED
        ]


def program_flags(executable: Path, environment: Mapping[str, str]) -> str:
    """The flags that a Triton server knows, as its help lists them."""
    command = [str(executable), "--help"]
    answer = subprocess.run(command, env=dict(environment), capture_output=True, check=False, timeout=60)
    return (answer.stdout + answer.stderr).decode(errors="replace")
