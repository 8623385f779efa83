"""Where a server listens and how to talk to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from seg_runtime.errors import BadInputError

__all__ = ["Address", "ClientOptions", "TlsOptions", "parse_address"]

_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 443, "http": 8000, "https": 443}


@dataclass(frozen=True)
class TlsOptions:
    """PEM files of an encrypted connection.

    Attributes:
        ca: certificates to trust; None trusts those of the system.
        certificate: this client's certificate chain, for servers that ask for one.
        private_key: the key of `certificate`.
    """

    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


@dataclass(frozen=True)
class Address:
    """Where a server listens: `scheme` is grpc, grpcs, http or https; `location` is host:port and path."""

    scheme: str
    location: str

    @property
    def grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    @property
    def encrypted(self) -> bool:
        return self.scheme.endswith("s")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.location}"


@dataclass(frozen=True)
class ClientOptions:
    """How patient and how secure a connection is; see `seg_runtime.connect`."""

    timeout_s: float = 30.0
    retry_budget_s: float = 10.0
    headers: Mapping[str, str] | None = None
    tls: TlsOptions = TlsOptions()
    api_key: str | None = field(default=None, repr=False)


def parse_address(target: str) -> Address | None:
    """The server's address, or None for a folder. Raises BadInputError for anything else."""
    if "://" not in target:
        host, _, port = target.rpartition(":")
        if host and port.isdecimal() and not Path(target).exists():
            raise BadInputError(f"'{target}' is neither a folder nor an address: write grpc://{target}")
        return None
    try:
        parts = urlsplit(target)
        port_number = parts.port
    except ValueError as error:
        raise BadInputError(
            f"'{target}' is not an address ({error}): write for example grpc://localhost:8001"
        ) from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise BadInputError(
            f"'{target}' is no address: write grpc://, grpcs://, http:// or https:// and a host, or a folder"
        )
    if (
        parts.username
        or parts.query
        or parts.fragment
        or (parts.path.strip("/") and parts.scheme.startswith("grpc"))
    ):
        raise BadInputError(f"'{target}' has more than a host and a port: pass credentials as headers")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port_number = port_number or _DEFAULT_PORTS[parts.scheme]
    return Address(parts.scheme, f"{host}:{port_number}{parts.path.rstrip('/')}")
